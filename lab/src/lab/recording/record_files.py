"""The files of a record: its folder and id, and each file written whole or not at all."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lab.ground import attempts, files
from lab.ground.errors import LabError
from lab.ground.ids import new_id
from lab.recording import continued_record, provenance

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


class RecordFiles:
    """A record in the form of Sacred's FileStorageObserver: our ids, no file seen half-written."""

    def __init__(self, folder: Path):
        self.basedir = str(folder)  # the folder of all records
        self.dir: str | None = None  # the folder of this one
        self.run_entry: dict[str, Any] = {}  # the content of run.json
        self.earlier: dict[str, Any] = {}  # run.json as an earlier attempt left it

    def make_folder(self, wanted: str | None) -> str:
        """Make the record's folder, or find that of an earlier attempt; returns its name."""
        self.earlier = {}
        Path(self.basedir).mkdir(parents=True, exist_ok=True)
        while True:
            name = wanted or new_id()
            folder = Path(self.basedir, name)
            try:
                folder.mkdir()
            except FileExistsError:
                if wanted and continued_record.is_from_earlier(wanted):
                    self.dir, self.earlier = str(folder), continued_record.read_entry(folder)
                    return wanted
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
        files.write(self.folder / filename, text + "\n", before=attempts.check)

    def save_sources(self, ex_info: Mapping[str, Any]) -> list[list[str]]:
        """Save the experiment's sources once for all runs; returns each [name, path in runs/]."""
        store = Path(self.basedir, "_sources")
        base = Path(ex_info["base_dir"])
        saved = [
            (name, self.find_or_save(str(base / name), store)) for name, _ in ex_info["sources"]
        ]
        return [[name, os.path.relpath(path, self.basedir)] for name, path in saved]

    def save_resource(self, filename: str) -> None:
        """Save a file that the run reads, and name it in the record."""
        path = self.find_or_save(filename, Path(self.basedir, "_resources"))
        if [filename, str(path)] not in self.run_entry["resources"]:
            self.run_entry["resources"].append([filename, str(path)])
        self.save_json(self.run_entry, "run.json")

    def save_artifact(self, name: str, filename: str) -> None:
        """Save a file that the run made, and name it in the record."""
        self.save_file(filename, name)
        if name not in self.run_entry["artifacts"]:  # an earlier attempt may have made it
            self.run_entry["artifacts"].append(name)
        self.save_json(self.run_entry, "run.json")

    def save_file(self, filename: str, target_name: str | None = None) -> None:
        """Copy a file into the record."""
        target = self.folder / (target_name or Path(filename).name)
        if target.name in OWN_NAMES:
            raise RecordError(f"every record has a file {target.name}: choose another name.")
        copy(Path(filename), target)

    def find_or_save(self, filename: str, store: Path) -> Path:
        """Copy a file under its hash, unless it is there; several runs may do so at once."""
        path = Path(filename)
        saved = Path(store, f"{path.stem}_{files.sha256(path)[:32]}{path.suffix}")
        if not saved.exists():
            saved.parent.mkdir(parents=True, exist_ok=True)
            copy(path, saved)
        return saved


def copy(source: Path, target: Path) -> None:
    """Copy a file so that no reader ever sees a part of it."""
    with files.replacing(target) as draft:
        shutil.copyfile(source, draft)
        attempts.check()


def now() -> datetime:
    """The time as Sacred records it: UTC, without a zone."""
    return datetime.now(timezone.utc).replace(tzinfo=None)


def flatten(value: Any) -> Any:
    """Convert a value to what JSON has, by Sacred's rules if Sacred is imported."""
    rules = sys.modules.get("lab.recording.sacred_import")
    try:
        plain = not rules or is_plain(value)
    except RecursionError:  # it contains itself
        plain = False
    return value if plain or not rules else rules.flatten(value)


def is_plain(value: Any) -> bool:
    """Whether a value has only what JSON has. RecursionError if it contains itself."""
    if type(value) is dict:
        return all(type(key) is str and is_plain(one) for key, one in value.items())
    if type(value) is list:
        return all(map(is_plain, value))
    return value is None or type(value) in (str, int, float, bool)
