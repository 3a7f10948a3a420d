"""Sends a commit of this repository to a machine, with the script that uses it."""

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from lab.code import snapshot
from lab.ground import git
from lab.ground.errors import LabError
from lab.ground.terminal import stream_for_bars
from lab.ssh.connection import Connection
from lab.ssh.ssh_errors import RemoteError

SENT = "refs/lab/sent"  # for each machine, the last commit that it is known to have
# Exit codes of code.sh: git cannot take the commits; the machine lacks some that they build on.
GIT_FAILED, RESEND = 74, 75


def send(
    connection: Connection,
    script: str,
    commit: str,
    *,
    remedies: Mapping[int, Callable[[], Mapping[str, str]]] | None = None,
    **variables: Any,
) -> str:
    """Run a script that takes a commit of this repository; send along what the machine lacks.

    If the script ends with an exit code in `remedies`, it is run again with the variables that the
    remedy returns, once for each code.
    """
    remedies = {**(remedies or {}), RESEND: partial(dict, base="")}  # then send everything
    variables["base"] = git.run(
        "rev-parse", "--verify", "--quiet", _sent_ref(connection), accept=(0, 1)
    ).strip()
    while True:
        try:
            with make_bundle(commit, variables["base"]) as file, show_progress(file):
                answer = connection.run(
                    script,
                    stdin=file or b"",
                    commit=commit,
                    sent="yes" if file else "",
                    **variables,
                )
            break
        except RemoteError as error:
            if error.code not in remedies:
                raise _explain_shallow(error) from None
            variables |= remedies.pop(error.code)()
    if commit != variables["base"]:
        with suppress(LabError):  # it only makes the next call faster
            git.run("update-ref", _sent_ref(connection), commit)
    return answer


def _explain_shallow(error: RemoteError) -> RemoteError:
    """Add the cause if the machine could not take the commit of a shallow clone."""
    if (
        error.code != GIT_FAILED
        or git.run("rev-parse", "--is-shallow-repository").strip() != "true"
    ):
        return error
    advice = "This clone is shallow: git fetch --unshallow brings the history that is missing."
    return RemoteError(f"{error}. {advice}", error.code)


@contextmanager
def show_progress(file: IO[bytes] | None) -> Iterator[None]:
    """Show a progress bar while ssh reads this file, on a terminal and after a second."""
    if not file or not sys.stderr.isatty():
        yield
        return
    over = threading.Event()

    def show() -> None:
        if over.wait(1):
            return
        from tqdm import tqdm

        size = os.fstat(file.fileno()).st_size
        options = {"unit": "B", "unit_scale": True, "leave": False}
        with tqdm(desc="sending", total=size, file=stream_for_bars(), **options) as bar:
            while not over.wait(0.1):  # ssh reads the same open file, so we see its position
                bar.n = os.lseek(file.fileno(), 0, os.SEEK_CUR)
                bar.refresh()

    thread = threading.Thread(target=show)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _sent_ref(connection: Connection) -> str:
    return f"{SENT}/{connection.name}"


@contextmanager
def make_bundle(commit: str, base: str) -> Iterator[IO[bytes] | None]:
    """Yield a bundle file of what `commit` has and `base` lacks; None if that is nothing."""
    if commit == base:
        yield None
        return
    # its tree as well: base is not an ancestor, so git would send all uncommitted work once more
    without = [f"^{base}", f"^{base}^{{tree}}"] if base else []
    ref = f"{snapshot.REFS}/{commit}"
    with tempfile.TemporaryDirectory(prefix="lab-bundle-") as folder:
        file = Path(folder, "bundle")
        try:
            git.run("bundle", "create", "--quiet", str(file), ref, *without)
        except LabError:  # git refuses to make an empty bundle
            if not base or git.run("rev-list", "-1", commit, f"^{base}"):
                raise
            yield None
            return
        with file.open("rb") as opened:
            yield opened
