"""Starts a job, once: sends a snapshot of the working tree and starts a command on it."""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from lab.code import sending, snapshot
from lab.ground import git, project
from lab.ground.errors import LabError, UsageError
from lab.ground.ids import new_id
from lab.ground.owner import name_owner
from lab.jobs import job_format, runner_scripts, settings
from lab.jobs.control import Job, parse_one
from lab.slurm import options
from lab.ssh.connection import Connection
from lab.ssh.machines import Machine
from lab.ssh.ssh_errors import SshError
from lab.ssh.variables import make_exports


class RecordOptions(NamedTuple):
    """The options of `lab record` for a command."""

    name: str = ""
    earlier: str = ""  # the run whose outputs the command reads, or the beginning of its id
    data: str = ""  # the dataset of that run

    @property
    def words(self) -> list[str]:
        options = {"--from": self.earlier, "--data": self.data, "--name": self.name}
        return ["record", *(w for pair in options.items() if pair[1] for w in pair), "--"]


Bring = Callable[
    [Connection, list[str], RecordOptions | None], tuple[list[str], RecordOptions | None]
]


class StartInterrupted(LabError):
    """Ctrl-C while a job was being started: it may have started."""

    exit_code = 130


def experiment_command(arguments: list[str], gpus: str) -> list[str]:
    """Return the command of a run: Python, or torchrun with a process for each of several GPUs.

    Raises UsageError for settings without the word that Sacred wants before them.
    """
    if arguments and "=" in arguments[0] and not arguments[0].startswith("-"):
        raise UsageError(f"{arguments[0]} is a setting: use lab run with {shlex.join(arguments)}.")
    try:
        module = ["-m", f"{project.package()}.experiment", *arguments]
    except LabError:
        raise UsageError("this project has no lab experiment: use lab run -- COMMAND.") from None
    if check_gpus(gpus) not in ("some", "0", "1"):
        return ["torchrun", "--standalone", f"--nproc-per-node={gpus}", *module]
    return ["python", *module]


def find_current_folder() -> str:
    """Return the current folder, relative to the project's; "" at its top or outside of it."""
    root, current = project.root().resolve(), Path.cwd().resolve()
    if root == current or not current.is_relative_to(root):
        return ""
    return current.relative_to(root).as_posix()


def require_command(command: list[str]) -> None:
    """Raise UsageError if there is no command."""
    if not command:
        raise UsageError("there is no command: lab run -- COMMAND, or lab run for the experiment.")


def choose_record_options(
    command: list[str], name: str = "", earlier: str = "", inside: str = ""
) -> RecordOptions | None:
    """Return how to record a command in this folder of the project; None if it records itself.

    `earlier`: a run whose outputs it reads. Raises UsageError if such a command records itself.
    """
    from lab.recording.command.own_record import records_itself

    if records_itself(command, project.root(), project.root() / inside):
        if earlier:
            raise UsageError("--from is for a command that does not record itself.")
        return None
    return RecordOptions(name, earlier)


def check_gpus(wanted: str) -> str:
    """Return how many GPUs to take, as the machine compares it. UsageError if not a number."""
    if wanted != "some" and not re.fullmatch("[0-9]{1,4}", wanted):
        raise UsageError(f"--gpus {wanted}: expected a number, as in --gpus 2.")
    return wanted if wanted == "some" else str(int(wanted))


def check_scheduler(
    machine: Machine,
    *,
    interactive: bool,
    secrets: Mapping[str, str],
    time: str,
    slurm: Mapping[str, str | bool],
) -> None:
    """Raise UsageError for what the machine's way of starting jobs cannot do."""
    if not machine.scheduler and (time or slurm):
        word = "--time" if time else "--slurm"
        raise UsageError(f'{word} needs scheduler = "slurm", which {machine.name} does not have.')
    if machine.scheduler and interactive:
        raise UsageError(f"--interactive: {machine.name} runs jobs with Slurm, without a terminal.")
    if machine.scheduler and secrets:
        raise UsageError(f"--secret: a Slurm job on {machine.name} cannot wait for one.")
    rule = options.find_broken_rule("time", time) if time else None
    if rule:
        raise UsageError(f"--time {time}: {rule}.")


def start(
    connection: Connection,
    command: list[str],
    *,
    gpus: str = "some",
    queue: bool = False,
    name: str = "",
    interactive: bool = False,
    env: Mapping[str, str] = MappingProxyType({}),
    inside: str = "",
    secrets: Mapping[str, str] = MappingProxyType({}),
    time: str = "",
    slurm: Mapping[str, str | bool] = MappingProxyType({}),
    record: RecordOptions | None = None,
    bring: Bring | None = None,
) -> Job:
    """Send a snapshot of the working tree and start `command` on it, in one round trip.

    `gpus`: how many free ones to take; "some": one, if the machine has any. With `queue` the job
    waits for them. `env`: variables of the job, which are recorded; `secrets`: variables of which
    only the names are recorded, and which take one more round trip. `inside`: the folder of the
    project that it runs in. `time` and `slurm`: the limit and other options of sbatch. `record`:
    how to record the command; without `lab` in the environment it is not recorded. `bring` is
    called after all checks, if the command names earlier runs: it brings the machine what the
    command needs of them, and returns command and record with their whole ids.

    The job starts once, even if the connection is lost and the script runs again.

    Raises WrongSettings before anything is sent; RemoteError if the job cannot start; SshError if
    the connection failed, so that it may have started.
    """
    require_command(command)
    gpus = check_gpus(gpus)
    machine = connection.machine
    check_scheduler(machine, interactive=interactive, secrets=secrets, time=time, slurm=slurm)
    with settings.checked(command):
        taken = snapshot.take(to_send=True)
    if inside and not git.run("ls-tree", "-d", taken.commit, "--", inside):
        raise UsageError(f"{inside}/ is ignored or empty, so it is not sent: cd elsewhere first.")
    if bring and (settings.find_models(command) or (record and record.earlier)):
        command, record = bring(connection, command, record)
    id = new_id()
    spec = _describe(
        id,
        name=name,
        command=command,
        commit=taken.commit,
        gpus=gpus,
        interactive=interactive,
        env=env,
        inside=inside,
        secrets=secrets,
    )
    of_scheduler: dict[str, str] = {}
    if machine.scheduler:
        chosen = options.choose(machine.slurm, slurm, time, gpus)
        spec["slurm"] = chosen
        of_scheduler = {
            "batch": options.make_batch_script(id, chosen).rstrip("\n"),
            **options.make_variables(chosen, gpus),
        }
    words = record.words if record else []
    variables = {
        "id": id,
        "project": taken.folder,
        "spec": json.dumps(spec),
        "settings": _make_settings(
            machine,
            {**machine.env, **env},
            secrets,
            id=id,
            project=taken.folder,
            inside=inside,
            command=shlex.join(command),
            record=shlex.join(words),
            gpus=gpus,
            queue="yes" if queue else "",
        ),
        "interactive": "yes" if interactive else "",
        "secrets": "yes" if secrets else "",
        **runner_scripts.make_variables(machine.scheduler),
        **of_scheduler,
    }
    # for a machine that lacks the scripts of this version of lab
    sent_along = partial(runner_scripts.make_variables, machine.scheduler, send=True)
    remedies = {runner_scripts.MISSING: sent_along}
    advice = f"Job {id} may have started: check {machine.lab} jobs."
    with _advising(advice):
        answer = sending.send(connection, "start.sh", taken.commit, remedies=remedies, **variables)
    if secrets:
        with _advising(advice, sent=True):
            answer = bring_secrets(connection, id, secrets, interactive)
    return parse_one(connection, answer)


def _describe(
    id: str,
    *,
    name: str,
    command: list[str],
    commit: str,
    gpus: str,
    interactive: bool,
    env: Mapping[str, str],
    inside: str,
    secrets: Mapping[str, str],
) -> dict[str, object]:
    """Return job.json: what lab run was told, by whom and when; of secrets only the names."""
    spec: dict[str, object] = {
        "format": job_format.FORMAT,  # known_job.sh expects it first
        "id": id,
        "name": name,
        "command": command,
        "commit": commit,
        "gpus": gpus,
        "interactive": interactive,
        "by": name_owner(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    if env:
        spec["env"] = dict(env)
    if inside:
        spec["inside"] = inside
    if secrets:
        spec["secrets"] = list(secrets)
    return spec


def _make_settings(
    machine: Machine, env: Mapping[str, str], secrets: Mapping[str, str], **told: str
) -> str:
    """Return job.sh: what the job's scripts need to know, as lines of sh."""
    told |= {
        "lab": machine.lab,
        "prelude": shlex.join(machine.prelude),
        "exports": make_exports(env),
        "given": " ".join([*env, *secrets]),
        "secrets": "yes" if secrets else "",
    }
    return "\n".join(f"{name}={shlex.quote(value)}" for name, value in told.items())


@contextmanager
def _advising(advice: str, sent: bool = False) -> Iterator[None]:
    """Add advice to an error or a Ctrl-C, if the job is `sent` or may have been."""
    try:
        yield
    except SshError as error:
        if not (sent or error.may_have_run):
            raise
        advised = type(error)(f"{error} {advice}")
        advised.may_have_run = True
        raise advised from None
    except KeyboardInterrupt as interrupt:
        if not (sent or getattr(interrupt, "may_have_run", True)):
            raise
        raise StartInterrupted(f"interrupted. {advice}") from None


def bring_secrets(
    connection: Connection, id: str, secrets: Mapping[str, str], interactive: bool
) -> str:
    """Bring a waiting job its secrets; return what start.sh prints of it.

    They only go through pipes: no command line, file or record contains them.
    """
    return connection.run(
        "secrets.sh",
        stdin=f"{make_exports(secrets)}\n# complete".encode("utf-8", "surrogateescape"),
        again=False,  # the job may have read some of it; it gives up if the last line is missing
        id=id,
        interactive="yes" if interactive else "",
    )
