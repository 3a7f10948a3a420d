"""What both ways of copying share: staging folders, fingerprints, lists of names, errors.

Files are gathered in a staging folder beside their destination, and moved to it once they are
complete and checked.
"""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from lab.datasets.manifest import encode
from lab.ground import files
from lab.ground.errors import LabError, explain_os_error
from lab.ssh.connection import Connection
from lab.ssh.ssh_errors import ConnectionLost, SshError

Fingerprint: TypeAlias = tuple[int, int]  # bytes, and time of the last change in nanoseconds
LOCAL = "this computer"
PARTIAL = ".lab-partial"  # rsync's folder of incomplete files, which the next attempt continues


class DiskFull(LabError):
    """The receiver's disk is full; complete files stay staged for the next attempt."""

    def __init__(self, receiver: str, folder: str = "", needed: int = 0):
        where = f", where {folder} needs {needed / 1e6:.1f} MB more" if folder else ""
        super().__init__(
            f"the disk of {receiver} is full{where}; nothing incomplete was put in place: make room"
            " and run the same command again."
        )


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def disk_usage(size: int) -> int:
    """Return the bytes that a file of this size takes on the disk, in whole blocks."""
    return -(-size // 4096) * 4096


def why_impossible(folder: Path, name: str) -> str:
    """Return why a file in the folder cannot have this path, such as a long name; else ""."""
    while not folder.exists():
        folder = folder.parent
    for part in name.split("/"):
        try:
            (folder / part).lstat()
        except FileNotFoundError:
            continue
        except OSError as error:
            return str(error.strerror)
    return ""


def fingerprint(path: Path, follow_links: bool = False) -> Fingerprint | None:
    """Return a file's size and time; None if it does not exist."""
    try:
        status = path.stat(follow_symlinks=follow_links)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def parse_time(seconds: str) -> int:
    """Return the nanoseconds of a time that find or tar printed, too precise for a float.

    ValueError for any other text.
    """
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{0,20})?", seconds):
        raise ValueError("not a time")
    whole, _, fraction = seconds.partition(".")
    return int(whole) * 10**9 + int(f"{fraction:0<9.9}")


def is_file(path: Path) -> bool:
    """Return whether this is a file, and not a link to one."""
    return path.is_file() and not path.is_symlink()


def list_names(names: Iterable[str]) -> bytes:
    """Return these names, each ended by a NUL.

    They begin with "./", as rsync and tar give a leading - or # another meaning.
    """
    return b"".join(b"./" + encode(name) + b"\0" for name in names)


@contextmanager
def names_file(names: Iterable[str]) -> Iterator[str]:
    """Yield the path of a file with these names, for a program on this computer."""
    import tempfile  # slow to import

    with tempfile.NamedTemporaryFile(prefix="lab-files-") as file:
        file.write(list_names(names))
        file.flush()
        yield file.name


def connection_lost(connection: Connection, cause: SshError | None = None) -> SshError:
    """Return the error for a transfer that ended too early."""
    if cause and not isinstance(cause, ConnectionLost):
        return cause
    return ConnectionLost(
        f"{connection.name}: connection lost; run the same command again to continue where it"
        " stopped."
    )


@contextmanager
def explain_os_errors() -> Iterator[None]:
    """Turn errors of local files into LabError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(LOCAL) from None
        raise LabError(f"{explain_os_error(error, LOCAL)}.") from None


@contextmanager
def staging(*folders: Path) -> Iterator[None]:
    """Remove these staging folders at the end.

    After an error they stay, and the next attempt continues with them; if the disk is full,
    incomplete files are removed.
    """
    for folder in folders:
        files.refuse_links(folder.parent, [folder.name])
    try:
        with explain_os_errors():
            yield
    except BaseException as error:
        if isinstance(error, DiskFull):
            for folder in folders:
                discard_incomplete(folder)
        raise
    else:
        import shutil

        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def discard_incomplete(stage: Path) -> None:
    """Remove incomplete files, to make room."""
    import shutil

    shutil.rmtree(stage / "tmp", ignore_errors=True)
    for path in stage.rglob(PARTIAL):
        shutil.rmtree(path, ignore_errors=True)
