"""A temporary folder while a command is recorded; those of killed `lab record`s are removed."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "lab-record-"
NEW = 60.0  # seconds in which its owner locks it


@contextmanager
def make_report() -> Iterator[Path]:
    """Give an empty file for what the command reports, in a folder that is removed at the end.

    Its lock ends with this process, whatever ends it: so the next one knows what nobody reads.
    """
    remove_left(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        report = Path(folder, "report")
        with report.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield report


def remove_left(temporary: Path) -> None:
    """Remove the folders of this user's `lab record`s that were killed."""
    for folder in temporary.glob(f"{PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > NEW:
                with (folder / "report").open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
