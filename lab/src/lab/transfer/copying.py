"""Copies files between this computer and a machine: by rsync, or by tar where one side has none.

Both put complete files into files/ of a staging folder, and continue an interrupted copy where it
stopped. The callers check what arrived and move it to its destination.
"""

from pathlib import Path

from lab.ssh.connection import Connection
from lab.transfer import rsync_copy


def pull(
    connection: Connection,
    base: str,
    names: list[str],
    stage: Path,
    *,
    rsync: bool,
    basis: Path | None = None,
    follow_links: bool = False,
) -> None:
    """Copy files of the machine's folder `base` into stage/files.

    From a file of the same name in `basis`, rsync takes what both have in common. A file that
    vanishes meanwhile is missing afterwards. Raises SshError, or DiskFull.
    """
    for folder in ("files", "tmp"):
        (stage / folder).mkdir(parents=True, exist_ok=True)
    if rsync:
        rsync_copy.pull(connection, base, names, stage, basis, follow_links)
    else:
        from lab.transfer import tar_copy

        tar_copy.pull(connection, base, names, stage, follow_links)


def push(connection: Connection, base: Path, names: list[str], stage: str, *, rsync: bool) -> None:
    """Copy files of the local folder `base`, or what they link to, into stage/files on the machine.

    Raises SshError, or DiskFull.
    """
    if rsync:
        rsync_copy.push(connection, base, names, stage)
    else:
        from lab.transfer import tar_copy

        tar_copy.push(connection, base, names, stage)
