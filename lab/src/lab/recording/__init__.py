"""Sacred made trustworthy: a whole record of every run, whatever happens to it."""
