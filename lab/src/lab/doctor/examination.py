"""What is wrong, here and on the machine, and the line that mends it; with --fix it is mended.

The machine is asked by one script, scripts/facts.sh; what the answers mean is told in checks.py.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing, redirect_stdout
from pathlib import Path

from lab.doctor import checks
from lab.doctor.facts import FAILED, OK, WARNING, Check, Facts, first, parse
from lab.environment.check import read_stamp
from lab.ground import files, project
from lab.ground.errors import LabError
from lab.ssh import ssh_config
from lab.ssh.connection import Connection, LineLost
from lab.ssh.machines import Machine
from lab.workcopy import workspace

ALL = 60  # seconds for the machine's answers; those that came until then are taken
PROGRAMS = {"ssh": "-V", "git": "--version", "rsync": "--version", "uv": "--version"}


def examine(machine: Machine) -> list[Check]:
    """Every check of this computer and of the machine; never raises for what is wrong there."""
    here = {**facts_here(), "lab": [machine.lab]}
    try:
        connection = Connection(machine)
    except LabError as error:
        here["socket"] = [str(error)]
        return checks.judge(here, None)
    here["socket"] = ["well"]
    there, found = reach(connection, here)
    return [*found, *checks.judge(here, there)]


def examine_without(reason: str) -> list[Check]:
    """Every check of this computer, where there is no machine that could be asked."""
    verdict = WARNING if reason.startswith("no machine yet") else FAILED
    here = {**facts_here(), "lab": ["lab"], "socket": ["well"]}
    return [Check("machine", "", "", verdict, reason), *checks.judge(here, None)]


def reach(connection: Connection, here: Facts) -> tuple[Facts | None, list[Check]]:
    """The facts of the machine, and what is to be said of the way there."""
    machine = connection.machine
    try:
        way = dict(ssh_config.resolve(machine.host, connection.config))
        by = way.get("proxyjump") or ("a ProxyCommand" if way.get("proxycommand") else "")
        route = f"by way of {by}" if by else "directly"
        connection.open()
        there, milliseconds = facts_there(connection, here)
    except LabError as error:  # LineLost and Refused too
        host_key = "host key of" in str(error)
        name = "host key" if host_key else "connection"
        return None, [Check(name, "", "not reached", FAILED, str(error))]
    found = [Check("connection", route, f"{first(there, 'host')}, {milliseconds:.0f} ms", OK)]
    lax = way.get("stricthostkeychecking") in ("false", "no", "off")
    advice = "StrictHostKeyChecking is off in ~/.ssh/config, so that any machine could pose as"
    advice = f"{advice} {machine.host}: take that line out" if lax else ""
    word = "not checked" if lax else "known"
    return there, [*found, Check("host key", word, "", WARNING if lax else OK, advice)]


def facts_there(connection: Connection, here: Facts) -> tuple[Facts, float]:
    """What the machine answers, and the milliseconds of a call on the open connection.

    Also "difference": of the clocks, in seconds, and how many seconds that may be wrong.
    """
    pieces: list[bytes] = []
    times: list[float] = []

    def receive(piece: bytes) -> None:
        times.append(time.time())
        pieces.append(piece)

    variables = {
        "environment": first(here, "environment"),
        "dataset": first(here, "dataset name"),
        "term": first(here, "term"),
    }
    began = time.time()
    try:
        connection.run("facts.sh", receive=receive, within=ALL, **variables)
    except LineLost:
        if time.time() < began + ALL:
            raise  # else a disk or driver that hangs so hard that it cannot even be given up
    there = parse(b"".join(pieces).decode("utf-8", "replace"))
    answered = next((at for at, piece in zip(times, pieces, strict=True) if piece), time.time())
    try:
        difference = float(first(there, "clock")) - (began + answered) / 2
        there["difference"] = [f"{difference} {(answered - began) / 2}"]
    except ValueError:
        pass  # a date without %N
    return there, 1000 * (answered - began)


def facts_here() -> Facts:
    """What there is to know of this computer, without asking anybody else."""
    try:
        text = (project.root() / "requirements.txt").read_bytes()
    except OSError as error:
        raise LabError(f"{error.filename}: {error.strerror}.") from None
    lock = hashlib.sha256(text).hexdigest()
    python = project.read_toml("pyproject.toml")["tool"]["lab"]["python"]
    facts = {name: [version(name, option)] for name, option in PROGRAMS.items()}
    facts |= {
        "python3": [sys.version.split()[0]],
        "environment": [f"{python}-{lock[:12]}"],
        "in step": [in_step({"python": python, "lock": lock})],
        "torch wanted": ["yes" if b"\ntorch==" in text else "no"],
        "torch": torch_here(),
        "busy ports": [str(port) for port in ssh_config.PORTS if not free(port)],
        "dataset name": [project.default_dataset()],
        "dataset": dataset_here(project.data_folder() / project.default_dataset()),
    }
    if os.environ.get("TERM", "dumb") != "dumb":
        facts["term"] = [os.environ["TERM"]]
    return facts


def version(name: str, option: str) -> str:
    """What a program says of its version; "missing" or "broken"."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    helpers = [Path.home() / ".local/bin", Path(cache, project.CACHE, "uv/bin")]
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, helpers)])
    program = shutil.which(name, path=path)
    if not program:
        return "missing"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    try:
        done = subprocess.run([program, option], **pipes, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return "broken"
    return next(iter(done.stdout.decode("utf-8", "replace").splitlines()), "?")


def in_step(wanted: dict[str, str]) -> str:
    """Whether .venv is the environment of this lock, by the stamp of bootstrap.py: yes or no."""
    stamp = read_stamp(project.root() / ".venv")
    return "yes" if stamp | wanted == stamp else "no"


def torch_here() -> list[str]:
    """The lines of torch's version.py that tell of its build."""
    for path in (project.root() / ".venv").glob("lib/python*/site-packages/torch/version.py"):
        lines = path.read_text("utf-8", errors="replace").splitlines()
        return [line for line in lines if line.startswith(("__version__", "cuda", "hip"))]
    return []


def free(port: int) -> bool:
    """Whether nobody listens on a port of this computer."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def dataset_here(folder: Path) -> list[str]:
    """The hash of its manifest, its files and their bytes, as facts.sh tells them."""
    try:
        known = files.sha256(folder / "manifest.json")[:12]
    except OSError:
        return []
    sizes, until = [], time.monotonic() + 8
    for split in project.SPLITS:
        for place, _, names in os.walk(folder / split):
            paths = [os.path.join(place, name) for name in names if not name.startswith(".")]
            sizes += [os.lstat(path).st_size for path in paths]
            if time.monotonic() > until:
                return [known]
    return [known, f"{len(sizes)} {sum(sizes)}"]


def mend(machine: Machine, found: list[Check]) -> list[str]:
    """Mend what can be mended without being root; a line for each attempt."""
    bad = {check.check for check in found if check.verdict in (FAILED, WARNING)}
    connection = Connection(machine)
    said = []
    if bad & {"connection", "host key"}:
        connection.close()  # one that hangs would be taken again
        return ["the connection was closed, to be opened anew"]
    for name, what in (("at logout", "linger"), ("terminal", "terminal")):
        if name in bad:
            said.append(attempt(name, lambda what=what: send(connection, what)))
    if any(check.there in (checks.MISSING, checks.OUT_OF_STEP) for check in found):
        with redirect_stdout(sys.stderr):  # on standard output comes the table
            said.append(attempt("environment", lambda: workspace.setup(connection)))
    return said


def attempt(name: str, step) -> str:
    """Take a step; what became of it."""
    try:
        step()
    except (LabError, OSError) as error:
        return f"{name}: could not be mended: {error}"
    return f"{name}: mended"


def send(connection: Connection, what: str) -> None:
    """Mend one thing there by scripts/mend.sh."""
    with tempfile.TemporaryFile() as file:
        if what == "terminal":
            subprocess.run(["infocmp", "-x"], stdout=file, stderr=subprocess.DEVNULL, check=False)
            file.seek(0)
        connection.run("mend.sh", what=what, stdin=file)
