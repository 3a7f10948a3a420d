"""Reading records: listed, selected, compared, repeated, exported."""
