"""What is wrong, here and on the machine, and the line that fixes it; with --fix it is fixed.

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
from lab.doctor.facts import FAILED, OK, WARNING, Check, Facts, first_line, parse_facts
from lab.environment.check import read_stamp
from lab.ground import files, project
from lab.ground.errors import LabError
from lab.ssh import ssh_config
from lab.ssh.connection import Connection
from lab.ssh.machines import Machine
from lab.ssh.ssh_errors import HostKeyChanged, HostKeyUnknown, SshError
from lab.workcopy import workspace

ALL = 60  # seconds for the machine's answers; those that came until then are taken
PROGRAMS = {"ssh": "-V", "git": "--version", "rsync": "--version", "uv": "--version"}


def examine(machine: Machine) -> list[Check]:
    """Every check of this computer and of the machine; never raises for what is wrong there."""
    here = {**collect_local_facts(), "lab": [machine.lab]}
    try:
        connection = Connection(machine)
    except LabError as error:
        here["socket"] = [str(error)]
        return checks.judge(here, None)
    here["socket"] = ["ok"]
    there, found = reach_machine(connection, here)
    return [*found, *checks.judge(here, there)]


def examine_locally(reason: str) -> list[Check]:
    """Every check of this computer, where there is no machine that could be asked."""
    verdict = WARNING if reason.startswith("no machine yet") else FAILED
    here = {**collect_local_facts(), "lab": ["lab"], "socket": ["ok"]}
    return [Check("machine", "", "", verdict, reason), *checks.judge(here, None)]


def reach_machine(connection: Connection, here: Facts) -> tuple[Facts | None, list[Check]]:
    """The facts of the machine, and what is to be said of the way there."""
    machine = connection.machine
    try:
        way = dict(ssh_config.resolve(machine.host, connection.config))
        by = way.get("proxyjump") or ("a ProxyCommand" if way.get("proxycommand") else "")
        route = f"by way of {by}" if by else "directly"
        connection.open()
        there, milliseconds = collect_remote_facts(connection, here)
    except (HostKeyChanged, HostKeyUnknown) as error:
        return None, [Check("host key", "", "not reached", FAILED, str(error))]
    except LabError as error:
        return None, [Check("connection", "", "not reached", FAILED, str(error))]
    found = [Check("connection", route, f"{first_line(there, 'host')}, {milliseconds:.0f} ms", OK)]
    lax = way.get("stricthostkeychecking") in ("false", "no", "off")
    advice = "StrictHostKeyChecking is off in ~/.ssh/config, so that any machine could pose as"
    advice = f"{advice} {machine.host}: take that line out" if lax else ""
    word = "not checked" if lax else "known"
    return there, [*found, Check("host key", word, "", WARNING if lax else OK, advice)]


def collect_remote_facts(connection: Connection, here: Facts) -> tuple[Facts, float]:
    """What the machine answers, and the milliseconds of a call on the open connection.

    Also "difference": of the clocks, in seconds, and how many seconds that may be wrong.
    """
    pieces: list[bytes] = []
    times: list[float] = []

    def receive(piece: bytes) -> None:
        times.append(time.time())
        pieces.append(piece)

    variables = {
        "environment": first_line(here, "environment"),
        "dataset": first_line(here, "dataset name"),
        "term": first_line(here, "term"),
    }
    began = time.time()
    try:
        connection.run("facts.sh", receive=receive, within=ALL, **variables)
    except SshError:
        if time.time() < began + ALL:
            raise  # else a disk or driver that hangs so hard that it cannot even be given up
    there = parse_facts(b"".join(pieces).decode("utf-8", "replace"))
    answered = next((at for at, piece in zip(times, pieces, strict=True) if piece), time.time())
    try:
        difference = float(first_line(there, "clock")) - (began + answered) / 2
        there["difference"] = [f"{difference} {(answered - began) / 2}"]
    except ValueError:
        pass  # a date without %N
    return there, 1000 * (answered - began)


def collect_local_facts() -> Facts:
    """What there is to know of this computer, without asking anybody else."""
    try:
        text = (project.root() / "requirements.txt").read_bytes()
    except OSError as error:
        raise LabError(f"{error.filename}: {error.strerror}.") from None
    lock = hashlib.sha256(text).hexdigest()
    python = project.python()
    facts = {name: [get_version(name, option)] for name, option in PROGRAMS.items()}
    facts |= {
        "python3": [sys.version.split()[0]],
        "environment": [f"{python}-{lock[:12]}"],
        "up to date": [is_up_to_date({"python": python, "lock": lock})],
        "torch wanted": ["yes" if b"\ntorch==" in text else "no"],
        "torch": read_torch_build(),
        "busy ports": [str(port) for port in ssh_config.PORTS if not is_free(port)],
        "dataset name": [project.default_dataset()],
        "dataset": measure_dataset(project.data_folder() / project.default_dataset()),
    }
    if os.environ.get("TERM", "dumb") != "dumb":
        facts["term"] = [os.environ["TERM"]]
    return facts


def get_version(name: str, option: str) -> str:
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


def is_up_to_date(wanted: dict[str, str]) -> str:
    """Whether .venv is the environment of this lock, by the stamp of bootstrap.py: yes or no."""
    stamp = read_stamp(project.root() / ".venv")
    return "yes" if stamp | wanted == stamp else "no"


def read_torch_build() -> list[str]:
    """The lines of torch's version.py that tell of its build."""
    for path in (project.root() / ".venv").glob("lib/python*/site-packages/torch/version.py"):
        lines = path.read_text("utf-8", errors="replace").splitlines()
        return [line for line in lines if line.startswith(("__version__", "cuda", "hip"))]
    return []


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of this computer."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def measure_dataset(folder: Path) -> list[str]:
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


def fix(machine: Machine, found: list[Check]) -> list[str]:
    """Fix what can be fixed without being root; a line for each attempt."""
    bad = {check.check for check in found if check.verdict in (FAILED, WARNING)}
    connection = Connection(machine)
    said = []
    if bad & {"connection", "host key"}:
        connection.close()  # one that hangs would be taken again
        return ["the connection was closed, to be opened anew"]
    for name, what in (("at logout", "linger"), ("terminal", "terminal")):
        if name in bad:
            said.append(try_step(name, lambda what=what: fix_remotely(connection, what)))
    if any(check.remote in (checks.MISSING, checks.OUTDATED) for check in found):
        with redirect_stdout(sys.stderr):  # on standard output comes the table
            said.append(try_step("environment", lambda: workspace.setup(connection)))
    return said


def try_step(name: str, step) -> str:
    """Take a step; what became of it."""
    try:
        step()
    except (LabError, OSError) as error:
        return f"{name}: could not be fixed: {error}"
    return f"{name}: fixed"


def fix_remotely(connection: Connection, what: str) -> None:
    """Fix one thing there by scripts/fix.sh."""
    with tempfile.TemporaryFile() as file:
        if what == "terminal":
            subprocess.run(["infocmp", "-x"], stdout=file, stderr=subprocess.DEVNULL, check=False)
            file.seek(0)
        connection.run("fix.sh", what=what, stdin=file)
