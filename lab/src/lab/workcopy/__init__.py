"""The working copy on a machine: set up, brought up to date, mounted, opened in an editor."""
