"""The jobs of a machine as last seen, kept on this computer for shell completion alone."""

import os
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lab.ground import files, project
from lab.ssh.machines import Machine

if TYPE_CHECKING:
    from lab.jobs.control import Job

FRESH = 10  # seconds in which the machine is not asked again


class CachedJob(NamedTuple):
    """A job as it was when it was last seen."""

    id: str
    state: str
    name: str
    ended: bool


def cache_file(machine: Machine) -> Path:
    """Return the file for this project and that machine."""
    key = f"{zlib.crc32(os.fsencode(project.root())):08x}-{machine.name}"
    return project.cache_folder() / "jobs" / key


def store(machine: Machine, jobs: "Iterable[Job]", *, all_of_them: bool) -> None:
    """Add these jobs to those kept, or replace them if these are all. Never raises an error."""
    cached = {} if all_of_them else {job.id: job for job in load(machine)}
    for job in jobs:
        name = " ".join(str(job.spec.get("name", "")).split())
        cached[job.id] = CachedJob(job.id, job.state, name, job.ended)
    lines = (
        f"{job.id}\t{job.state}\t{job.name}\t{job.ended:d}\n" for job in sorted(cached.values())
    )
    file = cache_file(machine)
    with suppress(OSError, ValueError):
        files.make_private_folder(file.parent)
        if not files.write(file, "".join(lines), durable=False, private=True):
            file.touch()  # its time tells when the machine was asked


def load(machine: Machine) -> list[CachedJob]:
    """Return the jobs that were kept, oldest first."""
    try:
        lines = files.read_text(cache_file(machine)).split("\n")
    except (OSError, ValueError):
        return []
    parts = [line.split("\t") for line in lines if line.count("\t") == 3]
    return [CachedJob(id, state, name, ended == "1") for id, state, name, ended in parts]


def age(machine: Machine) -> float:
    """Return the seconds since the machine was last asked, whether it answered or not."""
    try:
        return abs(time.time() - cache_file(machine).stat().st_mtime)
    except OSError:
        return FRESH


def touch(machine: Machine) -> None:
    """Note that the machine was asked just now: the next Tab does not ask it again."""
    with suppress(OSError):
        files.make_private_folder(cache_file(machine).parent)
        cache_file(machine).touch(mode=0o600)
