"""Settings of an experiment: a dataclass, checked and converted, as Sacred's configuration."""
