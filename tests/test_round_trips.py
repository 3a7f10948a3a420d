"""What docs/remote.md says a command costs, counted on a slow line."""

import re
import time

import pytest

from helpers.jobs import ended, start, until
from helpers.projects import TEMPLATE

DOCUMENT = (TEMPLATE / "docs/remote.md").read_text("utf-8")
COSTS = dict(re.findall(r"^\| `(.+?)\| (\d) \|$", DOCUMENT, re.M))
COSTS = {name.replace("`", "").strip(): int(number) for name, number in COSTS.items()}


@pytest.fixture(scope="module")
def warm(ready_once):
    """A connection that is open already, and a job that has ended; for all commands."""
    id = start(ready_once, "--", "true")
    ended(ready_once, id)
    return ready_once, id


def plain(laptop) -> list[str]:
    """The bare ssh call on the connection that lab shares."""
    (config,) = (laptop.hosts.laptop.home / ".cache/dl-remote-template/ssh").glob("*.config")
    folder = "/home/ada/.cache/dl-remote-template/ssh"
    return ["ssh", "-F", f"{folder}/{config.name}", "-S", f"{folder}/{config.stem}"]


def quiet(hosts) -> bool:
    """Whether nothing has passed the line for a while."""
    hosts.traffic()
    time.sleep(0.3)
    return hosts.traffic().up == 0


def count(laptop, *command, delay: float) -> int:
    """The round trips of one command. On a line with a delay it shows what waits for an answer:
    what is said sooner than an answer can arrive waited for none."""
    laptop.hosts.delay(delay)
    until(lambda: quiet(laptop.hosts), what="silence after the command before")
    laptop.run(*command)
    return laptop.hosts.traffic().round_trips


@pytest.mark.parametrize("command", COSTS)
def test_a_command_takes_as_many_round_trips_as_the_document_says(warm, command):
    laptop, id = warm
    words = command.split(",")[0].replace("ID", id).split()
    if words[0] == "ssh":
        words[:1] = plain(laptop)
    if words[:2] == ["lab", "run"]:
        words += ["--", "true"]
    counted = []
    # on a busy machine somebody may be slower than the line; and what the command before it
    # changed, sync and fetch bring over first
    for delay in (0.2, 0.5, 1.5, 3):
        if "changed files" in command:
            (laptop.path / "README.md").write_text(f"changed {len(counted)} times\n")
        counted.append(count(laptop, *words, delay=delay))
        if counted[-1] <= COSTS[command]:
            break
    laptop.hosts.delay(0)
    assert counted[-1] == COSTS[command], counted


def test_the_document_counts_the_commands_that_people_wait_for():
    assert {"lab jobs", "lab run, with changed files", "lab logs ID", "lab stop ID"} <= set(COSTS)
