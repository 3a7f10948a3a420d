"""The connection to a machine that every command shares: an ssh master, ours or the user's own.

Only lab login lets a host ask, as only there a person is known to be at the terminal. Where hosts
are known to ask, nothing makes a connection of its own: without the shared one it fails at once.
"""

import fcntl
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from lab.ground import files, project
from lab.ground.errors import LabError
from lab.ssh import machines
from lab.ssh.framing import MOST_STDERR, PATIENCE
from lab.ssh.machines import Machine
from lab.ssh.options import resolve
from lab.ssh.ssh_errors import (
    AuthenticationFailed,
    ConnectionLost,
    HostKeyUnknown,
    LoginNeeded,
    SessionsInUse,
    SshError,
    explain,
)

T = TypeVar("T")

TEMPORARY = "/tmp/lab"  # noqa: S108 - how a folder there begins; its owner is checked
MOST_PATH = 60  # characters of the folder of our sockets
PERSIST = 600  # seconds that an idle connection stays open for the next command
LOGIN_PERSIST = 12 * 3600  # the same where a person had to answer
LOGIN_SILENCE = 60  # seconds between two signs of life there; after 15 without an answer it ends
# In the configuration, as the ssh of ProxyJump sees no options of ours: else every command in
# the background would give the gateway wrong answers, until it locks the account.
NEVER_ASK = "    BatchMode yes\n"
ONLY_SHARED = ("-o", "ProxyCommand=false")  # there is no other way than the shared connection


class SharedConnection:
    """The connection to one machine; it outlives the command that opened it."""

    def __init__(self, machine: Machine):
        self.machine = machine
        folder = make_socket_folder("ssh")
        blocks = machines.host_blocks(machine).encode()
        name = f"{zlib.crc32(blocks):08x}{zlib.adler32(blocks):08x}"
        self.socket = folder / name  # a link, if the connection is the user's own
        self.config = folder / f"{name}.config"
        self.login_config = folder / f"{name}.login"  # ssh may ask, and waits longer
        self.asks = folder / f"{name}.asks"  # exists if the hosts are known to ask
        self.ours_only = False  # the user's own connection did not answer
        self.gateway = GatewayConnection(machine, self.config, self.login_config)
        files.write(self.config, make_ssh_config(machine), durable=False, private=True)
        files.write(
            self.login_config, make_ssh_config(machine, login=True), durable=False, private=True
        )

    @property
    def name(self) -> str:
        return self.machine.name

    def ssh_command(self, *options: str) -> list[str]:
        """Return the command that connects to the machine; append what is to run there."""
        only = ONLY_SHARED if self.is_only_way() else ()
        return ["ssh", "-F", str(self.config), "-S", str(self.socket), *only, *options, self.host]

    @property
    def host(self) -> str:
        return self.machine.host

    def is_only_way(self) -> bool:
        """Tell whether no call may make a connection of its own."""
        return self.asks.exists() or self.socket.is_symlink()

    def is_open(self) -> bool:
        """Tell whether its ssh process is there; the network behind it may still be dead."""
        return is_listening(self.socket)

    def answers(self, seconds: float = PATIENCE) -> bool:
        """Tell whether the machine answers through it in time."""
        code, stderr = run_command([*self.ssh_command("-T", *ONLY_SHARED), "true"], seconds)
        return code == 0 or (code is not None and type(self.explain(stderr)) is SessionsInUse)

    def open(self) -> None:
        """Make sure that it is open; no host ever asks for anything.

        Raises SshError with the cause and the next step: LoginNeeded if a host would ask.
        """
        if self.is_open():
            return
        with self._hold_lock():
            if self.is_open():
                return
            self.socket.unlink(missing_ok=True)
            if not self.ours_only and self._adopt():
                return
            code, stderr = run_command(self._open_command(self.config, PERSIST), 4 * PATIENCE)
            if code != 0:
                error = self._find_cause(stderr)
                if isinstance(error, LoginNeeded):
                    self.asks.touch()
                raise error
            if self.gateway.is_ours():
                self.asks.touch()  # what this one rides on took a person
            else:
                self.asks.unlink(missing_ok=True)

    def log_in(self) -> None:
        """Make sure that it is open and answers; the hosts may ask on this terminal.

        Raises SshError. LoginNeeded: a host asks, and nobody is at a terminal.
        """
        self.gateway.end_if_dead()
        for _ in range(2):
            try:
                self.open()
            except (AuthenticationFailed, HostKeyUnknown) as error:
                cause = error
                break
            if self.answers():
                return
            self.close()
        else:
            raise ConnectionLost(f"{self.name}: the machine does not answer: is the network slow?")
        with self._hold_lock():
            if command := self.gateway.open_command():
                with hold_lock(self.gateway.socket.with_suffix(".gate-lock")):
                    if not self.gateway.is_open():  # another login has not been here meanwhile
                        self._ask(command, cause)
            self._ask(self._open_command(self.login_config, LOGIN_PERSIST), cause)
            self.asks.touch()

    def _ask(self, command: list[str], cause: SshError) -> None:
        """Run a command of ssh that may ask on the terminal; `cause` is raised if there is none."""
        code, stderr = run_in_foreground(command) or (None, "")
        if code is None:
            raise cause
        if code:
            found = self._find_cause(stderr)
            if isinstance(found, LoginNeeded):
                text = "what was typed was not accepted"
                again = f"{self.machine.lab} login asks again"
                raise AuthenticationFailed(f"{self.name}: {text}: {again}.")
            raise found

    def close(self) -> None:
        """End it, dead or alive; one of the user's own goes on, and is not used any more."""
        if self.socket.is_symlink():
            self.ours_only = True
        else:
            run_command(self.ssh_command("-O", "exit"), PATIENCE)
        self.socket.unlink(missing_ok=True)

    def give_up(self) -> None:
        """Do what is to be done after a call that failed: the next one gets a new connection.

        But where only a person can open another one, this one may still recover.
        """
        if not self.asks.exists():
            self.close()

    def forward(self, here: Path, target: str) -> None:
        """Let connections to a new socket here reach an address or socket on the machine.

        It holds no session. That it works is known only when something answers through it: ssh
        says nothing where sshd forbids it.
        """
        self.cancel(here, target)  # to the same words again ssh does nothing
        code, stderr = run_command(self._forward_command("forward", here, target), PATIENCE)
        if code != 0:
            raise self.explain(stderr)

    def cancel(self, here: Path, target: str) -> None:
        """Undo forward(); connections through it go on."""
        run_command(self._forward_command("cancel", here, target), PATIENCE)
        here.unlink(missing_ok=True)

    def explain(self, stderr: str) -> SshError:
        """Return the error for what ssh wrote."""
        return explain(stderr, self.machine)

    def _forward_command(self, action: str, here: Path, target: str) -> list[str]:
        """Return the command; our configuration would clear the forward that it asks for."""
        option = forward_option(here, target)
        return ["ssh", "-F/dev/null", "-S", str(self.socket), "-O", action, "-L", option, "x"]

    def _open_command(self, config: Path, persist: int) -> list[str]:
        options = ["-MNf", "-o", f"ControlPersist={persist}"]
        return ["ssh", "-F", str(config), "-S", str(self.socket), *options, self.host]

    def _adopt(self) -> bool:
        """Use a connection of the user's own if one is open: our socket becomes a link to it."""
        with suppress(LabError, OSError):
            ours, plain = (dict(resolve(self.host, config)) for config in (self.config, None))
            where = ("hostname", "user", "port")
            same = all(ours.get(key) == plain.get(key) for key in where)
            for options in (ours, plain) if same else (ours,):
                path = options.get("controlpath", "none")
                if path in ("none", str(self.socket)) or not Path(path).exists():
                    continue
                check = ["ssh", "-F", str(self.config), "-S", path, "-O", "check", self.host]
                if run_command(check, PATIENCE)[0] == 0:
                    self.socket.symlink_to(path)
                    return True
        return False

    def _find_cause(self, stderr: str) -> SshError:
        """Return why it was not opened."""
        if "UNKNOWN port" in stderr:  # the jump host's ssh ended, its message is lost
            plain = ["ssh", "-F", str(self.config), "-S", "none", self.host, "true"]
            stderr = run_command(plain, 4 * PATIENCE)[1] or stderr
        return self.explain(stderr)

    @contextmanager
    def _hold_lock(self) -> Iterator[None]:
        with hold_lock(self.socket.with_suffix(".lock")):
            yield


class GatewayConnection:
    """The connection to a machine's gateway, which all machines behind that gateway ride on.

    It is opened where a host asks, and the gateway then asks once for all of them. ssh finds it in
    our configuration, as ProxyJump hands that on; a path in the user's own counts first.
    """

    def __init__(self, machine: Machine, config: Path, login_config: Path):
        self.name, self.socket = machine.gateway, gateway_socket(machine)
        self.config, self.login_config = config, login_config

    def open_command(self) -> list[str]:
        """Return the command that opens it and may ask; [] if it is open, or cannot be shared."""
        if not self.name or self.is_open():
            return []
        with suppress(LabError):
            if dict(resolve(self.name, self.login_config)).get("controlpath", "none") == "none":
                return []
        options = ["-MNf", "-o", f"ControlPersist={LOGIN_PERSIST}"]
        return ["ssh", "-F", str(self.login_config), *options, self.name]

    def is_open(self) -> bool:
        """Tell whether its ssh process is there."""
        check = ["ssh", "-F", str(self.config), "-O", "check", self.name]
        return bool(self.name) and run_command(check, PATIENCE)[0] == 0

    def is_ours(self) -> bool:
        """Tell whether it is open, and by lab login: not that of the user's own configuration."""
        return bool(self.name) and is_listening(self.socket)

    def end_if_dead(self) -> None:
        """End it if the gateway does not answer through it: a new one may be opened then.

        The gateway is asked for a port of its own, which it refuses at once or has.
        """
        if self.is_open():
            ask = ["ssh", "-F", str(self.config), *ONLY_SHARED, "-W", "localhost:1", self.name]
            if run_command(ask, PATIENCE)[0] is None:
                run_command(["ssh", "-F", str(self.config), "-O", "exit", self.name], PATIENCE)


def is_listening(path: Path) -> bool:
    """Tell whether a process listens on a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def gateway_socket(machine: Machine) -> Path:
    """Return the socket of the connection to a gateway: one for each account on it."""
    account = f"{machine.gateway} {machine.gateway_user} {machine.gateway_port}".encode()
    return make_socket_folder("ssh") / f"{zlib.crc32(account):08x}{zlib.adler32(account):08x}.gate"


def wait_for_session(call: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Call it again as long as the server allows no more sessions, at most so long."""
    give_up_at = time.monotonic() + seconds
    while True:
        try:
            return call()
        except SessionsInUse:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.3)


def forward_option(here: Path, target: str) -> str:
    """Return the value of ssh's -L; `target` is an address, or a path that needs no escapes."""
    return str(here).replace("\\", "\\\\").replace(":", "\\:") + f":{target}"


def run_in_foreground(command: list[str]) -> tuple[int, str] | None:
    """Run a command that may ask on the terminal; return its exit code and stderr.

    None if nobody is there to answer. It runs in a process group of its own, so that a later Ctrl-C
    does not end what it leaves behind, and has the terminal as long as it asks.
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
                    command,
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
    return None


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


def make_ssh_config(machine: Machine, login: bool = False) -> str:
    """Return ssh's configuration for our calls: ours first, then the user's and the system's.

    `login`: ssh may ask, and gives a connection up much later, as another one costs an answer.
    """
    forwards = "ClearAllForwardings yes"  # every call would try those of the user's Host block
    level = "LogLevel INFO"  # ssh_errors.py reads what ssh writes, whatever the user has set
    patience = round(PATIENCE) or 1
    interval, count = (max(LOGIN_SILENCE, patience), 15) if login else (patience, 3)
    gateway = f"Host {machine.gateway}\n    ControlPath {gateway_socket(machine)}\n"
    return f"""{machines.host_blocks(machine)}
Host *
{"" if login else NEVER_ASK}    {forwards}
    {level}
    ControlMaster no
    RemoteCommand none
    RequestTTY no
    ConnectTimeout {patience}
    ServerAliveInterval {interval}
    ServerAliveCountMax {count}
    Include ~/.ssh/config
    Include /etc/ssh/ssh_config
{gateway if machine.gateway else ""}"""


def make_socket_folder(kind: str) -> Path:
    """Make a folder for this user alone, with a path that is short and plain enough for ssh.

    A socket's path has 104 characters at most, and ssh adds 17 to our 16. It also pastes the path
    of its configuration into the shell command that calls a gateway. LabError if there is none.
    """
    folders = [project.cache_folder() / kind]
    if not is_short(folders[0]):
        folders = [Path(f"{TEMPORARY}-{kind}-{os.getuid()}")]  # whose name somebody may have taken
        own = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
        folders += [own / f"lab-{kind}"] if own.is_dir() and is_short(own / f"lab-{kind}") else []
    problems = []
    for folder in folders:
        try:
            files.make_private_folder(folder)
            found = folder.lstat()  # a link in /tmp is somebody else's
        except OSError as error:
            problems.append(f"{error.filename}: {error.strerror}")
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
    """Tell whether ssh can have its sockets in a folder."""
    return len(str(folder)) <= MOST_PATH and bool(re.fullmatch("[A-Za-z0-9/._-]*", str(folder)))


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Let one process in at a time."""
    # neither a link nor a FIFO in its place is followed
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags, 0o600), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
