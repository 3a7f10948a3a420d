"""The commands that transfer files: records and models from a machine, datasets both ways."""

import argparse
import time

from lab.cli.command import Command, CommandParser, add_machine, connect
from lab.cli.remote import report_lost_connection
from lab.ground.errors import UsageError
from lab.ground.terminal import print_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.ssh.connection import Connection


def add_fetch_arguments(parser: CommandParser) -> None:
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="or a run [all of them]")
    parser.add_argument("--mine", action="store_true", help="of your jobs, from this computer")
    parser.add_argument("--watch", action="store_true", help="fetch repeatedly until they end")
    parser.add_argument("--no-models", action="store_true", help="only the records")
    add_machine(parser)


def fetch_runs(args: argparse.Namespace) -> int:
    from lab.jobs import control as jobs
    from lab.transfer import fetch, report

    connection = connect(args)
    if args.mine and args.jobs:
        raise UsageError("lab fetch JOB fetches that one, lab fetch --mine those of your jobs.")
    names = [report.find_job(connection, name) for name in args.jobs]
    if args.mine:
        names = [job.id for job in jobs.list_jobs(connection, 0, own=True)]
        if not names:
            print(f"you have no jobs on {connection.name}")
            return 0
    if not args.watch:
        return report.print_report(connection, fetch.fetch(connection, names, not args.no_models))
    try:
        return watch(connection, names, not args.no_models)
    except KeyboardInterrupt:
        print_message(f"\nthe runs go on; {connection.machine.lab} fetch brings what is new")
        return 130


def watch(connection: "Connection", names: list[str], models: bool) -> int:
    """Fetch until the named jobs, or all, have ended, also across lost connections."""
    from lab.jobs import control as jobs
    from lab.ssh.framing import PATIENCE
    from lab.ssh.ssh_errors import SshError
    from lab.transfer import fetch, report

    interval = min(10.0, PATIENCE)  # seconds
    worst, reported = 0, ""
    while True:
        try:
            # before the fetch, which then brings what a job wrote last
            listed = jobs.list_jobs(connection)
            going = any(not job.ended and job.id in (names or [job.id]) for job in listed)
            brought = fetch.fetch(connection, names, models)
            if brought.files or not going:
                worst = report.print_report(connection, brought)
            reported = ""
        except SshError as lost:
            going, reported = True, report_lost_connection(lost, reported)
        if not going:
            return worst
        time.sleep(interval)


def add_dataset_arguments(parser: CommandParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="a folder of data/")
    add_machine(parser)


def push_data(args: argparse.Namespace) -> None:
    from lab.transfer import datasets

    print(datasets.push(connect(args), args.dataset))


def fetch_data(args: argparse.Namespace) -> None:
    from lab.transfer import datasets

    print(datasets.fetch(connect(args), args.dataset))


COMMANDS = (
    Command("fetch", "fetch the records and models of runs", fetch_runs, add_fetch_arguments),
    Command("push-data", "send a dataset to a machine", push_data, add_dataset_arguments),
    Command("fetch-data", "fetch a dataset from a machine", fetch_data, add_dataset_arguments),
)
