"""The project's folder on a machine as a folder here, by sshfs.

A mount whose line is dead stops every program that looks into it, for good. So it is never looked
into from here: what is mounted stands in the kernel's list, and the rest is done by other programs,
each with a time-out.
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
from lab.ssh.connection import Connection, run_command
from lab.ssh.framing import PATIENCE
from lab.ssh.machines import Machine

OPTIONS = "reconnect,ServerAliveInterval=15,ServerAliveCountMax=3,idmap=user"
INSTALL = {
    "linux": "install it: apt-get install sshfs, or as your system calls it",
    "darwin": "install macFUSE and its sshfs: https://macfuse.github.io",
}
UNMOUNT = {  # one after another, until it is gone; the later ones work on a dead line too
    "linux": [["fusermount3", "-u"], ["fusermount", "-u"], ["fusermount3", "-u", "-z"]]
    + [["fusermount", "-u", "-z"], ["umount", "-l"]],
    "darwin": [["umount"], ["diskutil", "unmount", "force"]],
}


def mount_point(machine: Machine, folder: str | None) -> Path:
    """The mount point that is meant, without looking into it."""
    path = Path(folder) if folder else project.root() / "remote" / machine.name
    path = Path(os.path.abspath(path))
    return Path(os.path.realpath(path.parent), path.name)


def mount(connection: Connection, point: Path) -> str:
    """Mount the machine's project folder there; what was done, as one line.

    Raises LabError if sshfs is missing, the folder is not empty, or git would take it for code.
    """
    if point in list_mounts():
        if is_responsive(point):
            return f"{project.relative(point)} is mounted already"
        raise LabError(
            f"{project.relative(point)} is mounted, but does not answer: lab unmount first."
        )
    if not shutil.which("sshfs"):
        raise LabError(f"there is no sshfs here: {INSTALL.get(sys.platform, INSTALL['linux'])}.")
    inside = point.is_relative_to(project.root())
    if inside and not git.run("check-ignore", f"{point}/", accept=(0, 1)):
        cause = f"git does not ignore {project.relative(point)}, and would take all of it for code"
        raise LabError(f"{cause}: choose another folder, or add /remote/ to .gitignore.")
    there = connection.run("where.sh", inside="").rstrip("\n")
    try:
        point.mkdir(parents=True, exist_ok=True)
        if any(point.iterdir()):
            raise LabError(
                f"{project.relative(point)} is not empty: it would be hidden. Choose another."
            )
    except OSError as error:
        raise LabError(f"{project.relative(point)}: {error.strerror}.") from None
    # its own connection: the shared one ends when it is idle or something is wrong with it
    host = connection.machine.host
    host = f"[{host}]" if ":" in host else host
    command = ["sshfs", "-F", str(connection.config), "-o", OPTIONS, f"{host}:{there}", str(point)]
    patience = None if sys.stdin.isatty() else 4 * PATIENCE  # somebody may type a password
    code, said = run_command(command, patience)
    if code != 0 or point not in list_mounts():  # None: it came to no end
        with suppress(LabError):
            unmount(point)
        raise LabError(
            f"sshfs could not mount {there} of {connection.name}: {last_line(said) or 'no answer'}."
        )
    end = f"{connection.machine.lab} unmount takes it away"
    return f"{project.relative(point)}: {there} of {connection.name}; {end}"


def unmount(point: Path) -> str:
    """Undo mount(), whatever became of the line; what was done, as one line."""
    if point not in list_mounts():
        remove_mount_point(point)
        return f"nothing is mounted at {project.relative(point)}"
    words = ""
    for command in UNMOUNT.get(sys.platform, UNMOUNT["linux"]):
        if shutil.which(command[0]):
            words = last_line(run_command([*command, str(point)], 5)[1]) or words
        if point not in list_mounts():
            remove_mount_point(point)
            return f"{project.relative(point)}: unmounted"
    raise LabError(f"{project.relative(point)} could not be unmounted ({words}): who uses it?")


def list_mounts() -> list[Path]:
    """Every mount point of this computer, as the kernel or the mount command lists them."""
    with suppress(OSError):
        lines = Path("/proc/self/mounts").read_text("utf-8", errors="surrogateescape").splitlines()
        return [Path(unescape(line.split(" ")[1])) for line in lines]
    # macOS: "ada@gpu:lab on /Users/... (macfuse"
    with suppress(OSError, subprocess.TimeoutExpired):
        said = subprocess.run(["mount"], capture_output=True, timeout=5, text=True).stdout
        return [Path(found) for found in re.findall(r"^.*? on (/.*) \(", said, re.M)]
    return []


def unescape(text: str) -> str:
    r"""A path as it stands in /proc/self/mounts, where a space is \040; letters by their bytes."""
    raw = os.fsencode(text)
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), raw))


def is_responsive(point: Path) -> bool:
    """Whether a mount can be looked into, found out by a process that may hang in our place."""
    return run_command(["ls", str(point)], 5)[0] == 0


def last_line(said: str) -> str:
    return "".join(said.strip().splitlines()[-1:]).rstrip(".")


def remove_mount_point(point: Path) -> None:
    """Remove the mount point if it is an empty folder, and remote/ with the last one of them."""
    with suppress(OSError):
        point.rmdir()
        if point.parent == project.root() / "remote":
            point.parent.rmdir()
