"""The files of a record: the folder and its id, and each file whole or not there at all."""

import json
import os
import secrets
import shutil
import socket
from datetime import datetime, timezone
from pathlib import Path

from lab import project, provenance
from lab.project import UserError
from lab.sacred_import import FileStorageObserver, flatten

OURS = {"run.json", "config.json", "cout.txt", "metrics.jsonl", "uncommitted.diff", "info.json"}
OURS |= {"notes.txt"}  # of `lab note`


class RecordError(UserError):
    """A run's record is not whole."""


class RecordFiles(FileStorageObserver):
    """Sacred's file record, with ids of ours and atomic files."""

    def make_folder(self, wanted: str | None) -> str:
        """A new folder for the record; its name is the run's id."""
        Path(self.basedir).mkdir(parents=True, exist_ok=True)
        while True:
            name = wanted or new_run_id()
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
        project.write(Path(self.dir, filename), text + "\n")

    def save_file(self, filename, target_name=None):
        target = Path(self.dir, target_name or os.path.basename(filename))
        if target.name in OURS:
            raise RecordError(f"{target.name} is the name of a file of the record itself.")
        copy(filename, target)

    def find_or_save(self, filename, store_dir):
        """Sacred's content-addressed copy; many runs may make the same one at the same time."""
        path = Path(filename)
        kept = Path(store_dir, f"{path.stem}_{project.sha256(path)[:32]}{path.suffix}")
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            copy(filename, kept)
        return kept


def new_run_id() -> str:
    """An id that no other machine gives and that sorts by time: 20261122-101530-gpu1-3fa9c20d.

    The last part begins with the fraction of the second (in 1/4096), the rest of it is random.
    """
    now = datetime.now(timezone.utc)
    host = "".join(letter for letter in socket.gethostname().split(".")[0] if letter.isalnum())
    last = f"{now.microsecond * 4096 // 1_000_000:03x}{secrets.randbits(20):05x}"
    return f"{now:%Y%m%d-%H%M%S}-{host[:12].lower() or 'host'}-{last}"


def copy(source: str | Path, target: Path) -> None:
    """Copy a file so that nobody ever sees half of it."""
    draft = target.with_name(f".{target.name}.{secrets.token_hex(3)}")
    try:
        shutil.copyfile(source, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
