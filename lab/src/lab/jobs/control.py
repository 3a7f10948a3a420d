"""Jobs on a machine: listed with their true state, followed, attached to, stopped.

A job is a folder jobs/<id>/ there with its own checkout of the code; scripts/runner.sh carries it.
"""

import json
import shlex
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

from lab.ground.errors import LabError
from lab.ground.ids import FORMAT as ID
from lab.ground.terminal import format_duration
from lab.jobs import known_jobs, paths
from lab.ssh.connection import Connection, LineLost

LISTED = 30
COLUMNS = ("job", "state", "time", "gpu", "by", "what")
# Why a job that has not ended has no process.
GONE = {
    "no": "its runner was killed",
    "rebooted": "the machine was restarted",
    "never": "it was never started: to stop it clears it",
}


class Job(NamedTuple):
    """What a machine knows of a job; times in seconds of the machine's clock."""

    id: str
    state: str  # queued, running, finished(CODE), killed(SIGNAL), stopped, lost, unknown
    detail: str  # what it waits for, or why it is lost
    code: int | None
    seconds: float | None  # since its start, or from start to end
    gpus: str  # indices, such as "0,1"
    spec: dict[str, Any]  # what lab run was told: name, command, commit, by, time

    @property
    def ended(self) -> bool:
        return self.state not in ("queued", "running", "unknown")

    def row(self) -> dict[str, str]:
        """As it is shown in a table: a text for each of COLUMNS."""
        command = self.spec.get("command", [])
        names = [word.endswith(".experiment") for word in command]  # the same in all of them
        command = command[names.index(True) + 1 :] if True in names else command
        what = self.detail or self.spec.get("name") or shlex.join(command)
        time = format_duration(self.seconds)
        cells = (self.id, self.state, time, self.gpus, self.spec.get("by", ""), what)
        return dict(zip(COLUMNS, cells, strict=True))


def parse(output: str) -> list[Job]:
    """The jobs that list.sh printed, oldest first."""
    clock, *lines = output.splitlines()
    return [_job(line, int(clock)) for line in lines]


def _job(line: str, now: int) -> Job:
    """One line of describe in scripts/jobs.sh."""
    told = paths.state_line(line)
    try:
        spec = json.loads(told["spec"])
    except ValueError:
        spec = {}  # a damaged job.json must not hide the other jobs
    ended = int(told["code"]) if told["code"] else None
    state, detail = _state(ended, told["alive"], told["stopped"] == "yes", told["phase"])
    if spec.get("format", paths.FORMAT) > paths.FORMAT:
        state, detail = "unknown", "a newer lab has started it: lab update here"
    until = int(told["end"]) if told["end"] else now
    runs = told["end"] or told["alive"] == "yes"
    seconds = until - int(told["start"]) if told["start"] and runs else None
    return Job(told["id"], state, detail, ended, seconds, told["gpus"], spec)


def _state(code: int | None, alive: str, stopped: bool, phase: str) -> tuple[str, str]:
    """The state and a detail; nothing is called finished without the exit code that it wrote."""
    if code is not None and not stopped:
        if code > 128 and code - 128 in signal.valid_signals():
            return f"killed({signal.Signals(code - 128).name})", ""
        return f"finished({code})", ""
    if code is not None or (stopped and alive in GONE):
        return "stopped", ""
    if alive in GONE:
        return "lost", GONE[alive]
    if alive == "elsewhere":
        return "unknown", "it runs on another host with the same home folder"
    kind, _, detail = phase.partition(" ")
    if stopped:
        return "running", "it is being stopped"
    return ("queued", detail) if kind == "queued" else ("running", "")


def listing(connection: Connection, most: int = LISTED) -> list[Job]:
    """The jobs, oldest first: those that have not ended, and the newest `most` (0: all)."""
    found = parse(connection.run("list.sh", id="", most=most))
    known_jobs.remember(connection.machine, found, all_of_them=True)
    return found


def one(connection: Connection, id: str) -> Job:
    """How a job stands. Raises Refused if there is none of that id."""
    return told(connection, connection.run("list.sh", id=id, most=0))


def told(connection: Connection, output: str) -> Job:
    """The one job that a script has described."""
    (job,) = parse(output)
    known_jobs.remember(connection.machine, [job], all_of_them=False)
    return job


def find(connection: Connection, wanted: str | None) -> str:
    """The id of a job: itself, the only one that begins or ends so or has that name.

    Without `wanted` it is the newest.
    """
    if wanted and ID.fullmatch(wanted):
        return wanted
    known = listing(connection, 0 if wanted else LISTED)
    if not known:
        raise LabError(f"there are no jobs on {connection.name} yet.")
    if not wanted:
        return known[-1].id
    named = {job.id for job in known if job.spec.get("name") == wanted}
    ids = [job.id for job in known]
    found = [id for id in ids if id in named or id.startswith(wanted) or id.endswith(wanted)]
    if len(found) == 1:
        return found[0]
    cause = f"{len(found)} jobs are meant by" if found else "there is no job"
    near = ", ".join(found[-5:] or [job.id for job in known[-5:]])
    raise LabError(f"{cause} {wanted} on {connection.name}; there are: {near}.")


def stop(connection: Connection, id: str, grace: int = 60) -> Job:
    """End a job with everything it started: gently, and after `grace` seconds by force."""
    return told(connection, connection.run("stop.sh", id=id, grace=grace))


def logs(
    connection: Connection,
    id: str,
    write: Callable[[bytes], None],
    *,
    follow: bool = False,
    last: int | None = None,
    retry: Callable[[LineLost], None] | None = None,
) -> None:
    """Write a job's output; with `follow` until it ends, going on at the right byte after a cut.

    `last`: only so many lines of what is there already. `retry` is told of each cut, and may raise
    to give up.
    """
    position = 0

    def receive(piece: bytes) -> None:
        nonlocal position
        position += len(piece)
        write(piece)

    if last is not None:
        variables = {"from": 0, "last": last, "follow": "yes" if follow else ""}
        if not follow:
            connection.run("follow.sh", id=id, receive=receive, **variables)
            return
        position = int(connection.run("follow.sh", id=id, **variables))
    while True:
        try:
            variables = {"from": position, "follow": "yes" if follow else "", "last": ""}
            connection.run("follow.sh", id=id, receive=receive, again=False, **variables)
            return
        except LineLost as lost:
            if not retry:
                raise
            retry(lost)


def attach(connection: Connection, id: str) -> int:
    """Show a job in this terminal, where Ctrl-C reaches it; returns ssh's exit code."""
    return connection.terminal("attach.sh", id=id)
