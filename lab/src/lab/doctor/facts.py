"""What lab doctor finds out, as text, and what it says of it: a check with a verdict.

Facts are lines of text by name, as scripts/facts.sh prints them and doctor.py finds them here.
What is not known is called unknown, never well.
"""

import re
from dataclasses import dataclass

Facts = dict[str, list[str]]
OK, WARNING, FAILED, UNKNOWN = "ok", "warning", "failed", "unknown"


@dataclass(frozen=True)
class Check:
    """One line of the table; `advice`: cause and fix, where something is to be said."""

    check: str
    local: str
    remote: str
    verdict: str
    advice: str = ""


def parse_facts(text: str) -> Facts:
    """What facts.sh printed, as far as it came."""
    facts: Facts = {}
    name = ""
    for line in text.splitlines():
        if line.startswith(" "):
            facts[name].append(line[1:])
        else:
            name = line.rstrip(":")
            facts[name] = []
    return facts


def first_line(facts: Facts | None, name: str) -> str:
    """The first line of a fact; "?" if nobody knows."""
    return next(iter((facts or {}).get(name, [])), "?")


def parse_version(text: str) -> tuple[int, ...]:
    """The version in a line: "tmux 3.3a" is (3, 3); () without one."""
    found = re.search(r"\d+(\.\d+)+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def short_version(text: str) -> str:
    """A version as the table shows it."""
    found = re.search(r"\d+(\.\d+)+\w*", text)
    return found[0] if found else text


def worst(verdicts: list[str]) -> str:
    """What a line is called that has several verdicts."""
    return max(verdicts, key=[OK, UNKNOWN, WARNING, FAILED].index)
