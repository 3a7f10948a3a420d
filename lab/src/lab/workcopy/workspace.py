"""The project on a machine: set up, and its working copy for editors brought up to date."""

import os
import re
import shutil
import sys
import tempfile
import time
from typing import IO, Any, NamedTuple

from lab.code import sending, snapshot
from lab.environment import lock
from lab.ground import git
from lab.ground.terminal import OutputWriter, print_message, print_text
from lab.jobs import runner_scripts
from lab.ssh.answers import expecting
from lab.ssh.connection import Connection
from lab.ssh.ssh_errors import RemoteError, explain
from lab.transfer.staging import explain_os_errors
from lab.workcopy import wheels

NO_INDEX = 77  # exit code of setup.sh: the environment needs wheels that the machine cannot get
EDITS = "refs/lab/edits"  # for each machine: what was edited on it, as commits
# What sync.sh prints: the state, and names of edits, which become local refs.
FACTS = {
    "state": re.compile("made|synced|unchanged|saved"),
    "edits": re.compile("[0-9]{8}-[0-9]{6}-[0-9a-f]{7}"),
}
ANY = re.compile("(?s).+")
MAX_LINES, MAX_LINE = 1000, 10_000  # bytes of a line


class Synced(NamedTuple):
    """What happened to the working copy."""

    state: str  # made, synced, unchanged, or saved by bring_back
    edits: list[str]  # the refs under which remote edits have just been saved in this repository


def sync(connection: Connection, back: bool = False) -> Synced:
    """Bring the working copy to the state of this working tree; save remote edits first.

    They become a commit in the machine's repo.git, and in this repository, under a ref. With `back`
    nothing else happens. Ignored files are left alone.

    Raises RemoteError if something on the machine is in the way, SshError.
    """
    taken = snapshot.take(to_send=True)
    ours = f"{EDITS}/{connection.name}/"
    refs = git.run("for-each-ref", "--format=%(refname)", ours).split()
    with explain_os_errors(), tempfile.TemporaryFile() as answer:  # the edits may be big
        sending.send(
            connection,
            "sync.sh",
            taken.commit,
            back="yes" if back else "",
            known=" ".join(ref.removeprefix(ours) for ref in refs),
            now=time.strftime("%Y%m%d-%H%M%S"),
            output=answer,
        )
        with expecting(connection.name, "the state of a working copy"):
            facts = read_facts(answer)
        for name in facts["nested"]:
            print_message(
                f"{name} in work/ on {connection.name} is a git repository of its own, which was"
                " neither saved nor changed"
            )
        if facts["edits"]:
            with tempfile.NamedTemporaryFile(prefix="lab-edits-") as bundle:
                shutil.copyfileobj(answer, bundle)
                bundle.flush()
                refs = [f"+{EDITS}/{name}:{ours}{name}" for name in facts["edits"]]
                git.run("fetch", "--quiet", "--no-tags", bundle.name, *refs)
    return Synced(facts["state"][0], [ours + name for name in facts["edits"]])


def read_facts(answer: IO[bytes]) -> dict[str, list[str]]:
    """Parse the lines that sync.sh prints before the bundle, up to an empty one.

    ValueError if they are anything else.
    """
    facts: dict[str, list[str]] = {"state": [], "edits": [], "nested": []}
    for _ in range(MAX_LINES):
        line = answer.readline(MAX_LINE)
        if not line.strip():
            break
        key, _, value = line.decode("utf-8", "surrogateescape").rstrip("\n").partition(" ")
        if key not in facts or not FACTS.get(key, ANY).fullmatch(value):
            raise ValueError("not a fact about a working copy")
        facts[key].append(value)
    else:
        raise ValueError("too many facts")
    if len(facts["state"]) != 1:
        raise ValueError("no state")
    return facts


def bring_back(connection: Connection) -> list[str]:
    """Save remote edits, and make a branch of each that has none; return the names of those."""
    sync(connection, back=True)
    listed = git.run("for-each-ref", "--format=%(refname) %(objectname)", f"{EDITS}/")
    made = []
    for line in listed.splitlines():
        ref, commit = line.split()
        machine, _, name = ref.removeprefix(f"{EDITS}/").partition("/")
        branch = f"edits/{machine}-{name}"
        if machine == connection.name and not has_ref(f"refs/heads/{branch}"):
            git.run("branch", "--no-track", branch, commit)
            made.append(branch)
    return made


def has_ref(ref: str) -> bool:
    """Return whether the local repository has a ref."""
    return bool(git.run("rev-parse", "--verify", "--quiet", ref, accept=(0, 1)))


def setup(connection: Connection) -> None:
    """Bring code, environment, kernel and folders up to date on the machine; print each step."""
    synced = sync(connection)
    print_text(f"  {'done':<8} {'code':<12} work/ {synced.state}")
    for ref in synced.edits:
        print_text(f"           remote edits are saved on this computer as {ref}")
    variables: dict[str, Any] = {
        "project": git.prefix(),
        "plain": os.environ.get("NO_COLOR", ""),
        "brought": "",
        "default_index": lock.find_default_index(),
        **runner_scripts.make_variables(connection.machine.scheduler, send=True),
    }
    if _run_setup(connection, variables) == NO_INDEX:
        wheels.bring(connection)
        _run_setup(connection, {**variables, "brought": "yes"})


def _run_setup(connection: Connection, variables: dict[str, Any]) -> int:
    """Run setup.sh; return 0, or NO_INDEX. Raises RemoteError or SshError if it fails."""
    if all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        code = connection.run_in_terminal("setup.sh", **variables)  # so that uv shows its progress
        if code == 130:
            raise KeyboardInterrupt
        if code == 255:
            raise explain("", connection.machine)
        if code not in (0, NO_INDEX):
            raise RemoteError(f"{connection.name} is not ready: the cause is above.", code)
        return code

    try:
        connection.run("setup.sh", receive=OutputWriter(), **variables)
    except RemoteError as error:
        if error.code != NO_INDEX:
            raise
        return NO_INDEX
    return 0
