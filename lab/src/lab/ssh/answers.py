"""Parses what a machine answers, strictly: it may be damaged, or the machine compromised.

A parser depends on the text alone, and raises ValueError for whatever it does not expect;
expecting() turns that into BadAnswer.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lab.ground import files
from lab.ssh.ssh_errors import BadAnswer

SOON = 120  # seconds for an answer that needs no search, on the slowest disk
NUMBER = re.compile("[0-9]{1,16}")
MAX_KEPT = 64 << 20  # bytes of an answer that is kept in memory: half a million files


@contextmanager
def expecting(machine: str, what: str) -> Iterator[None]:
    """Raise BadAnswer if a parser in the body raises ValueError; `what` names a good answer."""
    try:
        yield
    except ValueError:
        raise BadAnswer(machine, what) from None


def gather(machine: str, pieces: list[bytes], limit: int = MAX_KEPT) -> Callable[[bytes], None]:
    """Return a function that collects an answer in `pieces`; BadAnswer after `limit` bytes."""
    room = limit

    def receive(piece: bytes) -> None:
        nonlocal room
        if not pieces:  # a first answer, or another attempt
            room = limit
        room -= len(piece)
        if room < 0:
            raise BadAnswer(machine, f"one of at most {limit >> 20} MiB")
        pieces.append(piece)

    return receive


def parse_number(text: str, limit: int = 10**15) -> int:
    """Return a whole number from 0 to `limit`. ValueError for any other text."""
    if not NUMBER.fullmatch(text) or int(text) > limit:
        raise ValueError(f"not a number up to {limit}")
    return int(text)


def parse_object(text: str, **types: type) -> dict[str, Any]:
    """Return a JSON object that has all of these keys, with values of these types.

    ValueError for any other text.
    """
    content = files.parse_json(text)
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - as for any other bad answer
    for key, kind in types.items():
        if type(content.get(key)) is not kind:
            raise ValueError(f"{key} is not of type {kind.__name__}")
    return content


def parse_path(text: str) -> str:
    """Return the absolute path that is the only line. ValueError for any other text."""
    path = text.removesuffix("\n")
    if not path.startswith("/") or not path.isprintable():
        raise ValueError("not an absolute path")
    return path
