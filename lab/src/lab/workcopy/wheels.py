"""Bringing the wheels of the lock to a machine that reaches no package index."""

import re

from lab.environment import wheels
from lab.ground import files, project
from lab.ground.errors import LabError
from lab.ground.terminal import print_text
from lab.ssh.answers import expecting, parse_path
from lab.ssh.connection import Connection
from lab.transfer import copying, rsync_copy
from lab.transfer.staging import explain_os_errors


def bring(connection: Connection) -> None:
    """Send those of the lock's wheels that the machine lacks, and uv, and print how much that is.

    An interrupted copy is continued. Raises LabError if a wheel cannot be downloaded or arrives
    damaged; SshError; DiskFull.
    """
    print_text(f"  {'waits':<8} {'wheels':<12} collecting them on this computer ...")
    answer = connection.run("bring_wheels.sh", action="ask")
    with expecting(connection.name, "the wheels that are there"):
        facts, there = parse_answer(answer)
    found = wheels.collect(read_platform(facts))
    digests = {path.name: files.sha256(path) for path in found}
    lacking = [path for path in found if ("have", digests[path.name], path.name) not in there]
    unsent = [path for path in lacking if ("staged", digests[path.name], path.name) not in there]
    if unsent:
        size = sum(path.stat().st_size for path in unsent) / 1e6
        about = f"{len(unsent)} of {len(found)} are sent, {size:.1f} MB"
        print_text(f"  {'sending':<8} {'wheels':<12} {about}")
        rsync = rsync_copy.can_rsync(facts.get("rsync", ""))
        names = [path.name for path in unsent]
        with explain_os_errors():
            copying.push(connection, unsent[0].parent, names, facts["stage"], rsync=rsync)
    listed = "".join(f"{digests[path.name]}  {path.name}\n" for path in lacking)
    # again=False: the files may have been moved already
    connection.run("bring_wheels.sh", action="take", stdin=listed.encode(), again=False)
    print_text(f"  {'done':<8} {'wheels':<12} {len(found)} are there, verified")


def parse_answer(text: str) -> tuple[dict[str, str], set[tuple[str, str, str]]]:
    """Parse the answer of bring_wheels.sh: facts about the machine, and the wheels that it has.

    ValueError if it is anything else.
    """
    facts, there = {}, set()
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        digest, _, name = value.partition(" ")
        if key in ("have", "staged"):
            there.add((key, digest, name))
        else:
            facts[key] = value
    facts["stage"] = parse_path(facts.get("stage", ""))
    return facts, there


def read_platform(facts: dict[str, str]) -> wheels.Platform:
    """Return the machine's platform. LabError if there are no wheels for it."""
    machine, glibc = facts.get("machine", ""), facts.get("glibc", "")
    if not re.fullmatch("[a-z0-9_]{1,20}", machine) or not re.fullmatch("[0-9]{1,3}", glibc):
        raise LabError("there are no wheels for a machine without glibc.")
    driver = facts.get("driver", "")
    driver = driver if re.fullmatch("[0-9.]{1,20}", driver) else ""
    return wheels.Platform(project.python(), machine, int(glibc), driver)
