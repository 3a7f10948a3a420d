"""What a fetch knows before it copies: what is there, what came earlier, and so what to do."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from lab.ground import files
from lab.ssh.connection import Connection
from lab.transfer import copying
from lab.transfer.copying import Fingerprint


class Listing(NamedTuple):
    """What is there: of each kind (runs, data) the folder and its files."""

    base: dict[str, str]
    files: dict[str, dict[str, Fingerprint]]
    special: list[str]  # links, sockets and the like, and names that lead elsewhere: never taken
    closed: list[str]  # folders that cannot be read
    rsync: bool


def list_remote(connection: Connection, wanted: Iterable[str], models: bool) -> Listing:
    """What there is of these jobs or runs."""
    variables = {"wanted": "\n".join(wanted), "models": "yes" if models else ""}
    return parse_listing(connection.run("files.sh", **variables))


def parse_listing(output: str) -> Listing:
    """The answer of files.sh."""
    runs, data, version, *entries = output.split("\0")[:-1]
    files: dict[str, dict[str, Fingerprint]] = {"runs": {}, "data": {}}
    special, closed = [], []
    for entry in entries:
        kind, type, size, time, path = entry.split(" ", 4)
        path = path.removeprefix("./")
        if type == "d":
            closed.append(f"{kind}/{path}")
        elif type != "f" or not is_expected(kind, path):
            special.append(path)
        else:
            files[kind][path] = (int(size), copying.parse_time(time))
    return Listing({"runs": runs, "data": data}, files, special, closed, copying.can_rsync(version))


def is_expected(kind: str, path: str) -> bool:
    """Whether a path leads to where runs or models lie, and nowhere else."""
    parts = path.split("/")
    where = parts[1] == "models" and len(parts) > 3 if kind == "data" else len(parts) > 1
    return copying.is_inside(path) and not path.startswith(".") and where


def decide(there: Fingerprint, known: list | None, here: Fingerprint | None) -> str:
    """Return what to do about a remote file: new, update, same or compare.

    `known` is its entry in the state: [remote fingerprint, local ones that earlier fetches made].
    same: the remote file has not changed since, even if the local one was edited. compare: only
    the contents can tell whether the two differ; if they do, the local one stays.
    """
    if here is None:
        return "new"
    if known and list(here) in known[1]:
        return "same" if list(there) == known[0] and list(here) == known[1][-1] else "update"
    return "same" if known and list(there) == known[0] else "compare"


def unit_of(kind: str, path: str) -> str:
    """What has to arrive together: what lies directly in <dataset>/models/<run>, else a file."""
    return "/".join(path.split("/")[:4]) if kind == "data" else path


class FetchState:
    """What earlier fetches put here: {"runs/PATH": [fingerprint there, [fingerprints here]]}."""

    def __init__(self, path: Path):
        self.path = path
        try:
            content = json.loads(path.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            content = {}  # without it, contents are compared
        self.files: dict[str, Any] = content if isinstance(content, dict) else {}

    def save(self) -> None:
        files.write(self.path, json.dumps(self.files, separators=(",", ":")))


class Memory:
    """What one round of a fetch tells the next."""

    def __init__(self):
        self.suspect: dict[str, Fingerprint] = {}  # arrived with another hash than it has there
        self.seen: dict[str, set[str]] = {}  # the files of each unit when it was seen first

    def find_shrunk(self, kind: str, there: Iterable[str]) -> set[str]:
        """The units that had more files before: they are being removed, and must not come."""
        now = defaultdict(set)
        for name in there:
            now[unit_of(kind, name)].add(name)
        return {one for one, names in now.items() if self.seen.setdefault(one, names) - names}


def remote_hashes(connection: Connection, base: str, names: Iterable[str]) -> dict[str, str]:
    """The sha256 of files of the folder `base` there; those that are gone are missing."""
    with copying.names_file(names) as file:
        output = connection.run("hashes.sh", base=base, stdin=file)
    return {line[66:].removeprefix("./"): line[:64] for line in output.split("\0")[:-1]}
