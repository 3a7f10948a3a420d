"""The ssh connection to a machine: one for all commands, a time-out on every wait, plain errors."""

import fcntl
import math
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from lab.ground import files, project
from lab.ground.errors import LabError
from lab.ssh import answers, machines
from lab.ssh.framing import (
    MOST_STDERR,
    PATIENCE,
    BadFrame,
    assemble_script,
    find_error,
    frame_script,
    pack_command,
    read_answer,
)
from lab.ssh.machines import Machine
from lab.ssh.ssh_errors import BadAnswer, NoShell, RemoteError, SshError, explain

LONGEST = 6 * 3600  # seconds that an answer may take which nobody sees as it comes
MOST_PATH = 60  # characters of the folder of our sockets
PERSIST = 600  # seconds that an idle connection stays open for the next command
# In the configuration, as the ssh of ProxyJump sees no options of ours: else every command in
# the background would give the gateway wrong answers, until it locks the account.
NEVER_ASK = "    BatchMode yes\n"


class Connection:
    """Runs scripts on one machine."""

    def __init__(self, machine: Machine):
        self.machine = machine
        folder = make_socket_folder("ssh")
        text = make_ssh_config(machine)
        name = f"{zlib.crc32(text.encode()):08x}{zlib.adler32(text.encode()):08x}"
        self.socket = folder / name
        self.config = folder / f"{name}.config"
        self.login_config = folder / f"{name}.login"  # the same, but ssh may ask
        files.write(self.config, text, durable=False, private=True)
        files.write(self.login_config, text.replace(NEVER_ASK, ""), durable=False, private=True)

    @property
    def name(self) -> str:
        return self.machine.name

    def ssh_command(self, *options: str, may_ask: bool = False) -> list[str]:
        """Return the command that connects to the machine; append what is to run there."""
        config = self.login_config if may_ask else self.config
        return ["ssh", "-F", str(config), "-S", str(self.socket), *options, self.machine.host]

    def run(
        self,
        script: str,
        *,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        receive: Callable[[bytes], object] | None = None,
        output: IO[bytes] | None = None,
        again: bool = True,
        within: float | None = None,
        **variables: object,
    ) -> str:
        """Run one of our scripts on the machine, and return its output.

        `variables` become its shell variables; `stdin` is a file. The output goes to the file
        `output` instead, or piece by piece to `receive`, for as long as it takes; any other answer
        is given up after `within` seconds, by default some hours. With `again` a script whose
        connection was lost is run once more, on a new one.

        Raises RemoteError with the script's own message, SshError, or BadAnswer if it is none, or
        too long for memory.
        """
        source = assemble_script(script, variables, self.machine)
        if within is None:
            within = math.inf if receive or output else LONGEST
        pieces: list[bytes] = []
        tried = False
        for last_attempt in (not again, True):
            pieces.clear()
            take = receive or answers.gather(self.name, pieces)
            if output:
                output.seek(0)
                output.truncate()
                take = output.write
            try:
                try:
                    self.open()
                except (SshError, KeyboardInterrupt) as error:
                    error.may_have_run = tried  # type: ignore[union-attr] # for who starts a job
                    raise
                tried = True
                code, stderr = self._exchange(source, stdin, take, not receive, within)
                break
            except NoShell:
                raise
            except SshError:
                self.close()
                if last_attempt:
                    raise
                if not isinstance(stdin, int):
                    stdin.seek(0)
        if code:
            message = find_error(stderr) or f"{script} ended with {code} on {self.name}."
            raise RemoteError(message, code)
        if output:
            output.seek(0)
        return b"".join(pieces).decode("utf-8", "surrogateescape")

    def run_in_terminal(self, script: str, **variables: object) -> int:
        """Run a script in this terminal; return its exit code, 130 after Ctrl-C."""
        self.open()
        term = os.environ.get("TERM", "xterm-256color")
        source = assemble_script(script, {**variables, "term": term}, self.machine)
        source = f"trap 'exit 130' INT\n{source}"  # ssh returns 255 for an end by a signal
        command = [*self.ssh_command("-tt", "-q"), pack_command(source)]
        return subprocess.run(command, check=False).returncode

    def run_if_open(self, script: str, seconds: float, **variables: object) -> str:
        """Return a script's output if a connection is open already and answers in time; else "".

        For shell completion, which must not wait: it opens no connection and raises nothing.
        """
        source = assemble_script(script, variables, self.machine)
        pieces: list[bytes] = []
        # if the open connection ends just now, ssh would make a new one: this stops it
        never = ("-o", "ProxyCommand=false")
        with suppress(OSError, LabError):
            if self._is_open():
                code, _ = self._exchange(
                    source,
                    subprocess.DEVNULL,
                    answers.gather(self.name, pieces),
                    True,
                    seconds,
                    *never,
                )
                if code == 0:
                    return b"".join(pieces).decode("utf-8", "surrogateescape")
        return ""

    def open(self) -> None:
        """Make sure that a connection is open; ssh may ask for a password on the terminal.

        Raises SshError with the cause and the next step.
        """
        if self._is_open():
            return
        with hold_lock(self.socket.with_suffix(".lock")):
            if self._is_open():
                return
            self.socket.unlink(missing_ok=True)
            options = ["-MNf", "-o", f"ControlPersist={PERSIST}"]
            code, stderr = run_in_foreground(
                self.ssh_command(*options, may_ask=True), self.ssh_command(*options)
            )
            if code != 0:
                if "UNKNOWN port" in stderr:  # the jump host's ssh ended, its message is lost
                    plain = [*self.ssh_command("-S", "none"), "true"]
                    stderr = run_command(plain, 4 * PATIENCE)[1] or stderr
                raise explain(stderr, self.machine)

    def close(self) -> None:
        """End the connection, dead or alive."""
        run_command(self.ssh_command("-O", "exit"), PATIENCE)
        self.socket.unlink(missing_ok=True)

    def _is_open(self) -> bool:
        """Tell whether our ssh process is there; the network behind it may still be dead."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def _exchange(
        self,
        source: str,
        stdin: int | IO[bytes],
        receive: Callable[[bytes], object],
        whole: bool,
        within: float,
        *options: str,
    ) -> tuple[int, str]:
        """Run a script; return its exit code and stderr. SshError if the answer is incomplete.

        `whole`: its output may come in one piece, which is quicker.
        """
        begun = False

        def pass_on(piece: bytes) -> None:
            nonlocal begun
            begun = True
            receive(piece)

        mark = os.urandom(8).hex()
        command = self.ssh_command("-T", *options)
        command.append(pack_command(frame_script(source, mark, whole)))
        try:
            process = subprocess.Popen(
                command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:  # E2BIG
            raise LabError(f"ssh cannot be started ({error.strerror}).") from None
        stdout, errors = cast(IO[bytes], process.stdout), cast(IO[bytes], process.stderr)
        with stdout, errors:
            try:
                code, stderr = read_answer(stdout, errors, mark.encode(), pass_on, within)
                shell = None if code is not None or begun else _wait_briefly(process)
            except BadFrame:
                raise BadAnswer(self.name, "the output of a script") from None
            finally:
                process.kill()
                process.wait()
        if code is None and shell is not None and 0 <= shell < 255:  # 255 is ssh's own
            raise NoShell(
                f"{self.name}: the login shell there ended without running the command: does a"
                " start-up file of it, such as ~/.bashrc, end with exec or exit? Let it do so only"
                " in a terminal: case $- in *i*) exec zsh ;; esac"
            )
        if code is None:
            raise explain(stderr, self.machine)
        return code, stderr


def _wait_briefly(process: "subprocess.Popen[bytes]") -> int | None:
    """Return the exit code of a process that has closed its output; None if it goes on."""
    try:
        return process.wait(1)
    except subprocess.TimeoutExpired:
        return None


def run_in_foreground(asking: list[str], silent: list[str]) -> tuple[int | None, str]:
    """Open a connection: by `asking` if somebody is at the terminal, else by `silent`.

    Either runs in a process group of its own, so that a later Ctrl-C in the command that opened the
    connection does not end it; `asking` has the terminal as long as it asks.
    """
    import tempfile

    with (
        suppress(OSError),
        Path("/dev/tty").open("rb") as terminal,
        tempfile.TemporaryFile() as errors,
    ):
        is_ours = os.tcgetpgrp(terminal.fileno()) == os.getpgrp()  # not so behind a shell's &
        if is_ours and sys.stdin.isatty() and sys.stderr.isatty():
            ignored = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            try:
                process = subprocess.Popen(
                    asking,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    preexec_fn=os.setpgrp,  # noqa: PLW1509 - no thread of ours runs here
                )
                os.tcsetpgrp(terminal.fileno(), process.pid)
                os.killpg(process.pid, signal.SIGCONT)  # it may have waited for the terminal
                code = process.wait()
            finally:
                os.tcsetpgrp(terminal.fileno(), os.getpgrp())
                signal.signal(signal.SIGTTOU, ignored)
            if code == -signal.SIGINT:
                raise KeyboardInterrupt
            errors.seek(0)
            return code, errors.read(MOST_STDERR).decode("utf-8", "replace")
    return run_command(silent, 4 * PATIENCE)


def run_command(command: list[str], patience: float | None) -> tuple[int | None, str]:
    """Run a command for `patience` seconds at most; return its exit code (None: given up), stderr.

    A process that hangs in a dead mount cannot even be killed, so nothing waits for it. Its stderr
    goes to a file: processes that it leaves behind would hold a pipe open.
    """
    import tempfile  # slow to import

    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # no terminal to ask on, and no Ctrl-C of it
            )
        except OSError as error:
            raise LabError(f"{command[0]} cannot be started ({error.strerror}).") from None
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            process.kill()
        errors.seek(0)
        return code, errors.read(MOST_STDERR).decode("utf-8", "replace")


def make_ssh_config(machine: Machine) -> str:
    """Return ssh's configuration for our calls: ours first, then the user's and the system's."""
    forwards = "ClearAllForwardings yes"  # every call would try those of the user's Host block
    level = "LogLevel INFO"  # ssh_errors.py reads what ssh writes, whatever the user has set
    return f"""{machines.host_blocks(machine)}
Host *
{NEVER_ASK}    {forwards}
    {level}
    ControlMaster no
    RemoteCommand none
    RequestTTY no
    ConnectTimeout {round(PATIENCE) or 1}
    ServerAliveInterval {round(PATIENCE) or 1}
    ServerAliveCountMax 3
    Include ~/.ssh/config
    Include /etc/ssh/ssh_config
"""


def make_socket_folder(kind: str) -> Path:
    """Make a folder for this user alone, with a path that is short and plain enough for ssh.

    A socket's path has 104 characters at most, and ssh adds 17 to our 16. It also pastes the path
    of its configuration into the shell command that calls a gateway.
    """
    folder = project.cache_folder() / kind
    if len(str(folder)) > MOST_PATH or not re.fullmatch("[A-Za-z0-9/._-]*", str(folder)):
        folder = Path("/tmp", f"lab-{kind}-{os.getuid()}")  # noqa: S108 - its owner is checked
    try:
        files.make_private_folder(folder)
        owner = folder.lstat()  # a link in /tmp is somebody else's
    except OSError as error:
        raise LabError(f"{error.filename}: {error.strerror}.") from None
    if not stat.S_ISDIR(owner.st_mode) or owner.st_uid != os.getuid() or owner.st_mode & 0o077:
        raise LabError(f"{folder} is not a folder of yours alone: remove it, or chmod 700 it.")
    return folder


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Let one process in at a time."""
    # neither a link nor a FIFO in its place is followed
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags, 0o600), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
