"""Sending a commit of this repository to a machine, with the script that uses it."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lab.code import snapshot
from lab.ground import git
from lab.ground.errors import LabError
from lab.ssh.connection import Connection, Refused

SENT = "refs/lab/sent"  # per machine, the last commit that is known to be there
RESEND = 75  # exit code of the scripts: commits are missing there


def send(connection: Connection, script: str, commit: str, **variables) -> str:
    """Run a script that takes a commit of this repository: what is new of it goes along."""
    known = git.run("rev-parse", "--verify", "--quiet", _sent(connection), accept=(0, 1)).strip()
    for base in dict.fromkeys([known, ""]):
        with bundle(commit, base) as file:
            try:
                sent = "yes" if file else ""
                stdin = {"stdin": file} if file else {}
                with progress(file):
                    answer = connection.run(
                        script, commit=commit, sent=sent, base=base, **stdin, **variables
                    )
            except Refused as refused:
                if refused.code != RESEND or not base:
                    raise _explained(refused) from None
                continue  # the repository there was made anew: everything, then
        with suppress(LabError):  # it only saves sending: what was asked for is done
            git.run("update-ref", _sent(connection), commit)
        return answer
    raise AssertionError("a whole bundle needs nothing to be there")


def _explained(refused: Refused) -> Refused:
    """With the cause, if the machine cannot make a repository of what this one has."""
    if not str(refused).startswith("git on "):
        return refused
    if git.run("rev-parse", "--is-shallow-repository").strip() != "true":
        return refused
    advice = "This clone is shallow: git fetch --unshallow brings the history that is missing."
    return Refused(f"{refused}. {advice}", refused.code)


@contextmanager
def progress(file) -> Iterator[None]:
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
