"""Reading the files of a record, even one that is incomplete, damaged or being written."""

import os
import re
import stat
from pathlib import Path
from typing import Any

from lab.ground import files, liveness, project
from lab.ground.errors import LabError

COMMIT = re.compile("[0-9a-f]{40,64}")


def run_ids() -> list[str]:
    """The ids of all records, complete or not, in no order."""
    try:
        with os.scandir(project.runs_folder()) as entries:  # _sources and _cache are not runs
            runs = (entry for entry in entries if entry.name[0] not in "._")
            return [entry.name for entry in runs if files.is_folder(entry)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabError(f"the records cannot be read: {error}.") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a record; {} if it is missing, damaged or incomplete."""
    return parse_object(read_text(str(path))[0])


def read_text(path: str) -> tuple[str, list[int] | None]:
    """Read a file's text ("" if it cannot be read) and its fingerprint."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # files.read() takes twice as long
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_size > files.MAX_BYTES:
                return "", None
            return os.read(file, status.st_size).decode(), to_fingerprint(status)
        finally:
            os.close(file)
    except (OSError, ValueError):
        return "", None


def to_fingerprint(status: os.stat_result) -> list[int]:
    """Return what changes when a file is written again."""
    return [status.st_mtime_ns, status.st_size, status.st_ino]


def parse_object(text: str) -> dict[str, Any]:
    """Parse a JSON object; {} for anything else."""
    try:
        content = files.parse_json(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def get_dict(record: dict[str, Any], key: str) -> dict[str, Any]:
    """Get a dictionary inside a record; {} if it is missing or something else."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def get_list(record: dict[str, Any], key: str) -> list[Any]:
    """Get a list inside a record; [] if it is missing or something else."""
    value = record.get(key)
    return value if isinstance(value, list) else []


def get_text(record: dict[str, Any], key: str) -> str | None:
    """Get a text inside a record; None if it is missing or something else."""
    value = record.get(key)
    return value if isinstance(value, str) else None


def get_state(record: dict[str, Any]) -> str:
    """Get the state of a run from its run.json; LOST if it cannot be running any more.

    UNKNOWN: a run on another machine without a heartbeat for some minutes. UNREADABLE: a damaged
    record.
    """
    status = get_text(record, "status") or "UNREADABLE"
    if status != "RUNNING":
        return status
    process = get_dict(record, "process")
    if not isinstance(process.get("pid"), int):
        process = {**process, "boot": None}
    return liveness.judge_state(process, get_text(record, "heartbeat"))


def get_commit(record: dict[str, Any]) -> str | None:
    """Get the commit that holds exactly the code of a run; None if there is none.

    A record that another machine wrote may name anything, which git could take for an option.
    """
    commit = get_text(get_dict(record, "code"), "commit") or ""
    return commit if COMMIT.fullmatch(commit) else None


def describe_attempt(one: Any) -> str:
    """Say how one of a run's attempts ended, and where; "" if the record does not say."""
    found = one if isinstance(one, dict) else {}
    state, host = get_text(found, "state"), get_text(found, "host")
    return f"{state} on {host}" if state and host else ""


def flatten_settings(config: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Name the settings inside others by their path, as in trainer.lr; {} in {} stays."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            flat |= flatten_settings(value, f"{path}{name}.")
        else:
            flat[f"{path}{name}"] = value
    return flat
