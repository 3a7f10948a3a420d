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
        self.merged = 0  # bytes of `path` that are in the record
        for number in range(2, attempts.number()):
            self.path = self._locate(number)
            if self.path.exists():  # that attempt was killed
                self.merge()
                self.path.unlink()
        self.path = self._locate(attempts.number())
        self.path.touch()
        self.merge(replace=True)

    def _locate(self, number: int) -> Path:
        return Path(attempts.path(f"points.{self.record.parent.name}.{number}"))

    def merge(self, replace: bool = False) -> None:
        """Put the points so far into the record; OSError if that fails.

        `replace`: replace its file even if there are none, as an older attempt may have it open.
        """
        with self.path.open("rb") as file:
            lines = file.readlines(os.fstat(file.fileno()).st_size)
        new, size = parse_points(lines), sum(map(len, lines))
        if size == self.merged and not replace:
            return
        first: dict[str, int] = {}
        for point in new:
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
        self.merged = size


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
