"""What all other sub-packages use: the project, files, git, processes, the terminal."""
