"""Jobs on a machine: listed with their true state, followed, attached to, stopped.

A job is a folder jobs/<id>/ on the machine, with its own checkout of the code; runner.sh runs it.
"""

import re
import shlex
import signal
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from lab.ground.errors import LabError, UsageError
from lab.ground.files import parse_json
from lab.ground.ids import FORMAT as ID
from lab.ground.interrupts import name_signal
from lab.ground.owner import is_own
from lab.ground.terminal import count_files, escape, format_duration
from lab.jobs import job_cache, job_format
from lab.ssh.answers import expecting, parse_number
from lab.ssh.connection import Connection
from lab.ssh.ssh_errors import RemoteError, SshError

NEWEST = 30  # jobs that are listed, beside those that have not ended
LIST_TIMEOUT = 300  # seconds that a machine may take to list its jobs
GPUS = re.compile(r"[0-9]{1,4}(,[0-9]{1,4}){0,99}")
BEGAN = re.compile(r"[0-9]{1,12}")  # seconds of the machine's clock
GOES_ON = 78  # exit code of slurm_follow.sh: a minute is over, and the job has not ended
COLUMNS = ("job", "state", "waited", "time", "gpu", "by", "what")
GOING = ("queued", "running", "unknown")  # the states of a job that has not ended
# Why a job that has not ended has no process.
GONE = {
    "no": "its runner was killed",
    "rebooted": "the machine was restarted",
    "never": "it never started: lab stop clears it",
    "damaged": "it has ended, but its exit code is damaged",
}
# How Slurm may have ended a job, in its own words.
SLURM_ENDS = {
    "timeout": "it reached its time limit: --time sets a longer one",
    "preempted": "a job of higher priority took its node",
    "node_fail": "its node failed",
    "cancelled": "by scancel or an administrator, not by lab stop",
    "out_of_memory": "it used more memory than it asked for: --slurm mem=",
    "boot_fail": "its node did not start",
    "deadline": "it reached its deadline",
}


class JobNotFound(LabError):
    """No job, or more than one, has the id or name that was asked for."""


class NotYours(JobNotFound):
    """The only job that matches belongs to somebody else, or to another computer."""


class Job(NamedTuple):
    """What a machine knows about a job; times in seconds of the machine's clock."""

    id: str
    # queued, running, finished(CODE), killed(SIGNAL), stopped, lost, unknown; or one of SLURM_ENDS
    state: str
    detail: str  # what it waits for, or why it is lost
    code: int | None
    seconds: float | None  # that its command has run; None if it never did
    gpus: str  # indices, such as "0,1"
    spec: dict[str, Any]  # job.json: name, command, commit, by, time; {} if it is damaged
    waited: float | None = None  # seconds before that, for GPUs and its environment

    @property
    def ended(self) -> bool:
        return self.state not in GOING

    @property
    def readable(self) -> bool:
        """Whether its state can be told: not if a newer lab started it."""
        return not _is_newer(self.spec)

    @property
    def own(self) -> bool:
        """Whether this person started it, on this computer."""
        return is_own(self.spec.get("by"))

    @property
    def exit_code(self) -> int:
        """What lab wait and lab run --follow exit with: its command's code, else 143 or 1."""
        if self.state == "stopped":  # its command may have ended with 0, but not by itself
            return self.code or 143
        if self.state in SLURM_ENDS:  # Slurm's code of a failed node is 0
            return self.code or 1
        return 1 if self.code is None else self.code

    @property
    def line(self) -> str:
        """Its id and state, and the detail if there is one."""
        return f"{self.id} {self.state}" + (f": {self.detail}" if self.detail else "")

    def row(self) -> dict[str, str]:
        """Return its row in a table: a text for each of COLUMNS."""
        command = self.spec.get("command")
        words = [str(word) for word in command] if isinstance(command, list) else []
        names = [word.endswith(".experiment") for word in words]  # the same for every run
        words = words[names.index(True) + 1 :] if True in names else words
        named = str(self.spec.get("name") or shlex.join(words))
        what = ": ".join(part for part in (named, self.detail) if part)
        by = str(self.spec.get("by", ""))
        waited, ran = format_duration(self.waited or None), format_duration(self.seconds)
        cells = (self.id, self.state, waited, ran, self.gpus, by, what)
        return dict(zip(COLUMNS, cells, strict=True))


class Listed(list[Job]):
    """Jobs, oldest first."""

    hidden = 0  # how many older ones, all of them ended, were left out


def parse(output: str) -> Listed:
    """Return the jobs that list.sh printed. ValueError if its output is malformed."""
    head, *lines = output.removesuffix("\n").split("\n")
    clock, _, hidden = head.partition(" ")
    now = parse_number(clock)
    jobs = Listed(sorted((_parse_line(line, now) for line in lines), key=lambda job: job.id))
    jobs.hidden = parse_number(hidden) if hidden else 0
    return jobs


def parse_one(connection: Connection, output: str) -> Job:
    """Return the one job that a script described; keep it for shell completion.

    Raises BadAnswer if the output is malformed.
    """
    with expecting(connection.name, "the state of a job"):
        (job,) = parse(output)
    job_cache.store(connection.machine, [job], all_of_them=False)
    return job


def _parse_line(line: str, now: int) -> Job:
    """Return the job of one line of describe in jobs.sh."""
    fields = job_format.split_line(line)
    spec = _parse_spec(fields["spec"])
    if not fields["id"].isprintable() or not 0 < len(fields["id"]) < 256 or "/" in fields["id"]:
        raise ValueError("not a folder name")
    code = parse_number(fields["code"]) if fields["code"] else None
    state, detail = _find_state(code, fields["alive"], fields["stopped"] == "yes", fields["phase"])
    if _is_newer(spec):
        state, detail = "unknown", "started by a newer lab: run lab update"
    if fields["wrote"] == "?" and state not in GOING:
        left = "lab fetch brings what it left in its checkout"
        detail = f"{detail}; {left}" if detail else left
    elif state.startswith(("finished", "killed", "stopped")) and fields["wrote"]:
        left = count_files(parse_number(fields["wrote"]))
        detail = f"left {left} in its checkout: lab fetch brings them"
    if state.startswith(("finished", "killed")) and fields["phase"].startswith("queued"):
        detail = detail or "its command did not start: lab logs"
    waited, seconds = _measure(fields, now)
    gpus = fields["gpus"] if GPUS.fullmatch(fields["gpus"]) else ""
    return Job(fields["id"], state, detail, code, seconds, gpus, spec, waited)


def _is_newer(spec: dict[str, Any]) -> bool:
    written_in = spec.get("format")
    return isinstance(written_in, int) and written_in > job_format.FORMAT


def _measure(fields: dict[str, str], now: int) -> tuple[int | None, int | None]:
    """Return the seconds that a job waited and ran; None if it did not, or nobody knows."""
    kind, _, began = fields["phase"].partition(" ")
    until = now if fields["alive"] == "yes" else None
    until = parse_number(fields["end"]) if fields["end"] else until
    if not fields["start"]:
        return None, None
    start = parse_number(fields["start"])
    if kind == "queued":
        return (None if until is None else until - start), None
    run_at = int(began) if BEGAN.fullmatch(began) else start
    return run_at - start, (None if until is None else until - run_at)


def _parse_spec(text: str) -> dict[str, Any]:
    """Return what is in job.json; a damaged one must not hide the other jobs."""
    try:
        spec = parse_json(text)
    except ValueError:
        return {}
    return spec if isinstance(spec, dict) else {}


def _find_state(code: int | None, alive: str, stopped: bool, phase: str) -> tuple[str, str]:
    """Return the state and a detail; only a job that wrote its exit code has finished."""
    if alive.startswith("slurm:") and not stopped:
        return _find_slurm_end(alive.removeprefix("slurm:"), code)
    if code is not None and not stopped:
        if code > 128 and code - 128 in signal.valid_signals():
            return f"killed({name_signal(code - 128)})", ""
        return f"finished({code})", ""
    if code is not None or (stopped and (alive in GONE or alive.startswith("slurm:"))):
        return "stopped", ""
    if alive == "unasked":
        return "unknown", "Slurm does not answer"
    if alive in GONE:
        return "lost", GONE[alive]
    if alive == "elsewhere":
        return "unknown", "it runs on another host with the same home folder"
    kind, _, detail = phase.partition(" ")
    if stopped:
        return "running", "it is being stopped"
    return ("queued", detail) if kind == "queued" else ("running", "")


def _find_slurm_end(words: str, code: int | None) -> tuple[str, str]:
    """Return the state and a detail from what Slurm said of the end: a word, and a code."""
    word, _, number = words.partition(" ")
    code = parse_number(number, 255) if number else code
    if word in SLURM_ENDS:
        return word, SLURM_ENDS[word]
    forgotten = "Slurm no longer knows how it ended" if word == "forgotten" else ""
    if code is None:
        return "lost", forgotten or "Slurm does not say how it ended"
    state, _ = _find_state(code, "", False, "")
    killed = "perhaps for memory" if state == "killed(SIGKILL)" else ""
    return state, forgotten or killed


def list_jobs(connection: Connection, limit: int = NEWEST, own: bool = False) -> Listed:
    """Return the jobs, oldest first: those that have not ended, and the newest `limit` (0: all).

    `own`: only those of this person and computer.
    """
    output = connection.run("list.sh", id="", limit=0 if own else limit, within=LIST_TIMEOUT)
    with expecting(connection.name, "a list of jobs"):
        jobs = parse(output)
    job_cache.store(connection.machine, jobs, all_of_them=True)
    if not own:
        return jobs
    mine = [job for job in jobs if job.own]
    cut = max(len(mine) - limit, 0) if limit else 0
    unfinished = [job for job in mine[:cut] if not job.ended]
    found = Listed([*unfinished, *mine[cut:]])
    found.hidden = cut - len(unfinished)
    return found


def get(connection: Connection, id: str) -> Job:
    """Return a job as it is now. RemoteError if there is none with that id."""
    return parse_one(connection, connection.run("list.sh", id=id, limit=0, within=LIST_TIMEOUT))


def find(connection: Connection, wanted: str | None, own: bool = False) -> str:
    """Return the id of a job from that, its beginning or end, or a name (the newest of several).

    Without `wanted` it is the newest, of this person and computer if there is one. With `own` only
    theirs count, unless `wanted` is a whole id. Raises JobNotFound unless exactly one matches, or
    NotYours.
    """
    if wanted and ID.fullmatch(wanted):
        return wanted
    jobs = list_jobs(connection, 0 if wanted else NEWEST)
    if not jobs:
        lab = connection.machine.lab
        raise JobNotFound(f"there are no jobs on {connection.name} yet: {lab} run starts one.")
    if not wanted:
        return ([job for job in jobs if job.own] or jobs)[-1].id
    found = match([job for job in jobs if job.own or not own], wanted)
    if len(found) == 1:
        return found[0].id
    if found:
        matches = f"{len(found)} jobs on {connection.name} match {wanted}"
        raise JobNotFound(f"{matches}: {', '.join(job.id for job in found[-5:])}.")
    others = match(jobs, wanted)
    if others:
        by = escape(others[-1].spec.get("by") or "somebody")
        job = f"job {others[-1].id} on {connection.name}"
        raise NotYours(f"{job} belongs to {by}: give its whole id.")
    newest = ", ".join(job.id for job in jobs[-5:])
    raise JobNotFound(f"there is no job {wanted} on {connection.name}; the newest are: {newest}.")


def match(jobs: list[Job], wanted: str) -> list[Job]:
    """Return the newest job of that name, or else those whose id begins or ends with it."""
    named = [job for job in jobs if job.spec.get("name") == wanted]
    return named[-1:] or [
        job for job in jobs if job.id.startswith(wanted) or job.id.endswith(wanted)
    ]


def wait(connection: Connection, ids: Iterable[str], any_of_them: bool = False) -> list[Job]:
    """Wait for all of these jobs to end, or for one, but a minute at most; return them all.

    RemoteError if a newer lab started one of them, as nobody can tell here whether it has ended.
    """
    asked = sorted(set(ids))
    wanted = "yes" if any_of_them else ""
    known = job_format.FORMAT
    answer = connection.run(
        "wait.sh", ids=" ".join(asked), any=wanted, format=known, within=LIST_TIMEOUT
    )
    with expecting(connection.name, "the state of these jobs"):
        jobs = parse(answer)
        if [job.id for job in jobs] != asked:
            raise ValueError("not the jobs that were asked for")
    job_cache.store(connection.machine, jobs, all_of_them=False)
    return jobs


def stop(connection: Connection, id: str, grace: int = 60) -> tuple[Job, bool]:
    """End a job and everything it started: gently, and after `grace` seconds by force.

    Return the job, and whether it had already ended.
    """
    answer = connection.run("stop.sh", id=id, grace=grace, format=job_format.FORMAT)
    line = answer.removeprefix("already\n")
    return parse_one(connection, line), line != answer


def write_logs(
    connection: Connection,
    id: str,
    write: Callable[[bytes], object],
    *,
    follow: bool = False,
    last: int | None = None,
    retry: Callable[[SshError], object] | None = None,
) -> int:
    """Write a job's output; with `follow` until it ends, whatever happens to the connection.

    `last`: of the output so far only this many lines, of a progress bar only what it showed last.
    `retry` is called for each lost connection, and may raise to give up; if it returns, the output
    continues at the byte where it stopped. Returns how many bytes were left out.
    """
    position = left_out = 0

    def receive(piece: bytes) -> None:
        nonlocal position
        position += len(piece)
        write(piece)

    variables: dict[str, Any] = {"id": id, "follow": ""}
    if last is not None:
        variables |= {"from": 0, "last": last}
        output = connection.run("follow.sh", **variables)
        numbers, _, text = output.partition("\n")
        with expecting(connection.name, "two sizes in bytes"):
            position, left_out = map(parse_number, numbers.split(" "))
        write(text.encode("utf-8", "surrogateescape"))
        if not follow:
            return left_out
    while True:
        try:
            variables |= {"from": position, "last": "", "follow": "yes" if follow else ""}
            connection.run("follow.sh", receive=receive, again=False, **variables)
        except RemoteError as error:
            if error.code != GOES_ON:
                raise
        except SshError as error:
            if not retry:
                raise
            retry(error)
        else:
            return left_out


def attach(connection: Connection, id: str) -> int:
    """Show a job in this terminal, where Ctrl-C reaches it; return ssh's exit code.

    Raises UsageError for a Slurm job, which has no terminal.
    """
    machine = connection.machine
    if machine.scheduler:
        instead = f"{machine.lab} logs -f {id[-4:]} shows its output"
        raise UsageError(f"a Slurm job has no terminal: {instead}.")
    return connection.run_in_terminal("attach.sh", id=id, format=job_format.FORMAT)
