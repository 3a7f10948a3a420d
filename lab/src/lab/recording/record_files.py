"""The files of a record: its folder and id, and each file written whole or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

from lab.ground import files
from lab.ground.errors import LabError
from lab.ground.ids import new_id
from lab.recording import provenance
from lab.recording.sacred_import import FileStorageObserver, flatten

OWN_NAMES = {
    "run.json",
    "config.json",
    "cout.txt",
    "metrics.jsonl",
    "metrics.json",
    "uncommitted.diff",
    "info.json",
    "notes.txt",  # of `lab note`
}


class RecordError(LabError):
    """A run's record is incomplete, or cannot be made."""


class RecordFiles(FileStorageObserver):  # type: ignore[misc] # Sacred has no types
    """Sacred's file record, with ids of ours and files that are never seen half-written."""

    basedir: str  # the folder of all records
    dir: str | None  # the folder of this one

    def make_folder(self, wanted: str | None) -> str:
        """Make a new folder for the record; returns its name, the run's id."""
        Path(self.basedir).mkdir(parents=True, exist_ok=True)
        while True:
            name = wanted or new_id()
            folder = Path(self.basedir, name)
            try:
                folder.mkdir()
            except FileExistsError:
                if wanted:
                    raise RecordError(
                        f"there is already a run {name}: choose another --id."
                    ) from None
            else:
                self.dir = str(folder)
                return name

    @property
    def folder(self) -> Path:
        """The folder of this record; there has to be one."""
        assert self.dir is not None
        return Path(self.dir)

    def save_json(self, obj: Any, filename: str) -> None:
        """Save JSON as Sacred does, but valid (no NaN) and without passwords in addresses."""
        plain = json.loads(json.dumps(flatten(obj)), parse_constant=str)  # NaN becomes "NaN"
        text = json.dumps(plain, sort_keys=True, indent=2)
        if filename == "run.json":
            text = provenance.remove_credentials(text)
        files.write(self.folder / filename, text + "\n")

    def save_file(self, filename: str, target_name: str | None = None) -> None:
        """Copy a file into the record."""
        target = self.folder / (target_name or Path(filename).name)
        if target.name in OWN_NAMES:
            raise RecordError(f"{target.name} is the name of a file that every record has.")
        copy(Path(filename), target)

    def find_or_save(self, filename: str, store_dir: str) -> Path:
        """Copy a file under its hash, unless it is there; several runs may do so at once."""
        path = Path(filename)
        saved = Path(store_dir, f"{path.stem}_{files.sha256(path)[:32]}{path.suffix}")
        if not saved.exists():
            saved.parent.mkdir(parents=True, exist_ok=True)
            copy(path, saved)
        return saved


def copy(source: Path, target: Path) -> None:
    """Copy a file so that no reader ever sees a part of it."""
    with files.replacing(target) as draft:
        shutil.copyfile(source, draft)
