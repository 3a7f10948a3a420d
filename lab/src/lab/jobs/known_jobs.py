"""The jobs of a machine as they were last seen, kept here so that the shell can complete their ids.

Only a help for the fingers: nothing else is ever decided by it.
"""

import os
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lab.ground import files, project
from lab.ssh.machines import Machine

FRESH = 10  # seconds in which the machine is not asked again


class Known(NamedTuple):
    """A job as it was when it was last seen."""

    id: str
    state: str
    name: str
    ended: bool


def place(machine: Machine) -> Path:
    """The file for this project and that machine."""
    key = f"{zlib.crc32(os.fsencode(project.root())):08x}-{machine.name}"
    return project.cache_folder() / "jobs" / key


def remember(machine: Machine, found: list, *, all_of_them: bool) -> None:
    """Keep these jobs, in place of what was known or beside it; no error if that cannot be."""
    known = {} if all_of_them else {job.id: job for job in recall(machine)}
    for job in found:
        name = " ".join(str(job.spec.get("name", "")).split())
        known[job.id] = Known(job.id, job.state, name, job.ended)
    lines = (
        f"{job.id}\t{job.state}\t{job.name}\t{job.ended:d}\n" for job in sorted(known.values())
    )
    file = place(machine)
    with suppress(OSError, ValueError):
        file.parent.mkdir(parents=True, exist_ok=True)
        if not files.write(file, "".join(lines), durable=False):
            file.touch()  # its time tells when the machine was asked


def recall(machine: Machine) -> list[Known]:
    """What was kept, oldest first."""
    try:
        lines = place(machine).read_text("utf-8").split("\n")
    except (OSError, ValueError):
        return []
    parts = [line.split("\t") for line in lines if line.count("\t") == 3]
    return [Known(id, state, name, ended == "1") for id, state, name, ended in parts]


def age(machine: Machine) -> float:
    """Seconds since it was kept, or since the machine was last asked in vain."""
    try:
        return abs(time.time() - place(machine).stat().st_mtime)
    except OSError:
        return FRESH


def touch(machine: Machine) -> None:
    """Note that the machine was asked just now: it is not asked again at the next Tab."""
    with suppress(OSError):
        place(machine).parent.mkdir(parents=True, exist_ok=True)
        place(machine).touch()
