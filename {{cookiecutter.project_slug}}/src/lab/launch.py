"""Starting a job: a snapshot of the working tree is sent, and a command started on it, once."""

import json
import os
import re
import secrets
import shlex
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from getpass import getuser
from pathlib import Path
from typing import Any

from lab import git, project, snapshot
from lab.connection import Connection, LineLost, Refused
from lab.jobs import Job, told
from lab.project import UserError

SENT = "refs/lab/sent"  # per machine, the last commit that is known to be there
RESEND = 75  # exit code of the scripts: commits are missing there
LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # of ids: sorted, and none that looks like another


def new_id() -> str:
    """An id that no other laptop gives and that sorts by age: 20261122-101530-k7xq; in UTC.

    The last part begins with the fraction of the second (in 1/961), the rest of it is random.
    """
    now = time.time()
    first, second = divmod(int(now % 1 * len(LETTERS) ** 2), len(LETTERS))
    last = LETTERS[first] + LETTERS[second] + secrets.choice(LETTERS) + secrets.choice(LETTERS)
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{last}"


def experiment(arguments: list[str], gpus: str) -> list[str]:
    """The command of a run: Python, or torchrun with one process for each of several GPUs.

    Raises UserError for settings without the word that Sacred wants before them.
    """
    if arguments and "=" in arguments[0] and not arguments[0].startswith("-"):
        raise UserError(f"{arguments[0]} is a setting: lab run with {shlex.join(arguments)}.")
    module = ["-m", f"{project.package()}.experiment", *arguments]
    if gpu_count(gpus) not in ("some", "0", "1"):
        return ["torchrun", "--standalone", f"--nproc-per-node={gpus}", *module]
    return ["python", *module]


def gpu_count(wanted: str) -> str:
    """How many GPUs to take, as the machine compares it; UserError if it is no number."""
    if wanted != "some" and not re.fullmatch("[0-9]{1,4}", wanted):
        raise UserError(f"--gpus {wanted}: a number, as in --gpus 2.")
    return wanted if wanted == "some" else str(int(wanted))


def start(
    connection: Connection,
    command: list[str],
    *,
    gpus: str = "some",
    queue: bool = False,
    name: str = "",
    interactive: bool = False,
) -> Job:
    """Send a snapshot of the working tree and start `command` on it; one round trip.

    `gpus`: how many free ones to take; "some": one, where there are any. With `queue` it waits for
    them. The job is there once, even if the line is cut and the script runs again.

    Raises Refused if it cannot start there; LineLost if nobody knows whether it did.
    """
    gpus = gpu_count(gpus)
    if not command:
        raise UserError("there is no command: lab run -- COMMAND, or lab run for the experiment.")
    taken = snapshot.take()
    id = new_id()
    spec = {
        "id": id,
        "name": name,
        "command": command,
        "commit": taken.commit,
        "gpus": gpus,
        "interactive": interactive,
        "by": f"{getuser()}@{socket.gethostname()}",
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    settings = {
        "id": id,
        "project": taken.folder,
        "command": shlex.join(command),
        "gpus": gpus,
        "queue": "yes" if queue else "",
        "lab": connection.machine.lab,
    }
    variables = {
        "id": id,
        "project": taken.folder,
        "spec": json.dumps(spec),
        "settings": "\n".join(f"{name}={shlex.quote(value)}" for name, value in settings.items()),
        "interactive": "yes" if interactive else "",
    }
    open_still = f"Whether job {id} started is open: {connection.machine.lab} jobs tells."
    try:
        answer = send(connection, "start.sh", taken.commit, **variables)
    except LineLost as lost:
        raise LineLost(f"{lost} {open_still}") from None
    except KeyboardInterrupt:
        ended = UserError(f"interrupted. {open_still}")
        ended.exit_code = 130
        raise ended from None
    return told(connection, answer)


def send(connection: Connection, script: str, commit: str, **variables) -> str:
    """Run a script that takes a commit of this repository: what is new of it goes along."""
    known = git.run("rev-parse", "--verify", "--quiet", _sent(connection), accept=(0, 1)).strip()
    for base in dict.fromkeys([known, ""]):
        with bundle(commit, base) as file:
            try:
                sent = "yes" if file else ""
                stdin = {"stdin": file} if file else {}
                with shown(file):
                    answer = connection.run(
                        script, commit=commit, sent=sent, base=base, **stdin, **variables
                    )
            except Refused as refused:
                if refused.code != RESEND or not base:
                    raise _explained(refused) from None
                continue  # the repository there was made anew: everything, then
        with suppress(UserError):  # it only saves sending: what was asked for is done
            git.run("update-ref", _sent(connection), commit)
        return answer
    raise AssertionError("a whole bundle needs nothing to be there")


def _explained(refused: Refused) -> Refused:
    """With the cause, if the machine cannot make a repository of what this one has."""
    if not str(refused).startswith("git on "):
        return refused
    if git.run("rev-parse", "--is-shallow-repository").strip() != "true":
        return refused
    mend = "This clone is shallow: git fetch --unshallow brings the history that is missing."
    return Refused(f"{refused}. {mend}", refused.code)


@contextmanager
def shown(file) -> Iterator[None]:
    """A progress bar while ssh reads this file, on a terminal and if it takes over a second."""
    if not file or not sys.stderr.isatty():
        yield
        return
    over = threading.Event()

    def show() -> None:
        if over.wait(1):
            return
        from tqdm import tqdm

        size = os.fstat(file.fileno()).st_size
        with tqdm(desc="sending", total=size, unit="B", unit_scale=True, leave=False) as bar:
            while not over.wait(0.1):  # ssh has the same open file: its place in it is ours
                bar.n = os.lseek(file.fileno(), 0, os.SEEK_CUR)
                bar.refresh()

    thread = threading.Thread(target=show)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _sent(connection: Connection) -> str:
    return f"{SENT}/{connection.name}"


@contextmanager
def bundle(commit: str, base: str) -> Iterator[Any]:
    """A file with what `commit` has and `base` has not; None if that is nothing."""
    if base and not git.run("rev-list", "-1", commit, f"^{base}"):
        yield None
        return
    # its tree as well: it is no ancestor, so that git would send all that is uncommitted once more
    without = [f"^{base}", f"^{base}^{{tree}}"] if base else []
    ref = f"{snapshot.REFS}/{commit}"
    with tempfile.TemporaryDirectory(prefix="lab-bundle-") as folder:
        file = Path(folder, "bundle")
        git.run("bundle", "create", "--quiet", str(file), ref, *without)
        with file.open("rb") as opened:
            yield opened
