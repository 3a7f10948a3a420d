"""What is wrong on this computer and on a machine, and what fixes it."""
