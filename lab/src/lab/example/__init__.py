"""The example of a new project, taken out by one command; a skeleton in its place."""
