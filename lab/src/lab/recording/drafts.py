"""Checkpoints and weights are written under another name, and renamed when they are complete.

Of several attempts of a job only the newest one renames: an older one that still runs finds that
its draft is gone, or ends when it is about to rename it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.ground import attempts, files
from lab.ground.errors import LabError
from lab.recording.ranks import is_main_process


@contextmanager
def saving(target: Path) -> Iterator[Path]:
    """Yield the path to write a file or folder to; it becomes `target` unless there was an error.

    In a distributed run all ranks get the same path, and rank 0 renames it: synchronize the ranks
    before it leaves the block. An error removes the draft; LabError if the disk caused it.
    """
    number = f"-{attempts.number()}" if attempts.number() else ""  # an older one may still write
    draft = target.with_name(f"{target.name}{number}.new")
    try:
        yield draft
        if is_main_process():
            files.sync(draft)  # once it has the name, the older checkpoint is deleted
            attempts.check()
            draft.rename(target)
            files.sync(target.parent, deep=False)
    except BaseException as error:
        remove(draft)
        # torch raises RuntimeError if the disk is full
        if isinstance(error, (OSError, RuntimeError)) or type(error).__name__ == "SafetensorError":
            first = f"{type(error).__name__}: {error}".splitlines()[0]
            raise LabError(
                f"{draft} cannot be written ({first}); is the disk or the quota full?"
            ) from error
        raise


def remove_drafts(folder: Path) -> None:
    """Remove what earlier attempts left unfinished in a folder, even if one of them still runs."""
    for draft in [*folder.glob("*.new"), *folder.glob(".left-*")]:
        left = folder / f".left-{os.urandom(4).hex()}"
        with suppress(OSError):
            draft.rename(left)  # at once, so that the earlier one cannot rename a part of it
            remove(left)


def remove(path: Path) -> None:
    """Remove a file or folder, or what can be removed of it."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
