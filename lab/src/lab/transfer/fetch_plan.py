"""Decides what a fetch copies: by what the machine has, and what earlier fetches brought."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from lab.ground import files, project
from lab.ssh.answers import expecting, parse_number, parse_path
from lab.ssh.connection import Connection
from lab.transfer import rsync_copy, staging
from lab.transfer.staging import Fingerprint

Kind: TypeAlias = Literal["runs", "data", "jobs"]
KINDS: dict[str, Kind] = {"runs": "runs", "data": "data", "jobs": "jobs"}
HASHER = Path(__file__).with_name("hashes.py")
SHARED = ("_sources", "_resources")  # folders in runs/ that several records refer to
Action: TypeAlias = Literal["new", "update", "same", "compare"]


class Listing(NamedTuple):
    """What the machine has: of each kind the folder and its files."""

    base: dict[Kind, str]
    files: dict[Kind, dict[str, Fingerprint]]
    special: list[str]  # links, sockets and unexpected paths: never copied
    closed: list[str]  # folders that cannot be read
    rsync: bool


def list_remote(connection: Connection, wanted: Iterable[str], models: bool) -> Listing:
    """List what the machine has of these jobs or runs, or of all if none are given."""
    output = connection.run("files.sh", wanted="\n".join(wanted), models="yes" if models else "")
    with expecting(connection.name, "a list of files"):
        return parse_listing(output)


def parse_listing(output: str) -> Listing:
    """Parse the output of files.sh. ValueError if it is malformed."""
    runs, data, version, *entries = output.split("\0")[:-1]
    runs, data = parse_path(runs), parse_path(data)
    found: dict[Kind, dict[str, Fingerprint]] = {"runs": {}, "data": {}, "jobs": {}}
    special, closed = [], []
    for entry in entries:
        word, type, size, time, path = entry.split(" ", 4)
        if word not in KINDS:
            raise ValueError("not a kind of files")
        kind = KINDS[word]
        path = path.removeprefix("./")
        if type == "d":
            closed.append(f"{kind}/{path}")
        elif type != "f" or not is_expected(kind, path):
            special.append(path)
        else:
            found[kind][path] = (parse_number(size, 2**63), staging.parse_time(time))
    rsync = rsync_copy.can_rsync(version)
    base: dict[Kind, str] = {"runs": runs, "data": data, "jobs": f"{runs.rpartition('/')[0]}/jobs"}
    return Listing(base, found, special, closed, rsync)


def is_expected(kind: Kind, path: str) -> bool:
    """Return whether a path belongs to a run or a model, and leads nowhere else."""
    parts = path.split("/")
    in_dataset = project.DATASET.fullmatch(parts[0]) is not None
    is_model = len(parts) > 3 and parts[1] == "models" and in_dataset
    is_record = len(parts) > 1 and (parts[0][:1] != "_" or parts[0] in SHARED)
    is_left = len(parts) > 2 and parts[1] == "code"
    fits = {"data": is_model, "runs": is_record, "jobs": is_left}[kind]
    return fits and files.is_plain_path(path)


def decide(remote: Fingerprint, entry: list[Any] | None, local: Fingerprint | None) -> Action:
    """Return what to do about a remote file.

    `entry` is its entry in the state: [remote fingerprint, local ones that earlier fetches made].
    same: the remote file has not changed since, even if the local one was edited. compare: only
    the contents can tell whether the two differ; if they do, the local file stays.
    """
    if local is None:
        return "new"
    if entry and list(local) in entry[1]:
        return "same" if list(remote) == entry[0] and list(local) == entry[1][-1] else "update"
    return "same" if entry and list(remote) == entry[0] else "compare"


def folder_of(kind: Kind, path: str) -> str:
    """Return the folder of the run, or of its models, that contains a path."""
    return "/".join(path.split("/")[: 3 if kind == "data" else 1])


def find_strange(kind: Kind, remote: Iterable[str], state: Mapping[str, Any]) -> set[str]:
    """Return the folders of remote files that no fetch from this machine has made.

    Nothing may be put into one that exists locally: it is a record of this computer or of another
    machine. `state`: the files of FetchState.
    """
    keys = [key.partition("/") for key in state]
    made = {folder_of(kind, path) for of, _, path in keys if of == kind}
    runs = {folder_of("runs", path) for of, _, path in keys if of == "runs"}
    folders = {folder_of(kind, name) for name in remote} - made
    if kind == "data":  # models whose run came from that machine are not strange
        folders = {one for one in folders if one.split("/")[-1] not in runs}
    return folders - set(SHARED) if kind == "runs" else folders


def unit_of(kind: Kind, path: str) -> str:
    """Return what has to arrive together: an entry of <dataset>/models/<run>, or else a file."""
    return "/".join(path.split("/")[:4]) if kind == "data" else path


class FetchState:
    """What earlier fetches brought: {"runs/PATH": [remote fingerprint, [local ones]]}."""

    def __init__(self, path: Path):
        self.path = path
        try:
            content = files.parse_json(files.read_text(path))
        except (OSError, ValueError):
            content = {}  # without it, contents are compared
        self.files: dict[str, Any] = content if isinstance(content, dict) else {}

    def save(self) -> None:
        files.write(self.path, json.dumps(self.files, separators=(",", ":")))


class Memory:
    """What one round of a fetch tells the next."""

    def __init__(self) -> None:
        self.suspect: dict[str, Fingerprint] = {}  # arrived with another hash than the remote one
        self.seen: dict[str, set[str]] = {}  # the files of each unit when it was seen first

    def find_shrunk(self, kind: Kind, remote: Iterable[str]) -> set[str]:
        """Return the units that had more files before: they are being removed, so skip them."""
        now = defaultdict(set)
        for name in remote:
            now[unit_of(kind, name)].add(name)
        return {unit for unit, names in now.items() if self.seen.setdefault(unit, names) - names}


def remote_hashes(connection: Connection, base: str, names: Iterable[str]) -> dict[str, str]:
    """Return the sha256 of the files in the machine's folder `base` that still exist."""
    listed = staging.list_names(names)
    output = connection.run("hashes.sh", base=base, hasher=files.read_text(HASHER), stdin=listed)
    with expecting(connection.name, "a list of hashes"):
        return parse_hashes(output)


def parse_hashes(output: str) -> dict[str, str]:
    """Parse the output of hashes.sh. ValueError if it is malformed."""
    found = {}
    for line in output.split("\0")[:-1]:
        digest, _, name = line.partition("  ")
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError("not a sha256")
        found[name.removeprefix("./")] = digest
    return found
