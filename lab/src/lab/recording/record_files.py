"""The files of a record: the folder and its id, and each file whole or not there at all."""

import json
import os
import secrets
import shutil
from pathlib import Path

from lab.ground import files
from lab.ground.errors import LabError
from lab.ground.ids import new_id
from lab.recording import provenance
from lab.recording.sacred_import import FileStorageObserver, flatten

OURS = {"run.json", "config.json", "cout.txt", "metrics.jsonl", "uncommitted.diff", "info.json"}
OURS |= {"notes.txt"}  # of `lab note`


class RecordError(LabError):
    """A run's record is not whole."""


class RecordFiles(FileStorageObserver):
    """Sacred's file record, with ids of ours and atomic files."""

    def make_folder(self, wanted: str | None) -> str:
        """A new folder for the record; its name is the run's id."""
        Path(self.basedir).mkdir(parents=True, exist_ok=True)
        while True:
            name = wanted or new_id()
            folder = Path(self.basedir, name)
            try:
                folder.mkdir()
            except FileExistsError:
                if wanted:
                    raise RecordError(
                        f"there is a run {name} already: give another --id."
                    ) from None
            else:
                self.dir = str(folder)
                return name

    def save_json(self, obj, filename):
        """Sacred's JSON, but atomic, valid (no NaN) and without passwords in addresses."""
        plain = json.loads(json.dumps(flatten(obj)), parse_constant=str)  # NaN becomes "NaN"
        text = json.dumps(plain, sort_keys=True, indent=2)
        if filename == "run.json":
            text = provenance.without_credentials(text)
        files.write(Path(self.dir, filename), text + "\n")

    def save_file(self, filename, target_name=None):
        target = Path(self.dir, target_name or os.path.basename(filename))
        if target.name in OURS:
            raise RecordError(f"{target.name} is the name of a file of the record itself.")
        copy(filename, target)

    def find_or_save(self, filename, store_dir):
        """Sacred's content-addressed copy; many runs may make the same one at the same time."""
        path = Path(filename)
        kept = Path(store_dir, f"{path.stem}_{files.sha256(path)[:32]}{path.suffix}")
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            copy(filename, kept)
        return kept


def copy(source: str | Path, target: Path) -> None:
    """Copy a file so that nobody ever sees half of it."""
    draft = target.with_name(f".{target.name}.{secrets.token_hex(3)}")
    try:
        shutil.copyfile(source, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
