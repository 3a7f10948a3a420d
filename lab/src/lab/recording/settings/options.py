"""The options of an experiment's command line: those of Sacred that remain, and their values."""

import ast
from collections.abc import Mapping
from typing import Any

from lab.ground.ids import RUN_ID
from lab.recording.settings.errors import ConfigError

# Sacred's other options would make records of another kind, or need its own git support.
OPTIONS = {"--beat-interval", "--comment", "--debug", "--force", "--help", "--id", "--loglevel"}
OPTIONS |= {"--name", "--pdb", "--print-config", "--unobserved"}


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ConfigError for an id or a heartbeat that would make a record unusable."""
    name, beat = options["--id"], options["--beat-interval"]
    if name is not None and not RUN_ID.fullmatch(name):
        raise ConfigError(
            f"--id {name!r} is not valid: use up to 200 letters, digits, '-', '.' and '_',"
            " beginning with a letter or digit."
        )
    if name is not None and not survives_parsing(name):
        raise ConfigError(
            f"--id {name} is not valid: resume={name} would be a number; use run-{name}, say."
        )
    try:
        valid = beat is None or 0 < float(beat) <= 60
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(
            f"--beat-interval {beat} is not valid: use seconds, above 0 and up to 60."
        )


def survives_parsing(name: str) -> bool:
    """Whether Sacred leaves a setting with this value as it is: 2026_11_29 becomes 20261129."""
    try:
        value = ast.literal_eval(name)
    except (ValueError, SyntaxError):
        return True
    return type(value) is int and str(value) == name  # check() makes it text again
