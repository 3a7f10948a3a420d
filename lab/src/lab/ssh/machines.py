"""The machines this project runs on, as machines.toml and machines.local.toml tell of them."""

import re
from typing import NamedTuple, get_type_hints

from lab.ground import project
from lab.ground.errors import LabError

SHARED, PERSONAL = "machines.toml", "machines.local.toml"
NAME = "[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
HOST = re.compile(f"{NAME}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?")
USER = re.compile("[A-Za-z0-9_][A-Za-z0-9._-]*")
PLACE = re.compile(r'(~/)?[^~:"\\$][^:"\\$]*')  # it comes into PATH and TOML; no shell expands it


class NoMachine(LabError):
    """machines.toml names none."""


class Machine(NamedTuple):
    """One table [machines.NAME]; the personal file goes before the shared one, key by key."""

    name: str
    ssh: str  # a host, or an alias of the user's ~/.ssh/config
    folder: str  # of the project there; relative to the home folder
    user: str = ""
    port: int = 0  # 0: as ssh has it
    key: str = ""  # file of the private key, on this computer
    gateway: str = ""  # the jump host in front of it
    gateway_user: str = ""
    gateway_port: int = 0
    data: str = ""  # the machine's own folder of datasets; "": data/ in `folder`
    lab: str = "lab"  # how a command for it begins: with -m NAME if it is not the first

    @property
    def host(self) -> str:
        """What ssh is told to connect to."""
        return self.ssh


KEYS = {key: kind for key, kind in get_type_hints(Machine).items() if key not in ("name", "lab")}


def read_all() -> dict[str, Machine]:
    """Every machine by name, in the order of the files.

    Raises LabError with file and line for a mistake in either of them.
    """
    found: dict[str, dict] = {}
    for file in (SHARED, PERSONAL):
        content = project.read_toml(file)
        tables = content.get("machines", {})
        allowed = {SHARED: ["machines"], PERSONAL: ["machines", "here"]}[file]
        for name in content.keys() - set(allowed):
            raise _mistake(file, name, "", f"there is no {name} here", allowed, name)
        if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
            raise _mistake(file, "machines", "", "a machine is a table: [machines.NAME]")
        for name, table in tables.items():
            _check(file, name, table)
            found.setdefault(name, {}).update(table)
    for name, table in found.items():
        for key in ("ssh", "folder"):
            if key not in table:
                file = SHARED if name in project.read_toml(SHARED).get("machines", {}) else PERSONAL
                raise _mistake(file, f"machines.{name}", "", f"machine {name} has no {key}", KEYS)
    calls = {name: f"lab -m {name}" if at else "lab" for at, name in enumerate(found)}
    return {name: Machine(name, **table, lab=calls[name]) for name, table in found.items()}


def get(name: str | None = None) -> Machine:
    """The machine of that name; without a name the first one. LabError if there is none."""
    machines = read_all()
    if not machines:
        raise NoMachine(f"no machine yet: fill in [machines.gpu] in {project.root() / SHARED}.")
    if name is None:
        return next(iter(machines.values()))
    if name not in machines:
        raise LabError(f"there is no machine {name}; {SHARED} has {', '.join(machines)}.")
    return machines[name]


def _check(file: str, name: str, table: dict) -> None:
    """Every rule for one table, each mistake with its line."""
    where = f"machines.{name}"
    if not re.fullmatch(NAME, name):
        raise _mistake(file, where, "", f"{name!r} is no name: letters, digits, '.', '_', '-'")
    for key, value in table.items():
        if key not in KEYS:
            raise _mistake(file, where, key, f"there is no key {key}", KEYS, key)
        if type(value) is not KEYS[key]:
            kind = {str: "text in quotes", int: "a whole number"}[KEYS[key]]
            raise _mistake(file, where, key, f"{key} is {kind}")
        rule = _broken_rule(key, value)
        if rule:
            raise _mistake(file, where, key, f"{key} = {value!r}: {rule}")


def _broken_rule(key: str, value) -> str | None:
    """Nothing that ssh, git, rsync or a shell would take for an option or a command gets past."""
    if isinstance(value, int):
        return None if 0 < value < 65536 else "a port is between 1 and 65535"
    if key in ("ssh", "gateway") and not HOST.fullmatch(value):
        return "a host or an alias, without user and port: they have keys of their own"
    if key in ("user", "gateway_user") and not USER.fullmatch(value):
        return "a user name: letters, digits, '.', '_', '-'"
    if not value.isprintable() or not value.strip():
        return "printable letters, and not blank"
    if key in ("folder", "data") and not PLACE.fullmatch(value):
        return 'a path as it is there: no : " \\ or $, and ~ only as in ~/'
    if key == "folder" and (value.strip("/~") in ("", ".") or ".." in value.split("/")):
        return "a folder of its own, below the home folder or absolute"
    if key == "key" and '"' in value:
        return "no quotes"  # ssh's configuration has no way to write them
    return None


def _mistake(file, table, key, cause, allowed=(), wrong="") -> LabError:
    """The one line for a mistake: file, line, cause, and what may stand there."""
    import difflib

    near = difflib.get_close_matches(wrong, allowed, n=1)
    advice = f"; did you mean {near[0]}?" if near else ""
    keys = f" Allowed: {', '.join(allowed)}." if allowed else ""
    line = _line((project.root() / file).read_text("utf-8"), table, key)
    return LabError(f"{file}:{line}: {cause}{advice or '.'}{keys}")


def _line(text: str, table: str, key: str) -> int:
    """The line of a table's key; of the table's head if the key is written in another way."""
    head = 1
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        name = re.match(r"\s*\[+\s*([^\]]*?)\s*\]", line)
        if name:
            inside = name[1].replace('"', "").replace(" ", "") == table
            head = number if inside else head
        elif not table.count(".") and re.match(rf'\s*"?{re.escape(table)}"?\s*[.=]', line):
            return number
        if inside and key and re.match(rf'\s*"?{re.escape(key)}"?\s*=', line):
            return number
    return head


def host_blocks(machine: Machine, alias: str = "") -> str:
    """The blocks for ssh's configuration that lead to a machine, known as `alias` or by its host.

    Options stand in a separate block for the gateway, so that both hops use the same key.
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
