"""Saves and restores the home folders of a host; only what has changed is copied."""

import os
import shutil
import subprocess
from pathlib import Path

from helpers.hosts.changes import Changes


class Homes:
    def __init__(self, folder: Path, kept: Path):
        self.folder, self.kept = folder, kept
        self._name = ""  # the snapshot that was restored last
        self._changes: Changes | None = None  # since then

    def save(self, name: str):
        (self.kept / name).mkdir(parents=True, exist_ok=True)
        self._watch(name)
        _copy(self.folder, self.kept / name)

    def share(self, name: str, folder: Path, ours: bool):
        """Let that folder be the snapshot; if it is ours to fill, save the homes there."""
        self.kept.mkdir(parents=True, exist_ok=True)
        (self.kept / name).symlink_to(folder)
        if ours:
            folder.mkdir()
            self.save(name)

    def restore(self, name: str):
        """Restore a snapshot: the first time compare everything, later only what has changed."""
        kept = (self.kept / name).resolve()  # a link, where it is shared
        changed = self._changes.read() if name == self._name else None
        if changed is None:
            _copy(kept, self.folder)
            self._watch(name)
            return
        folders, again, inside = set(), [], "/"
        for path in sorted(changed, key=lambda path: path.split("/")):  # a folder before its files
            if path.startswith(inside):
                continue
            folders.add(os.path.dirname(path))
            if _is_folder(kept / path) and not changed[path]:
                folders.add(path)
                continue
            inside = f"{path}/"
            _remove(self.folder / path)
            if os.path.lexists(kept / path):
                again.append(path)
        if again:
            names = "\0".join(again).encode(errors="surrogateescape")
            words = ["xargs", "-0", "cp", "-a", "--parents", "-t", self.folder, "--"]
            subprocess.run(words, input=names, cwd=kept, check=True)
        for path in folders:  # last, as their content changes them
            about = (kept / path).stat()
            os.chown(self.folder / path, about.st_uid, about.st_gid)
            shutil.copystat(kept / path, self.folder / path)
        for path in filter(lambda path: _is_folder(kept / path), again):
            self._changes.watch(path)
        self._changes.read()  # what we did ourselves

    def _watch(self, name: str):
        if self._changes:
            self._changes.close()
        self._name, self._changes = name, Changes(self.folder)


def _copy(source: Path, target: Path):
    """Times are compared to the nanosecond: tests change a file twice within a second."""
    words = ["rsync", "-a", "--delete", "--modify-window=-1", f"{source}/", f"{target}/"]
    subprocess.run(words, check=True)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path):
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
