"""What a machine answers is read by a schema: it may be damaged, or the machine in bad hands.

A parser is a function of the text alone, and raises ValueError for whatever does not fit;
expecting() makes that the one error of a bad answer.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lab.ground import files
from lab.ssh.ssh_errors import BadAnswer

SOON = 120  # seconds for what a machine need not look for, on the slowest disk
NUMBER = re.compile("[0-9]{1,16}")
MOST = 64 << 20  # bytes of an answer that is kept in memory: half a million files


@contextmanager
def expecting(machine: str, what: str) -> Iterator[None]:
    """Raise BadAnswer if a parser cannot read what the machine answered as `what`."""
    try:
        yield
    except ValueError:
        raise BadAnswer(machine, what) from None


def gather(machine: str, pieces: list[bytes], most: int = MOST) -> Callable[[bytes], None]:
    """Return a function that collects an answer in `pieces`; BadAnswer after `most` bytes."""
    room = most

    def receive(piece: bytes) -> None:
        nonlocal room
        if not pieces:  # it begins, or begins again
            room = most
        room -= len(piece)
        if room < 0:
            raise BadAnswer(machine, f"an answer of {most >> 20} MiB at most")
        pieces.append(piece)

    return receive


def parse_number(text: str, most: int = 10**15) -> int:
    """Return a whole number from 0 to `most`. ValueError if the text is none."""
    if not NUMBER.fullmatch(text) or int(text) > most:
        raise ValueError(f"no number up to {most}")
    return int(text)


def parse_object(text: str, **types: type) -> dict[str, Any]:
    """Return a JSON object that has all of these keys, with values of these types.

    ValueError if the text is none.
    """
    content = files.parse_json(text)
    if not isinstance(content, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - as for any other bad answer
    for key, kind in types.items():
        if type(content.get(key)) is not kind:
            raise ValueError(f"{key} is not of type {kind.__name__}")
    return content


def parse_path(text: str) -> str:
    """Return the absolute path in a line that stands alone. ValueError if the text is none."""
    path = text.removesuffix("\n")
    if not path.startswith("/") or not path.isprintable():
        raise ValueError("no absolute path")
    return path
