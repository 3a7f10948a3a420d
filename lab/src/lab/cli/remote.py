"""The commands for the remote machines: set up, run, watch, stop, bring home."""

import argparse
import sys

from lab.ground.errors import LabError
from lab.ground.terminal import escape, format_table, print_json, print_message

# of lab run; Sacred's own -m, for a MongoDB, is for `lab run -- COMMAND` only
OPTIONS = {"--gpus", "--queue", "--name", "--follow", "--interactive", "--machine", "-m"}


def add(commands) -> None:
    """Their options. JOB: an id, its beginning or end, or its name; without one the newest."""
    setup = commands.add_parser("setup", help="make the project ready on the machine")
    setup.set_defaults(command=set_up)

    run = commands.add_parser("run", help="start a run there: lab run with lr=0.01")
    run.set_defaults(command=start)
    run.add_argument("--gpus", default="some", metavar="N", help="free GPUs to take [1, if any]")
    run.add_argument("--queue", action="store_true", help="wait for GPUs if none are free")
    run.add_argument("--name", default="", metavar="TEXT", help="for lab jobs")
    run.add_argument("--follow", action="store_true", help="show its output, until it ends")
    run.add_argument("--interactive", action="store_true", help="in this terminal, as for pdb")
    run.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="for the experiment; or -- COMMAND ..."
    )

    jobs = commands.add_parser("jobs", help="the jobs there and their states")
    jobs.set_defaults(command=list_jobs)
    jobs.add_argument("--all", action="store_true", help="also those that ended long ago")
    jobs.add_argument("--json", action="store_true", help="for programs")

    logs = commands.add_parser("logs", help="the output of a job")
    logs.set_defaults(command=show_logs)
    logs.add_argument("-f", "--follow", action="store_true", help="until it ends")
    logs.add_argument("-n", "--last", type=int, metavar="LINES", help="only the last lines")
    attach = commands.add_parser("attach", help="a job in this terminal; Ctrl-C reaches it")
    attach.set_defaults(command=attach_job)
    stop = commands.add_parser("stop", help="end a job and all that it started")
    stop.set_defaults(command=stop_job)
    stop.add_argument(
        "--grace", type=int, default=60, metavar="SECONDS", help="for a clean end [60]"
    )
    for one in (logs, attach):
        one.add_argument("job", nargs="?", metavar="JOB")
    stop.add_argument("job", metavar="JOB")

    sync = commands.add_parser("sync", help="the working copy there, brought to this one")
    sync.set_defaults(command=sync_work)
    sync.add_argument(
        "--back", action="store_true", help="bring edits made there here, as a branch"
    )
    shell = commands.add_parser("shell", help="a shell in the project there, which stays (tmux)")
    shell.set_defaults(command=open_shell)

    for one in (setup, run, jobs, logs, attach, stop, sync, shell):
        add_machine(one)


def add_machine(command: argparse.ArgumentParser, help: str = "[the first]") -> None:
    """The option -m behind a command; before it, `lab -m NAME` is the same."""
    # without a default: it would replace what stands before the command
    command.add_argument("-m", "--machine", default=argparse.SUPPRESS, metavar="NAME", help=help)


def connect(wanted: argparse.Namespace):
    """The connection to the machine that is meant."""
    from lab.ssh import connection, machines

    return connection.Connection(machines.machine(wanted.machine))


def connect_aloud(wanted: argparse.Namespace):
    """The same, for what changes something there: first it names the project and the machine."""
    from lab.ground import project

    connection = connect(wanted)
    machine = connection.machine
    place = f"{project.name()} in {escape(project.root())}"
    print_message(f"{place}, on {machine.name}: {escape(machine.ssh)}:{escape(machine.folder)}")
    return connection


def need_terminal(what: str, instead: str) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise LabError(f"{what} needs a terminal; {instead}.")


def set_up(wanted: argparse.Namespace) -> None:
    from lab.workcopy import workspace

    connection = connect_aloud(wanted)
    workspace.setup(connection)
    print(f"{connection.name} is ready: {connection.machine.lab} run")


def start(wanted: argparse.Namespace) -> int:
    from lab.jobs import control as jobs
    from lab.jobs import launch

    for word in OPTIONS & {word.partition("=")[0] for word in wanted.arguments}:
        raise LabError(f"{word} is not for the experiment: it comes before {wanted.arguments[0]}.")
    if wanted.interactive:
        need_terminal("--interactive", "leave it out")
    command = wanted.after_dashes
    if command is None:
        command = launch.experiment(wanted.arguments, wanted.gpus)
    launch.require_command(command, wanted.gpus)
    connection = connect_aloud(wanted)
    job = launch.start(
        connection,
        command,
        gpus=wanted.gpus,
        queue=wanted.queue,
        name=wanted.name,
        interactive=wanted.interactive,
    )
    state = job.state + (f", {job.detail}" if job.detail else "")
    gpus = f" on GPU {job.gpus}" if job.gpus else ""
    print(f"{job.id} {state}{gpus}", flush=True)
    if wanted.interactive:
        return jobs.attach(connection, job.id)
    if not wanted.follow:
        print_message(f"its output: {connection.machine.lab} logs -f {job.id[-4:]}")
        return 0
    follow(connection, job.id)
    return finish(connection, job.id)


def try_again(lost: Exception, said: str) -> str:
    """Say why the line was lost, unless that is what was `said` last; returns what is said now.

    A cause that stays is raised: to try again is of no use.
    """
    from lab.ssh.connection import ShutOut

    if isinstance(lost, ShutOut):
        raise lost
    if str(lost) != said:
        print_message(f"lab: {lost} Trying again ...")
    return str(lost)


def follow(connection, id: str, last: int | None = None) -> None:
    """A job's output until it ends, whatever becomes of the line; Ctrl-C only leaves."""
    import time

    from lab.jobs import control as jobs

    said = ""

    def retry(lost) -> None:
        nonlocal said
        said = try_again(lost, said)
        time.sleep(1)  # while the network is gone ssh fails at once

    try:
        jobs.logs(connection, id, write_out, follow=True, last=last, retry=retry)
    except KeyboardInterrupt:
        lab, short = connection.machine.lab, id[-4:]
        print_message(f"\nthe job goes on: {lab} logs -f {short}; to end it: {lab} stop {short}")
        raise SystemExit(130) from None


def write_out(piece: bytes) -> None:
    sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def finish(connection, id: str) -> int:
    """Say how a followed job ended; 0 only if it finished with 0."""
    from lab.jobs import control as jobs

    job = jobs.one(connection, id)
    print_message(f"{id} {job.state}" + (f": {job.detail}" if job.detail else ""))
    return 0 if job.state in ("finished(0)", "running", "queued") else 1


def list_jobs(wanted: argparse.Namespace) -> None:
    from lab.jobs import control as jobs

    found = jobs.listing(connect(wanted), 0 if wanted.all else jobs.LISTED)
    if wanted.json:
        print_json([job._asdict() for job in found])
        return
    lines = [job.row() for job in reversed(found)]
    columns = list(jobs.COLUMNS)
    print(format_table(lines, columns, whole=columns[:4]) if lines else "no jobs yet")


def show_logs(wanted: argparse.Namespace) -> int | None:
    from lab.jobs import control as jobs

    connection = connect(wanted)
    id = jobs.find(connection, wanted.job)
    if wanted.follow:
        follow(connection, id, wanted.last)
        return finish(connection, id)
    jobs.logs(connection, id, write_out, last=wanted.last)
    return None


def attach_job(wanted: argparse.Namespace) -> int:
    from lab.jobs import control as jobs

    need_terminal("lab attach", "lab logs -f shows the output without one")
    connection = connect(wanted)
    return jobs.attach(connection, jobs.find(connection, wanted.job))


def stop_job(wanted: argparse.Namespace) -> int:
    from lab.jobs import control as jobs

    connection = connect(wanted)
    job = jobs.stop(connection, jobs.find(connection, wanted.job), wanted.grace)
    print(f"{job.id} {job.state}")
    return 0 if job.ended else 1


def sync_work(wanted: argparse.Namespace) -> None:
    from lab.workcopy import workspace

    connection = connect_aloud(wanted)
    if wanted.back:
        branches = workspace.bring_back(connection)
        print("\n".join(branches) if branches else f"nothing was edited on {connection.name}")
        return
    synced = workspace.sync(connection)
    print(f"work/ on {connection.name}: {synced.state}")
    for ref in synced.edits:
        branch = f"{connection.machine.lab} sync --back"
        print(f"what was edited there is saved here: git show {ref}; as a branch: {branch}")


def open_shell(wanted: argparse.Namespace) -> int:
    from lab.ground import git

    need_terminal("lab shell", "lab run -- COMMAND runs one without")
    return connect(wanted).terminal("shell.sh", project=git.prefix())
