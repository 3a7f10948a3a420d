"""What every other room stands on: the project's folder and settings, files, git, processes, text."""
