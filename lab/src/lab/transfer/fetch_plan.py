"""What a fetch knows before it copies: what is there, what came earlier, and so what to do."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lab.ground import files
from lab.ssh.connection import Connection
from lab.transfer import copying as transfer
from lab.transfer.copying import Stamp


class Listing(NamedTuple):
    """What is there: of each kind (runs, data) the folder and its files."""

    base: dict[str, str]
    files: dict[str, dict[str, Stamp]]
    special: list[str]  # links, sockets and the like, and names that lead elsewhere: never taken
    closed: list[str]  # folders that cannot be read
    rsync: bool


def look(connection: Connection, wanted: Iterable[str], models: bool) -> Listing:
    """What there is of these jobs or runs."""
    variables = {"wanted": "\n".join(wanted), "models": "yes" if models else ""}
    return parse(connection.run("files.sh", **variables))


def parse(output: str) -> Listing:
    """The answer of files.sh."""
    runs, data, version, *entries = output.split("\0")[:-1]
    files: dict[str, dict[str, Stamp]] = {"runs": {}, "data": {}}
    special, closed = [], []
    for entry in entries:
        kind, type, size, time, path = entry.split(" ", 4)
        path = path.removeprefix("./")
        if type == "d":
            closed.append(f"{kind}/{path}")
        elif type != "f" or not is_ours(kind, path):
            special.append(path)
        else:
            files[kind][path] = (int(size), transfer.nanoseconds(time))
    return Listing(
        {"runs": runs, "data": data}, files, special, closed, transfer.can_rsync(version)
    )


def is_ours(kind: str, path: str) -> bool:
    """Whether a path leads to where runs or models lie, and nowhere else."""
    parts = path.split("/")
    where = parts[1] == "models" and len(parts) > 3 if kind == "data" else len(parts) > 1
    return transfer.is_inside(path) and not path.startswith(".") and where


def decide(there: Stamp, known: list | None, here: Stamp | None) -> str:
    """What to do about a file that is there: new, update, same or compare.

    `known` is what the state says: [stamp there, stamps here that an earlier fetch made]. same:
    nothing has happened there since then, even if the one here was edited. compare: only the
    contents can tell whether the two differ, and then ours stays.
    """
    if here is None:
        return "new"
    if known and list(here) in known[1]:
        return "same" if list(there) == known[0] and list(here) == known[1][-1] else "update"
    return "same" if known and list(there) == known[0] else "compare"


def unit(kind: str, path: str) -> str:
    """What has to arrive together: what lies directly in <dataset>/models/<run>, else a file."""
    return "/".join(path.split("/")[:4]) if kind == "data" else path


class State:
    """What earlier fetches put here: {"runs/PATH": [stamp there, [stamps here]]}."""

    def __init__(self, path: Path):
        self.path = path
        try:
            content = json.loads(path.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            content = {}  # without it, contents are compared
        self.files: dict[str, Any] = content if isinstance(content, dict) else {}

    def write(self) -> None:
        files.write(self.path, json.dumps(self.files, separators=(",", ":")))


class Memory:
    """What one round of a fetch tells the next."""

    def __init__(self):
        self.suspect: dict[str, Stamp] = {}  # arrived with another hash than it has there
        self.seen: dict[str, set[str]] = {}  # the files of each unit when it was seen first

    def shrunk(self, kind: str, there: Iterable[str]) -> set[str]:
        """The units that had more files before: they are being removed, and must not come."""
        now = defaultdict(set)
        for name in there:
            now[unit(kind, name)].add(name)
        return {one for one, names in now.items() if self.seen.setdefault(one, names) - names}


def hashes(connection: Connection, base: str, names: Iterable[str]) -> dict[str, str]:
    """The sha256 of files of the folder `base` there; those that are gone are missing."""
    with transfer.listed(names) as file:
        output = connection.run("hashes.sh", base=base, stdin=file)
    return {line[66:].removeprefix("./"): line[:64] for line in output.split("\0")[:-1]}
