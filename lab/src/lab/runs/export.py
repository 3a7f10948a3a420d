"""A run in one file, for another machine: its record, its code with the history, its lock."""

import os
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from lab.code import snapshot
from lab.ground import git, project
from lab.ground.errors import LabError
from lab.runs import reading, records

RECORD, BUNDLE = "record/", "code.bundle"  # in the file


def export(wanted: str, file: Path) -> Path:
    """Pack a run's record, its code (with the history that leads to it) and its lock into a zip.

    Returns its path, which ends with .zip.
    """
    folder = records.find(wanted)
    record = reading.read_json(folder / "run.json")
    if reading.state(record) == "RUNNING":
        raise LabError(f"{folder.name} is RUNNING: export it when it has ended.")
    commit = require_code(folder.name, record)
    if git.run("rev-parse", "--is-shallow-repository").strip() == "true":
        raise LabError("this clone has only a part of the history: git fetch --unshallow first.")
    if file.suffix != ".zip" and not file.exists():
        file = file.with_name(f"{file.name}.zip")
    if file.exists():
        raise LabError(f"{file} exists: choose another name.")
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory() as place:
            ref, bundle = f"{snapshot.REFS}/{commit}", Path(place, BUNDLE)
            git.run("update-ref", ref, commit)
            git.run("bundle", "create", str(bundle), ref)
            with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as pack:
                for path in sorted(folder.rglob("*")):
                    if path.is_file():
                        inside = path.relative_to(folder).as_posix()
                        pack.write(path, f"{RECORD}{folder.name}/{inside}")
                pack.write(bundle, BUNDLE)
                lock = os.path.normpath(f"{folder_of(record)}/requirements.txt")
                pack.writestr("requirements.txt", git.run("show", f"{commit}:{lock}"))
        draft.replace(file)
    except OSError as error:
        raise LabError(f"{file} cannot be written: {error}.") from None
    finally:
        draft.unlink(missing_ok=True)
    return file


def unpack(file: Path) -> Path:
    """Take over record, code and new notes of an exported run; returns its folder in runs/."""
    runs = project.runs_folder()
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with (
            zipfile.ZipFile(file) as pack,
            tempfile.TemporaryDirectory(prefix="_import-", dir=runs) as place,
        ):
            pack.extractall(place)
            (record,) = Path(place, RECORD).iterdir()
            content = reading.read_json(record / "run.json")
            ref = f"{snapshot.REFS}/{code_of(record.name, content)}"
            git.run("fetch", "--quiet", "--no-tags", str(Path(place, BUNDLE)), f"{ref}:{ref}")
            kept = runs / record.name
            if not kept.exists():
                record.rename(kept)
            elif reading.read_json(kept / "run.json") != content:
                raise LabError(f"{project.relative(kept)} is another record than that of {file}.")
            else:
                records.add_notes(kept, records.notes(record))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise LabError(f"{file} is no file of lab export: {error}.") from None
    return kept


# --- the code that a record names -----------------------------------------------------------------


def code_of(name: str, record: dict[str, Any]) -> str:
    """The commit that holds exactly the code that ran; LabError if none is recorded."""
    commit = str(reading.commit(record) or "")
    if not re.fullmatch("[0-9a-f]{40,64}", commit):
        why = reading.part(record, "code").get("problem") or "no commit is recorded."
        raise LabError(f"the code of {name} cannot be restored: {why}")
    return commit


def folder_of(record: dict[str, Any]) -> str:
    """Where the project lay inside the recorded commit; it may have been renamed or moved since."""
    return str(reading.part(record, "code").get("folder") or ".")


def require_code(name: str, record: dict[str, Any]) -> str:
    """code_of(), and that it is in this repository."""
    commit = code_of(name, record)
    if not git.run("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", accept=(0, 1, 128)):
        raise LabError(
            f"the code of {name} is not in this repository: fetch commit {commit}, or take"
            " the file that lab export makes where it ran."
        )
    return commit
