"""What lab doctor works with: facts, which are text, and checks, each with a verdict.

Facts are lines of text by name, as facts.sh prints them of the machine and examination.py collects
them of this computer. What is not known is called unknown, never ok.
"""

import re
from typing import Literal, NamedTuple, TypeAlias

Facts: TypeAlias = dict[str, list[str]]
Verdict: TypeAlias = Literal["ok", "warning", "failed", "unknown"]
OK: Verdict = "ok"
WARNING: Verdict = "warning"
FAILED: Verdict = "failed"
UNKNOWN: Verdict = "unknown"
GIB, MIB = 1 << 20, 1 << 10  # in kilobytes, which df and quota count in
NUMBER = "[0-9]{1,18}"  # of bytes and files; one of 500 digits would not fit a float
MAX_LINE, MAX_LINES = 500, 300  # characters of a line, lines of a fact: facts.sh prints 200 at most
SEVERITY = [OK, UNKNOWN, WARNING, FAILED]


Fix: TypeAlias = Literal["", "linger", "terminal", "setup"]


class Check(NamedTuple):
    """One row of the table. `advice` is the cause and what to do; `fix` is what --fix would do."""

    check: str
    local: str
    remote: str
    verdict: Verdict
    advice: str = ""
    fix: Fix = ""


def parse_facts(text: str) -> Facts:
    """Parse what facts.sh printed, as far as it got. Lines that are too long or many are cut."""
    facts: Facts = {}
    name = ""
    for line in text.splitlines():
        if not line.startswith(" "):
            name = line[:MAX_LINE].rstrip(":")
            facts[name] = []
        elif name and len(facts[name]) < MAX_LINES:
            facts[name].append(line[1:MAX_LINE])
    return facts


def first_line(facts: Facts | None, name: str) -> str:
    """Return the first line of a fact; "?" if it is not known."""
    return next(iter((facts or {}).get(name, [])), "?")


def advise_more_room(lab: str) -> str:
    """Return what to do where a disk or a quota is full."""
    return f"{lab} clean removes what is no longer needed; or ask for more room"


def parse_version(text: str) -> tuple[int, ...]:
    """Return the version in a line: (3, 3) for "tmux 3.3a"; () if there is none."""
    found = re.search(r"\d+(\.\d+)+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def short_version(text: str) -> str:
    """Return a version as the table shows it."""
    found = re.search(r"\d+(\.\d+)+\w*", text)
    return found[0] if found else text


def worst(verdicts: list[Verdict]) -> Verdict:
    """Return the verdict of a row that has several."""
    return max(verdicts, key=SEVERITY.index)
