"""Imports a run from a file of lab export: checked first, as it may come from a stranger."""

import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

from lab.code import snapshot
from lab.environment.update import BAD_ARCHIVE
from lab.ground import files, git, project
from lab.ground.errors import LabError
from lab.ground.ids import RUN_ID
from lab.ground.terminal import escape
from lab.runs import reading, recorded_code, records
from lab.runs.export import BUNDLE, LOCK, RECORD

IMPORTED = "refs/lab/imports"  # for code that nobody has agreed to run yet: not for snapshots
MAX_ENTRIES = 100_000
MAX_BYTES = 4 << 30  # of all entries together
FREE_BYTES = 100 << 20  # what any archive may unpack to, whatever its size
MAX_RATIO = 100  # beyond that, it may unpack to this many times its own size


def unpack(file: Path, agree: Callable[[str], bool]) -> Path:
    """Import record, code and new notes of an exported run; returns its folder in runs/.

    If no branch or snapshot of this user holds the code, `agree` is called with some lines about
    what would run; LabError unless it returns True, and then nothing of the file is kept.
    """
    runs = project.runs_folder()
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with (
            files.open_regular(file) as opened,
            zipfile.ZipFile(opened) as archive,
            tempfile.TemporaryDirectory(prefix="_import-", dir=runs) as temporary,
        ):
            size = opened.seek(0, 2)
            name = check_entries(archive.infolist(), size)
            archive.extractall(temporary)
            record = Path(temporary, RECORD, name)
            content = reading.read_json(record / "run.json")
            folder = runs / name
            if folder.exists() and reading.read_json(folder / "run.json") != content:
                raise LabError(f"{project.relative(folder)} differs from the record in {file}.")
            commit = recorded_code.require_recorded_commit(name, content)
            import_code(Path(temporary, BUNDLE), commit, name, content, file, agree)
            if not folder.exists():
                record.rename(folder)
            else:
                records.add_notes(folder, records.notes(record))
    except BAD_ARCHIVE as error:
        raise LabError(f"{file} was not made by lab export, or is damaged: {error}.") from None
    return folder


def check_entries(entries: list[zipfile.ZipInfo], size: int) -> str:
    """Check the names and sizes of an archive of `size` bytes; returns the name of its record.

    ValueError if it has anything but a record, its code and its lock, or would fill the disk.
    """
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or total > MAX_BYTES:
        raise ValueError(f"it has {len(entries)} files of {total / 1e9:.1f} GB")
    if total > max(FREE_BYTES, size * MAX_RATIO):
        raise ValueError(f"{size / 1e6:.1f} MB would become {total / 1e9:.1f} GB")
    names = set()
    for entry in entries:
        parts = entry.filename.removesuffix("/").split("/")
        if entry.filename in (BUNDLE, LOCK, RECORD):
            continue
        plain = all(part.isprintable() and part.strip(". ") for part in parts)
        plain = plain and files.is_plain_path("/".join(parts))
        if not entry.filename.startswith(RECORD) or not plain or "\\" in entry.filename:
            raise ValueError(f"{entry.filename!r} does not belong in it")
        names.add(parts[1])
    if len(names) != 1 or not RUN_ID.fullmatch(min(names)):
        raise ValueError("it does not have exactly one record with a plain name")
    return min(names)


def import_code(
    bundle: Path,
    commit: str,
    name: str,
    record: dict[str, Any],
    file: Path,
    agree: Callable[[str], bool],
) -> None:
    """Fetch the recorded commit into this repository, as a snapshot; LabError if nobody agrees."""
    ours, kept = f"{IMPORTED}/{commit}", f"{snapshot.REFS}/{commit}"
    try:
        quiet = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules")
        git.run(*snapshot.SETTINGS, *quiet, str(bundle.absolute()), f"+{kept}:{ours}")
        if git.run("rev-parse", "--verify", ours).strip() != commit:
            raise LabError(f"the code in {file} is not the commit that its record names.")
        try:
            recorded_code.require_own(name, commit)
        except recorded_code.Untrusted:
            if not agree(describe(file, name, commit, record)):
                raise LabError(
                    f"nothing of {file} was run or kept: --yes runs code that is not yours."
                ) from None
        git.run("update-ref", kept, commit)
    finally:
        git.run("update-ref", "-d", ours)


def describe(file: Path, name: str, commit: str, record: dict[str, Any]) -> str:
    """Describe what would run: whose commit, which module, and how to look at it first."""
    about = escape(git.run("log", "-1", "--format=%an <%ae>, %as: %s", commit).strip())
    program = recorded_code.describe_program(commit, record)
    bundle = f"unzip {quote(str(file))} {BUNDLE}; git fetch {BUNDLE} {snapshot.REFS}/{commit}"
    return (
        f"{escape(file)} has code that no branch or snapshot of yours holds. With your rights it"
        f" would run\n  commit   {commit[:12]} of {about}"
        f"\n  program  {program}, with the settings of {name}"
        "\n  before   its bootstrap.py, which installs the packages that its lock names, if they"
        " differ from yours"
        f"\nTo look at it first: {bundle}; git diff HEAD FETCH_HEAD"
    )
