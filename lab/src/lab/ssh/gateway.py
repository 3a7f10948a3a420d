"""The jump host in front of a machine, and the connection to it.

machines.toml names it as gateway, or the user's own configuration by ProxyJump. The ssh that
connects to it reads our configuration, so in the background it never asks.
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
SSH = r"(exec\s+)?([^\s'\"]*/)?ssh(?=\s)"  # the beginning of a ProxyCommand that runs ssh


class Hop(NamedTuple):
    """A jump host, as ssh is told to reach it."""

    name: str = ""  # "": there is none
    user: str = ""
    port: int = 0
    before: str = ""  # the hosts in front of it, as ProxyJump has them


class GatewayConnection:
    """The connection to the last host in front of a machine; all machines behind it share it.

    It is opened where a host asks, which then asks once for all of them. ssh finds it in our
    configuration, as ProxyJump passes that on; a ControlPath of the user's own comes first.
    """

    hop = Hop()  # until find_host()

    def __init__(self, machine: Machine, config: Path, login_config: Path):
        self.machine, self.config, self.login_config = machine, config, login_config
        self.block = config.with_suffix(".gateway")  # both configurations include it

    def find_host(self) -> None:
        """Find out which host that is, and let ssh find the connection to it."""
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
        """Return the command that opens it and may ask; [] if already open, or not shareable."""
        if not self.hop.name or self.is_open():
            return []
        with suppress(LabError):
            if dict(resolve(self.hop.name, self.login_config)).get("controlpath", "none") == "none":
                return []
        options = ["-MNf", "-o", f"ControlPersist={LOGIN_PERSIST}"]
        options += ["-J", self.hop.before] if self.hop.before else []
        return self._ssh(self.login_config, *options)

    def is_open(self) -> bool:
        """Tell whether its ssh process runs."""
        check = self._ssh(self.config, "-O", "check")
        return bool(self.hop.name) and run_in_background(check, PATIENCE)[0] == 0

    def is_ours(self) -> bool:
        """Tell whether it is open, by lab login and not by the user's own configuration."""
        return bool(self.hop.name) and is_listening(self.socket)

    def end_if_dead(self) -> None:
        """End it if the gateway does not answer through it, so that a new one can be opened.

        The gateway is asked to connect to a port of its own: it does, or refuses at once.
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
    """Return the last host in front of a machine; none if only a ProxyCommand names it."""
    if machine.gateway:
        return Hop(machine.gateway, machine.gateway_user, machine.gateway_port)
    with suppress(LabError):
        jump = dict(resolve(machine.host, config)).get("proxyjump", "none")
        before, _, last = jump.rpartition(",")
        if jump != "none" and (found := re.fullmatch(JUMP, last)):
            user, bracketed, name, port = found.groups()
            return Hop(bracketed or name, user or "", int(port or 0), before)
    return Hop()


def extend_proxy_command(host: str, config: Path, *options: str) -> list[str]:
    """Return the option that makes the ssh of a ProxyCommand read our configuration and options.

    The ssh of ProxyJump does so by itself. [] if the host has no ProxyCommand that runs ssh.
    """
    with suppress(LabError):
        command = dict(resolve(host, config)).get("proxycommand", "none")
        if found := re.match(SSH, command):
            words = [found[0], "-F", str(config), *options]
            return ["-o", f"ProxyCommand={' '.join(words)}{command[found.end() :]}"]
    return []
