"""The project's place on a machine: set up, and its working copy for editors brought in step."""

import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import takewhile

from lab.code import sending, snapshot
from lab.ground import git
from lab.jobs import runner_scripts
from lab.ssh.connection import Connection
from lab.ssh.ssh_errors import RemoteError, explain
from lab.transfer.staging import explain_os_errors

EDITS = "refs/lab/edits"  # here, by machine: what was edited there, as commits


@dataclass(frozen=True)
class Synced:
    """What became of the working copy there."""

    state: str  # made, synced, unchanged, or saved by bring_back
    edits: list[str]  # the refs under which edits from there were saved here just now


def sync(connection: Connection, back: bool = False) -> Synced:
    """Bring the working copy there to this working tree; edits made there are saved first.

    They become a commit in repo.git there, and come here under a ref. With `back` nothing is
    changed there. Ignored files are left alone.

    Raises RemoteError if something there is in the way, SshError if the connection was lost.
    """
    taken = snapshot.take()
    mine = f"{EDITS}/{connection.name}/"
    listed = git.run("for-each-ref", "--format=%(refname)", mine)
    known = " ".join(ref.removeprefix(mine) for ref in listed.split())
    # what was edited there may be big
    with explain_os_errors(), tempfile.TemporaryFile() as answer:
        sending.send(
            connection,
            "sync.sh",
            taken.commit,
            back="yes" if back else "",
            known=known,
            now=time.strftime("%Y%m%d-%H%M%S"),
            output=answer,
        )
        head = [os.fsdecode(line.rstrip(b"\n")) for line in takewhile(bytes.strip, answer)]
        told = [line.split(" ", 1) for line in head]
        (state,), names, nested = (
            [value for key, value in told if key == one] for one in ("state", "edits", "nested")
        )
        for name in nested:
            place = f"{name} in work/ on {connection.name}"
            print(f"{place} is a git repository of its own: not saved, left alone", file=sys.stderr)
        if names:
            with tempfile.NamedTemporaryFile(prefix="lab-edits-") as bundle:
                shutil.copyfileobj(answer, bundle)
                bundle.flush()
                refs = [f"+{EDITS}/{name}:{mine}{name}" for name in names]
                git.run("fetch", "--quiet", "--no-tags", bundle.name, *refs)
    return Synced(state, [mine + name for name in names])


def bring_back(connection: Connection) -> list[str]:
    """Save what was edited there; make a branch here of each edit that has none. Their names."""
    sync(connection, back=True)
    listed = git.run("for-each-ref", "--format=%(refname) %(objectname)", f"{EDITS}/")
    made = []
    for line in listed.splitlines():
        ref, commit = line.split()
        machine, _, name = ref.removeprefix(f"{EDITS}/").partition("/")
        branch = f"edits/{machine}-{name}"
        if machine == connection.name and not _exists(f"refs/heads/{branch}"):
            git.run("branch", "--no-track", branch, commit)
            made.append(branch)
    return made


def _exists(ref: str) -> bool:
    return bool(git.run("rev-parse", "--verify", "--quiet", ref, accept=(0, 1)))


def setup(connection: Connection) -> None:
    """Code, environment, kernel and folders there; again: no change. Prints as it goes."""
    synced = sync(connection)
    print(f"  {'done':<8} {'code':<12} work/ {synced.state}", flush=True)
    for ref in synced.edits:
        print(f"           edits made there are saved here as {ref}")
    variables = {"project": git.prefix(), "plain": os.environ.get("NO_COLOR", "")}
    variables |= runner_scripts.make_variables(send=True)
    if all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        code = connection.run_in_terminal("setup.sh", **variables)  # in one, uv shows its progress
        if code == 130:
            raise KeyboardInterrupt
        if code == 255:
            raise explain("", connection.machine)
        if code:
            raise RemoteError(f"{connection.name} is not ready; why stands above.", code)
        return

    def show(piece: bytes) -> None:
        sys.stdout.buffer.write(piece)
        sys.stdout.flush()

    connection.run("setup.sh", receive=show, **variables)
