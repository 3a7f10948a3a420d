"""The experiment: what is trained, on which data, and how well."""
