"""The points of a restarted command: what it logs again replaces what it had logged before.

Each later attempt appends to its own file in the job's folder, which is merged into the record. If
it has a metric again from some step on, the earlier points of that metric from there are dropped.
"""

import math
import os
from pathlib import Path
from typing import Any

from lab.ground import attempts, files
from lab.recording.metrics_file import parse_lines


class LaterPoints:
    """The points of a later attempt; `path` is what its command appends to."""

    def __init__(self, record: Path):
        self.record = record / "metrics.jsonl"
        for number in range(2, attempts.number()):
            self._begin(number)
            if self.path.exists():  # that attempt was killed
                self.merge()
                self.path.unlink()
        self._begin(attempts.number())
        self.path.touch()
        self._rewrite()  # an older attempt may have the file open

    def _begin(self, number: int) -> None:
        self.path = Path(attempts.path(f"points.{self.record.parent.name}.{number}"))
        self.merged = 0  # bytes of `path` that are in the record
        self.first: dict[str, int] = {}  # the lowest step of each metric in them

    def _read(self, start: int) -> list[bytes]:
        """Read the whole lines of `path` from a byte on."""
        with self.path.open("rb") as file:
            file.seek(start)
            return [line for line in file if line.endswith(b"\n")]

    def merge(self) -> None:
        """Put the points so far into the record; OSError if that fails.

        Those that replace none are appended: there may be millions of others.
        """
        lines = self._read(self.merged)
        new = parse_points(lines)
        if any(point["step"] < self.first.get(point["metric"], math.inf) for point in new):
            self._rewrite()
        elif lines:
            self._append(lines)

    def _append(self, lines: list[bytes]) -> None:
        merged, first = self.merged + sum(map(len, lines)), self.first
        self.merged, self.first = 0, {}  # if this fails half-way, the next one rewrites the file
        with self.record.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            attempts.check()
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        self.merged, self.first = merged, first

    def _rewrite(self) -> None:
        """Replace the record's file by one with all points so far."""
        lines = self._read(0)
        first: dict[str, int] = {}
        for point in parse_points(lines):
            step = first.setdefault(point["metric"], point["step"])
            first[point["metric"]] = min(step, point["step"])
        with self.record.open("rb") as source, files.replacing(self.record) as draft:
            with draft.open("wb") as file:
                for line in source:
                    if not is_replaced(line, first):
                        file.write(line)
                file.writelines(lines)
                file.flush()
                os.fsync(file.fileno())
            attempts.check()
        self.merged, self.first = sum(map(len, lines)), first


def parse_points(lines: list[bytes]) -> list[dict[str, Any]]:
    """Parse the lines that are points: the command may have written anything."""
    found: list[Any] = [*parse_lines(lines)]
    return [
        one
        for one in found
        if isinstance(one, dict)
        and isinstance(one.get("metric"), str)
        and isinstance(one.get("step"), int)
    ]


def is_replaced(line: bytes, first: dict[str, int]) -> bool:
    """Whether an earlier line has a metric at a step that was logged again, or was cut off."""
    points = parse_points([line])
    return not points or points[0]["step"] >= first.get(points[0]["metric"], math.inf)
