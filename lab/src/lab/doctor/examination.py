"""Collects the facts of this computer and of the machine for lab doctor, and fixes what it can.

facts.sh asks the machine, cluster_facts.sh also a login node; checks.py judges the answers.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from lab.doctor import checks
from lab.doctor.facts import FAILED, OK, WARNING, Check, Facts, first_line, parse_facts
from lab.environment import lock
from lab.environment.check import read_stamp
from lab.ground import files, project
from lab.ground.errors import LabError, explain_os_error
from lab.ssh import answers, ssh_config
from lab.ssh.connection import Connection
from lab.ssh.machines import Machine, NoMachine
from lab.ssh.options import resolve
from lab.ssh.several import ask_all
from lab.ssh.ssh_errors import AnswerTimeout, HostKeyChanged, HostKeyUnknown
from lab.workcopy import workspace

MAX_BYTES = 4 << 20  # of the machine's answers
TIMEOUT = 60  # seconds for the answers to a script; later ones are unknown
COUNT_TIMEOUT = 8  # seconds to count the files of the dataset
PROGRAMS = {"ssh": "-V", "git": "--version", "rsync": "--version", "uv": "--version"}


def examine_all(machines: Iterable[Machine]) -> dict[str, list[Check]]:
    """Return every check of each machine, by its name; all machines are asked at once."""
    local = collect_local_facts()
    answers = ask_all(machines, lambda machine: examine(machine, local))
    return {
        machine.name: [Check("machine", "", "", FAILED, str(found))]
        if isinstance(found, LabError)
        else found
        for machine, found in answers
    }


def examine(machine: Machine, local: Facts | None = None) -> list[Check]:
    """Return every check of both computers; a problem of the machine is a check, never raised."""
    local = {**(local or collect_local_facts()), "lab": [machine.lab]}
    try:
        connection = Connection(machine)
    except LabError as error:
        local["socket"] = [str(error)]
        return checks.judge(local, None)
    except OSError as error:
        local["socket"] = [explain_os_error(error, "the connection's socket")]
        return checks.judge(local, None)
    local["socket"] = ["ok"]
    remote, found = reach_machine(connection, local)
    return [*found, *checks.judge(local, remote)]


def examine_locally(reason: LabError) -> list[Check]:
    """Return every check of this computer alone, and as a check why no machine can be asked."""
    verdict = WARNING if isinstance(reason, NoMachine) else FAILED
    local = {**collect_local_facts(), "lab": ["lab"], "socket": ["ok"]}
    return [Check("machine", "", "", verdict, str(reason)), *checks.judge(local, None)]


def reach_machine(connection: Connection, local: Facts) -> tuple[Facts | None, list[Check]]:
    """Return the facts of the machine, and the checks of the connection to it."""
    machine = connection.machine
    try:
        options = dict(resolve(machine.host, connection.config))
        jump = options.get("proxyjump") or ("a ProxyCommand" if "proxycommand" in options else "")
        route = f"through {jump}" if jump else "directly"
        connection.open()
        remote, milliseconds = collect_remote_facts(connection, local)
    except (HostKeyChanged, HostKeyUnknown) as error:
        return None, [Check("host key", "", "not reached", FAILED, str(error))]
    except LabError as error:
        return None, [Check("connection", "", "not reached", FAILED, str(error))]
    found = [Check("connection", route, f"{first_line(remote, 'host')}, {milliseconds:.0f} ms", OK)]
    if options.get("stricthostkeychecking") in ("false", "no", "off"):
        cause = "StrictHostKeyChecking is off in ~/.ssh/config, so any machine could pose as"
        advice = f"{cause} {machine.host}: remove that line"
        return remote, [*found, Check("host key", "not checked", "", WARNING, advice)]
    return remote, [*found, Check("host key", "known", "", OK)]


def collect_remote_facts(connection: Connection, local: Facts) -> tuple[Facts, float]:
    """Return what the machine answers, and the milliseconds of a call on the open connection.

    One more fact is "difference": that of the clocks, in seconds, and how accurate it is.
    """
    began = time.time()
    remote, answered = ask(
        connection,
        "facts.sh",
        environment=first_line(local, "environment"),
        torch=first_line(local, "torch wanted"),
        dataset=first_line(local, "dataset name"),
        term=first_line(local, "term"),
        default_index=lock.find_default_index(),
    )
    with suppress(ValueError):  # of a date without %N
        difference = float(first_line(remote, "clock")) - (began + answered) / 2
        remote["difference"] = [f"{difference} {(answered - began) / 2}"]
    if connection.machine.scheduler:
        remote |= {"slurm": [], **ask(connection, "cluster_facts.sh")[0]}
    return remote, 1000 * (answered - began)


def ask(connection: Connection, script: str, **variables: Any) -> tuple[Facts, float]:
    """Return what the machine answers in TIMEOUT seconds, and when it told its clock.

    A disk or driver may hang so that not even the script's own time-outs end that.
    """
    pieces: list[bytes] = []
    times: list[float] = []  # more than one, if the connection was lost and all is asked again
    gather = answers.gather(connection.name, pieces, MAX_BYTES)

    def receive(piece: bytes) -> None:
        if piece.startswith(b"clock:"):
            times.append(time.time())
        gather(piece)

    with suppress(AnswerTimeout):
        connection.run(script, receive=receive, within=TIMEOUT, **variables)
    facts = parse_facts(b"".join(pieces).decode("utf-8", "replace"))
    return facts, times[-1] if times else time.time()


def collect_local_facts() -> Facts:
    """Return the facts of this computer."""
    facts = {name: [get_version(name, option)] for name, option in PROGRAMS.items()}
    text, digest, python = b"", "", project.python()
    try:
        text = files.read(project.lock_file())
        digest = hashlib.sha256(text).hexdigest()
    except FileNotFoundError:
        facts["no lock"] = [f"there is no {project.lock_file().name}: lab lock"]
    except OSError as error:
        facts["no lock"] = [f"{project.lock_file().name}: {error.strerror}"]
    try:
        facts["dataset"] = measure_dataset(project.data_folder() / project.default_dataset())
    except LabError as error:
        facts["no data"] = [str(error)]
    facts |= {
        "python3": [sys.version.split()[0]],
        "environment": [f"{python}-{digest[:12]}"],
        "up to date": [is_up_to_date({"python": python, "lock": digest})],
        "torch wanted": ["yes" if b"\ntorch==" in text else "no"],
        "torch": read_torch_build(),
        "busy ports": [str(port) for port in ssh_config.PORTS if not is_free(port)],
        "dataset name": [project.default_dataset()],
    }
    if os.environ.get("TERM", "dumb") != "dumb":
        facts["term"] = [os.environ["TERM"]]
    return facts


def get_version(name: str, option: str) -> str:
    """Return what a program says of its version, "missing" or "broken"."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    helpers = [Path.home() / ".local/bin", Path(cache, project.CACHE, "uv/bin")]
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, helpers)])
    program = shutil.which(name, path=path)
    if not program:
        return "missing"
    try:
        done = subprocess.run(
            [program, option],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "broken"
    return next(iter(done.stdout.decode("utf-8", "replace").splitlines()), "?")


def is_up_to_date(wanted: dict[str, str]) -> str:
    """Return whether .venv has this lock and Python, by its stamp: yes or no."""
    stamp = read_stamp(project.root() / ".venv")
    return "yes" if stamp | wanted == stamp else "no"


def read_torch_build() -> list[str]:
    """Return the lines of torch's version.py that describe its build."""
    with suppress(OSError):
        for path in (project.root() / ".venv").glob("lib/python*/site-packages/torch/version.py"):
            lines = files.read_text(path, "replace").splitlines()
            return [line for line in lines if line.startswith(("__version__", "cuda", "hip"))]
    return []


def is_free(port: int) -> bool:
    """Return whether nothing listens on a port of this computer."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def measure_dataset(folder: Path) -> list[str]:
    """Return the hash of the manifest, then the number of files and their bytes, as facts.sh."""
    try:
        manifest = files.sha256(folder / "manifest.json")[:12]
    except OSError:
        return []
    sizes, deadline = [], time.monotonic() + COUNT_TIMEOUT
    for parent, folders, names in os.walk(folder, followlinks=True):
        own = parent == str(folder)
        skipped = ("models", "manifest.json") if own else ()
        folders[:] = [one for one in folders if not one.startswith(".") and one not in skipped]
        paths = [Path(parent, one) for one in names if one[0] != "." and one not in skipped]
        try:
            sizes += [path.stat().st_size for path in paths if path.is_file()]
        except OSError:  # not permitted, or removed meanwhile
            return [manifest]
        if time.monotonic() > deadline:
            return [manifest]
    return [manifest, f"{len(sizes)} {sum(sizes)}"]


def fix(machine: Machine, found: list[Check]) -> list[str]:
    """Fix what needs no root; return a line for each attempt."""
    connection = Connection(machine)
    wanted = {check.fix for check in found}
    lines = []
    if "linger" in wanted:
        lines.append(try_fix("at logout", lambda: connection.run("fix.sh", what="linger")))
    if "terminal" in wanted:
        lines.append(try_fix("terminal", lambda: send_terminal(connection)))
    if "setup" in wanted:
        with redirect_stdout(sys.stderr):  # standard output is for the table
            lines.append(try_fix("environment", lambda: workspace.setup(connection)))
    return lines


def try_fix(name: str, step: Callable[[], object]) -> str:
    """Take a step; return a line that says how it went."""
    try:
        step()
    except (LabError, OSError) as error:
        return f"{name}: could not be fixed: {error}"
    return f"{name}: fixed"


def send_terminal(connection: Connection) -> None:
    """Send the description of this terminal, for programs on the machine."""
    described = subprocess.run(["infocmp", "-x"], capture_output=True, check=False).stdout
    if not described:
        raise LabError("infocmp on this computer does not know it either.")
    connection.run("fix.sh", what="terminal", stdin=described)
