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
import tempfile
from contextlib import suppress
from pathlib import Path

from lab import git, project
from lab.connection import Connection
from lab.framing import PATIENCE
from lab.machines import Machine
from lab.project import UserError

OPTIONS = "reconnect,ServerAliveInterval=15,ServerAliveCountMax=3,idmap=user"
MENDS = {
    "linux": "install it: apt-get install sshfs, or as your system calls it",
    "darwin": "install macFUSE and its sshfs: https://macfuse.github.io",
}
UNMOUNT = {  # one after another, until it is gone; the later ones work on a dead line too
    "linux": [["fusermount3", "-u"], ["fusermount", "-u"], ["fusermount3", "-u", "-z"]]
    + [["fusermount", "-u", "-z"], ["umount", "-l"]],
    "darwin": [["umount"], ["diskutil", "unmount", "force"]],
}


def place(machine: Machine, folder: str | None) -> Path:
    """The mount point that is meant, without looking into it."""
    path = Path(folder) if folder else project.ROOT / "remote" / machine.name
    path = Path(os.path.abspath(path))
    return Path(os.path.realpath(path.parent), path.name)


def mount(connection: Connection, point: Path) -> str:
    """Mount the machine's project folder there; what was done, as one line.

    Raises UserError if sshfs is missing, the folder is not empty, or git would take it for code.
    """
    if point in mounted():
        if answers(point):
            return f"{project.shown(point)} is mounted already"
        raise UserError(
            f"{project.shown(point)} is mounted, but does not answer: lab unmount first."
        )
    if not shutil.which("sshfs"):
        raise UserError(f"there is no sshfs here: {MENDS.get(sys.platform, MENDS['linux'])}.")
    inside = point.is_relative_to(project.ROOT)
    if inside and not git.run("check-ignore", f"{point}/", accept=(0, 1)):
        cause = f"git does not ignore {project.shown(point)}, and would take all of it for code"
        raise UserError(f"{cause}: choose another folder, or add /remote/ to .gitignore.")
    there = connection.run("where.sh", inside="").rstrip("\n")
    try:
        point.mkdir(parents=True, exist_ok=True)
        if any(point.iterdir()):
            raise UserError(
                f"{project.shown(point)} is not empty: it would be hidden. Choose another."
            )
    except OSError as error:
        raise UserError(f"{project.shown(point)}: {error.strerror}.") from None
    # its own connection: the shared one ends when it is idle or something is wrong with it
    host = connection.machine.host
    host = f"[{host}]" if ":" in host else host
    command = ["sshfs", "-F", str(connection.config), "-o", OPTIONS, f"{host}:{there}", str(point)]
    patience = None if sys.stdin.isatty() else 4 * PATIENCE  # somebody may type a password
    code, said = finished(command, patience)
    if code or point not in mounted():
        tidy(point)
        raise UserError(
            f"sshfs could not mount {there} of {connection.name}: {said or 'no answer'}."
        )
    return f"{project.shown(point)}: {there} of {connection.name}; lab unmount takes it away"


def unmount(point: Path) -> str:
    """Undo mount(), whatever became of the line; what was done, as one line."""
    if point not in mounted():
        tidy(point)
        return f"nothing is mounted at {project.shown(point)}"
    words = ""
    for command in UNMOUNT.get(sys.platform, UNMOUNT["linux"]):
        if shutil.which(command[0]):
            words = finished([*command, str(point)], 5)[1] or words
        if point not in mounted():
            tidy(point)
            return f"{project.shown(point)}: unmounted"
    raise UserError(f"{project.shown(point)} could not be unmounted ({words}): who uses it?")


def mounted() -> list[Path]:
    """Every mount point of this computer, as the kernel or the mount command lists them."""
    with suppress(OSError):
        lines = Path("/proc/self/mounts").read_text("utf-8", errors="surrogateescape").splitlines()
        return [Path(unescaped(line.split(" ")[1])) for line in lines]
    # macOS: "ada@gpu:lab on /Users/... (macfuse"
    with suppress(OSError, subprocess.TimeoutExpired):
        said = subprocess.run(["mount"], capture_output=True, timeout=5, text=True).stdout
        return [Path(found) for found in re.findall(r"^.*? on (/.*) \(", said, re.M)]
    return []


def unescaped(text: str) -> str:
    r"""A path as it stands in /proc/self/mounts, where a space is \040; letters by their bytes."""
    raw = os.fsencode(text)
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), raw))


def answers(point: Path) -> bool:
    """Whether a mount can be looked into, found out by a process that may hang in our place."""
    return finished(["ls", str(point)], 5)[0] == 0


def finished(command: list[str], patience: float | None) -> tuple[int | None, str]:
    """Run a command; its exit code, None if it gave no end in time, and the last line it said.

    A process that hangs in a dead mount cannot even be killed, so that nobody waits for it. What
    it says goes to a file: a pipe would be held open by what stays behind of it.
    """
    with tempfile.TemporaryFile() as output:
        pipes = {"stdout": subprocess.DEVNULL, "stderr": output}
        process = subprocess.Popen(command, **pipes)
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            code = None
        output.seek(0)
        said = output.read().decode("utf-8", "replace").strip().splitlines()
    return code, said[-1].rstrip(".") if said else ""


def tidy(point: Path) -> None:
    """Remove the mount point if it is an empty folder, and remote/ with the last one of them."""
    with suppress(OSError):
        point.rmdir()
        if point.parent == project.ROOT / "remote":
            point.parent.rmdir()
