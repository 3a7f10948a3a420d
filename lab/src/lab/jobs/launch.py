"""Starting a job: a snapshot of the working tree is sent, and a command started on it, once."""

import json
import re
import shlex
import socket
from datetime import datetime, timezone
from getpass import getuser

from lab.code import sending, snapshot
from lab.ground import project
from lab.ground.errors import LabError
from lab.ground.ids import new_id
from lab.jobs import paths, runner
from lab.jobs.control import Job, told
from lab.ssh.connection import Connection, LineLost, Refused


def experiment(arguments: list[str], gpus: str) -> list[str]:
    """The command of a run: Python, or torchrun with one process for each of several GPUs.

    Raises LabError for settings without the word that Sacred wants before them.
    """
    if arguments and "=" in arguments[0] and not arguments[0].startswith("-"):
        raise LabError(f"{arguments[0]} is a setting: lab run with {shlex.join(arguments)}.")
    module = ["-m", f"{project.package()}.experiment", *arguments]
    if gpu_count(gpus) not in ("some", "0", "1"):
        return ["torchrun", "--standalone", f"--nproc-per-node={gpus}", *module]
    return ["python", *module]


def require_command(command: list[str], gpus: str) -> str:
    """The number of GPUs as the machine compares it; LabError for what cannot be run."""
    if not command:
        raise LabError("there is no command: lab run -- COMMAND, or lab run for the experiment.")
    return gpu_count(gpus)


def gpu_count(wanted: str) -> str:
    """How many GPUs to take, as the machine compares it; LabError if it is no number."""
    if wanted != "some" and not re.fullmatch("[0-9]{1,4}", wanted):
        raise LabError(f"--gpus {wanted}: a number, as in --gpus 2.")
    return wanted if wanted == "some" else str(int(wanted))


def start(
    connection: Connection,
    command: list[str],
    *,
    gpus: str = "some",
    queue: bool = False,
    name: str = "",
    interactive: bool = False,
) -> Job:
    """Send a snapshot of the working tree and start `command` on it; one round trip.

    `gpus`: how many free ones to take; "some": one, where there are any. With `queue` it waits for
    them. The job is there once, even if the line is cut and the script runs again.

    Raises Refused if it cannot start there; LineLost if nobody knows whether it did.
    """
    gpus = require_command(command, gpus)
    taken = snapshot.take()
    id = new_id()
    spec = {
        "format": paths.FORMAT,
        "id": id,
        "name": name,
        "command": command,
        "commit": taken.commit,
        "gpus": gpus,
        "interactive": interactive,
        "by": f"{getuser()}@{socket.gethostname()}",
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    settings = {
        "id": id,
        "project": taken.folder,
        "command": shlex.join(command),
        "gpus": gpus,
        "queue": "yes" if queue else "",
        "lab": connection.machine.lab,
    }
    variables = {
        "id": id,
        "project": taken.folder,
        "spec": json.dumps(spec),
        "settings": "\n".join(f"{name}={shlex.quote(value)}" for name, value in settings.items()),
        "interactive": "yes" if interactive else "",
        **runner.variables(),
    }
    open_still = f"Whether job {id} started is open: {connection.machine.lab} jobs tells."
    try:
        try:
            answer = sending.send(connection, "start.sh", taken.commit, **variables)
        except Refused as refused:
            if refused.code != runner.MISSING:  # another lab than that of lab setup
                raise
            variables |= runner.variables(sent=True)
            answer = sending.send(connection, "start.sh", taken.commit, **variables)
    except LineLost as lost:
        raise LineLost(f"{lost} {open_still}") from None
    except KeyboardInterrupt:
        ended = LabError(f"interrupted. {open_still}")
        ended.exit_code = 130
        raise ended from None
    return told(connection, answer)
