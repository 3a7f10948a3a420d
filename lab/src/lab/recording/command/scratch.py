"""A temporary folder while a command is recorded; removes those that killed processes left."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "lab-record-"
NEW = 60.0  # seconds in which the owner of a folder locks its file


@contextmanager
def make_report() -> Iterator[Path]:
    """Yield an empty file for what the command reports, in a folder that is removed at the end.

    The file is locked as long as this process lives, so that others know that it is in use.
    """
    remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        report = Path(folder, "report")
        with report.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield report


def remove_abandoned(temporary: Path) -> None:
    """Remove the folders that killed `lab record` processes of this user left."""
    for folder in temporary.glob(f"{PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > NEW:
                with (folder / "report").open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
