"""The project's folder on a machine as a local folder, by sshfs.

A mount whose connection is lost hangs every program that looks into it, so nothing here does: the
kernel's list says what is mounted, and other programs, with time-outs, do the rest.
"""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from lab.ground import git, project
from lab.ground.errors import LabError
from lab.ssh.answers import SOON, expecting, parse_path
from lab.ssh.calls import ONLY_SHARED, run_in_background
from lab.ssh.connection import Connection
from lab.ssh.framing import PATIENCE
from lab.ssh.machines import Machine
from lab.ssh.shared import wait_for_session
from lab.ssh.sockets import hold_lock
from lab.ssh.ssh_errors import SessionsInUse

OPTIONS = "reconnect,ServerAliveInterval=15,ServerAliveCountMax=3,idmap=user"
INSTALL = {
    "linux": "apt-get install sshfs, or what your distribution calls it",
    "darwin": "install macFUSE and its sshfs, https://macfuse.github.io",
}
UNMOUNT = {  # tried in order until it is gone; the later ones work without a connection, too
    "linux": [
        ["fusermount3", "-u"],
        ["fusermount", "-u"],
        ["fusermount3", "-u", "-z"],
        ["fusermount", "-u", "-z"],
        ["umount", "-l"],
    ],
    "darwin": [["umount"], ["diskutil", "unmount", "force"]],
}


def mount_point(machine: Machine, folder: str | None) -> Path:
    """Return the mount point, without looking into it."""
    path = Path(folder) if folder else project.root() / "remote" / machine.name
    path = Path(os.path.abspath(path))
    return Path(os.path.realpath(path.parent), path.name)


def mount(connection: Connection, point: Path) -> str:
    """Mount the machine's project folder; return what was done, as a line.

    Raises LabError if sshfs is missing, the folder is not empty, or git would add it to snapshots.
    """
    with hold_lock(connection.socket.with_suffix(".mount-lock")):
        return _mount(connection, point)


def _mount(connection: Connection, point: Path) -> str:
    """Mount it, unless it is mounted."""
    name = project.relative(point)
    if point in list_mounts():
        if is_responsive(point):
            return f"{name} is already mounted"
        raise LabError(f"{name} is mounted, but does not answer: lab unmount first.")
    if not shutil.which("sshfs"):
        raise LabError(f"sshfs is not installed: {INSTALL.get(sys.platform, INSTALL['linux'])}.")
    inside = point.is_relative_to(project.root())
    if inside and not git.run("check-ignore", f"{point}/", accept=(0, 1)):
        cause = f"git does not ignore {name}, and would add all of it to snapshots"
        raise LabError(f"{cause}: choose another folder, or add /remote/ to .gitignore.")
    answer = connection.run("where.sh", inside="", within=SOON)
    with expecting(connection.name, "a path"):
        remote = parse_path(answer)
    try:
        point.mkdir(parents=True, exist_ok=True)
        if any(point.iterdir()):
            raise LabError(
                f"{name} is not empty, and a mount would hide its files: choose another."
            )
    except OSError as error:
        raise LabError(f"{name}: {error.strerror}.") from None
    host = connection.machine.host
    host = f"[{host}]" if ":" in host else host
    command = ["sshfs", "-F", str(connection.config), "-o", f"ControlPath={connection.socket}"]
    command += [*(ONLY_SHARED if connection.is_only_way() else ()), "-o", OPTIONS]
    command += [f"{host}:{remote}", str(point)]

    def run_sshfs() -> None:
        code, stderr = run_in_background(command, 4 * PATIENCE)
        if code == 0 and point in list_mounts():
            return
        if isinstance(error := connection.explain(stderr), SessionsInUse):
            raise error
        cause = last_line(stderr) or "no answer"
        raise LabError(f"sshfs could not mount {remote} of {connection.name}: {cause}.")

    try:
        wait_for_session(run_sshfs)  # that of where.sh may not have ended yet
    except LabError:
        with suppress(LabError):
            unmount(point)
        raise
    undo = f"{connection.machine.lab} unmount"
    return f"{name} shows {remote} of {connection.name}; {undo} ends that"


def unmount(point: Path) -> str:
    """Undo mount(), even if the connection is lost; return what was done, as a line."""
    name = project.relative(point)
    if point not in list_mounts():
        remove_mount_point(point)
        return f"nothing is mounted at {name}"
    cause = ""
    for command in UNMOUNT.get(sys.platform, UNMOUNT["linux"]):
        if shutil.which(command[0]):
            cause = last_line(run_in_background([*command, str(point)], 5)[1]) or cause
        if point not in list_mounts():
            remove_mount_point(point)
            return f"{name}: unmounted"
    raise LabError(f"{name} could not be unmounted ({cause}): does a program use it?")


def list_mounts() -> list[Path]:
    """Return every mount point of this computer, as the kernel or the mount command lists them."""
    with suppress(OSError):
        lines = Path("/proc/self/mounts").read_text("utf-8", errors="surrogateescape").splitlines()
        return [Path(unescape(line.split(" ")[1])) for line in lines]
    # macOS: "ada@gpu:lab on /Users/... (macfuse"
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(["mount"], capture_output=True, timeout=5, check=True).stdout
        return [Path(one) for one in re.findall(r"(?m)^.*? on (/.*) \(", os.fsdecode(listed))]
    return []


def unescape(text: str) -> str:
    r"""Return a path as it was before /proc/self/mounts wrote its spaces as \040."""
    raw = os.fsencode(text)
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), raw))


def is_responsive(point: Path) -> bool:
    """Return whether a mount can be looked into; another process tries, as it may hang."""
    return run_in_background(["ls", str(point)], 5)[0] == 0


def last_line(text: str) -> str:
    return "".join(text.strip().splitlines()[-1:]).rstrip(".")


def remove_mount_point(point: Path) -> None:
    """Remove the mount point if it is an empty folder, and remote/ with the last of them."""
    with suppress(OSError):
        point.rmdir()
        if point.parent == project.root() / "remote":
            point.parent.rmdir()
