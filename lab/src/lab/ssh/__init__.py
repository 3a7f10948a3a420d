"""machines.toml, one connection for each machine, and ssh's own configuration."""
