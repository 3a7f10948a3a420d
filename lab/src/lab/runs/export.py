"""A run in one file, for another machine: its record, its code with the history, its lock."""

import os
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from lab.code import snapshot
from lab.ground import files, git, project
from lab.ground.errors import LabError
from lab.runs import reading, records

RECORD, BUNDLE = "record/", "code.bundle"  # in the file


def export(wanted: str, file: Path) -> Path:
    """Pack a run's record, its code (with the history that leads to it) and its lock into a zip.

    Returns its path, which ends with .zip.
    """
    folder = records.find(wanted)
    record = reading.read_json(folder / "run.json")
    if reading.get_state(record) == "RUNNING":
        raise LabError(f"{folder.name} is RUNNING: export it when it has ended.")
    commit = require_commit(folder.name, record)
    if git.run("rev-parse", "--is-shallow-repository").strip() == "true":
        raise LabError("this clone has only a part of the history: run git fetch --unshallow.")
    if file.suffix != ".zip" and not file.exists():
        file = file.with_name(f"{file.name}.zip")
    if file.exists():
        raise LabError(f"{file} exists: choose another name.")
    ref = f"{snapshot.REFS}/{commit}"
    lock = os.path.normpath(f"{get_folder(record)}/requirements.txt")
    try:
        with (
            tempfile.TemporaryDirectory() as temporary,
            files.replacing(file) as draft,
            zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive,
        ):
            bundle = Path(temporary, BUNDLE)
            git.run("update-ref", ref, commit)
            git.run("bundle", "create", str(bundle), ref)
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    inside = path.relative_to(folder).as_posix()
                    archive.write(path, f"{RECORD}{folder.name}/{inside}")
            archive.write(bundle, BUNDLE)
            archive.writestr("requirements.txt", git.run("show", f"{commit}:{lock}"))
    except OSError as error:
        raise LabError(f"{file} cannot be written: {error}.") from None
    return file


def unpack(file: Path) -> Path:
    """Import record, code and new notes of an exported run; returns its folder in runs/."""
    runs = project.runs_folder()
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with (
            zipfile.ZipFile(file) as archive,
            tempfile.TemporaryDirectory(prefix="_import-", dir=runs) as temporary,
        ):
            archive.extractall(temporary)
            (record,) = Path(temporary, RECORD).iterdir()
            content = reading.read_json(record / "run.json")
            ref = f"{snapshot.REFS}/{get_commit(record.name, content)}"
            git.run("fetch", "--quiet", "--no-tags", str(Path(temporary, BUNDLE)), f"{ref}:{ref}")
            folder = runs / record.name
            if not folder.exists():
                record.rename(folder)
            elif reading.read_json(folder / "run.json") != content:
                raise LabError(f"{project.relative(folder)} differs from the record in {file}.")
            else:
                records.add_notes(folder, records.notes(record))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise LabError(f"{file} was not made by lab export, or is damaged: {error}.") from None
    return folder


# --- the code that a record names -----------------------------------------------------------------


def get_commit(name: str, record: dict[str, Any]) -> str:
    """Get the commit that holds exactly the code that ran; LabError if none is recorded."""
    commit = str(reading.get_commit(record) or "")
    if not re.fullmatch("[0-9a-f]{40,64}", commit):
        why = reading.get_dict(record, "code").get("problem") or "no commit is recorded."
        raise LabError(f"the code of {name} cannot be restored: {why}")
    return commit


def get_folder(record: dict[str, Any]) -> str:
    """Get the project's folder inside the recorded commit; it may have been moved since."""
    return str(reading.get_dict(record, "code").get("folder") or ".")


def require_commit(name: str, record: dict[str, Any]) -> str:
    """Get the commit; LabError also if it is not in this repository."""
    commit = get_commit(name, record)
    if not git.run("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", accept=(0, 1, 128)):
        raise LabError(
            f"the code of {name} is not in this repository: fetch commit {commit}, or use"
            " the file that lab export makes where it ran."
        )
    return commit
