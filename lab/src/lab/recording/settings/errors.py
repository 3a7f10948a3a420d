"""Errors in the command line of an experiment: types of lab that are also Sacred's."""

from lab.ground.errors import UsageError
from lab.recording.sacred_import import sacred


class ConfigError(UsageError, sacred.utils.ConfigError):  # type: ignore[misc] # Sacred: no types
    """An unknown setting or option, or a value of the wrong type or out of range.

    Also Sacred's exception of that name, with the message alone.
    """

    print_conflicting_configs = False
    __prefix_handled__ = True

    def __init__(self, message: str = ""):
        sacred.utils.SacredError.__init__(self, message)

    def __str__(self) -> str:
        return " ".join(map(str, self.args))


class UnknownSettingError(ConfigError, sacred.utils.ConfigAddedError):  # type: ignore[misc]
    """A setting that the configuration does not have: Sacred's ConfigAddedError."""


class UnknownNamedConfigError(ConfigError, sacred.utils.NamedConfigNotFoundError):  # type: ignore[misc]
    """A named configuration that does not exist: Sacred's NamedConfigNotFoundError."""


class UnknownCommandError(ConfigError, KeyError):
    """A command that the experiment does not have: for Sacred a KeyError."""
