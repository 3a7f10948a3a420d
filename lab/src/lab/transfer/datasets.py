"""Datasets, sent to a machine or brought home: as their manifest says, or not at all.

A dataset lies in <data>/<dataset>/: manifest.json with the sha256 of every file, and the files in
train/, val/ and test/. It is gathered in a folder beside its place and checked there; manifest.json
comes last, so that half a dataset is never taken for one. Nothing is ever overwritten.
"""

import hashlib
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterable
from getpass import getuser
from pathlib import Path
from typing import NamedTuple

from lab.ground import files, project
from lab.ground.errors import LabError
from lab.ground.files import sha256
from lab.ground.project import dataset_folder
from lab.ground.terminal import count_files
from lab.ssh.connection import Connection, hold_lock
from lab.transfer import copying
from lab.transfer.copying import Fingerprint, encode_name, fingerprint
from lab.transfer.fetch import is_file, move


class Manifest(NamedTuple):
    """What a dataset consists of."""

    text: str  # manifest.json
    hash: str  # the sha256 of it: two datasets with the same one are the same
    files: dict[str, str]  # path: sha256


class RemoteDataset(NamedTuple):
    """What a machine has of a dataset."""

    folder: str
    stage: str
    rsync: bool
    manifest: str  # "": none
    files: dict[str, Fingerprint]
    staged: dict[str, Fingerprint]


def push(connection: Connection, dataset: str) -> str:
    """Send a dataset there; returns what to say.

    Raises LabError if it is broken here or another one is there, SshError after a cut.
    """
    place = dataset_folder(dataset)
    with copying.explain_os_errors(), hold_lock(_lock(connection, dataset)):
        manifest = parse_manifest(_read_local_manifest(place), str(project.relative(place)))
        sizes = {path: fingerprint(place / path, links=True) for path in manifest.files}
        refuse_if_any("is missing here", [path for path in sizes if sizes[path] is None], dataset)
        there = inspect_remote(connection, dataset)
        _require_same(manifest, there.manifest, dataset, connection.name)
        send = find_missing(
            manifest, {path: at[0] for path, at in sizes.items()}, there.files, dataset
        )
        if there.manifest and not send:
            return (
                f"{dataset} is on {connection.name} already: manifest {manifest.hash[:12]}, and"
                " every file has the size of the one here"
            )
        wrong = [
            path for path in _show_progress(send) if sha256(place / path) != manifest.files[path]
        ]
        refuse_if_any("is not as the manifest says", wrong, dataset)
        me = re.sub(r"[^\w-]", "", f"{getuser()}-{socket.gethostname()}")
        stage = f".{dataset}.incoming-{manifest.hash[:12]}-{me}"
        there = inspect_remote(connection, dataset, stage)
        unsent = [path for path in send if there.staged.get(path) != sizes[path]]
        names = [*unsent, "manifest.json"]
        try:
            copying.push(connection, place, names, there.stage, rsync=there.rsync)
        except copying.DiskFull:
            connection.run("discard.sh", stage=there.stage)
            raise
        listed = "".join(checksum_line(path, manifest.files[path]) for path in manifest.files)
        _install_remotely(
            connection, listed, dataset=dataset, stage=there.stage, manifest=manifest.hash
        )
    return _summarize(dataset, connection.name, send, sum(sizes[path][0] for path in send))


def fetch(connection: Connection, dataset: str) -> str:
    """Bring a dataset home; returns what to say. Raises as `push` does."""
    place = dataset_folder(dataset)
    with copying.explain_os_errors(), hold_lock(_lock(connection, dataset)):
        there = inspect_remote(connection, dataset)
        manifest = parse_manifest(there.manifest, f"{dataset} on {connection.name}")
        gone = [path for path in manifest.files if path not in there.files]
        refuse_if_any(f"is missing on {connection.name}", gone, dataset)
        mine = _read_local_manifest(place)
        _require_same(manifest, mine, dataset, "here")
        here = {
            path: found for path in manifest.files if (found := fingerprint(place / path, True))
        }
        sizes = {path: at[0] for path, at in there.files.items()}
        bring = find_missing(manifest, sizes, here, dataset)
        wrong = [
            path for path in _show_progress(here) if sha256(place / path) != manifest.files[path]
        ]
        refuse_if_any("here is not as the manifest there says, and stays", wrong, dataset)
        if mine and not bring:
            return f"{dataset} is here already: manifest {manifest.hash[:12]}"
        stage = project.data_folder() / f".{dataset}.incoming-{manifest.hash[:12]}"
        with copying.staging(stage):
            _bring(connection, there, manifest, bring, stage, dataset)
    return _summarize(dataset, "here", bring, sum(sizes[path] for path in bring))


def _bring(
    connection, there: RemoteDataset, manifest: Manifest, names, stage: Path, dataset: str
) -> None:
    """Gather these files, check them and put them in place, with the manifest behind them."""
    staged, place = stage / "files", dataset_folder(dataset)
    unsent = [path for path in names if fingerprint(staged / path) != there.files[path]]
    copying.pull(connection, there.folder, unsent, stage, rsync=there.rsync, links=True)
    wrong = [
        path for path in _show_progress(names) if not has_hash(staged / path, manifest.files[path])
    ]
    for path in wrong:
        (staged / path).unlink(missing_ok=True)
    refuse_if_any(f"on {connection.name} is not as its manifest says", wrong, dataset)
    for path in names:
        if os.path.lexists(place / path):
            raise LabError(f"{project.relative(place / path)} has just appeared, and stays.")
        move(staged / path, place / path)
    (place / "models").mkdir(exist_ok=True)
    files.write(place / "manifest.json", manifest.text)


def parse_manifest(text: str, where: str) -> Manifest:
    """A manifest, checked: no path in it leads out of the splits."""
    if not text:
        raise LabError(f"there is no dataset in {where}: it has no manifest.json.")
    try:
        files = json.loads(text)["files"]
        good = all(
            path.split("/")[0] in project.SPLITS
            and "/" in path
            and copying.is_inside(path)
            and re.fullmatch("[0-9a-f]{64}", hash)
            for path, hash in files.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise LabError(f"the manifest.json of {where} is none: make the dataset again.")
    return Manifest(text, hashlib.sha256(encode_name(text)).hexdigest(), files)


def inspect_remote(connection: Connection, dataset: str, stage: str = "") -> RemoteDataset:
    """What a machine has of a dataset; `stage` is the name of a folder that is made there."""
    output = connection.run("dataset.sh", dataset=dataset, stage=stage)
    target, place, version, manifest, *entries = output.split("\0")[:-1]
    found: dict[str, dict[str, Fingerprint]] = {"there": {}, "staged": {}}
    for entry in entries:
        kind, size, time, path = entry.split(" ", 3)
        found[kind][path] = (int(size), copying.parse_time(time))
    return RemoteDataset(target, place, copying.can_rsync(version), manifest, *found.values())


def find_missing(
    manifest: Manifest, sizes: dict[str, int], target: dict[str, Fingerprint], dataset: str
) -> list[str]:
    """The files that the target lacks. LabError if it has others of the same names."""
    other = [path for path in manifest.files if target.get(path, [sizes[path]])[0] != sizes[path]]
    refuse_if_any("has another size at its destination, and stays", other, dataset)
    return [path for path in manifest.files if path not in target]


def checksum_line(path: str, hash: str) -> str:
    """A line for sha256sum -c, which has its own way to write letters such as line ends."""
    plain = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if plain == path else chr(92)}{hash}  {plain}\n"


def has_hash(path: Path, hash: str) -> bool:
    return is_file(path) and sha256(path) == hash


def refuse_if_any(what: str, paths: list[str], dataset: str) -> None:
    """Raise LabError if there are such paths."""
    if paths:
        names = ", ".join(f"{dataset}/{path}" for path in paths[:5])
        more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
        raise LabError(f"nothing was put in place: {names}{more} {what}.")


def _require_same(manifest: Manifest, other: str, dataset: str, where: str) -> None:
    hash = hashlib.sha256(encode_name(other)).hexdigest()
    if other and hash != manifest.hash:
        there, here = (manifest.hash, hash) if where == "here" else (hash, manifest.hash)
        raise LabError(
            f"another {dataset} is {_on(where)}, and stays: the manifest there is {there[:12]},"
            f" here {here[:12]}. Give one of them another name."
        )


def _read_local_manifest(place: Path) -> str:
    try:
        return (place / "manifest.json").read_bytes().decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def _lock(connection: Connection, dataset: str) -> Path:
    """Two that send the same from here go one after the other: they share a staging folder."""
    return connection.socket.with_name(f"{dataset[:50]}.lock")


def _install_remotely(connection: Connection, text: str, **variables: str) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(encode_name(text))
        file.seek(0)
        connection.run("place.sh", stdin=file, again=False, **variables)


def _summarize(dataset: str, where: str, names: list[str], size: int) -> str:
    return f"{dataset} is {_on(where)}: {count_files(len(names))}, {size / 1e6:.1f} MB came"


def _on(where: str) -> str:
    return where if where == "here" else f"on {where}"


def _show_progress(items: Iterable[str]) -> Iterable[str]:
    """A progress bar on a terminal, once it takes longer than a second."""
    from tqdm import tqdm

    return tqdm(list(items), desc="checking", delay=1, leave=False, disable=None)
