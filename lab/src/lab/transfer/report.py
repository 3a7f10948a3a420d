"""What is to be fetched, by the names that people type; and what came of it, in words."""

import re
import sys

from lab.ground import project
from lab.ground.terminal import count_files, print_message
from lab.jobs import control as jobs
from lab.runs import reading
from lab.ssh.connection import Connection
from lab.transfer.fetch import Report


def find_job(connection: Connection, name: str) -> str:
    """The id of the job that is meant; a name that no job has may be a run's."""
    try:
        return jobs.find(connection, name)
    except jobs.JobNotFound:
        if not re.fullmatch(r"\d{8}-\d{6}-[\w.-]+", name):
            raise
        return name


def print_report(connection: Connection, report: Report) -> int:
    """Say what came, and what did not; 1 if something is wrong."""
    if not report.rsync:
        print_message(
            f"rsync 3.1 or later, here and on {connection.name}, would be quicker: tar was used"
        )
    if report.files:
        print(f"{count_files(report.files)}, {report.bytes / 1e6:.1f} MB from {connection.name}")
    elif not (report.conflicts or report.damaged or report.missing):
        print("nothing new")
    for run in sorted(report.runs):
        record = project.runs_folder() / run / "run.json"
        if not run.startswith("_"):
            print(f"{run}  {reading.state(reading.read_json(record))}")
    sys.stdout.flush()
    for path in report.skipped:
        print_message(f"not taken, as it is no ordinary file: {path!r}")
    for path in report.conflicts:
        print_message(f"kept, as it differs: {path}")
    for path in report.damaged:
        print_message(f"arrived damaged: {path}")
    for path in report.missing:
        print_message(f"did not come: {path}")
    if report.conflicts:
        kept = count_files(len(report.conflicts))
        print_message(
            f"lab: {kept} stayed as here, while {connection.name} has others; to get those, move"
            " ours away and fetch again."
        )
    if report.damaged:
        print_message(
            f"lab: {count_files(len(report.damaged))} arrived damaged, none was put in place:"
            " try again."
        )
    if report.missing:
        unread = count_files(len(report.missing))
        print_message(f"lab: {unread} could not be read on {connection.name}, or went away.")
    return 1 if report.conflicts or report.damaged or report.missing else 0
