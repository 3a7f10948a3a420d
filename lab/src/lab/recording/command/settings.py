"""The settings in the words of a command: --lr 0.1, --lr=0.1, lr=0.1, as argparse and Hydra do."""

import re
from pathlib import Path
from typing import Any

from lab.recording.command.scalar_hooks import LAUNCHERS

SCRIPT = re.compile(r"[^=]+\.(py|sh)")
ASSIGNED = re.compile(r"(?:--|\+{0,2})([A-Za-z_][\w./@-]*)=(.*)", re.DOTALL)
OPTION = re.compile(r"--?([A-Za-z][\w.-]*)")
NUMBER = re.compile(r"[-+]?(\d+|(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?)")
CONSTANTS = {"true": True, "false": False, "none": None, "null": None}


def find_program(words: list[str]) -> int:
    """Find the index of the word that names what runs: a script, or the module after -m; or 0.

    The words before it are Python, bash, torchrun or another launcher, with their options.
    """
    for index, word in enumerate(words):
        module = words[index + 1] if word == "-m" and index and index + 1 < len(words) else ""
        if module and not module.startswith(LAUNCHERS):
            return index + 1
        if SCRIPT.fullmatch(word) and not word.startswith("-"):
            return index
    return 0


def name_program(words: list[str]) -> str:
    """Name what runs, for a listing: train.py."""
    return Path(words[find_program(words)]).name


def read_settings(words: list[str]) -> dict[str, Any]:
    """Read the settings that the words of a command give.

    An option without a value is True, one with several values a list; in names, - becomes _.
    """
    settings: dict[str, Any] = {}
    name = None  # the option whose values may follow
    for word in words[find_program(words) + 1 :]:
        if found := ASSIGNED.fullmatch(word):
            name = None
            settings[to_name(found[1])] = parse_value(found[2])
        elif found := OPTION.fullmatch(word):
            name = to_name(found[1])
            settings[name] = True
        elif name:
            value, before = parse_value(word), settings[name]
            if before is True:
                settings[name] = value
            else:
                settings[name] = [*(before if isinstance(before, list) else [before]), value]
    return settings


def read_arguments(words: list[str]) -> list[str]:
    """Read the words after the program that belong to no setting: config/small.py."""
    found, is_value = [], False
    for word in words[find_program(words) + 1 :]:
        is_option, is_assigned = bool(OPTION.fullmatch(word)), bool(ASSIGNED.fullmatch(word))
        found += [] if is_option or is_assigned or is_value else [word]
        is_value = (is_value or is_option) and not is_assigned
    return found


def join(reported: dict[str, Any], typed: dict[str, Any]) -> dict[str, Any]:
    """Join the settings that a command has reported and those that were typed.

    What Hydra made of model.depth=3 and model=big is in `reported`, so they are left out.
    """
    kept = {
        name: value
        for name, value in typed.items()
        if not has_path(reported, name)
        or (name in reported and not isinstance(reported[name], dict))
    }
    return {**reported, **kept}


def has_path(values: Any, path: str) -> bool:
    """Whether nested dictionaries have a value at a path such as model.depth."""
    for name in path.split("."):
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True


def to_name(word: str) -> str:
    return word.replace("-", "_")


def parse_value(text: str) -> Any:
    """Parse a number or a constant; anything else is text."""
    if NUMBER.fullmatch(text):
        return float(text) if re.search("[.eE]", text) else int(text[:4000])
    return CONSTANTS.get(text.lower(), text)
