"""Brings a machine the models and outputs of earlier runs that a job names, if it lacks them.

They are gathered in a staging folder, checked by their sha256, and renamed: completely or not at
all. A model that the machine has stays as it is.
"""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from lab.datasets.manifest import checksum_line, encode
from lab.ground import files, project
from lab.ground.errors import UsageError
from lab.ground.terminal import count_files, escape, print_message
from lab.jobs import settings
from lab.jobs.launch import RecordOptions
from lab.runs import reading, records
from lab.ssh.answers import expecting, parse_path
from lab.ssh.connection import Connection
from lab.ssh.sockets import hold_lock
from lab.transfer import copying
from lab.transfer.datasets import lock_file, name_stage, parse_files
from lab.transfer.rsync_copy import can_rsync
from lab.transfer.staging import DiskFull, Fingerprint, explain_os_errors, fingerprint

LAST = re.compile("last(~[0-9]+)?")
DIGEST = re.compile("[0-9a-f]{64}")


class RemoteModel(NamedTuple):
    """What a machine has of a model."""

    stage: str
    rsync: bool
    files: dict[str, Fingerprint]
    staged: dict[str, Fingerprint]


def bring_needed(
    connection: Connection, command: list[str], record: RecordOptions | None
) -> tuple[list[str], RecordOptions | None]:
    """Bring what a job needs of earlier runs; return its command and how to record it.

    Raises as bring_named() does.
    """
    command = bring_named(connection, command)
    return command, bring_outputs(connection, record) if record and record.earlier else record


def bring_outputs(connection: Connection, record: RecordOptions) -> RecordOptions:
    """Bring the outputs of the earlier run that a job continues; return how to record the job.

    The result has the whole id and the dataset of that run, whose record may exist only on this
    computer. If it has no such record, `record` is returned as it is: the machine may have one.
    """
    wanted = record.earlier
    if not LAST.fullmatch(wanted) and not any(one.startswith(wanted) for one in reading.run_ids()):
        return record
    folder = records.find(wanted)
    data = reading.get_dict(reading.read_json(folder / "run.json"), "data")
    dataset, manifest = (reading.get_text(data, key) for key in ("dataset", "manifest_sha256"))
    known = project.DATASET.fullmatch(dataset or "") and DIGEST.fullmatch(manifest or "")
    bring_or_warn(connection, folder.name, find_local(folder.name))
    return record._replace(earlier=folder.name, data=f"{dataset}={manifest}" if known else "=")


def bring_or_warn(connection: Connection, run: str, folder: Path | None) -> None:
    """Bring the files of a run from its folder; warn if neither side has any."""
    if folder and list_files(folder):
        bring(connection, folder)
    elif not inspect(connection, run, more="*").files:
        print_message(
            f"warning: neither this computer nor {connection.name} has a model of run"
            f" {escape(run)} yet"
        )


def bring_named(connection: Connection, command: list[str]) -> list[str]:
    """Bring the models of the runs that a command names; return it with their whole ids.

    The beginning of an id, or last, means a run on this computer, or else one on the machine.
    Raises UsageError if several ids begin with it; LabError if a file cannot be read or arrives
    damaged; SshError; DiskFull.
    """
    command = list(command)
    for named in settings.find_models(command):
        run = records.find(named.run).name if LAST.fullmatch(named.run) else named.run
        folder = find_local(run)
        run = folder.name if folder else run
        bring_or_warn(connection, run, folder)
        if named.word >= 0:
            command[named.word] = f"{named.setting}={run}"
    return command


def find_local(wanted: str) -> Path | None:
    """Return the folder with the model of a run, by its id or the beginning of it."""
    folders = {path.name: path for path in project.data_folder().glob("*/models/*/")}
    matching = [name for name in sorted(folders) if name.startswith(wanted)]
    if wanted not in folders and len(matching) > 1:
        raise UsageError(f"several run ids begin with {wanted}: {', '.join(matching[:5])}.")
    return folders[wanted if wanted in folders else matching[0]] if matching else None


def bring(connection: Connection, folder: Path) -> None:
    """Bring a model to the machine, unless it has one, and print how much was copied."""
    run, dataset = folder.name, folder.parent.parent.name
    with explain_os_errors(), hold_lock(lock_file(connection, run)):
        local = list_files(folder)
        remote = inspect(connection, run)
        if remote.files:
            if _in_seconds(remote.files) != _in_seconds(local):
                print_message(f"{connection.name} has a different model of {run}, which was kept")
            return
        lines = [checksum_line(path, files.sha256(folder / path)) for path in sorted(local)]
        listed = encode("".join(lines))
        stage = name_stage(run, hashlib.sha256(listed).hexdigest())
        remote = inspect(connection, run, stage)
        unsent = [path for path in local if remote.staged.get(path) != local[path]]
        try:
            copying.push(connection, folder, unsent, remote.stage, rsync=remote.rsync)
        except DiskFull:
            connection.run("discard.sh", stage=remote.stage)
            raise
        connection.run(
            "take_model.sh",
            stdin=listed,
            again=False,
            run=run,
            dataset=dataset,
            stage=remote.stage,
        )
    size = sum(size for size, _ in local.values()) / 1e6
    copied = f"{count_files(len(local))}, {size:.1f} MB copied"
    print_message(f"the model of {run} is on {connection.name}: {copied}")


def list_files(folder: Path) -> dict[str, Fingerprint]:
    """Return the files of a model, without those that are still being written."""
    found = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        one = fingerprint(path) if path.is_file() else None
        if one and not any(part.startswith(".") or part.endswith(".new") for part in parts):
            found["/".join(parts)] = one
    return found


def inspect(connection: Connection, run: str, stage: str = "", more: str = "") -> RemoteModel:
    """Return what a machine has of the model of a run.

    With more="*" of all runs whose id begins with `run`. With `stage` that folder is made.
    """
    output = connection.run("model.sh", run=run, more=more, stage=stage)
    with expecting(connection.name, "the description of a model"):
        return parse_model(output)


def parse_model(output: str) -> RemoteModel:
    """Parse the output of model.sh. ValueError if it is malformed."""
    stage, version, *entries = output.split("\0")[:-1]
    return RemoteModel(stage and parse_path(stage), can_rsync(version), *parse_files(entries))


def _in_seconds(fingerprints: dict[str, Fingerprint]) -> dict[str, Fingerprint]:
    """Round the times down to seconds, as a tar stream may have done."""
    return {path: (size, time // 10**9) for path, (size, time) in fingerprints.items()}
