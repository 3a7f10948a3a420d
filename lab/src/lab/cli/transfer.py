"""The commands that bring things across: records and models home, datasets either way."""

import argparse
import time

from lab.cli.remote import add_machine, connect, try_again
from lab.ground.terminal import print_message


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
    from lab.transfer import fetch, report

    connection = connect(wanted)
    names = [report.find_job(connection, name) for name in wanted.jobs]
    if not wanted.watch:
        return report.print_report(connection, fetch.fetch(connection, names, not wanted.no_models))
    try:
        return watch(connection, names, not wanted.no_models)
    except KeyboardInterrupt:
        print_message(f"\nthe runs go on; {connection.machine.lab} fetch brings what is new")
        return 130


def watch(connection, names: list[str], models: bool) -> int:
    """Fetch until all the jobs that are meant have ended, whatever becomes of the line."""
    from lab.jobs import control as jobs
    from lab.ssh.connection import LineLost
    from lab.ssh.framing import PATIENCE
    from lab.transfer import fetch, report

    every = min(10.0, PATIENCE)  # seconds
    worst, said = 0, ""
    while True:
        try:
            listed = jobs.listing(connection)  # first: what a job wrote last must come too
            going = [job for job in listed if not job.ended and job.id in (names or [job.id])]
            brought = fetch.fetch(connection, names, models)
            if brought.files or not going:
                worst = report.print_report(connection, brought)
            said = ""
        except LineLost as lost:
            going, said = [None], try_again(lost, said)
        if not going:
            return worst
        time.sleep(every)


def push_data(wanted: argparse.Namespace) -> None:
    from lab.transfer import datasets

    print(datasets.push(connect(wanted), wanted.dataset))


def fetch_data(wanted: argparse.Namespace) -> None:
    from lab.transfer import datasets

    print(datasets.fetch(connect(wanted), wanted.dataset))
