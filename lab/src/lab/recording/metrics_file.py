"""The metrics of a run, appended to metrics.jsonl and to a TensorBoard event file beside it.

Sacred rewrites all metrics of a run at every beat. Here a point costs the same however many there
are: it waits in a list, and the list is written in one piece.
"""

import json
import math
import os
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lab.ground import attempts, files, interrupts

if TYPE_CHECKING:
    from lab.recording.tensorboard_events import Point

BATCH = 10_000  # points that are written together


class AppendedFile:
    """A file that is only appended to. What cannot be written waits, and goes first next time."""

    def __init__(self, path: Path, beginning: bytes = b""):
        self.path = path
        self.waiting = bytearray(beginning)
        self.existed = False
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:  # it is left as it is: a newer attempt may have made it
            self.existed = True

    def append(self, data: bytes = b"") -> None:
        """Append what waits and `data`; OSError if that fails, also if the file was removed."""
        self.waiting += data
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            attempts.check()  # a newer attempt replaces the file, or keeps what we write
            while self.waiting:
                del self.waiting[: os.write(file, self.waiting)]
        finally:
            os.close(file)


class Metrics:
    """The metrics of one run. Any thread may add points while another one writes them.

    Points of earlier attempts stay until keep() is called. A new point without that call drops them
    all: the run has then started over.
    """

    def __init__(self, folder: Path):
        self.points: list[Point] = []
        self.lock = threading.RLock()
        self.lines = AppendedFile(folder / "metrics.jsonl")
        self.events: AppendedFile | None = None
        self.folder = folder / "tensorboard"
        self.to_keep = 0 if self.lines.existed else None  # bytes of the lines of earlier attempts

    def add(self, step: int, values: Mapping[str, float], now: float | None = None) -> bool:
        """Add one value for each metric name; returns whether it is time to flush.

        ValueError or TypeError for a value that could not be written later; the others are added.
        """
        now, step, problem = now or time.time(), int(step), None
        if not -(2**63) <= step < 2**63:
            shown = step if abs(step) < 1 << 100 else "with more than 30 digits"
            raise ValueError(f"step {shown} does not fit into 64 bits.")
        for name, value in values.items():
            try:
                self.points.append((str(name), step, float(value), now))
            except (TypeError, ValueError) as error:
                problem = error
            except OverflowError:
                problem = ValueError(f"the value of {str(name)[:200]} is too large for a float.")
        if problem:
            raise problem
        return len(self.points) >= BATCH

    def flush(self) -> None:
        """Write the points that wait; OSError if that fails, and then nothing is lost."""
        with interrupts.deferred(), self.lock:
            if self.points and self.to_keep is not None:
                self.keep(self.to_keep)
            if self.points and not self.events:
                self.events = create_event_file(self.folder)
            points = self.points[:]
            del self.points[: len(points)]  # not clear(): another thread may have added some
            if self.events:
                self.events.waiting += encode_events(points)
            self.lines.append(format_lines(points))
            if self.events:
                self.events.append()

    def save(self) -> int:
        """Write all points to the disk; returns the size of metrics.jsonl then, in bytes."""
        with interrupts.deferred(), self.lock:
            self.flush()
            file = os.open(self.lines.path, os.O_RDONLY)
            try:
                os.fsync(file)
                return os.fstat(file).st_size
            finally:
                os.close(file)

    def keep(self, size: int) -> None:
        """Keep of an earlier attempt the points in the first `size` bytes of metrics.jsonl alone.

        Both files are replaced, each at once: a kill at any moment loses none of these points, and
        what an older attempt still writes goes into neither. ValueError if points are missing.
        OSError if that fails; it is then tried again before the next point is written.
        """
        with interrupts.deferred(), self.lock:
            self.to_keep = size
            with self.lines.path.open("rb") as old, files.replacing(self.lines.path) as draft:
                kept = copy_lines(old, draft, size)
                attempts.check()
            self.events = replace_event_files(self.folder, self.lines.path)
            self.to_keep = None
        if kept < size:
            raise ValueError(f"{kept} of the {size} bytes before the checkpoint are left")


def copy_lines(source: BinaryIO, target: Path, size: int) -> int:
    """Copy the whole lines in the first `size` bytes of a file; returns how many bytes they are."""
    copied = 0
    with target.open("wb") as file:
        while copied < size:
            line = source.readline(size - copied)
            if not line.endswith(b"\n"):
                break
            copied += file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return copied


def create_event_file(folder: Path) -> AppendedFile:
    from lab.recording import tensorboard_events  # with numpy, for a run that has points

    folder.mkdir(exist_ok=True)
    path = folder / tensorboard_events.new_file_name(folder)
    return AppendedFile(path, tensorboard_events.encode_header())


def replace_event_files(folder: Path, lines: Path) -> AppendedFile | None:
    """Replace the event files in a folder by one with the points of a metrics.jsonl.

    It tells TensorBoard to forget the old ones. None if there are no points.
    """
    old, new = list(folder.glob("events.out.*")), None
    with lines.open("rb") as source:
        if text := source.readlines(1 << 20):
            from lab.recording import tensorboard_events

            folder.mkdir(exist_ok=True)
            new = folder / tensorboard_events.new_file_name(folder)
            with files.replacing(new) as draft, draft.open("wb") as file:
                file.write(tensorboard_events.encode_header())
                file.write(tensorboard_events.encode_restart())
                while text:
                    points = [
                        (one["metric"], one["step"], float(one["value"]), one["time"])
                        for one in parse_lines(text)
                    ]
                    file.write(tensorboard_events.encode_points(points))
                    text = source.readlines(1 << 20)
                attempts.check()
    attempts.check()  # after the list was made: it has no file of a newer attempt
    for path in old:
        path.unlink()
    return AppendedFile(new) if new else None


def encode_events(points: list["Point"]) -> bytes:
    from lab.recording import tensorboard_events

    return tensorboard_events.encode_points(points)


def format_lines(points: Iterable["Point"]) -> bytes:
    """Format points as JSON, one object per line; NaN and infinity become strings."""
    names = {name: json.dumps(name) for name in {point[0] for point in points}}
    return "".join(
        f'{{"metric": {names[name]}, "step": {step}, "value": {format_float(value)},'
        f' "time": {now:.3f}}}\n'
        for name, step, value, now in points
    ).encode()


def format_float(value: float) -> str:
    """Format a float as JSON; float() of what JSON reads from it gives the same float again."""
    return repr(value) if math.isfinite(value) else f'"{json.dumps(value)}"'


def write_for_sacred(lines: Path, target: Path) -> None:
    """Write the points of a metrics.jsonl as Sacred's metrics.json; OSError if that fails.

    That is {metric: {"steps": [...], "timestamps": [...], "values": [...]}}. A point takes 24 bytes
    of memory and a few microseconds.
    """
    metrics: dict[str, tuple[array[int], array[float], array[float]]] = {}
    with lines.open("rb") as file:
        while text := file.readlines(1 << 20):
            for point in parse_lines(text):
                columns = metrics.get(point["metric"])
                if not columns:
                    columns = metrics[point["metric"]] = (array("q"), array("d"), array("d"))
                columns[0].append(point["step"])
                columns[1].append(float(point["value"]))
                columns[2].append(point["time"])
    with files.replacing(target) as draft, draft.open("w", encoding="utf-8") as out:
        attempts.check()
        between = "{"
        for name, (steps, values, times) in sorted(metrics.items()):
            out.write(f"{between}\n  {json.dumps(name)}: {{")
            out.writelines(format_list('\n    "steps": ', steps, json.dumps))
            out.writelines(format_list(',\n    "timestamps": ', times, format_times))
            out.writelines(format_list(',\n    "values": ', values, format_floats))
            out.write("\n  }")
            between = ","
        out.write("\n}\n" if metrics else "{}\n")


def parse_lines(lines: list[bytes]) -> list[dict[str, Any]]:
    """Parse lines of a metrics.jsonl, all at once; one that was cut off is left out."""
    try:
        points: list[dict[str, Any]] = json.loads(b"[" + b",".join(lines) + b"]")
    except (ValueError, RecursionError):
        if len(lines) == 1:
            return []
        half = len(lines) // 2
        return parse_lines(lines[:half]) + parse_lines(lines[half:])
    return points


def format_list(key: str, column: Any, form: Callable[[list[Any]], str]) -> Iterator[str]:
    """Format a column as a JSON list after its key, piece by piece."""
    yield f"{key}["
    for start in range(0, len(column), BATCH):
        yield (", " if start else "") + form(column[start : start + BATCH].tolist())[1:-1]
    yield "]"


def format_floats(values: list[float]) -> str:
    """Format floats as a JSON list."""
    if all(map(math.isfinite, values)):
        return json.dumps(values)
    return f"[{', '.join(map(format_float, values))}]"


def format_times(times: list[float]) -> str:
    """Format times as Sacred does, in UTC and ISO 8601, as a JSON list."""
    if len(times) < BATCH:
        from datetime import datetime, timedelta

        start = datetime(1970, 1, 1)
        micro = (start + timedelta(microseconds=round(one * 1e6)) for one in times)
        return json.dumps([one.isoformat(timespec="microseconds") for one in micro])
    import numpy as np  # a tenth of a second, for the end of a long run

    texts = np.datetime_as_string((np.array(times) * 1e6).round().astype("M8[us]"))
    return json.dumps(texts.tolist())
