"""The host that ssh passes on its way to a machine, and the connection to it.

machines.toml names it as gateway, or the user's own configuration by ProxyJump. The ssh that
connects to it reads our configuration, so in the background it answers no question.
"""

import re
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lab.ground import files
from lab.ground.errors import LabError
from lab.ssh.calls import LOGIN_PERSIST, ONLY_SHARED, run_in_background
from lab.ssh.framing import PATIENCE
from lab.ssh.machines import Machine
from lab.ssh.options import resolve
from lab.ssh.sockets import is_listening, make_socket_folder

JUMP = r"(?:([^@]+)@)?(?:\[([^]]+)\]|([^][:@,/]+))(?::([0-9]+))?"
SSH = r"(exec\s+)?([^\s'\"]*/)?ssh(?=\s)"  # how a ProxyCommand that runs it begins


class Hop(NamedTuple):
    """A host on the way, as ssh is told to reach it."""

    name: str = ""  # "": there is none
    user: str = ""
    port: int = 0
    before: str = ""  # the hosts in front of it, as ProxyJump has them


class GatewayConnection:
    """The connection to the last host in front of a machine; all machines behind it ride on that.

    It is opened where a host asks, and that host then asks once for all of them. ssh finds it in
    our configuration, as ProxyJump hands that on; a path in the user's own counts first.
    """

    hop = Hop()  # before look()

    def __init__(self, machine: Machine, config: Path, login_config: Path):
        self.machine, self.config, self.login_config = machine, config, login_config
        self.block = config.with_suffix(".gateway")  # both configurations include it

    def look(self) -> None:
        """Look up which host that is, and let ssh find the connection to it."""
        self.hop = find_hop(self.machine, self.config)
        block = f"Host {self.hop.name}\n    ControlPath {self.socket}\n" if self.hop.name else ""
        files.write(self.block, block, durable=False, private=True)

    @property
    def socket(self) -> Path:
        """Its socket: one for each account on that host."""
        account = f"{self.hop.name} {self.hop.user} {self.hop.port}".encode()
        name = f"{zlib.crc32(account):08x}{zlib.adler32(account):08x}"
        return make_socket_folder("ssh") / f"{name}.gate"

    def open_command(self) -> list[str]:
        """Return the command that opens it and may ask; [] if it is open, or cannot be shared."""
        if not self.hop.name or self.is_open():
            return []
        with suppress(LabError):
            if dict(resolve(self.hop.name, self.login_config)).get("controlpath", "none") == "none":
                return []
        options = ["-MNf", "-o", f"ControlPersist={LOGIN_PERSIST}"]
        options += ["-J", self.hop.before] if self.hop.before else []
        return self._ssh(self.login_config, *options)

    def is_open(self) -> bool:
        """Tell whether its ssh process is there."""
        check = self._ssh(self.config, "-O", "check")
        return bool(self.hop.name) and run_in_background(check, PATIENCE)[0] == 0

    def is_ours(self) -> bool:
        """Tell whether it is open, and by lab login: not that of the user's own configuration."""
        return bool(self.hop.name) and is_listening(self.socket)

    def end_if_dead(self) -> None:
        """End it if the gateway does not answer through it: a new one may be opened then.

        The gateway is asked for a port of its own, which it refuses at once or has.
        """
        if self.is_open():
            ask = self._ssh(self.config, *ONLY_SHARED, "-W", "localhost:1")
            if run_in_background(ask, PATIENCE)[0] is None:
                run_in_background(self._ssh(self.config, "-O", "exit"), PATIENCE)

    def _ssh(self, config: Path, *options: str) -> list[str]:
        account = ["-l", self.hop.user] if self.hop.user else []
        account += ["-p", str(self.hop.port)] if self.hop.port else []
        return ["ssh", "-F", str(config), *account, *options, self.hop.name]


def find_hop(machine: Machine, config: Path) -> Hop:
    """Return the last host in front of a machine, but for one that a ProxyCommand names."""
    if machine.gateway:
        return Hop(machine.gateway, machine.gateway_user, machine.gateway_port)
    with suppress(LabError):
        jump = dict(resolve(machine.host, config)).get("proxyjump", "none")
        before, _, last = jump.rpartition(",")
        if jump != "none" and (found := re.fullmatch(JUMP, last)):
            user, bracketed, name, port = found.groups()
            return Hop(bracketed or name, user or "", int(port or 0), before)
    return Hop()


def hand_on(host: str, config: Path, *options: str) -> list[str]:
    """Return what makes the ssh of a ProxyCommand read our configuration, and these options.

    That of ProxyJump does so by itself. [] if no ProxyCommand leads to the host, or no ssh in it.
    """
    with suppress(LabError):
        command = dict(resolve(host, config)).get("proxycommand", "none")
        if found := re.match(SSH, command):
            words = [found[0], "-F", str(config), *options]
            return ["-o", f"ProxyCommand={' '.join(words)}{command[found.end() :]}"]
    return []
