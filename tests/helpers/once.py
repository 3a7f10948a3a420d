"""Makes what is expensive once for a whole run of the tests, for all of its workers."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def run_pid() -> int:
    """The pid of the pytest that was called: the same in all workers."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


@contextmanager
def once(folder: Path) -> Iterator[bool]:
    """Yield True to the process that has to fill this empty folder, and False to the others.

    They wait until it is filled. If filling it fails, the next one starts over.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = folder.with_name(f"{folder.name}.made")
    with open(folder.with_name(f"{folder.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made.exists():
            yield False
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield True
        made.touch()
