"""The commands that look after jobs: list them, wait for them, stop them."""

import argparse

from lab.cli.command import (
    Command,
    CommandParser,
    add_all_machines,
    add_json,
    add_machine,
    connect,
    find_all_machines,
)
from lab.cli.remote import report_lost_connection
from lab.ground.errors import LabError, UsageError
from lab.ground.terminal import format_table, print_json, print_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lab.jobs.control import Job, Listed
    from lab.ssh.connection import Connection
    from lab.ssh.machines import Machine


def add_jobs_arguments(parser: CommandParser) -> None:
    parser.add_argument("--all", action="store_true", help="also those that ended long ago")
    parser.add_argument("--mine", action="store_true", help="only yours, from this computer")
    add_json(parser)
    add_all_machines(parser)
    add_machine(parser)


def list_jobs(args: argparse.Namespace) -> int:
    """Print the jobs, newest first; 1 if a machine did not answer."""
    from lab.jobs import control as jobs

    limit = 0 if args.all else jobs.NEWEST
    if args.all_machines:
        return list_everywhere(args, limit)
    connection = connect(args)
    found = jobs.list_jobs(connection, limit, args.mine)
    if args.json:
        print_json([job._asdict() for job in found])
        return 0
    lines = [job.row() for job in reversed(found)]
    columns = list(jobs.COLUMNS)
    print(format_table(lines, columns, whole=columns[:5]) if lines else "no jobs yet")
    report_hidden(connection.machine.lab, found.hidden, args.mine)
    return 0


def list_everywhere(args: argparse.Namespace, limit: int) -> int:
    """List the jobs of all machines, asked at once; one that does not answer gets a row as well."""
    from lab.jobs import control as jobs
    from lab.ssh import several
    from lab.ssh.connection import Connection

    def ask(machine: "Machine") -> "Listed":
        connection = Connection(machine)
        connection.open()  # so that a machine that is down is not tried twice
        return jobs.list_jobs(connection, limit, args.mine)

    answers = several.ask_all(find_all_machines(args), ask)
    rows: list[dict[str, Any]] = []
    lines: list[dict[str, str]] = []
    hidden = 0
    for machine, found in answers:
        about = {"machine": machine.name}
        if isinstance(found, LabError):
            rows.append({**about, "id": None, "state": "unreachable", "detail": str(found)})
            lines.append({**about, "state": "unreachable", "what": str(found)})
            continue
        rows += [about | job._asdict() for job in found]
        lines += [about | job.row() for job in reversed(found)]
        hidden += found.hidden
    if args.json:
        print_json(rows)
    else:
        columns = ["machine", *jobs.COLUMNS]
        print(format_table(lines, columns, whole=columns[:6]) if lines else "no jobs yet")
        report_hidden("lab", hidden, args.mine, " --all-machines")
        for _, found in answers:
            if isinstance(found, LabError):
                print_message(f"lab: {found}")  # the table may have no room for it
    return 1 if any(isinstance(found, LabError) for _, found in answers) else 0


def report_hidden(lab: str, hidden: int, mine: bool, options: str = "") -> None:
    """Say how many jobs the table leaves out."""
    if hidden:
        options = f"{options} --mine" if mine else options
        print_message(f"{hidden} more ended earlier: {lab} jobs{options} --all")


def add_wait_arguments(parser: CommandParser) -> None:
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="a job [the newest]")
    parser.add_argument("--any", action="store_true", help="until one of them has ended")
    add_machine(parser)


def wait_for_jobs(args: argparse.Namespace) -> int:
    """Wait, also across lost connections; return the first exit code that is not 0.

    With --any, return that of the job that ended.
    """
    from lab.jobs import control as jobs

    connection = connect(args)
    ids = [jobs.find(connection, name) for name in args.jobs or [None]]
    ids = list(dict.fromkeys(ids))
    ended: dict[str, Job] = {}
    try:
        while not ended or (not args.any and len(ended) < len(ids)):
            for job in wait_a_minute(connection, ids, args.any):
                if job.ended and job.id not in ended:
                    ended[job.id] = job
                    print(job.line, flush=True)
    except KeyboardInterrupt:
        print_message(f"\nno longer waiting; the jobs go on: {connection.machine.lab} jobs")
        return 130
    codes = [ended[id].exit_code for id in ids if id in ended]
    return codes[0] if args.any else next(filter(None, codes), 0)


def wait_a_minute(connection: "Connection", ids: list[str], any_of_them: bool) -> "list[Job]":
    """Wait for these jobs for at most a minute; start again if the connection is lost."""
    import time

    from lab.jobs import control as jobs
    from lab.ssh.ssh_errors import SshError

    reported = ""
    while True:
        try:
            return jobs.wait(connection, ids, any_of_them)
        except SshError as lost:
            reported = report_lost_connection(lost, reported)
            time.sleep(1)  # without a network, ssh fails at once


def add_stop_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "job", nargs="?", metavar="JOB", help="a job; a colleague's by its whole id"
    )
    parser.add_argument("--mine", action="store_true", help="all of yours, from this computer")
    parser.add_argument(
        "--grace",
        type=int,
        default=60,
        metavar="SECONDS",
        help="time to end before it is killed [60]",
    )
    add_machine(parser)


def stop_job(args: argparse.Namespace) -> int:
    """Stop one job, or all of one's own; 1 if one still runs, 0 even if it had ended before."""
    from lab.jobs import control as jobs
    from lab.ssh.ssh_errors import RemoteError

    if bool(args.job) == args.mine:
        raise UsageError("lab stop JOB ends one job, lab stop --mine all of yours.")
    connection = connect(args)
    if args.mine:
        ids = [job.id for job in jobs.list_jobs(connection, own=True) if not job.ended]
        if not ids:
            print(f"none of your jobs is running on {connection.name}")
    else:
        ids = [jobs.find(connection, args.job, own=True)]
    code = 0
    for id in ids:
        try:
            job, before = jobs.stop(connection, id, args.grace)
        except RemoteError as error:
            if not args.mine:
                raise
            print_message(f"lab: {error}")  # the others are stopped all the same
            code = 1
            continue
        print(f"{job.id} {job.state}", flush=True)
        if before:
            print_message(f"job {job.id} had already ended")
        code = code if job.ended else 1
    return code


COMMANDS = (
    Command("jobs", "list the jobs and their states", list_jobs, add_jobs_arguments),
    Command("wait", "wait for jobs to end; exit as they do", wait_for_jobs, add_wait_arguments),
    Command("stop", "end a job and everything it started", stop_job, add_stop_arguments),
)
