"""The folders of our sockets, whose paths have to be short for ssh, and locks in them."""

import _socket  # socket itself makes an enum of every constant, which takes ten times as long
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from lab.ground import files, project
from lab.ground.errors import LabError, explain_os_error

TEMPORARY = "/tmp/lab"  # noqa: S108 - the beginning of a folder's path; its owner is checked
MAX_PATH = 60  # characters of the folder of our sockets


def make_socket_folder(kind: str) -> Path:
    """Make a folder for this user alone, with a path that is short and plain enough for ssh.

    A socket's path has 104 characters at most, and ssh adds 17 to our 16. It also pastes the path
    of its configuration into the shell command that calls a gateway. LabError if there is none.
    """
    folders = [project.cache_folder() / kind]
    if not is_short(folders[0]):
        folders = [Path(f"{TEMPORARY}-{kind}-{os.getuid()}")]  # a name that others can take
        own = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
        folders += [own / f"lab-{kind}"] if own.is_dir() and is_short(own / f"lab-{kind}") else []
    problems = []
    for folder in folders:
        try:
            files.make_private_folder(folder)
            found = folder.lstat()  # a link in /tmp is somebody else's
        except OSError as error:
            problems.append(explain_os_error(error, folder))
            continue
        if (
            stat.S_ISDIR(found.st_mode)
            and found.st_uid == os.getuid()
            and not found.st_mode & 0o077
        ):
            return folder
        problems.append(f"{folder} is not a folder of yours alone: remove it, or chmod 700 it")
    if len(folders) == 1 and TEMPORARY in str(folders[0]):
        problems.append("or name a folder of yours with a short path in XDG_RUNTIME_DIR")
    raise LabError(f"{'; '.join(problems)}.")


def is_short(folder: Path) -> bool:
    """Tell whether a folder's path is short and plain enough for ssh's sockets."""
    return len(str(folder)) <= MAX_PATH and bool(re.fullmatch("[A-Za-z0-9/._-]*", str(folder)))


def is_listening(path: Path) -> bool:
    """Tell whether a process listens on a socket."""
    with closing(_socket.socket(_socket.AF_UNIX)) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Let one process in at a time."""
    # neither a link nor a FIFO in its place is followed
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags, 0o600), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
