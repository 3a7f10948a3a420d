"""Sacred made reliable: a complete record of every run, whatever happens to it."""
