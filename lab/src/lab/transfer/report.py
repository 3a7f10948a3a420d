"""Finds the job that lab fetch is asked for, and prints its report."""

import re
import sys
from collections.abc import Sequence

from lab.ground import project
from lab.ground.terminal import count_files, escape, print_message, print_text, shorten
from lab.jobs import control as jobs
from lab.runs import reading
from lab.ssh.connection import Connection
from lab.transfer.fetch import FOLDERS, Report
from lab.transfer.staging import LOCAL, free_bytes

MAX_LINES = 1000  # of one kind
WIDEST = 1000  # columns of a path


def find_job(connection: Connection, name: str) -> str:
    """Return the id of a job by its name; if no job has the name, it may be the id of a run."""
    try:
        return jobs.find(connection, name)
    except jobs.JobNotFound:
        if not re.fullmatch(r"\d{8}-\d{6}-[\w.-]+", name):
            raise
        return name


def print_report(connection: Connection, report: Report) -> int:
    """Print what came and what did not; return the exit code, 1 after any problem."""
    machine = connection.name
    if not report.rsync:
        print_message(
            f"tar was used; rsync 3.1 or later on both sides ({LOCAL}, {machine}) is faster"
        )
    problems = (
        report.conflicts
        or report.damaged
        or report.missing
        or list(report.impossible)
        or list(report.unfit)
    )
    if report.files:
        print_text(f"{count_files(report.files)}, {report.bytes / 1e6:.1f} MB from {machine}")
    elif not problems:
        print_text("nothing new")
    for run in sorted(report.runs):
        record = project.runs_folder() / run / "run.json"
        if not run.startswith("_"):
            print_text(f"{escape(run)}  {reading.get_state(reading.read_json(record))}")
    for job in sorted(report.jobs):
        left = FOLDERS["jobs"]() / job / "code"
        print_text(f"{escape(job)}  {escape(project.relative(left))}/")
    sys.stdout.flush()
    _print_paths("skipped, a link or an unexpected path", report.skipped)
    _print_paths("conflict, local file kept", report.conflicts)
    _print_paths("damaged", report.damaged)
    _print_paths("missing", report.missing)
    for why in sorted(set(report.impossible.values())):
        paths = [path for path, reason in report.impossible.items() if reason == why]
        _print_paths(f"cannot be written on {LOCAL}, {why}", paths)
    for path, size in report.unfit.items():
        print_message(f"does not fit, {size / 1e6:.1f} MB: {_show(path)}")
    if report.conflicts:
        print_message(
            f"lab: conflicts in {count_files(len(report.conflicts))}: your version was kept. To get"
            f" the one of {machine}, move yours away and fetch again."
        )
    if report.damaged:
        count = count_files(len(report.damaged))
        print_message(f"lab: {count} arrived damaged, not put in place: try again.")
    if report.missing:
        count = count_files(len(report.missing))
        print_message(
            f"lab: {count} vanished or could not be read on {machine}: fetch again, or check the"
            " permissions on it."
        )
    for kind, folder in FOLDERS.items():
        sizes = [size for path, size in report.unfit.items() if path.startswith(f"{kind}/")]
        if sizes:
            needed = sum(sizes) - free_bytes(folder())
            where = f"{escape(project.relative(folder()))}/ needs {needed / 1e6:.1f} MB more"
            print_message(
                f"lab: the disk of {LOCAL} is full: {where}. What came stays; make room, and run"
                " the same command again for the rest."
            )
    return 1 if problems else 0


def _print_paths(what: str, paths: Sequence[str]) -> None:
    """Print a line for each of these paths, up to MAX_LINES."""
    for path in paths[:MAX_LINES]:
        print_message(f"{what}: {_show(path)}")
    if len(paths) > MAX_LINES:
        print_message(f"{what}: {len(paths) - MAX_LINES} more")


def _show(path: str) -> str:
    return shorten(escape(path), WIDEST)
