"""Keeping a host's home folders, and bringing them back: only what has changed since is copied."""

import os
import shutil
import stat
import subprocess
from pathlib import Path


class Homes:
    def __init__(self, folder: Path, kept: Path):
        self.folder, self.kept = folder, kept
        self._name, self._found = "", {}  # the snapshot that was restored last, and how

    def save(self, name: str):
        (self.kept / name).mkdir(parents=True, exist_ok=True)
        _copy(self.folder, self.kept / name)
        self._name, self._found = name, _look(self.folder)

    def restore(self, name: str):
        """As they were. The first time everything is compared, later only what changed since."""
        if name != self._name:
            _copy(self.kept / name, self.folder)
            self._name, self._found = name, _look(self.folder)
            return
        before, now = self._found, _look(self.folder)
        added = [path for path in now if path not in before]
        changed = {path for path in before if now.get(path) != before[path]}
        if not added and not changed:
            return
        changed |= {os.path.dirname(path) or "." for path in changed}  # the copying changes them
        for path in sorted(changed.union(added)):  # a folder comes before what is in it
            if not (_is_folder(self.folder / path) and _is_folder(self.kept / name / path)):
                _remove(self.folder / path)
        _copy(self.kept / name, self.folder, changed)
        for path in changed:
            before[path] = _identify(os.lstat(self.folder / path))


def _copy(source: Path, target: Path, names: set[str] | None = None):
    """Times are compared to the nanosecond: tests change a file twice within a second."""
    words = ["rsync", "-a", "--modify-window=-1"]
    words += ["--delete"] if names is None else ["--from0", "--files-from=-"]
    listed = None if names is None else "\0".join(names).encode(errors="surrogateescape")
    subprocess.run([*words, f"{source}/", f"{target}/"], input=listed, check=True)


def _look(folder: Path) -> dict[str, int]:
    """Every file and folder in it by its relative path, and what tells that it is as it was."""
    found = {".": _identify(os.lstat(folder))}
    unread = [""]
    while unread:
        above = unread.pop()
        with os.scandir(folder / above) as entries:
            for entry in entries:
                name = above + entry.name
                about = entry.stat(follow_symlinks=False)
                found[name] = _identify(about)
                if stat.S_ISDIR(about.st_mode):
                    unread.append(f"{name}/")
    return found


def _identify(about: os.stat_result) -> int:
    """Any change of a file moves its ctime. One number: thousands of tuples cost more."""
    return about.st_ino << 64 | about.st_ctime_ns


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path):
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
