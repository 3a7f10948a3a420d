"""The machines as hosts of the user's own ssh: for editors, rsync, git and plain ssh.

The Host blocks of this project are a file of ours, ~/.ssh/lab/<project>.conf; one Include line at
the top of ~/.ssh/config makes ssh read it. Both can be taken away again.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lab.ground import files, project
from lab.ground.errors import LabError
from lab.ssh import machines
from lab.ssh.machines import Machine

INCLUDE = b"Include lab/*.conf"  # ssh reads it as relative to ~/.ssh
HEAD = "# The machines of {}, by lab ssh-config --install; undone by --remove."
PORTS = (8888, 6006)  # Jupyter, TensorBoard
# What a block of ours says on its own account.
OURS = [f"LocalForward 127.0.0.1:{port} localhost:{port}" for port in PORTS]
OURS += ["ExitOnForwardFailure no"]  # a second connection finds the ports taken, and is welcome
OURS += ["ServerAliveInterval 15", "ServerAliveCountMax 3"]
# What an alias does beside leading to the machine: editors and rsync stumble over it.
LEFT_OUT = set(["host", "localforward", "remoteforward", "dynamicforward", "clearallforwardings"])
LEFT_OUT |= set(["exitonforwardfailure", "serveraliveinterval", "serveralivecountmax"])
LEFT_OUT |= set(["controlmaster", "controlpath", "controlpersist", "remotecommand", "requesttty"])
LEFT_OUT |= set(["sessiontype", "forkafterauthentication", "stdinnull"])
SPELLED = {"hostname": "HostName", "user": "User", "port": "Port", "proxyjump": "ProxyJump"}
SPELLED |= {"identityfile": "IdentityFile", "proxycommand": "ProxyCommand"}
ONE_VALUE = ("identityfile", "certificatefile", "identityagent", "setenv")  # it may hold spaces
ALWAYS = ("hostname", "user")  # for the reader
WAIT = 10  # seconds for ssh to read its configuration; a Match exec in it may take its time


def alias(machine: Machine) -> str:
    """What ssh calls a machine of this project: a name that no host of the user's own has."""
    return f"{project.name()}-{machine.name}"


def blocks(machine: Machine) -> str:
    """The Host block of a machine, and one for its gateway where that needs more than a name.

    It asks ssh what the user's own aliases stand for, and connects to nothing. Raises LabError if
    ssh does not understand the user's configuration.
    """
    name, gate = alias(machine), f"{alias(machine)}-gateway"
    own_gate = machine.gateway and (machine.gateway_user or machine.gateway_port or machine.key)
    text = f"{machines.host_blocks(machine)}\nHost *\n    Include ~/.ssh/config\n"
    with tempfile.TemporaryDirectory(prefix="lab-ssh-") as folder:
        config = Path(folder, "config")
        config.write_text(f"{text}    Include /etc/ssh/ssh_config\n", "utf-8")
        everywhere = resolve(f"{name}-of-nobody", config)
        lines = difference(resolve(machine.host, config), everywhere)
        gate_lines = difference(resolve(machine.gateway, config), everywhere) if own_gate else []
    if own_gate:
        lines = [f"ProxyJump {gate}" if line.startswith("ProxyJump ") else line for line in lines]
    written = block(name, [*lines, *OURS])
    return written + "\n" + block(gate, gate_lines) if own_gate else written


def block(name: str, lines: Iterable[str]) -> str:
    return "\n".join([f"Host {name}", *(f"    {line}" for line in lines)]) + "\n"


def resolve(host: str, config: Path | None = None) -> list[tuple[str, str]]:
    """Every option that ssh would use for a host, as (name in small letters, value)."""
    command = ["ssh", *(["-F", str(config)] if config else []), "-G", host]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=WAIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"ssh -G {host} gives no answer: a Match exec in ~/.ssh/config?") from None
    except OSError as error:
        raise LabError(f"ssh cannot be started ({error.strerror}): install OpenSSH.") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [
            "it does not say why"
        ]
        raise LabError(f"ssh cannot read its configuration: {said[0]}; mend that line.")
    lines = done.stdout.decode("utf-8", "surrogateescape").splitlines()
    return [(name, value) for name, _, value in (line.partition(" ") for line in lines)]


def difference(resolved: list, everywhere: list) -> list[str]:
    """The lines that turn what holds for every host into what was resolved for one."""
    names = {name for name, _ in resolved}
    # a zone, as in fe80::1%eth0, would be taken for one of ssh's own signs
    resolved = [(n, v.replace("%", "%%") if n == "hostname" else v) for n, v in resolved]
    # ssh -G does not show that a jump is switched off
    undone = [(name, "none") for name, _ in everywhere if name not in names]
    undone = [line for line in undone if line[0] in ("proxyjump", "proxycommand")]
    found = [line for line in resolved if line[0] in ALWAYS or line not in everywhere]
    found = [line for line in found if line[0] not in LEFT_OUT]
    return [
        f"{SPELLED.get(name, name)} " + (f'"{value}"' if name in ONE_VALUE else value)
        for name, value in found + undone
    ]


def known(machine: Machine) -> bool:
    """Whether plain ssh knows the machine by our name for it."""
    return dict(resolve(alias(machine))).get("hostname") != alias(machine)


# --- ~/.ssh ---------------------------------------------------------------------------------------


def install() -> list[str]:
    """Make ssh know every machine of the project; what was done, line by line.

    Raises LabError if a file cannot be written, ssh still does not know the machines, or another
    folder of a project with this name has written other ones.
    """
    known_machines = machines.read_all()
    if not known_machines:
        machines.get()  # says what to do
    text = "\n".join(["", *(blocks(machine) for machine in known_machines.values())])
    ssh, ours, config = places()
    try:
        owner, theirs = installed(ours)
        if owner != project.root() and theirs != text:
            raise LabError(
                f"{home(ours)} is of {owner}, and leads elsewhere: there, lab ssh-config --remove"
                " makes room."
            )
        text = f"{HEAD.format(owner)}\n{text}"
        for folder in (ssh, ours.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        done = [put(ours, text.encode("utf-8", "surrogateescape"))]
        before = config.read_bytes() if config.exists() else None
        done += change(config, before, included(before or b""))
    except OSError as error:
        raise LabError(f"{error.filename or ssh}: {error.strerror}.") from None
    for machine in known_machines.values():
        if not known(machine):
            raise LabError(f"ssh does not know {alias(machine)} yet: does it read {config}?")
    return done


def remove() -> list[str]:
    """Undo install(); the Include line stays as long as another project needs it."""
    _, ours, config = places()
    done = []
    try:
        owner, _ = installed(ours)
        if owner != project.root():
            return [f"{home(ours)}: stays, as it is of {owner}"]
        if ours.exists():
            ours.unlink()
            done.append(f"{home(ours)}: removed")
        others = list(ours.parent.glob("*.conf"))
        if config.exists() and not others:
            before = config.read_bytes()
            if without(before) != before:
                done += change(config, before, without(before))
        if not others:
            with suppress(OSError):
                ours.parent.rmdir()
    except OSError as error:
        raise LabError(f"{error.filename or config}: {error.strerror}.") from None
    return done


def installed(ours: Path) -> tuple[Path, str]:
    """The folder that wrote our file, or this one if that is gone; and what is in the file."""
    text = ours.read_text("utf-8", "surrogateescape") if ours.exists() else ""
    head, _, rest = text.partition("\n")
    before, after = HEAD.split("{}")
    owner = Path(head.removeprefix(before).removesuffix(after))
    return (owner if owner.is_absolute() and owner.is_dir() else project.root()), rest


def included(config: bytes) -> bytes:
    """The text of ~/.ssh/config with our Include where it holds for every host: in front."""
    for line in config.splitlines():
        if line.strip() == INCLUDE:
            return config
        if re.match(rb"\s*(host|match)\b", line, re.I):
            break
    return INCLUDE + b"\n" + without(config)


def without(config: bytes) -> bytes:
    """The text of ~/.ssh/config without our Include; every other byte stays."""
    lines = config.splitlines(keepends=True)
    return b"".join(line for line in lines if line.strip() != INCLUDE)


def change(config: Path, before: bytes | None, after: bytes) -> list[str]:
    """Write the new text of ~/.ssh/config where it differs, the old one being kept beside it."""
    if before == after:
        return [f"{home(config)}: unchanged"]
    copies = sorted(config.parent.glob("config.before-lab*"))
    same = [copy for copy in copies if copy.read_bytes() in (before, after)]
    if INCLUDE not in after:
        # as it was: a copy of just that is of no use any more
        for copy in same:
            if copy.read_bytes() == after:
                copy.unlink()
        if not after and not same and not config.is_symlink():
            config.unlink()  # there was none
            return [f"{home(config)}: removed, as there was none before"]
        put(config, after)
        return [f"{home(config)}: as it was before"]
    kept = ""
    if before is not None and before not in [copy.read_bytes() for copy in same]:
        numbers = ("", *(f"-{number}" for number in range(2, 1000)))
        names = (config.with_name(f"config.before-lab{number}") for number in numbers)
        copy = next(name for name in names if not name.exists())
        put(copy, before)
        kept = f"; as it was it is kept in {home(copy)}"
    put(config, after)
    return [f"{home(config)}: {INCLUDE.decode()} added{kept}"]


def put(path: Path, content: bytes) -> str:
    """Write a file for this user alone; what was done."""
    before = os.umask(0o077)
    try:
        written = files.write(path, content)
    finally:
        os.umask(before)
    return f"{home(path)}: {'written' if written else 'unchanged'}"


def places() -> tuple[Path, Path, Path]:
    """The folder of ssh, our file in it, and the user's configuration."""
    ssh = Path.home() / ".ssh"
    return ssh, ssh / "lab" / f"{project.name()}.conf", ssh / "config"


def home(path: Path) -> str:
    return str(path).replace(str(Path.home()), "~", 1)
