"""The commands that bring things across: records and models home, datasets either way."""

import argparse
import sys
import time

from lab.cli_remote import add_machine, connect, say, try_again
from lab.project import UserError
from lab.tables import files


def add(commands) -> None:
    """Their options."""
    fetch = commands.add_parser("fetch", help="bring records and models of runs home")
    fetch.set_defaults(command=fetch_runs)
    fetch.add_argument("jobs", nargs="*", metavar="JOB", help="or run; without one: all of them")
    fetch.add_argument("--watch", action="store_true", help="again and again, until they end")
    fetch.add_argument("--no-models", action="store_true", help="only the records")
    push = commands.add_parser("push-data", help="send a dataset there")
    push.set_defaults(command=push_data)
    back = commands.add_parser("fetch-data", help="bring a dataset home")
    back.set_defaults(command=fetch_data)
    for one in (push, back):
        one.add_argument("dataset", metavar="DATASET", help="a folder of data/")
    for one in (fetch, push, back):
        add_machine(one)


def fetch_runs(wanted: argparse.Namespace) -> int:
    connection = connect(wanted)
    names = [meant(connection, name) for name in wanted.jobs]
    if not wanted.watch:
        from lab import fetch

        return tell(connection, fetch.fetch(connection, names, not wanted.no_models))
    try:
        return watch(connection, names, not wanted.no_models)
    except KeyboardInterrupt:
        say(f"\nthe runs go on; {connection.machine.lab} fetch brings what is new")
        return 130


def meant(connection, name: str) -> str:
    """The id of the job that is meant; a name that no job has may be a run's."""
    import re

    from lab import jobs
    from lab.connection import LineLost, Refused

    try:
        return jobs.find(connection, name)
    except (LineLost, Refused):
        raise
    except UserError:
        if not re.fullmatch(r"\d{8}-\d{6}-[\w.-]+", name):
            raise
        return name


def watch(connection, names: list[str], models: bool) -> int:
    """Fetch until all the jobs that are meant have ended, whatever becomes of the line."""
    from lab import fetch, jobs
    from lab.connection import LineLost
    from lab.framing import PATIENCE

    every = min(10.0, PATIENCE)  # seconds
    worst, said = 0, ""
    while True:
        try:
            listed = jobs.listing(connection)  # first: what a job wrote last must come too
            going = [job for job in listed if not job.ended and job.id in (names or [job.id])]
            report = fetch.fetch(connection, names, models)
            if report.files or not going:
                worst = tell(connection, report)
            said = ""
        except LineLost as lost:
            going, said = [None], try_again(lost, said)
        if not going:
            return worst
        time.sleep(every)


def tell(connection, report) -> int:
    """Say what came, and what did not; 1 if something is amiss."""
    from lab import listing, project, records

    if not report.rsync:
        say(f"rsync 3.1 or later, here and on {connection.name}, would be quicker: tar was used")
    if report.files:
        print(f"{files(report.files)}, {report.bytes / 1e6:.1f} MB from {connection.name}")
    elif not (report.kept or report.wrong or report.absent):
        print("nothing new")
    for run in sorted(report.runs):
        record = project.runs_folder() / run / "run.json"
        if not run.startswith("_"):
            print(f"{run}  {listing.state(records.read_json(record))}")
    sys.stdout.flush()
    for path in report.special:
        say(f"not taken, as it is no ordinary file: {path!r}")
    for path in report.kept:
        say(f"kept, as it differs: {path}")
    for path in report.wrong:
        say(f"arrived damaged: {path}")
    for path in report.absent:
        say(f"did not come: {path}")
    if report.kept:
        say(
            f"lab: {files(len(report.kept))} stayed as here, while {connection.name} has others; to"
            " get those, move ours away and fetch again."
        )
    if report.wrong:
        say(f"lab: {files(len(report.wrong))} arrived damaged, none was put in place: try again.")
    if report.absent:
        unread = files(len(report.absent))
        say(f"lab: {unread} could not be read on {connection.name}, or went away.")
    return 1 if report.kept or report.wrong or report.absent else 0


def push_data(wanted: argparse.Namespace) -> None:
    from lab import datasets

    print(datasets.push(connect(wanted), wanted.dataset))


def fetch_data(wanted: argparse.Namespace) -> None:
    from lab import datasets

    print(datasets.fetch(connect(wanted), wanted.dataset))
