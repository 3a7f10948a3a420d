"""The ssh connection to a machine: one for all commands, a time-out on every wait, plain errors."""

import fcntl
import io
import math
import os
import re
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.ground import files, project
from lab.ground.errors import LabError
from lab.ssh import machines
from lab.ssh.framing import (
    PATIENCE,
    assemble,
    for_any_shell,
    frame,
    receive_answer,
    words,
)
from lab.ssh.machines import Machine
from lab.ssh.ssh_errors import LASTING, explain

KEPT = 600  # seconds that an idle connection stays open for the next command


class LineLost(LabError):
    """The connection failed, or ended before the answer was whole: what happened there is open."""


class ShutOut(LineLost):
    """The connection fails for a cause that stays, such as a changed host key or a refused one."""


class Refused(LabError):
    """The script ran there, and said why it could not do its work."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class Connection:
    """Runs scripts on one machine."""

    def __init__(self, machine: Machine):
        self.machine = machine
        folder = socket_folder("ssh")
        text = ssh_config(machine)
        name = f"{zlib.crc32(text.encode()):08x}{zlib.adler32(text.encode()):08x}"
        self.socket = folder / name
        self.config = folder / f"{name}.config"
        files.write(self.config, text, durable=False)

    def ssh(self, *options: str) -> list[str]:
        """The command that leads to the machine; what is to run there is added to it."""
        return ["ssh", "-F", str(self.config), "-S", str(self.socket), *options, self.machine.host]

    def run(
        self,
        script: str,
        *,
        stdin=subprocess.DEVNULL,
        receive: Callable[[bytes], None] | None = None,
        output=None,
        again: bool = True,
        within: float = math.inf,
        **variables: object,
    ) -> str:
        """Run a script of ours there, and return what it printed.

        `variables` are its shell variables; `stdin` is a file. What it prints goes into the file
        `output` instead, or to `receive`, in pieces. A script that may run twice is tried `again`
        once, on a fresh connection. An answer that is not whole `within` these seconds is given up.

        Raises Refused with the script's own words, or LineLost.
        """
        source = assemble(script, variables, self.machine)
        printed = output or io.BytesIO()
        for last in (not again, True):
            printed.seek(0)
            printed.truncate()
            try:
                self.open()
                code, said = self._exchange(
                    source, stdin, receive or printed.write, not receive, within
                )
                break
            except LineLost:
                self.close()
                if last:
                    raise
                if hasattr(stdin, "seek"):
                    stdin.seek(0)
        if code:
            raise Refused(words(said) or f"{script} ended with {code} on {self.name}.", code)
        printed.seek(0)
        return "" if output else printed.read().decode("utf-8", "surrogateescape")

    @property
    def name(self) -> str:
        return self.machine.name

    def terminal(self, script: str, **variables: object) -> int:
        """Run a script there in this terminal; returns its exit code, 130 after Ctrl-C."""
        self.open()
        term = os.environ.get("TERM", "xterm-256color")
        source = assemble(script, {**variables, "term": term}, self.machine)
        source = f"trap 'exit 130' INT\n{source}"  # ssh calls an end by a signal 255
        return subprocess.run([*self.ssh("-tt", "-q"), for_any_shell(source)]).returncode

    def ask_if_open(self, script: str, seconds: float, **variables: object) -> str:
        """What a script prints, if a connection is open already and answers so soon; else "".

        For what must not wait: it opens no connection and raises nothing.
        """
        source, pieces = assemble(script, variables, self.machine), []
        # should the open one go away now, ssh would connect anew: not with this as its way there
        never = ("-o", "ProxyCommand=false")
        with suppress(OSError, LabError):
            if self._is_open():
                whole = (pieces.append, True, seconds)
                code, _ = self._exchange(source, subprocess.DEVNULL, *whole, *never)
                if code == 0:
                    return b"".join(pieces).decode("utf-8", "surrogateescape")
        return ""

    def open(self) -> None:
        """Make sure of a living connection; ssh may ask for a password on the terminal.

        Raises LineLost with the cause and the next step; ShutOut if the cause stays.
        """
        if self._is_open():
            return
        with locked(self.socket.with_suffix(".lock")):
            if self._is_open():
                return
            self.socket.unlink(missing_ok=True)
            ask = sys.stdin.isatty() and sys.stderr.isatty()
            command = self.ssh("-MNf", "-o", f"ControlPersist={KEPT}")
            command[1:1] = [] if ask else ["-o", "BatchMode=yes"]
            code, said = finished(command, None if ask else 4 * PATIENCE)
            if code != 0:
                if "UNKNOWN port" in said:  # the jump host's ssh ended, and what it said is lost
                    plain = [*self.ssh("-S", "none", "-o", "BatchMode=yes"), "true"]
                    said = finished(plain, 4 * PATIENCE)[1] or said
                kind = ShutOut if re.search(LASTING, said) else LineLost
                raise kind(explain(said, self.machine))

    def close(self) -> None:
        """End the connection, dead or alive."""
        finished(self.ssh("-O", "exit"), PATIENCE)
        self.socket.unlink(missing_ok=True)

    def _is_open(self) -> bool:
        """Whether a process of ours holds the connection; the line itself may still be dead."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def _exchange(self, source, stdin, receive, whole: bool, within, *options) -> tuple[int, str]:
        """Run a script; its exit code and what it said on stderr. LineLost if there is no end.

        `whole`: its output may come in one piece, which is quicker.
        """
        mark = os.urandom(8).hex()
        framed = frame(source, mark, whole)
        command = [*self.ssh("-T", "-o", "BatchMode=yes", *options), for_any_shell(framed)]
        pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        try:
            process = subprocess.Popen(command, **pipes)
        except OSError as error:  # E2BIG
            raise LabError(f"ssh cannot be started ({error.strerror}).") from None
        try:
            code, said = receive_answer(
                process.stdout, process.stderr, mark.encode(), receive, within
            )
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
        if code is None:
            raise LineLost(explain(said, self.machine))
        return code, said


def finished(command: list[str], patience: float | None) -> tuple[int | None, str]:
    """Run a command; its exit code, None if it gave no end in time, and what it said on stderr.

    A process that hangs in a dead mount cannot even be killed, so that nobody waits for it. What
    it says goes to a file: a pipe would be held open by what stays behind of it.
    """
    import tempfile  # slow to import

    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(command, **pipes, stderr=errors)
        except OSError as error:
            raise LabError(f"{command[0]} cannot be started ({error.strerror}).") from None
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            process.kill()
        errors.seek(0)
        return code, errors.read().decode("utf-8", "replace")


def ssh_config(machine: Machine) -> str:
    """ssh's configuration for our own calls: ours first, then the user's and the system's."""
    forwards = "ClearAllForwardings yes"  # every call would try those of the user's Host block
    loud = "LogLevel INFO"  # as it is without the user's own: ssh_errors.py reads what ssh says
    return f"""{machines.config(machine)}
Host *
    {forwards}
    {loud}
    ControlMaster no
    RemoteCommand none
    RequestTTY no
    ConnectTimeout {round(PATIENCE) or 1}
    ServerAliveInterval {round(PATIENCE) or 1}
    ServerAliveCountMax 3
    Include ~/.ssh/config
    Include /etc/ssh/ssh_config
"""


def socket_folder(kind: str) -> Path:
    """A folder of this user's alone, with a path that is short and plain enough for ssh.

    It adds 17 letters of its own to our 16, and a socket has 104 in all; and it pastes the path of
    its configuration into the shell command that calls a gateway.
    """
    folder = project.cache_folder() / kind
    if len(str(folder)) > 60 or not re.fullmatch("[A-Za-z0-9/._-]*", str(folder)):
        folder = Path("/tmp", f"lab-{kind}-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat()
    except OSError as error:
        raise LabError(f"{error.filename}: {error.strerror}.") from None
    if owner.st_uid != os.getuid() or owner.st_mode & 0o077:
        raise LabError(f"{folder} is open to others: remove it, or chmod 700 it.")
    return folder


@contextmanager
def locked(path: Path):
    """Only one process at a time gets in."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
