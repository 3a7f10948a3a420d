"""Copies datasets to a machine or from it: exactly as their manifest says, or not at all.

A dataset lies in <data>/<dataset>/: manifest.json with the sha256 of every file, and the files,
often in train/, val/ and test/. It is gathered and checked in a staging folder beside its
destination; manifest.json comes last, so that an incomplete dataset is never taken for one.
Nothing is ever overwritten.
"""

import os
import re
import socket
from collections.abc import Iterable
from getpass import getuser
from pathlib import Path
from typing import NamedTuple

from lab.datasets.manifest import (
    DatasetError,
    Manifest,
    checksum_line,
    encode,
    find_missing,
    hash_text,
    is_file_of_dataset,
    parse_manifest,
    read_local,
    read_text,
    require_none,
)
from lab.ground import files, project
from lab.ground.project import dataset_folder
from lab.ground.terminal import count_files, stream_for_bars
from lab.ssh.answers import expecting, parse_number, parse_path
from lab.ssh.connection import Connection
from lab.ssh.sockets import hold_lock
from lab.transfer import copying
from lab.transfer.rsync_copy import can_rsync
from lab.transfer.staging import (
    LOCAL,
    DiskFull,
    Fingerprint,
    disk_usage,
    explain_os_errors,
    fingerprint,
    free_bytes,
    is_file,
    parse_time,
    staging,
)


class RemoteDataset(NamedTuple):
    """What a machine has of a dataset."""

    folder: str
    stage: str
    rsync: bool
    manifest: str  # "": none
    files: dict[str, Fingerprint]
    staged: dict[str, Fingerprint]


def push(connection: Connection, dataset: str) -> str:
    """Send a dataset to the machine; return a line that says what was done.

    Raises DatasetError if it is damaged, or the machine has a different one; SshError; DiskFull.
    """
    folder, machine = dataset_folder(dataset), connection.name
    with explain_os_errors(), hold_lock(lock_file(connection, dataset)):
        manifest = read_local(dataset)
        local = _find_local(folder, manifest)
        absent = [path for path in manifest.files if path not in local]
        require_none(f"missing on {LOCAL}", absent)
        remote = inspect_remote(connection, dataset)
        _require_same(dataset, manifest.text, remote.manifest, machine)
        to_send = find_missing(manifest, _sizes(local), _sizes(remote.files))
        if remote.manifest and not to_send:
            same = f"manifest {manifest.hash[:12]}, and every file has the size of the local one"
            return f"{dataset} is already on {machine}: {same}"
        _require_intact(folder, manifest, to_send, "different from the manifest")
        stage = name_stage(dataset, manifest.hash)
        remote = inspect_remote(connection, dataset, stage)
        unsent = [path for path in to_send if remote.staged.get(path) != local[path]]
        try:
            names = [*unsent, "manifest.json"]
            copying.push(connection, folder, names, remote.stage, rsync=remote.rsync)
        except DiskFull:
            connection.run("discard.sh", stage=remote.stage)
            raise
        _install_remotely(connection, dataset, remote.stage, manifest)
    return _summarize(dataset, machine, [local[path] for path in to_send])


def name_stage(name: str, digest: str) -> str:
    """Return the name of the folder on a machine in which files of this content are gathered."""
    user = re.sub(r"[^\w-]", "", f"{getuser()}-{socket.gethostname()}")
    return f".{name}.incoming-{digest[:12]}-{user}"


def fetch(connection: Connection, dataset: str) -> str:
    """Bring a dataset to this computer; return a line as push() does. Raises the same errors."""
    folder, machine = dataset_folder(dataset), connection.name
    with explain_os_errors(), hold_lock(lock_file(connection, dataset)):
        remote = inspect_remote(connection, dataset)
        manifest = parse_manifest(remote.manifest, f"{machine}:{remote.folder}")
        absent = [path for path in manifest.files if path not in remote.files]
        require_none(f"missing on {machine}", absent)
        local_manifest = read_text(folder)
        _require_same(dataset, local_manifest, remote.manifest, LOCAL)
        local = _find_local(folder, manifest)
        to_bring = find_missing(manifest, _sizes(remote.files), _sizes(local))
        _require_intact(folder, manifest, local, f"kept, though the manifest of {machine} differs")
        if not local_manifest:
            own = _find_own(folder, manifest)
            require_none(f"kept, and not in the manifest on {machine}", own)
        if local_manifest and not to_bring:
            return f"{dataset} is already on {LOCAL}: manifest {manifest.hash[:12]}"
        stage = project.data_folder() / f".{dataset}.incoming-{manifest.hash[:12]}"
        missing = [path for path in to_bring if not is_file(stage / "files" / path)]
        needed = sum(disk_usage(remote.files[path][0]) for path in missing)
        if needed > (room := free_bytes(stage)):
            raise DiskFull(LOCAL, project.relative(project.data_folder()), needed - room)
        with staging(stage):
            _bring(connection, remote, manifest, to_bring, stage, folder)
    return _summarize(dataset, LOCAL, [remote.files[path] for path in to_bring])


def _bring(
    connection: Connection,
    remote: RemoteDataset,
    manifest: Manifest,
    names: list[str],
    stage: Path,
    folder: Path,
) -> None:
    """Gather these files, check them and move them to `folder`, the manifest last."""
    staged = stage / "files"
    unsent = [path for path in names if fingerprint(staged / path) != remote.files[path]]
    copying.pull(connection, remote.folder, unsent, stage, rsync=remote.rsync, follow_links=True)
    damaged = _find_damaged(staged, manifest, names)
    for path in damaged:
        (staged / path).unlink(missing_ok=True)
    require_none(f"different from the manifest on {connection.name}", damaged)
    for path in names:
        target = folder / path
        if os.path.lexists(target):
            created = f"{project.relative(target)} was created meanwhile, and kept"
            raise DatasetError(f"{created}: run the same command again.")
        target.parent.mkdir(parents=True, exist_ok=True)
        files.move(staged / path, target)
    (folder / "models").mkdir(exist_ok=True)
    files.write(folder / "manifest.json", manifest.text)


def inspect_remote(connection: Connection, dataset: str, stage: str = "") -> RemoteDataset:
    """Return what a machine has of a dataset. With `stage` a folder of that name is made."""
    output = connection.run("dataset.sh", dataset=dataset, stage=stage)
    with expecting(connection.name, "the description of a dataset"):
        return parse_dataset(output)


def parse_dataset(output: str) -> RemoteDataset:
    """Parse the output of dataset.sh. ValueError if it is malformed."""
    folder, stage, version, manifest, *entries = output.split("\0")[:-1]
    folder, stage = parse_path(folder), stage and parse_path(stage)
    return RemoteDataset(folder, stage, can_rsync(version), manifest, *parse_files(entries))


def parse_files(entries: Iterable[str]) -> tuple[dict[str, Fingerprint], dict[str, Fingerprint]]:
    """Parse lines "present SIZE TIME PATH" or "staged ...". ValueError for any other."""
    found: dict[str, dict[str, Fingerprint]] = {"present": {}, "staged": {}}
    for entry in entries:
        kind, size, time, path = entry.split(" ", 3)
        if kind not in found:
            raise ValueError("not a kind of files")
        found[kind][path] = (parse_number(size, 2**63), parse_time(time))
    return found["present"], found["staged"]


def _find_local(folder: Path, manifest: Manifest) -> dict[str, Fingerprint]:
    """Return the files of the manifest that exist; a link counts as its target."""
    found = {path: fingerprint(folder / path, follow_links=True) for path in manifest.files}
    return {path: one for path, one in found.items() if one}


def _find_own(folder: Path, manifest: Manifest) -> list[str]:
    """Return files that are not in the manifest: somebody may be preparing a dataset."""
    tops = {*project.SPLITS, *(path.split("/")[0] for path in manifest.files)}
    paths = [path for top in tops for path in (folder / top).rglob("*")]
    if any("/" not in path for path in manifest.files) and folder.is_dir():
        paths += folder.iterdir()
    names = (path.relative_to(folder).as_posix() for path in paths if not path.is_dir())
    return sorted(name for name in names if name not in manifest.files and is_file_of_dataset(name))


def _sizes(fingerprints: dict[str, Fingerprint]) -> dict[str, int]:
    return {path: size for path, (size, _) in fingerprints.items()}


def _require_same(dataset: str, local: str, remote: str, owner: str) -> None:
    """Raise DatasetError if both sides have a manifest.json, and they differ."""
    if local and remote and local != remote:
        hashes = (
            f"manifest {hash_text(local)[:12]} on {LOCAL}, {hash_text(remote)[:12]} on the machine"
        )
        raise DatasetError(
            f"{owner} has a different dataset {dataset}, which was kept ({hashes}): rename one."
        )


def _require_intact(folder: Path, manifest: Manifest, names: Iterable[str], problem: str) -> None:
    wrong = [
        path
        for path in _show_progress(names)
        if files.sha256(folder / path) != manifest.files[path]
    ]
    require_none(problem, wrong)


def _find_damaged(folder: Path, manifest: Manifest, names: Iterable[str]) -> list[str]:
    return [
        path
        for path in _show_progress(names)
        if not is_file(folder / path) or files.sha256(folder / path) != manifest.files[path]
    ]


def lock_file(connection: Connection, dataset: str) -> Path:
    """Return the file that transfers of a dataset lock, as they share a staging folder."""
    return connection.socket.with_name(f"{dataset[:50]}.lock")


def _install_remotely(connection: Connection, dataset: str, stage: str, manifest: Manifest) -> None:
    """Let the machine check the staged files and put them in place."""
    connection.run(
        "install_dataset.sh",
        stdin=encode("".join(checksum_line(*entry) for entry in manifest.files.items())),
        again=False,
        dataset=dataset,
        stage=stage,
        manifest=manifest.hash,
    )


def _summarize(dataset: str, owner: str, copied: list[Fingerprint]) -> str:
    megabytes = sum(size for size, _ in copied) / 1e6
    return f"{dataset} is on {owner}: {count_files(len(copied))}, {megabytes:.1f} MB copied"


def _show_progress(items: Iterable[str]) -> Iterable[str]:
    """Iterate with a progress bar on a terminal, if it takes longer than a second."""
    from tqdm import tqdm

    bar: Iterable[str] = tqdm(
        list(items), desc="checking", delay=1, leave=False, disable=None, file=stream_for_bars()
    )
    return bar
