"""Jobs on a machine, from a notebook: remote.run("with", "lr=0.01"), remote.jobs(), remote.fetch().

A long run should not end with the notebook that started it: run() starts a job, as `lab run` does,
and the others show its state and fetch its record. A change of what is listed in __all__ is a new
major version.

Every error is a LabError. SshError: the machine was not reached, or the connection was lost.
RemoteError: the machine could not do it. UsageError: the call cannot work on any machine.
"""

import html
import time
from collections.abc import Iterable, Mapping

from lab.ground import project, terminal
from lab.ground.errors import LabError, UsageError
from lab.ground.terminal import print_text
from lab.jobs import control as _jobs
from lab.jobs import launch
from lab.runs import listing, records
from lab.ssh import machines, variables
from lab.ssh.connection import Connection
from lab.ssh.ssh_errors import RemoteError, SshError
from lab.transfer import fetch as _fetch
from lab.transfer import models
from lab.transfer import report as _report

__all__ = [
    "Job",
    "Jobs",
    "LabError",
    "RemoteError",
    "SshError",
    "UsageError",
    "fetch",
    "follow",
    "jobs",
    "run",
]


class Job:
    """A job as it was when the machine was last asked; a cell shows its state."""

    def __init__(self, connection: Connection, seen: _jobs.Job):
        self.connection, self.seen = connection, seen

    @property
    def id(self) -> str:
        return self.seen.id

    @property
    def state(self) -> str:
        """queued, running, finished(CODE), killed(SIGNAL), stopped, lost, unknown.

        For Slurm also timeout, preempted and the like.
        """
        return self.seen.state

    @property
    def ended(self) -> bool:
        return self.seen.ended

    def refresh(self) -> "Job":
        """Ask the machine for its state now."""
        self.seen = _jobs.get(self.connection, self.id)
        return self

    def logs(self, last: int | None = None) -> "Text":
        """Return its output so far, or only the last lines."""
        pieces: list[bytes] = []
        _jobs.write_logs(self.connection, self.id, pieces.append, last=last)
        return Text(b"".join(pieces).decode("utf-8", "replace"))

    def stop(self, grace: int = 60) -> "Job":
        """End it with everything it started: gently, and after `grace` seconds by force."""
        self.seen, _ = _jobs.stop(self.connection, self.id, grace)
        return self

    def __repr__(self) -> str:
        row = self.seen.row()
        gpus = f"on GPU {row['gpu']}" if row["gpu"] else ""
        cells = (row["job"], row["state"], row["time"], gpus, row["what"])
        return "  ".join(terminal.escape(cell) for cell in cells if cell)

    def _repr_html_(self) -> str:
        return _html([self])


class Jobs(list[Job]):
    """A list of jobs, newest first; a cell shows them as a table."""

    def __repr__(self) -> str:
        rows = [job.seen.row() for job in self]
        return terminal.format_table(rows, list(_jobs.COLUMNS)) if rows else "no jobs yet"

    def _repr_html_(self) -> str:
        return _html(self) if self else "no jobs yet"


class Text(str):
    """Text that a notebook shows as print() would."""

    def __repr__(self) -> str:
        return str(self)


def _html(jobs: Iterable[Job]) -> str:
    """Format jobs as an HTML table, with everything that came from the machine escaped."""
    heads = "".join(f"<th>{name}</th>" for name in _jobs.COLUMNS)
    lines = []
    for job in jobs:
        row = {name: html.escape(str(cell or "")) for name, cell in job.seen.row().items()}
        lines.append("".join(f"<td>{row[name]}</td>" for name in _jobs.COLUMNS))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def run(
    *arguments: str,
    gpus: int | str = "some",
    queue: bool = False,
    name: str = "",
    machine: str | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Iterable[str] = (),
    record: bool = True,
    earlier: str = "",
) -> Job:
    """Start a run of this working tree on a machine: run("with", "lr=0.01", gpus=2).

    Does what `lab run` does. run("--", "python", "-m", "...") starts any other command, which is
    recorded unless `record` is False; `earlier` is a run whose outputs it finds in their folders.
    `machine` is the first one by default. `env` has variables, which are recorded. `secrets` names
    others, which are not: their values come from this computer's environment or keyring. A model
    that a setting names is copied to the machine, if it lacks it.
    """
    given = variables.parse(f"{name}={value}" for name, value in (env or {}).items())
    brought = variables.read_secrets(secrets)
    connection = _connect(machine)
    recorded = None
    if arguments[:1] == ("--",):
        command = list(arguments[1:])
        launch.require_command(command)
        launch.check_gpus(str(gpus))
        recorded = launch.choose_record_options(command, name, earlier) if record else None
    else:
        command = launch.experiment_command(list(arguments), str(gpus))
    job = launch.start(
        connection,
        command,
        gpus=str(gpus),
        queue=queue,
        name=name,
        env=given,
        secrets=brought,
        record=recorded,
        bring=models.bring_needed,
    )
    return Job(connection, job)


def jobs(machine: str | None = None, all: bool = False, mine: bool = False) -> Jobs:
    """Return a machine's jobs, newest first: those that have not ended and the newest, or all.

    `mine`: only those that you have started from this computer.
    """
    connection = _connect(machine)
    found = _jobs.list_jobs(connection, 0 if all else _jobs.NEWEST, mine)
    return Jobs(Job(connection, job) for job in reversed(found))


def fetch(*names: str, machine: str | None = None, models: bool = True) -> None:
    """Fetch what is new of these jobs or runs, or of all, as `lab fetch` does; print a report."""
    connection = _connect(machine)
    ids = [_report.find_job(connection, name) for name in names]
    _report.print_report(connection, _fetch.fetch(connection, ids, models))


def follow(*metrics: str, newest: int = 10, every: float = 0, machine: str | None = None) -> None:
    """Draw the curves of the newest runs; if there is a machine, fetch their records first.

    `every`: seconds after which they are drawn again, until the cell is interrupted.
    """
    import matplotlib.pyplot as plt
    from IPython.display import clear_output, display

    try:
        while True:
            problem = _fetch_records(machine)
            rows = listing.list_rows()[:newest]
            table = records.metrics(*(row["run"] for row in rows)) if rows else records.metrics()
            clear_output(wait=True)
            for metric in metrics:
                figure = records.curves(table, metric)
                display(figure)
                plt.close(figure)
            if problem:
                print_text(problem)
            if not every:
                return
            time.sleep(every)
    except KeyboardInterrupt:
        print_text("no longer following; the runs continue")


def _fetch_records(machine: str | None) -> str:
    """Fetch all but the models. Return what went wrong; "" if nothing did.

    Nothing is raised, as local records can be drawn anyway.
    """
    project.reload()
    try:
        if not machine and not machines.read_all():
            return ""
        connection = _connect(machine)
        report = _fetch.fetch(connection, models=False)
    except LabError as error:
        return f"not up to date: {error}"
    lab = connection.machine.lab
    kept_back = (report.conflicts, report.missing, report.damaged, report.impossible, report.unfit)
    missing = sum(map(len, kept_back))
    files = terminal.count_files(missing)
    return f"{files} could not be fetched; {lab} fetch says why" if missing else ""


def _connect(name: str | None) -> Connection:
    project.reload()  # machines.toml may have been edited since the notebook was started
    return Connection(machines.get(name))
