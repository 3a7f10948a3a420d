"""What every other room stands on: the project, files, git, processes, text."""
