"""The project's environment: kernel, lock, package, repository."""
