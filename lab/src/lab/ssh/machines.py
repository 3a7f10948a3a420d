"""The machines this project runs on, as machines.toml and machines.local.toml describe them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, get_origin, get_type_hints

from lab.ground import files, project
from lab.ground.errors import LabError
from lab.ssh import variables

SHARED, PERSONAL = "machines.toml", "machines.local.toml"
NAME = "[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
HOST = re.compile(f"{NAME}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?")
USER = re.compile("[A-Za-z0-9_][A-Za-z0-9._-]*")
FOLDER = re.compile(r'(~/)?[^~:"\\$][^:"\\$]*')  # it goes into PATH and TOML; no shell expands it
Table = dict[str, Any]


class NoMachine(LabError):
    """No machine has been configured yet."""


class Machine(NamedTuple):
    """One table [machines.NAME]; keys in the personal file override those in the shared one."""

    name: str
    ssh: str  # a host, or an alias of the user's ~/.ssh/config
    folder: str  # of the project on the machine; relative to the home folder
    user: str = ""
    port: int = 0  # 0: as ssh has it
    key: str = ""  # file of the private key, on this computer
    gateway: str = ""  # the jump host in front of it
    gateway_user: str = ""
    gateway_port: int = 0
    data: str = ""  # the machine's own folder of datasets; "": data/ in `folder`
    shared: bool = False  # a team uses the folders: new files have the umask of the login
    prelude: Sequence[str] = ()  # lines that bash runs before a job and before its environment
    env: Mapping[str, str] = MappingProxyType({})  # variables of both; [machines.NAME.env]
    scheduler: str = ""  # slurm: it starts the jobs, and `ssh` is a login node
    slurm: Mapping[str, Any] = MappingProxyType({})  # options of sbatch; [machines.NAME.slurm]
    lab: str = "lab"  # how a command for it begins: with -m NAME if it is not the first

    @property
    def host(self) -> str:
        """What ssh connects to."""
        return self.ssh


KEYS = {
    key: {Sequence: list, Mapping: dict}.get(get_origin(kind), kind)
    for key, kind in get_type_hints(Machine).items()
    if key not in ("name", "lab")
}
TABLES = ("env", "slurm")  # of a machine, whose keys are overridden one by one
KINDS = {
    str: "text in quotes",
    int: "a whole number",
    bool: "true or false",
    list: 'lines in quotes: ["module load cuda"]',
    dict: "a table of its own: [machines.NAME.env], [machines.NAME.slurm]",
}


def read_all() -> dict[str, Machine]:
    """Return every machine by its name, in the order of the files.

    Raises LabError with file and line for a mistake in either of them.
    """
    found: dict[str, Table] = {}
    for file in (SHARED, PERSONAL):
        content = project.read_toml(file)
        tables = content.get("machines", {})
        allowed = {SHARED: ["machines"], PERSONAL: ["machines", "here"]}[file]
        for name in content.keys() - set(allowed):
            raise _mistake(file, name, "", f"unknown table {name}", allowed, name)
        if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
            raise _mistake(file, "machines", "", "a machine is a table: [machines.NAME]")
        for name, table in tables.items():
            _check(file, name, table)
            before = found.setdefault(name, {})
            merged = {
                key: {**before.get(key, {}), **table.get(key, {})}
                for key in TABLES
                if key in before or key in table
            }
            before.update(table, **merged)
    for name, table in found.items():
        for key in ("ssh", "folder"):
            if key not in table:
                file = SHARED if name in project.read_toml(SHARED).get("machines", {}) else PERSONAL
                raise _mistake(file, f"machines.{name}", "", f"machine {name} has no {key}", KEYS)
    calls = {name: f"lab -m {name}" if at else "lab" for at, name in enumerate(found)}
    return {name: Machine(name, **table, lab=calls[name]) for name, table in found.items()}


def get(name: str | None = None) -> Machine:
    """Return the machine with that name, or the first one. LabError if there is none."""
    machines = read_all()
    if not machines:
        raise NoMachine(f"no machine yet: fill in [machines.gpu] in {project.root() / SHARED}.")
    if name is None:
        return next(iter(machines.values()))
    if name not in machines:
        raise LabError(f"there is no machine {name}; {SHARED} has {', '.join(machines)}.")
    return machines[name]


def _check(file: str, name: str, table: Table) -> None:
    """Check one table against every rule. Raises LabError with the line of a mistake."""
    path = f"machines.{name}"
    if not re.fullmatch(NAME, name):
        cause = f"{name!r} cannot be a name: only letters, digits, '.', '_' and '-'"
        raise _mistake(file, path, "", cause)
    for key, value in table.items():
        if key not in KEYS:
            raise _mistake(file, path, key, f"unknown key {key}", KEYS, key)
        if type(value) is not KEYS[key]:
            raise _mistake(file, path, key, f"{key} must be {KINDS[KEYS[key]]}")
        if isinstance(value, dict):
            {"env": _check_env, "slurm": _check_slurm}[key](file, path, value)
            continue
        rule = _find_broken_rule(key, value)
        if rule:
            raise _mistake(file, path, key, f"{key} = {value!r}: {rule}")


def _check_env(file: str, path: str, env: Table) -> None:
    """Check the variables of a machine."""
    for name, value in env.items():
        rule = KINDS[str] if type(value) is not str else variables.find_broken_rule(name, value)
        if rule:
            raise _mistake(file, f"{path}.env", name, f"{name} = {value!r}: {rule}")


def _check_slurm(file: str, path: str, options: Table) -> None:
    """Check the options of sbatch; those that lab does not know are passed on."""
    from lab.slurm import options as slurm_options

    for name, value in options.items():
        rule: str | None = "text in quotes, a whole number, true or false"
        if type(value) in (str, int, bool):
            rule = slurm_options.find_broken_rule(name, value)
        if rule:
            raise _mistake(file, f"{path}.slurm", name, f"{name} = {value!r}: {rule}")


def _find_broken_rule(key: str, value: str | int | list[Any]) -> str | None:
    """Return the rule that a value breaks.

    Nothing passes that ssh, git, rsync or a shell would take for an option or a command.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if 0 < value < 65536 else "a port is between 1 and 65535"
    if isinstance(value, list):
        lines = all(isinstance(one, str) and one.strip() and "\n" not in one for one in value)
        return None if lines and "\0" not in str(value) else f"it must be {KINDS[list]}"
    if key == "scheduler" and value != "slurm":
        return "slurm is the only one that lab knows; without it, lab starts the jobs itself"
    if key in ("ssh", "gateway") and not HOST.fullmatch(value):
        return "it must be a host or an alias; user and port have keys of their own"
    if key in ("user", "gateway_user") and not USER.fullmatch(value):
        return "a user name has only letters, digits, '.', '_' and '-'"
    if not value.isprintable() or not value.strip():
        return "it must be printable text, and not blank"
    if key in ("folder", "data") and not FOLDER.fullmatch(value):
        return 'it must be a path without : " \\ or $, and with ~ only as in ~/'
    if key == "folder" and (value.strip("/~") in ("", ".") or ".." in value.split("/")):
        return "it must be a folder of its own, below the home folder or absolute"
    if key == "key" and '"' in value:
        return "it cannot contain quotes"  # ssh's configuration cannot escape them
    return None


def _mistake(
    file: str, table: str, key: str, cause: str, allowed: Iterable[str] = (), wrong: str = ""
) -> LabError:
    """Return the error for a mistake: file, line, cause, and what is allowed instead."""
    import difflib

    near = difflib.get_close_matches(wrong, allowed, n=1)
    advice = f"; did you mean {near[0]}?" if near else "."
    keys = f" Allowed: {', '.join(allowed)}." if allowed else ""
    text = files.read_text(project.root() / file, limit=project.MAX_TOML_BYTES)
    line = _find_line(text, table, key)
    return LabError(f"{file}:{line}: {cause}{advice}{keys}")


def _find_line(text: str, table: str, key: str) -> int:
    """Return the line of a table's key, or of its header if the key is not found."""
    head = 1
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        name, end, _ = line.strip().partition("]")
        if end and name.startswith("["):
            inside = name.lstrip("[").strip().replace('"', "").replace(" ", "") == table
            head = number if inside else head
        elif not table.count(".") and re.match(rf'\s*"?{re.escape(table)}"?\s*[.=]', line):
            return number
        if inside and key and re.match(rf'\s*"?{re.escape(key)}"?\s*=', line):
            return number
    return head


def host_blocks(machine: Machine, alias: str = "") -> str:
    """Return the blocks of an ssh configuration for a machine, under its host name or `alias`.

    The gateway's options have a block of their own, so that both hops use the same key.
    """
    lines = [f"Host {alias or machine.host}"]
    options = {
        "HostName": machine.host if alias else "",
        "User": machine.user,
        "Port": machine.port,
        "IdentityFile": f'"{machine.key}"' if machine.key else "",
        "ProxyJump": machine.gateway,
    }
    lines += [f"    {name} {value}" for name, value in options.items() if value]
    gate = {"User": machine.gateway_user, "Port": machine.gateway_port}
    gate["IdentityFile"] = options["IdentityFile"]
    if machine.gateway and any(gate.values()):
        lines += ["", f"Host {machine.gateway}"]
        lines += [f"    {name} {value}" for name, value in gate.items() if value]
    return "\n".join(lines) + "\n"
