"""A run in one file, for another machine: its record, its code with the history, its lock."""

import os
import tempfile
import zipfile
from pathlib import Path

from lab.code import snapshot
from lab.ground import files, git, project
from lab.ground.errors import LabError
from lab.runs import reading, records
from lab.runs.recorded_code import get_folder, read_pyproject, require_local_commit

RECORD, BUNDLE, LOCK = "record/", "code.bundle", "requirements.txt"  # names in the zip


def export(wanted: str, file: Path) -> Path:
    """Pack a run's record, its code (with the history that leads to it) and its lock into a zip.

    Returns its path, which ends with .zip.
    """
    folder = records.find(wanted)
    record = reading.read_json(folder / "run.json")
    if reading.get_state(record) == "RUNNING":
        raise LabError(f"{folder.name} is RUNNING: export it when it has ended.")
    commit = require_local_commit(folder.name, record)
    if git.run("rev-parse", "--is-shallow-repository").strip() == "true":
        raise LabError("this clone has only a part of the history: run git fetch --unshallow.")
    if file.suffix != ".zip" and not file.exists():
        file = file.with_name(f"{file.name}.zip")
    if file.exists():
        raise LabError(f"{file} exists: choose another name.")
    ref = f"{snapshot.REFS}/{commit}"
    name = project.lock_name(read_pyproject(commit, record))
    lock = os.path.normpath(f"{get_folder(record)}/{name}")
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
                inside = path.relative_to(folder)
                if (
                    path.is_file()
                    and not path.is_symlink()
                    and not any(part[0] == "." for part in inside.parts)
                ):
                    archive.write(path, f"{RECORD}{folder.name}/{inside.as_posix()}")
            archive.write(bundle, BUNDLE)
            archive.writestr(LOCK, git.run("show", f"{commit}:{lock}"))
    except UnicodeEncodeError as error:
        raise LabError(f"no zip can have the name {error.object!r}: rename that file.") from None
    except OSError as error:
        raise LabError(f"{file} cannot be written: {error}.") from None
    return file
