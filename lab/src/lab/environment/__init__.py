"""The project's environment: kernel, lock, repository, version of lab."""
