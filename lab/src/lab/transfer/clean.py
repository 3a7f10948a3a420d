"""Makes room on a machine: removes what can be made again, or is proven to be on this computer.

The machine lists what may go: checkouts of jobs that have ended and changed nothing in them,
environments that nothing uses, snapshots, records and models. A snapshot is removed only if this
repository has it; a record, a model, or a checkout in which its job left files, only if every file
has the sha256 of the local one.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lab.code import snapshot
from lab.code.sending import SENT
from lab.ground import files, git, project
from lab.jobs import job_format
from lab.runs import reading
from lab.ssh.answers import expecting, parse_number
from lab.ssh.connection import Connection
from lab.transfer.fetch import FOLDERS
from lab.transfer.fetch_plan import Kind, Listing, list_remote, remote_hashes

REMOVABLE = ("checkout", "written", "environment", "record", "model", "snapshot")
KINDS = (*REMOVABLE, "repository", "kept")


class Item(NamedTuple):
    """Something on the machine that may be removed, or, with the kind kept, that stays."""

    kind: str
    name: str
    bytes: int  # that its removal frees; for kept the number of files
    inodes: int


def find(connection: Connection, models: bool = False) -> list[Item]:
    """Return what may be removed now, and what is kept because only the machine has it.

    `models`: also records with models, from which no job can resume afterwards, and models that
    were brought for a job. Raises SshError.
    """
    items = _ask(connection, models, [])
    filled = [item for item in items if item.kind in ("record", "written", "model")]
    local = _find_local_copies(connection, filled) if filled else set()
    ours = set(git.run("for-each-ref", "--format=%(objectname)", snapshot.REFS).split())
    # the next job is sent as a difference to it
    ours -= set(git.run("for-each-ref", "--format=%(objectname)", SENT).split())
    may_go = {"record": local, "written": local, "model": local, "snapshot": ours}
    found = [item for item in items if item.name in may_go.get(item.kind, {item.name})]
    for item in items:
        if item.kind == "written" and item.name not in local:
            job, _, count = item.name.split(" ")
            found.append(Item("kept", job, int(count), 0))
    return found


def remove(connection: Connection, items: Iterable[Item], models: bool = False) -> list[Item]:
    """Remove these, unless something uses them by now; return what was removed."""
    wanted = [f"{item.kind} {item.name}\n" for item in items]
    removed = _ask(connection, models, wanted) if wanted else []
    return [item for item in removed if item.kind != "kept"]


def _ask(connection: Connection, models: bool, wanted: list[str]) -> list[Item]:
    output = connection.run(
        "clean.sh",
        stdin="".join(wanted).encode("utf-8", "surrogateescape"),
        remove="yes" if wanted else "",
        project=git.prefix(),
        models="yes" if models else "",
        format=job_format.FORMAT,
    )
    with expecting(connection.name, "what may be removed"):
        return parse_items(output)


def parse_items(output: str) -> list[Item]:
    """Parse the output of clean.sh. ValueError if it is malformed."""
    items = []
    for entry in output.split("\0")[:-1]:
        kind, size, inodes, name = entry.split(" ", 3)
        if kind not in KINDS or "\n" in name:
            raise ValueError("not a kind of thing to remove")
        if kind in ("record", "model"):
            run, _, number = name.split(" ")
            parse_number(number)
            if not files.is_plain_path(run) or "/" in run:
                raise ValueError("not the name of a record")
        if kind in ("record", "written", "model") and not re.fullmatch(
            r"[^ ]+ [0-9a-f]{64} [0-9]{1,9}", name
        ):
            raise ValueError("not the hash and length of a list of files")
        free = 0 if kind == "repository" and size.startswith("-") else parse_number(size)
        count = 0 if kind == "repository" and inodes.startswith("-") else parse_number(inodes)
        items.append(Item(kind, name, free, count))
    return items


def _find_local_copies(connection: Connection, items: list[Item]) -> set[str]:
    """Return the names of items of which this computer has every file, with the same content."""
    listing = list_remote(connection, [], models=True)
    by_run = _group(listing)
    local = set()
    for item in items:
        run, _, count = item.name.split(" ")
        if item.kind == "model":  # without a record on the machine, so the local list counts
            by_run[run] = [("data", path) for path in _list_local_model(run)]
        found = by_run[run]
        record = project.runs_folder() / run / "run.json"
        over = item.kind == "written" or (
            reading.read_json(record).get("status") not in (None, "RUNNING", "QUEUED")
        )
        if over and len(found) == int(count) and all(_path(*one).is_file() for one in found):
            local.add(item.name)
    wanted: dict[Kind, list[str]] = {"runs": [], "data": [], "jobs": []}
    for name in local:
        for kind, path in by_run[name.split(" ")[0]]:
            wanted[kind].append(path)
    differ = set()
    for kind, paths in wanted.items():
        hashes = remote_hashes(connection, listing.base[kind], paths) if paths else {}
        differ |= {
            _run_of(kind, path)
            for path in paths
            if hashes.get(path, "unknown") != files.sha256_or_none(_path(kind, path))
        }
    return {name for name in local if name.split(" ")[0] not in differ}


def _group(listing: Listing) -> dict[str, list[tuple[Kind, str]]]:
    found: dict[str, list[tuple[Kind, str]]] = defaultdict(list)
    for kind, names in listing.files.items():
        for path in names:
            found[_run_of(kind, path)].append((kind, path))
    return found


def _list_local_model(run: str) -> list[str]:
    data = project.data_folder()
    files = (path for models in data.glob("*/models") for path in (models / run).rglob("*"))
    return [path.relative_to(data).as_posix() for path in files if path.is_file()]


def _run_of(kind: Kind, path: str) -> str:
    return path.split("/")[2 if kind == "data" else 0]


def _path(kind: Kind, path: str) -> Path:
    return FOLDERS[kind]() / path
