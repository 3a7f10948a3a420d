"""The attempts of a job that a scheduler restarts: only the newest one may write.

The batch script sets LAB_JOB_FOLDER and LAB_ATTEMPT (1, 2, ...), and keeps in that folder the
number of the attempt that may write: after a node failure Slurm may run two at once. Without
LAB_ATTEMPT, nothing here does anything. Files in a job's folder:

    attempt           the number of the attempt that may write
    listens.N         attempt N handles its signals
    interrupted.N     attempt N ended before it was done, and can go on (torchrun loses exit codes)
    stop              somebody has asked for the job's end
    runs              which runs its commands have recorded: recording/continued_record.py
"""

import os
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

GO_ON = 75  # exit code: interrupted, the next attempt goes on; EX_TEMPFAIL of sysexits.h
STOPPED = 143
before_end: "list[Callable[[], object]]" = []  # what check() calls before it ends this process


def number() -> int:
    """Return the number of this attempt, from 1; 0 outside of such a job."""
    text = os.environ.get("LAB_ATTEMPT", "")
    known = text.isdecimal() and len(text) < 10 and os.environ.get("LAB_JOB_FOLDER")
    return int(text) if known else 0


def path(name: str) -> str:
    """Return the path of a file in the job's folder."""
    return os.path.join(os.environ["LAB_JOB_FOLDER"], name)


def is_superseded() -> bool:
    """Whether a newer attempt may write instead of this one; False if that cannot be read."""
    if not number():
        return False
    for _ in range(2):  # NFS says ESTALE for a file that was replaced at this moment
        try:
            file = os.open(path("attempt"), os.O_RDONLY)  # opened anew, which is when NFS looks
            try:
                return int(os.read(file, 20)) > number()
            finally:
                os.close(file)
        except (OSError, ValueError):
            pass
    return False


def check() -> None:
    """End this process at once if a newer attempt may write; called before everything it writes.

    Open a file to append to before calling this: a newer attempt replaces the file, so that what
    this one still writes goes into the old one.
    """
    if is_superseded():
        for end in before_end:
            end()
        with suppress(Exception):
            from lab.ground.terminal import print_message

            print_message(f"lab: attempt {number()} of this job ends: a newer one has taken over.")
        os._exit(GO_ON)


def is_stopped() -> bool:
    """Whether somebody has asked for the end of this job, by lab stop."""
    return os.access(path("stop"), os.F_OK)


def report_interruption(usual: int) -> int:
    """Note that this attempt can go on, and return the exit code for that.

    143 after lab stop; outside of such a job it is `usual`, and nothing is noted.
    """
    if not number():
        return usual
    if is_stopped():
        return STOPPED
    mark("interrupted")
    return GO_ON


def mark(name: str) -> None:
    """Tell the batch script something about this attempt, by an empty file."""
    with suppress(OSError):  # a full disk, say
        os.close(os.open(path(f"{name}.{number()}"), os.O_WRONLY | os.O_CREAT, 0o666))
