"""The commands that transfer files: records and models from a machine, datasets both ways."""

import argparse
import time

from lab.cli.command import (
    Command,
    CommandParser,
    add_machine,
    connect,
    connect_and_announce,
)
from lab.cli.remote import report_lost_connection
from lab.ground.errors import UsageError
from lab.ground.terminal import count_files, escape, format_table, print_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.ssh.connection import Connection


def add_fetch_arguments(parser: CommandParser) -> None:
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="a job or a run [all]")
    parser.add_argument(
        "--mine", action="store_true", help="only those of your jobs, from this computer"
    )
    parser.add_argument("--watch", action="store_true", help="fetch repeatedly until they end")
    parser.add_argument("--no-models", action="store_true", help="only the records")
    add_machine(parser)


def fetch_runs(args: argparse.Namespace) -> int:
    from lab.jobs import control as jobs
    from lab.transfer import fetch, report

    connection = connect(args)
    if args.mine and args.jobs:
        raise UsageError("lab fetch takes JOB or --mine, not both.")
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
    code, reported = 0, ""
    while True:
        try:
            # before the fetch, which then brings what a job wrote last
            listed = jobs.list_jobs(connection)
            unended = {job.id for job in listed if job.readable and not job.ended}
            brought = fetch.fetch(connection, names, models)
            going = any(is_going(name, unended) for name in names) if names else bool(unended)
            if brought.files or not going:
                code = report.print_report(connection, brought)
            reported = ""
        except SshError as lost:
            going, reported = True, report_lost_connection(lost, reported)
        if not going:
            return code
        time.sleep(interval)


def is_going(name: str, unended: set[str]) -> bool:
    """Tell whether a job, or a run that was fetched, has not ended; `unended`: the jobs."""
    from lab.ground import project
    from lab.runs import reading

    record = reading.read_json(project.runs_folder() / name / "run.json")
    job = reading.get_text(reading.get_dict(record, "job"), "lab")
    if record and not job:  # started in lab shell, say
        return reading.get_state(record) in ("RUNNING", "UNKNOWN")
    return (job or name) in unended


def add_dataset_arguments(parser: CommandParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="a folder in data/")
    add_machine(parser)


def push_data(args: argparse.Namespace) -> None:
    from lab.transfer import datasets

    print(datasets.push(connect(args), args.dataset))


def fetch_data(args: argparse.Namespace) -> None:
    from lab.transfer import datasets

    print(datasets.fetch(connect(args), args.dataset))


def add_data_actions(parser: CommandParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    add = actions.add_parser("add", help="make a dataset from the files in a folder")
    add.add_argument("name", metavar="NAME", help="the dataset: its folder in data/")
    add.add_argument(
        "folder", metavar="FOLDER", help="its files, with or without train/, val/ and test/"
    )
    add.add_argument("--copy", action="store_true", help="copy the files [link to them]")
    add.set_defaults(function=add_dataset)
    verify = actions.add_parser(
        "verify", help="check every file of a dataset; exit code 1: changed"
    )
    verify.add_argument(
        "dataset", nargs="?", metavar="DATASET", help="a folder in data/ [the default]"
    )
    verify.set_defaults(function=verify_dataset)


def add_dataset(args: argparse.Namespace) -> None:
    from pathlib import Path

    from lab.datasets import folders
    from lab.ground import interrupts

    with interrupts.as_exceptions():
        print(escape(folders.add(args.name, Path(args.folder).expanduser(), args.copy)))


def verify_dataset(args: argparse.Namespace) -> int:
    from lab.datasets import folders
    from lab.ground import project

    dataset = args.dataset or project.default_dataset()
    problems = folders.verify(dataset)
    print("\n".join(map(escape, problems)) or f"{dataset} matches its manifest")
    return 1 if problems else 0


def add_clean_arguments(parser: CommandParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    parser.add_argument("--models", action="store_true", help="also remove records with models")
    add_machine(parser)


LABELS = {"written": "checkout whose new files are local too"}


def clean_machine(args: argparse.Namespace) -> None:
    from lab.transfer import clean

    connection = connect_and_announce(args)
    found = clean.find(connection, args.models)
    may_go = [item for item in found if item.kind != "kept"]
    if may_go and not args.dry_run:
        may_go = clean.remove(connection, may_go, args.models)
    rows = []
    for kind in clean.REMOVABLE:
        items = [item for item in may_go if item.kind == kind]
        if items:
            megabytes = f"{sum(item.bytes for item in items) / 1e6:.1f} MB"
            inodes = sum(item.inodes for item in items)
            rows.append(
                {
                    "what": LABELS.get(kind, kind),
                    "number": len(items),
                    "size": megabytes,
                    "inodes": inodes,
                }
            )
    print(format_table(rows, ("what", "number", "size", "inodes")) if rows else "nothing to remove")
    for item in (item for item in may_go if item.kind == "repository"):
        print_message(f"repo.git is {item.bytes / 1e6:.1f} MB smaller")
    for item in (item for item in found if item.kind == "kept"):
        count = count_files(item.bytes)
        print_message(f"kept: job {escape(item.name)}, which left {count} in its checkout")
    size = f"{sum(item.bytes for item in may_go) / 1e6:.1f} MB on {connection.name}"
    if rows and args.dry_run:
        print_message(f"nothing was removed: {connection.machine.lab} clean frees {size}")
    elif rows:
        print_message(f"removed: that frees {size}")


COMMANDS = (
    Command("fetch", "fetch the records and models of runs", fetch_runs, add_fetch_arguments),
    Command(
        "clean",
        "free space on a machine: remove what is no longer needed",
        clean_machine,
        add_clean_arguments,
    ),
    Command("data", "make a dataset from a folder, or check one", None, add_data_actions),
    Command("push-data", "send a dataset to a machine", push_data, add_dataset_arguments),
    Command("fetch-data", "fetch a dataset from a machine", fetch_data, add_dataset_arguments),
)
