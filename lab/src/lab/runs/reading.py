"""Reading the files of a record, whatever state they are in; the listing and all else use this."""

import json
import os
from pathlib import Path
from typing import Any

from lab.ground import liveness, project
from lab.ground.errors import LabError


def run_ids() -> list[str]:
    """The ids of all records, whole or not, in no order."""
    try:
        with os.scandir(project.runs_folder()) as entries:  # _sources and _ranks are no runs
            return [one.name for one in entries if one.name[0] not in "._" and one.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabError(f"the records cannot be read: {error}.") from None


def read_json(path: Path) -> dict[str, Any]:
    """The content of a record's file; {} if it is missing, or half-written at this moment."""
    return as_object(read_text(str(path))[0])


def read_text(path: str) -> tuple[str, list[int] | None]:
    """A file's text ("" if it cannot be read) and its stamp."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # open() takes twice as long
        try:
            about = os.fstat(file)
            return os.read(file, about.st_size).decode(), identity(about)
        finally:
            os.close(file)
    except (OSError, ValueError):
        return "", None


def identity(about: os.stat_result) -> list[int]:
    return [about.st_mtime_ns, about.st_size, about.st_ino]


def as_object(text: str) -> dict[str, Any]:
    """A JSON object; {} for anything else."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def part(record: dict[str, Any], key: str) -> dict[str, Any]:
    """A dictionary inside a record; {} if it is missing or something else."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def state(record: dict[str, Any]) -> str:
    """Of a run, from its run.json: what it says itself, and LOST if it cannot be running any more.

    UNKNOWN: a run on another machine of which nothing was heard for some minutes. UNREADABLE: the
    record is broken.
    """
    said = record.get("status")
    if said != "RUNNING":
        return said if isinstance(said, str) else "UNREADABLE"
    return liveness.judge_state(part(record, "process"), record.get("heartbeat"))


def commit(record: dict[str, Any]) -> str | None:
    """The snapshot that holds exactly the code of a run; None if there is none."""
    return part(record, "code").get("commit")
