"""What docs/remote.md says a command costs, counted on a slow line."""

import re
import time

import pytest

from helpers.jobs import ended, start, until
from helpers.projects import TEMPLATE

DOCUMENT = (TEMPLATE / "docs/remote.md").read_text("utf-8")
COSTS = dict(re.findall(r"^\| `(.+?)\| (\d) \|$", DOCUMENT, re.M))
COSTS = {name.replace("`", "").strip(): int(number) for name, number in COSTS.items()}


@pytest.fixture
def warm(laptop):
    """A connection that is open already, and a job that has ended."""
    id = start(laptop, "--", "true")
    ended(laptop, id)
    return laptop, id


def plain(laptop) -> list[str]:
    """The bare ssh call on the connection that lab shares."""
    (config,) = (laptop.hosts.laptop.home / ".cache/dl-remote-template/ssh").glob("*.config")
    folder = "/home/ada/.cache/dl-remote-template/ssh"
    return ["ssh", "-F", f"{folder}/{config.name}", "-S", f"{folder}/{config.stem}"]


def quiet(hosts) -> bool:
    """Whether nothing went through the line for a while."""
    hosts.traffic()
    time.sleep(0.3)
    return hosts.traffic().up == 0


def turns(laptop, *command) -> int:
    """The round trips of one command; a delay keeps what is sent together together."""
    # the last word of this one comes from here, so that the first of the command is no turn; its
    # last word, which nobody waits for, is counted instead
    laptop.run(*plain(laptop), "worker", "true")
    until(lambda: quiet(laptop.hosts), what="silence after the command before")
    laptop.hosts.delay(0.2)
    laptop.run(*command)
    return laptop.hosts.traffic().turns


@pytest.mark.parametrize("command", COSTS)
def test_a_command_takes_as_many_round_trips_as_the_document_says(warm, command):
    laptop, id = warm
    words = command.split(",")[0].replace("ID", id).split()
    if words[0] == "ssh":
        words[:1] = plain(laptop)
    if words[:2] == ["lab", "run"]:
        words += ["--", "true"]
    counted = []
    # on a busy machine a small message of ssh's may miss the piece that it belongs to
    while COSTS[command] not in counted and len(counted) < 8:
        if "changed files" in command:
            (laptop.path / "README.md").write_text(f"changed {len(counted)} times\n")
        counted.append(turns(laptop, *words))
    assert min(counted) == COSTS[command]


def test_the_doctor_s_answer_comes_in_pieces_and_takes_two_or_three(warm):
    laptop, _ = warm
    assert "| `lab doctor` | 2 or 3 |" in DOCUMENT
    counted = []
    while not {2, 3} & set(counted) and len(counted) < 8:
        counted.append(turns(laptop, "lab", "doctor"))
    assert {2, 3} & set(counted), counted


def test_the_document_counts_the_commands_that_people_wait_for():
    assert {"lab jobs", "lab run, with changed files", "lab logs ID", "lab stop ID"} <= set(COSTS)
