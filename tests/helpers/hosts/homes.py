"""Keeping a host's home folders, and bringing them back: only what has changed since is copied."""

import os
import shutil
import subprocess
from pathlib import Path

MANY = 500  # paths; rsync takes seconds for a longer list, and next to none for the whole folder


class Homes:
    def __init__(self, folder: Path, kept: Path):
        self.folder, self.kept = folder, kept
        self._name, self._found = "", {}  # the snapshot that was restored last, and how

    def save(self, name: str):
        (self.kept / name).mkdir(parents=True, exist_ok=True)
        _copy(self.folder, self.kept / name)
        self._name, self._found = name, _look(self.folder)

    def share(self, name: str, folder: Path, ours: bool):
        """Let that folder be the snapshot; keep there what is here now if it is ours to fill."""
        self.kept.mkdir(parents=True, exist_ok=True)
        (self.kept / name).symlink_to(folder)
        if ours:
            folder.mkdir()
            self.save(name)

    def restore(self, name: str):
        """As they were. The first time everything is compared, later only what changed since."""
        kept = (self.kept / name).resolve()  # a link, where it is shared
        if name != self._name:
            _copy(kept, self.folder)
            self._name, self._found = name, _look(self.folder)
            return
        before, now = self._found, _look(self.folder)
        added = {path for path in now if path not in before}
        changed = {path for path in before if now.get(path) != before[path]}
        if not added and not changed:
            return
        changed |= {os.path.dirname(path) or "." for path in changed}  # the copying changes them
        removed = "/"
        for path in sorted(changed | added):  # a folder comes before what is in it
            inside = path.startswith(removed)
            if not inside and not (_is_folder(self.folder / path) and _is_folder(kept / path)):
                _remove(self.folder / path)
                removed = f"{path}/"
        if len(changed) > MANY:
            _copy(kept, self.folder)
            self._found = _look(self.folder)
        else:
            _copy(kept, self.folder, changed)
            before |= {path: _identify(self.folder / path) for path in changed}


def _copy(source: Path, target: Path, names: set[str] | None = None):
    """Times are compared to the nanosecond: tests change a file twice within a second."""
    words = ["rsync", "-a", "--modify-window=-1"]
    words += ["--delete"] if names is None else ["--from0", "--files-from=-"]
    listed = None if names is None else "\0".join(names).encode(errors="surrogateescape")
    subprocess.run([*words, f"{source}/", f"{target}/"], input=listed, check=True)


def _look(folder: Path) -> dict[str, str]:
    """Every file and folder in it by its relative path, and what tells that it is as it was."""
    words = ["find", ".", "-printf", r"%i %C@ %P\0"]
    found = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, check=True).stdout
    lines = [line.split(" ", 2) for line in os.fsdecode(found).split("\0")[:-1]]
    return {path or ".": f"{inode} {changed}" for inode, changed, path in lines}


def _identify(path: Path) -> str:
    """What _look tells of it. Any change of a file moves its ctime."""
    about = os.lstat(path)
    seconds, nanoseconds = divmod(about.st_ctime_ns, 1_000_000_000)
    return f"{about.st_ino} {seconds}.{nanoseconds:09}0"


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path):
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
