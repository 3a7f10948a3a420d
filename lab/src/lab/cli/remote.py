"""The commands for jobs and the working copy on a machine: set up, run, watch, stop, edit."""

import argparse
import os
import sys

from lab.cli.command import (
    Command,
    CommandParser,
    add_env,
    add_machine,
    announce,
    connect,
    connect_and_announce,
)
from lab.ground.errors import LabError, UsageError
from lab.ground.terminal import OutputWriter, print_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.jobs.control import Job
    from lab.jobs.launch import RecordOptions
    from lab.ssh.connection import Connection
    from lab.ssh.ssh_errors import SshError

# of lab run; Sacred's own -m, for a MongoDB, can only be given to `lab run -- COMMAND`
RUN_OPTIONS = {"--gpus", "--queue", "--name", "--env", "--secret", "--follow", "--interactive"}
RUN_OPTIONS |= {"--machine", "-m", "--time", "--slurm", "--no-record", "--from"}


def add_job(parser: CommandParser) -> None:
    """Add the argument JOB: an id, its beginning or end, or a name; without it, the newest job."""
    parser.add_argument("job", nargs="?", metavar="JOB", help="a job [the newest]")


def require_terminal(what: str, instead: str) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise LabError(f"{what} needs a terminal; {instead}.")


def set_up_machine(args: argparse.Namespace) -> None:
    from lab.workcopy import workspace

    connection = connect_and_announce(args)
    workspace.setup(connection)
    print(f"{connection.name} is ready: {connection.machine.lab} run")


def add_run_arguments(parser: CommandParser) -> None:
    parser.runs_another_program = True
    parser.add_argument("--gpus", default="some", metavar="N", help="free GPUs to take [1, if any]")
    parser.add_argument("--queue", action="store_true", help="wait for GPUs if none are free")
    parser.add_argument("--name", default="", metavar="TEXT", help="shown by lab jobs and lab runs")
    parser.add_argument("--no-record", action="store_true", help="do not record -- COMMAND")
    parser.add_argument(
        "--from",
        dest="earlier",
        default="",
        metavar="RUN",
        help="restore the outputs of RUN before COMMAND starts",
    )
    parser.add_argument("--follow", action="store_true", help="show its output until it ends")
    add_env(parser, "an environment variable, recorded")
    parser.add_argument(
        "--secret", action="append", default=[], metavar="NAME", help="the same, never recorded"
    )
    parser.add_argument(
        "--time", default="", metavar="T", help="Slurm: the time limit, as for sbatch"
    )
    parser.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="Slurm: another option of sbatch",
    )
    parser.add_argument(
        "--interactive", action="store_true", help="run it in this terminal, as for pdb"
    )
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="for the experiment; or -- COMMAND ..."
    )
    add_machine(parser, "the first; any: the first with enough free GPUs")


def start_job(args: argparse.Namespace) -> int:
    from lab.jobs import control as jobs
    from lab.jobs import launch
    from lab.slurm import options
    from lab.ssh import variables

    for word in RUN_OPTIONS & {word.partition("=")[0] for word in args.arguments}:
        raise UsageError(f"{word} is an option of lab run: it comes before {args.arguments[0]}.")
    if args.interactive:
        require_terminal("--interactive", "leave that out")
    command = args.after_dashes
    recorded = command is not None and not args.no_record
    if args.earlier and not recorded:
        raise UsageError("--from is for a recorded command: lab run --from RUN -- COMMAND.")
    if command is None:
        command = launch.experiment_command(args.arguments, args.gpus)
    launch.require_command(command)
    launch.check_gpus(args.gpus)
    inside = "" if args.after_dashes is None else launch.find_current_folder()
    record = None
    if recorded:
        record = launch.choose_record_options(command, args.name, args.earlier, inside)
    env = variables.parse(args.env)
    secrets = variables.read_secrets(args.secret)
    slurm = options.parse(args.slurm)

    def start(connection: "Connection", queue: bool) -> "Job":
        return launch.start(
            connection,
            command,
            gpus=args.gpus,
            queue=queue,
            name=args.name,
            interactive=args.interactive,
            env=env,
            inside=inside,
            secrets=secrets,
            time=args.time,
            slurm=slurm,
            record=record,
            bring=bring_needed,
        )

    connection, job = start_where_asked(args, start)
    state = job.state + (f", {job.detail}" if job.detail else "")
    gpus = f" on GPU {job.gpus}" if job.gpus else ""
    print(f"{job.id} {state}{gpus}", flush=True)
    if args.interactive:
        return jobs.attach(connection, job.id) or report_end(connection, job.id)
    if not args.follow:
        print_message(f"its output: {connection.machine.lab} logs -f {job.id[-4:]}")
        return 0
    follow(connection, job.id)
    return report_end(connection, job.id)


def bring_needed(
    connection: "Connection", command: list[str], record: "RecordOptions | None"
) -> "tuple[list[str], RecordOptions | None]":
    """Bring the machine what a job needs of earlier runs; see models.bring_needed."""
    from lab.transfer import models  # slow to import

    return models.bring_needed(connection, command, record)


def start_where_asked(
    args: argparse.Namespace, start: "Callable[[Connection, bool], Job]"
) -> "tuple[Connection, Job]":
    """Start a job on the machine of -m, or on any that has enough free GPUs."""
    from lab.ssh import machines

    known = machines.read_all()
    if args.machine != "any" or "any" in known or not known:
        connection = connect_and_announce(args)
        return connection, start(connection, args.queue)
    from lab.jobs import choice, launch

    plain = [machine for machine in known.values() if not machine.scheduler]
    others = [name for name, machine in known.items() if machine.scheduler]
    choice_of = f"one of {', '.join(others)}" if len(others) > 1 else "".join(others)
    not_asked = f"Slurm has its own queue: choose {choice_of} with -m." if others else ""
    if not plain:
        raise UsageError(f"-m any: {not_asked}")
    try:
        wanted = launch.check_gpus(args.gpus)
        connection, job = choice.start_on_any(plain, wanted, args.queue, start)
    except choice.NoneFree as error:
        raise choice.NoneFree(f"{error} {not_asked}" if others else str(error)) from None
    announce(connection.machine)
    return connection, job


def report_lost_connection(lost: "SshError", reported: str) -> str:
    """Say why the connection was lost, unless that was `reported` last; return the cause.

    A lasting cause is raised, as trying again would not help.
    """
    if lost.lasting:
        raise lost
    if str(lost) != reported:
        print_message(f"lab: {lost} Trying again ...")
    return str(lost)


def follow(connection: "Connection", id: str, last: int | None = None) -> None:
    """Show a job's output until it ends, also across lost connections; Ctrl-C only leaves it."""
    import time

    from lab.jobs import control as jobs

    reported = ""

    def retry(lost: "SshError") -> None:
        nonlocal reported
        reported = report_lost_connection(lost, reported)
        time.sleep(1)  # without a network, ssh fails at once

    try:
        jobs.write_logs(connection, id, write_bytes, follow=True, last=last, retry=retry)
    except KeyboardInterrupt:
        lab, short = connection.machine.lab, id[-4:]
        how = f"{lab} logs -f {short}; to end it: {lab} stop {short}"
        print_message(f"\nthe job is still running: {how}")
        raise SystemExit(130) from None


write_bytes = OutputWriter()


def report_end(connection: "Connection", id: str) -> int:
    """Say how a followed job ended; return its exit code."""
    from lab.jobs import control as jobs

    job = jobs.get(connection, id)
    print_message(job.line)
    return 0 if job.state in ("running", "queued") else job.exit_code


def add_logs_arguments(parser: CommandParser) -> None:
    add_job(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="continue until the job ends")
    lines = parser.add_mutually_exclusive_group()
    lines.add_argument("-n", "--last", type=int, metavar="LINES", help="only the last lines")
    lines.add_argument(
        "--all", action="store_true", help="all lines [in a terminal, the last screen]"
    )
    add_machine(parser)


def show_logs(args: argparse.Namespace) -> int | None:
    from lab.jobs import control as jobs

    connection = connect(args)
    id = jobs.find(connection, args.job)
    last = args.last
    if last is None and not args.all and sys.stdout.isatty():
        last = max(os.get_terminal_size(1).lines - 2, 5)  # leaves room for our line and the prompt
    if args.follow:
        follow(connection, id, last)
        return report_end(connection, id)
    left_out = jobs.write_logs(connection, id, write_bytes, last=last)
    if left_out and args.last is None:
        lab = connection.machine.lab
        print_message(f"the last {last} lines; all: {lab} logs --all {id[-4:]}")
    return None


def add_attach_arguments(parser: CommandParser) -> None:
    add_job(parser)
    add_machine(parser)


def attach_job(args: argparse.Namespace) -> int:
    from lab.jobs import control as jobs

    require_terminal("lab attach", "lab logs -f shows the output without one")
    connection = connect(args)
    return jobs.attach(connection, jobs.find(connection, args.job))


def add_sync_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--back", action="store_true", help="bring edits made on the machine back, as a branch"
    )
    add_machine(parser)


def sync_working_copy(args: argparse.Namespace) -> None:
    from lab.workcopy import workspace

    connection = connect_and_announce(args)
    if args.back:
        branches = workspace.bring_back(connection)
        print("\n".join(branches) or f"nothing was edited on {connection.name}")
        return
    synced = workspace.sync(connection)
    print(f"work/ on {connection.name}: {synced.state}")
    for ref in synced.edits:
        branch = f"{connection.machine.lab} sync --back"
        saved = f"edits made on {connection.name} are saved on this computer"
        print(f"{saved}: git show {ref}; as a branch: {branch}")


def add_shell_arguments(parser: CommandParser) -> None:
    add_env(parser)
    add_machine(parser)


def open_shell(args: argparse.Namespace) -> int:
    from lab.ground import git, owner
    from lab.jobs import runner_scripts
    from lab.slurm import options
    from lab.ssh import variables

    require_terminal("lab shell", "lab run -- COMMAND runs a command without one")
    env = variables.parse(args.env)
    own, connection = owner.shorten(owner.name_owner()), connect(args)
    machine = connection.machine
    scripts = runner_scripts.make_variables(machine.scheduler, send=bool(machine.prelude))
    if machine.scheduler:
        scripts |= options.make_variables(options.choose(machine.slurm, {}))
    return connection.run_in_terminal(
        "shell.sh",
        project=git.prefix(),
        owner=own,
        **variables.join(machine.env, env),
        **scripts,
    )


COMMANDS = (
    Command("setup", "set up the project on a machine", set_up_machine, add_machine),
    Command("run", "start a job on a machine: lab run with lr=0.01", start_job, add_run_arguments),
    Command("logs", "show the output of a job", show_logs, add_logs_arguments),
    Command("attach", "connect this terminal to a job", attach_job, add_attach_arguments),
    Command(
        "sync",
        "bring the working copy on the machine up to date",
        sync_working_copy,
        add_sync_arguments,
    ),
    Command(
        "shell",
        "open a shell in the working copy that stays (tmux)",
        open_shell,
        add_shell_arguments,
    ),
)
