"""The connection to a machine that every command shares: an ssh master, ours or the user's own.

Only lab login lets a host ask, as only then a person is known to be at the terminal. Where hosts
are known to ask, no command makes a connection of its own: without the shared one it fails at once.
"""

import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from lab.ground import files
from lab.ground.errors import LabError
from lab.ssh import machines
from lab.ssh.calls import LOGIN_PERSIST, ONLY_SHARED, run_in_background, run_in_foreground
from lab.ssh.framing import PATIENCE
from lab.ssh.gateway import GatewayConnection, extend_proxy_command
from lab.ssh.machines import Machine
from lab.ssh.options import resolve
from lab.ssh.sockets import hold_lock, is_listening, make_socket_folder
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

PERSIST = 600  # seconds that an idle connection stays open for the next command
# Seconds between two keep-alives where a person had to answer; after 15 unanswered ones it ends.
LOGIN_SILENCE = 60
# In the configuration, as the ssh of ProxyJump does not get our options: else every command in
# the background would give the gateway wrong answers, until it locks the account.
NEVER_ASK = "    BatchMode yes\n"


class SharedConnection:
    """The connection to one machine, which outlives the command that opened it."""

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
        for login, path in ((False, self.config), (True, self.login_config)):
            text = make_ssh_config(machine, self.gateway.block, login)
            files.write(path, text, durable=False, private=True)

    @property
    def name(self) -> str:
        return self.machine.name

    def ssh_command(self, *options: str) -> list[str]:
        """Return the command that connects to the machine; append what it should run."""
        only = ONLY_SHARED if self.is_only_way() else ()
        return ["ssh", "-F", str(self.config), "-S", str(self.socket), *only, *options, self.host]

    @property
    def host(self) -> str:
        return self.machine.host

    def is_only_way(self) -> bool:
        """Tell whether no call may make a connection of its own."""
        return self.asks.exists() or self.socket.is_symlink()

    def is_open(self) -> bool:
        """Tell whether its ssh process runs; the network behind it may still be down."""
        return is_listening(self.socket)

    def answers(self, seconds: float = PATIENCE) -> bool:
        """Tell whether the machine answers through it in time."""
        code, stderr = run_in_background([*self.ssh_command("-T", *ONLY_SHARED), "true"], seconds)
        return code == 0 or (code is not None and type(self.explain(stderr)) is SessionsInUse)

    def open(self) -> None:
        """Make sure that it is open, without ever asking for anything.

        Raises SshError with the cause and the next step: LoginNeeded if a host would ask.
        """
        if self.is_open():
            return
        with self._hold_lock():
            if self.is_open():
                return
            self.socket.unlink(missing_ok=True)
            self.gateway.find_host()
            if not self.ours_only and self._adopt():
                return
            code, stderr = run_in_background(self._open_command(self.config, PERSIST), 4 * PATIENCE)
            if code != 0:
                error = self._find_cause(stderr)
                if isinstance(error, LoginNeeded):
                    self.asks.touch()
                raise error
            if self.gateway.is_ours():
                self.asks.touch()  # the gateway needed a person to log in
            else:
                self.asks.unlink(missing_ok=True)

    def log_in(self) -> None:
        """Make sure that it is open and answers; the hosts may ask on this terminal.

        Raises SshError. LoginNeeded: a host asks, and nobody is at a terminal.
        """
        self.gateway.find_host()
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
            if self.is_open():  # another lab login has opened it meanwhile
                return
            if command := self.gateway.open_command():
                with hold_lock(self.gateway.socket.with_suffix(".gate-lock")):
                    if not self.gateway.is_open():  # no other lab login has opened it meanwhile
                        self._ask(command, cause)
            self._ask(self._open_command(self.login_config, LOGIN_PERSIST), cause)
            self.asks.touch()

    def _ask(self, command: list[str], cause: SshError) -> None:
        """Run an ssh command that may ask on the terminal; raise `cause` if there is none."""
        code, stderr = run_in_foreground(command) or (None, "")
        if code is None:
            raise cause
        if code:
            found = self._find_cause(stderr)
            if isinstance(found, LoginNeeded):
                text = "the password or code was not accepted"
                again = f"run {self.machine.lab} login again"
                raise AuthenticationFailed(f"{self.name}: {text}: {again}.")
            raise found

    def close(self) -> None:
        """End it, dead or alive; one of the user's own stays open, but is no longer used."""
        if self.socket.is_symlink():
            self.ours_only = True
        else:
            run_in_background(self.ssh_command("-O", "exit"), PATIENCE)
        self.socket.unlink(missing_ok=True)

    def give_up(self) -> None:
        """After a failed call, close it, so that the next call opens a new one.

        Where only a person can open another one it stays, as it may recover.
        """
        if not self.asks.exists():
            self.close()

    def forward(self, local: Path, target: str) -> None:
        """Forward connections from a new local socket to an address or socket on the machine.

        It takes no session. Only an answer through it shows that it works: ssh says nothing if
        sshd forbids it.
        """
        self.cancel(local, target)  # ssh ignores the same request a second time
        code, stderr = run_in_background(self._forward_command("forward", local, target), PATIENCE)
        if code != 0:
            raise self.explain(stderr)

    def cancel(self, local: Path, target: str) -> None:
        """Undo forward(); connections through it stay open."""
        run_in_background(self._forward_command("cancel", local, target), PATIENCE)
        local.unlink(missing_ok=True)

    def explain(self, stderr: str) -> SshError:
        """Return the error for what ssh wrote."""
        return explain(stderr, self.machine, self.gateway.hop.name)

    def _forward_command(self, action: str, local: Path, target: str) -> list[str]:
        """Return the command, without our configuration, which would clear the forward."""
        option = make_forward_option(local, target)
        return ["ssh", "-F/dev/null", "-S", str(self.socket), "-O", action, "-L", option, "x"]

    def _open_command(self, config: Path, persist: int) -> list[str]:
        options = ["-MNf", "-o", f"ControlPersist={persist}", *self._extend_proxy_command(config)]
        return ["ssh", "-F", str(config), "-S", str(self.socket), *options, self.host]

    def _extend_proxy_command(self, config: Path) -> list[str]:
        options = () if config == self.login_config else ("-oBatchMode=yes",)
        return extend_proxy_command(self.host, config, *options)

    def _adopt(self) -> bool:
        """Use a connection of the user's own, if one is open, by making our socket a link to it."""
        with suppress(LabError, OSError):
            ours, plain = (dict(resolve(self.host, config)) for config in (self.config, None))
            where = ("hostname", "user", "port")
            same = all(ours.get(key) == plain.get(key) for key in where)
            for options in (ours, plain) if same else (ours,):
                path = options.get("controlpath", "none")
                if path in ("none", str(self.socket)) or not Path(path).exists():
                    continue
                check = ["ssh", "-F", str(self.config), "-S", path, "-O", "check", self.host]
                if run_in_background(check, PATIENCE)[0] == 0:
                    self.socket.symlink_to(path)
                    return True
        return False

    def _find_cause(self, stderr: str) -> SshError:
        """Return why it could not be opened."""
        if "UNKNOWN port" in stderr:  # the jump host's ssh ended, and its message is lost
            options = ["-S", "none", *self._extend_proxy_command(self.config)]
            plain = ["ssh", "-F", str(self.config), *options, self.host, "true"]
            stderr = run_in_background(plain, 4 * PATIENCE)[1] or stderr
        return self.explain(stderr)

    @contextmanager
    def _hold_lock(self) -> Iterator[None]:
        with hold_lock(self.socket.with_suffix(".lock")):
            yield


def wait_for_session(call: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Call until the server allows another session, for `seconds` at most."""
    give_up_at = time.monotonic() + seconds
    while True:
        try:
            return call()
        except SessionsInUse:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.3)


def make_forward_option(local: Path, target: str) -> str:
    """Return the value of ssh's -L; `target` is an address, or a path that needs no escapes."""
    return str(local).replace("\\", "\\\\").replace(":", "\\:") + f":{target}"


def make_ssh_config(machine: Machine, gateway: Path, login: bool = False) -> str:
    """Return ssh's configuration for our calls: ours first, then the user's and the system's.

    `gateway`: a file with the block of the host in front of it, which need not exist. `login`: ssh
    may ask, and gives up a connection much later, as another one costs an answer.
    """
    forwards = "ClearAllForwardings yes"  # every call would try those of the user's Host block
    level = "LogLevel INFO"  # ssh_errors.py reads what ssh writes, whatever the user has set
    patience = round(PATIENCE) or 1
    interval, count = (max(LOGIN_SILENCE, patience), 15) if login else (patience, 3)
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
    Include {gateway}
"""
