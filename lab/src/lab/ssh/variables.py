"""Environment variables for commands on a machine: which are allowed, and as lines of sh."""

import os
import re
import shlex
from collections.abc import Iterable, Mapping

from lab.ground.errors import UsageError

NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
MAX_SECRETS = 10_000  # characters of all secrets of a job, which have to fit into a pipe
# Variables that lab sets itself, and why or what to use instead.
OURS = {
    "CUDA_VISIBLE_DEVICES": "lab run --gpus chooses GPUs",
    "CUDA_DEVICE_ORDER": "lab run --gpus chooses GPUs",
    "PATH": "a line of prelude in machines.toml may change it",
    "VIRTUAL_ENV": "the environment is that of the lock",
    "BASH_ENV": "a line of prelude in machines.toml may change it",
}


def find_broken_rule(name: str, value: str = "") -> str | None:
    """Return the rule that a variable breaks."""
    if not NAME.fullmatch(name):
        return "a variable's name has only letters, digits and _"
    if name in OURS or name.startswith("LAB_"):
        return f"lab sets {name} itself; {OURS.get(name, 'it tells the job where it is')}"
    return "it cannot contain a NUL character" if "\0" in value else None


def parse(words: Iterable[str]) -> dict[str, str]:
    """Return the variables of --env: NAME=VALUE, or NAME with its value on this computer.

    Raises UsageError for a name that is not allowed, or has no value on this computer.
    """
    found = {}
    for word in words:
        name, given, value = word.partition("=")
        rule = find_broken_rule(name)
        if rule:
            raise UsageError(f"--env {name}: {rule}.")
        if not given and name not in os.environ:
            raise UsageError(f"--env {name}: it has no value on this computer: --env {name}=VALUE.")
        found[name] = value if given else os.environ[name]
    return found


def read_secrets(names: Iterable[str]) -> dict[str, str]:
    """Return the variables of --secret: from this computer's environment, or else its keyring.

    Raises UsageError for a name that is not allowed, or has no value on this computer.
    """
    found = {}
    for word in names:
        name, given, _ = word.partition("=")
        rule = find_broken_rule(name)
        if given:
            rule = f"its value is taken from this computer: export {name}, then --secret {name}"
        value = None if rule else os.environ.get(name) or _read_keyring(name)
        if value is None:
            rule = rule or f"it has no value on this computer: export it, or keyring set lab {name}"
            raise UsageError(f"--secret {name}: {rule}.")
        found[name] = value
    if sum(map(len, found.values())) > MAX_SECRETS:
        raise UsageError(f"--secret: more than {MAX_SECRETS} characters in all; use a file.")
    return found


def _read_keyring(name: str) -> str | None:
    """Return what the package keyring, if it is installed, has for lab under a name."""
    import importlib

    try:
        keyring = importlib.import_module("keyring")
        value = keyring.get_password("lab", name)
    except Exception:  # noqa: BLE001 - a keyring that fails has no value
        return None
    return value if isinstance(value, str) else None


def make_exports(variables: Mapping[str, str]) -> str:
    """Return lines of sh that export these variables."""
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def join(of_machine: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a script that exports those of machines.toml and those of --env.

    The latter win. `given` in the result has their names.
    """
    return {"exports": make_exports({**of_machine, **given}), "given": " ".join(given)}
