"""The machines as hosts of the user's own ssh: for editors, rsync, git and plain ssh.

The Host blocks of this project are a file of ours, ~/.ssh/lab/<project>.conf; one Include line at
the top of ~/.ssh/config makes ssh read it. Both can be removed again.
"""

import os
import re
import shlex
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lab.ground import files, project
from lab.ground.errors import LabError, explain_os_error
from lab.ssh import machines
from lab.ssh.machines import Machine
from lab.ssh.options import Option, resolve
from lab.ssh.shared import SharedConnection

INCLUDE = b"Include lab/*.conf"  # ssh reads it as relative to ~/.ssh
HEAD = "# The machines of {}, by lab ssh-config --install; undone by --remove."
PORTS = (8888, 6006)  # Jupyter, TensorBoard
# What both blocks of a machine add, and what the one with a connection of its own adds: in the
# shared one a forward would stay when the program that asked for it has gone.
KEEP_ALIVE = ["ServerAliveInterval 15", "ServerAliveCountMax 3"]
FORWARDS = [f"LocalForward 127.0.0.1:{port} localhost:{port}" for port in PORTS]
FORWARDS += ["ExitOnForwardFailure no"]  # a second connection works although the ports are taken
SHARED = "# {}: on the connection that lab uses, if it is open (lab login)."
OWN = "# {}: with a connection of its own, for PyCharm, which has an ssh of its own."
# What ssh, rsync and git say where the hosts ask and the shared connection cannot be used.
NO_LOGIN = "lab: {} is not connected, or has no free session: {} login."
# Options of an alias that do more than lead to the machine: editors and rsync cannot handle them.
LEFT_OUT = {"host", "localforward", "remoteforward", "dynamicforward", "clearallforwardings"}
LEFT_OUT |= {"exitonforwardfailure", "serveraliveinterval", "serveralivecountmax"}
LEFT_OUT |= {"controlmaster", "controlpath", "controlpersist", "remotecommand", "requesttty"}
LEFT_OUT |= {"sessiontype", "forkafterauthentication", "stdinnull"}
SPELLING = {"hostname": "HostName", "user": "User", "port": "Port", "proxyjump": "ProxyJump"}
SPELLING |= {"identityfile": "IdentityFile", "proxycommand": "ProxyCommand"}
ONE_VALUE = ("identityfile", "certificatefile", "identityagent", "setenv")  # it may have spaces
ALWAYS = ("hostname", "user")  # for the reader


def alias(machine: Machine) -> str:
    """Return the name of a machine of this project for ssh, which no other host has."""
    return f"{project.name()}-{machine.name}"


def make_blocks(machine: Machine) -> str:
    """Return the Host blocks of a machine, and one for its gateway if that needs more than a name.

    One is for programs that call ssh, and uses the connection that all lab commands share. The
    other one has a connection of its own. Where the hosts are known to ask, which ssh looks up at
    each call, the first one makes no connection: every program in the background would have to
    answer.

    It asks ssh what the user's own aliases stand for, and connects to nothing. Raises LabError if
    ssh does not understand the user's configuration.
    """
    name, own, gate = alias(machine), own_alias(machine), f"{alias(machine)}-gateway"
    own_gate = machine.gateway and (machine.gateway_user or machine.gateway_port or machine.key)
    text = f"{machines.host_blocks(machine)}\nHost *\n    Include ~/.ssh/config\n"
    with tempfile.TemporaryDirectory(prefix="lab-ssh-") as folder:
        config = Path(folder, "config")
        config.write_text(f"{text}    Include /etc/ssh/ssh_config\n", "utf-8")
        defaults = resolve(f"{name}-of-nobody", config)
        lines = _subtract(resolve(machine.host, config), defaults)
        gate_lines = _subtract(resolve(machine.gateway, config), defaults) if own_gate else []
    if own_gate:
        lines = [f"ProxyJump {gate}" if line.startswith("ProxyJump ") else line for line in lines]
    ways = [line for line in lines if line.startswith(("ProxyJump ", "ProxyCommand "))]
    where = [line for line in lines if line not in ways]
    shared = SharedConnection(machine)
    use = [f"ControlPath {shared.socket}", "ControlMaster no", *KEEP_ALIVE]
    say = shlex.quote(f"echo {shlex.quote(NO_LOGIN.format(machine.name, machine.lab))} >&2; exit 1")
    never = ["BatchMode yes", f"ProxyCommand sh -c {say}".replace("%", "%%")]
    blocks = [
        SHARED.format(name) + "\n" + _make_block(name, [*where, *use]),
        _make_block(f'originalhost {name} exec "test -e {shared.asks}"', never, "Match"),
        _make_block(name, ways) if ways else "",
        OWN.format(own) + "\n" + _make_block(own, [*lines, *KEEP_ALIVE, *FORWARDS]),
        _make_block(gate, gate_lines) if own_gate else "",
    ]
    return "\n".join(filter(None, blocks))


def own_alias(machine: Machine) -> str:
    """Return the name under which ssh makes a connection of its own."""
    return f"{alias(machine)}-own"


def _make_block(name: str, lines: Iterable[str], kind: str = "Host") -> str:
    return "\n".join([f"{kind} {name}", *(f"    {line}" for line in lines)]) + "\n"


def _subtract(options: list[Option], defaults: list[Option]) -> list[str]:
    """Return the lines of a Host block that change these defaults into these options."""
    names = {name for name, _ in options}
    # ssh would expand the zone in fe80::1%eth0
    options = [(n, v.replace("%", "%%") if n == "hostname" else v) for n, v in options]
    # ssh -G does not show that a jump is switched off
    undone = [(name, "none") for name, _ in defaults if name not in names]
    undone = [line for line in undone if line[0] in ("proxyjump", "proxycommand")]
    found = [line for line in options if line[0] in ALWAYS or line not in defaults]
    found = [line for line in found if line[0] not in LEFT_OUT]
    return [
        f"{SPELLING.get(name, name)} " + (f'"{value}"' if name in ONE_VALUE else value)
        for name, value in found + undone
    ]


def is_known(machine: Machine) -> bool:
    """Tell whether plain ssh knows the machine by our name for it."""
    return dict(resolve(alias(machine))).get("hostname") != alias(machine)


# --- ~/.ssh ---------------------------------------------------------------------------------------


def install() -> list[str]:
    """Make ssh know every machine of the project; return what was done, line by line.

    Raises LabError if a file cannot be written, ssh still does not know the machines, or a project
    of the same name in another folder has installed different machines.
    """
    known_machines = machines.read_all()
    if not known_machines:
        machines.get()  # raises the error that says what to do
    text = "\n".join(["", *(make_blocks(machine) for machine in known_machines.values())])
    ssh, ours, config = _get_paths()
    try:
        owner, theirs = _read_ours(ours)
        if owner != project.root() and theirs != text:
            raise LabError(
                f"{_abbreviate(ours)} belongs to {owner}, with other machines: run lab ssh-config"
                " --remove there first."
            )
        text = f"{HEAD.format(owner)}\n{text}"
        for folder in (ssh, ours.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        done = [_write(ours, text.encode("utf-8", "surrogateescape"))]
        before = files.read(config) if config.exists() else None
        done += _change_config(config, before, _add_include(before or b""))
    except OSError as error:
        raise LabError(f"{explain_os_error(error, ssh)}.") from None
    for machine in known_machines.values():
        if not is_known(machine):
            raise LabError(f"ssh does not know {alias(machine)} yet: does it read {config}?")
    return done


def remove() -> list[str]:
    """Undo install(); the Include line stays while another project needs it."""
    _, ours, config = _get_paths()
    done = []
    try:
        owner, _ = _read_ours(ours)
        if owner != project.root():
            return [f"{_abbreviate(ours)}: kept, as it belongs to {owner}"]
        if ours.exists():
            ours.unlink()
            done.append(f"{_abbreviate(ours)}: removed")
        others = list(ours.parent.glob("*.conf"))
        if config.exists() and not others:
            before = files.read(config)
            if _remove_include(before) != before:
                done += _change_config(config, before, _remove_include(before))
        if not others:
            with suppress(OSError):
                ours.parent.rmdir()
    except OSError as error:
        raise LabError(f"{explain_os_error(error, config)}.") from None
    return done


def _read_ours(ours: Path) -> tuple[Path, str]:
    """Return the project that wrote our file, or this one if that is gone; and the file's text."""
    text = files.read_text(ours, "surrogateescape") if ours.exists() else ""
    head, _, rest = text.partition("\n")
    before, after = HEAD.split("{}")
    owner = Path(head.removeprefix(before).removesuffix(after))
    return (owner if owner.is_absolute() and owner.is_dir() else project.root()), rest


def _add_include(config: bytes) -> bytes:
    """Return the text of ~/.ssh/config with our Include at the top, outside of any host."""
    for line in config.splitlines():
        if line.strip() == INCLUDE:
            return config
        if re.match(rb"\s*(host|match)\b", line, re.IGNORECASE):
            break
    return INCLUDE + b"\n" + _remove_include(config)


def _remove_include(config: bytes) -> bytes:
    """Return the text of ~/.ssh/config without our Include; every other byte stays."""
    lines = config.splitlines(keepends=True)
    return b"".join(line for line in lines if line.strip() != INCLUDE)


def _change_config(config: Path, before: bytes | None, after: bytes) -> list[str]:
    """Write the new text of ~/.ssh/config if it differs, with a backup of the old one."""
    if before == after:
        return [f"{_abbreviate(config)}: unchanged"]
    backups = sorted(config.parent.glob("config.before-lab*"))
    same = [backup for backup in backups if files.read(backup) in (before, after)]
    if INCLUDE not in after:
        # as it was before install(): a backup of just that is no longer needed
        for backup in same:
            if files.read(backup) == after:
                backup.unlink()
        if not after and not same and not config.is_symlink():
            config.unlink()
            return [f"{_abbreviate(config)}: removed, as there was none before"]
        _write(config, after)
        return [f"{_abbreviate(config)}: as it was before"]
    note = ""
    if before is not None and before not in [files.read(backup) for backup in same]:
        numbers = ("", *(f"-{number}" for number in range(2, 1000)))
        names = (config.with_name(f"config.before-lab{number}") for number in numbers)
        backup = next(name for name in names if not name.exists())
        _write(backup, before)
        note = f"; backup: {_abbreviate(backup)}"
    _write(config, after)
    return [f"{_abbreviate(config)}: {INCLUDE.decode()} added{note}"]


def _write(path: Path, content: bytes) -> str:
    """Write a file for this user alone; return what was done."""
    before = os.umask(0o077)
    try:
        written = files.write(path, content, follow=True)
    finally:
        os.umask(before)
    return f"{_abbreviate(path)}: {'written' if written else 'unchanged'}"


def _get_paths() -> tuple[Path, Path, Path]:
    """Return ssh's folder, our file in it, and the user's configuration."""
    ssh = Path.home() / ".ssh"
    return ssh, ssh / "lab" / f"{project.name()}.conf", ssh / "config"


def _abbreviate(path: Path) -> str:
    return str(path).replace(str(Path.home()), "~", 1)
