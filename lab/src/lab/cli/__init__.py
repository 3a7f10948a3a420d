"""The lab command: one file for each group of commands."""
