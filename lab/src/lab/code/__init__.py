"""The working tree as a commit, and sending it to a machine."""
