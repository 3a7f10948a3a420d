"""Metrics of a run, appended to metrics.jsonl and to a TensorBoard event file beside it.

Sacred rewrites all metrics of a run at every beat. Here a point costs the same however many there
are: it waits in a list, and the list is written out in one piece.
"""

import json
import math
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from lab.ground import interrupts

Point = tuple[str, int, float, float]  # metric, step, value, seconds since 1970
AT_MOST = 10_000  # points that wait in memory


class AppendedFile:
    """A file that only grows. What cannot be written waits, and is written first the next time."""

    def __init__(self, path: Path, beginning: bytes = b""):
        self.path = path
        self.waiting = bytearray()
        path.write_bytes(beginning)

    def write(self, data: bytes = b"") -> None:
        """Append; OSError if that fails, also if somebody removed the file."""
        self.waiting += data
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            while self.waiting:
                del self.waiting[: os.write(file, self.waiting)]
        finally:
            os.close(file)


class Metrics:
    """The metrics of one run."""

    def __init__(self, folder: Path):
        self.points: list[Point] = []
        self.lock = threading.Lock()
        self.lines = AppendedFile(folder / "metrics.jsonl")
        self.events: AppendedFile | None = None
        self.folder = folder / "tensorboard"

    def add(self, step: int, values: Mapping[str, float], now: float | None = None) -> bool:
        """Keep one value for each metric name; True if it is time to flush.

        ValueError for what could not be written later, and would be lost then.
        """
        now, step = now or time.time(), int(step)
        if not -(2**63) <= step < 2**63:
            raise ValueError(f"{step} is no step: it has more than 64 bits.")
        for name, value in values.items():
            self.points.append((str(name), step, float(value), now))
        return len(self.points) >= AT_MOST

    def flush(self) -> None:
        """Write out what waits; OSError if that fails, and nothing is lost then."""
        with interrupts.deferred(), self.lock:
            if self.points and not self.events:
                self.events = event_file(self.folder)
            points = self.points[:]
            del self.points[: len(points)]
            if self.events:
                self.events.waiting += as_events(points)
            self.lines.write(as_lines(points))
            if self.events:
                self.events.write()


def as_lines(points: Iterable[Point]) -> bytes:
    """One JSON object per point; what JSON has no number for is a string, such as "NaN"."""
    names = {name: json.dumps(name) for name in {point[0] for point in points}}
    return "".join(
        f'{{"metric": {names[name]}, "step": {step}, "value": {number(value)}, "time": {now:.3f}}}'
        "\n"
        for name, step, value, now in points
    ).encode()


def number(value: float) -> str:
    """A float as JSON; float() of what JSON reads from it gives the same float again."""
    return repr(value) if math.isfinite(value) else f'"{json.dumps(value)}"'


# --- TensorBoard ---------------------------------------------------------------------------------
# Its own writer needs 23 microseconds a point, most of them for a checksum in Python; here the
# checksums of all points of a metric are computed at once. Every field has a fixed length (a varint
# may have leading zeros), so that the points of a metric are the rows of one array.


def event_file(folder: Path) -> AppendedFile:
    """A new event file, as TensorBoard looks for it."""
    folder.mkdir(exist_ok=True)
    now = time.time()
    name = f"events.out.tfevents.{now:.0f}.{socket.gethostname()}.{os.getpid()}.0"
    version = b"\x09" + np.float64(now).tobytes() + message(3, b"brain.Event:2")
    return AppendedFile(folder / name, records(np.frombuffer(version, np.uint8)[None]))


def as_events(points: Iterable[Point]) -> bytes:
    """Scalar summaries in TensorBoard's file format."""
    metrics = defaultdict(list)
    for name, *rest in points:
        metrics[name].append(rest)
    return b"".join(scalars(name, rows) for name, rows in metrics.items())


def scalars(name: str, rows: list[list[float]]) -> bytes:
    """Events of one metric from [step, value, time] rows."""
    steps, values, times = zip(*rows, strict=True)
    with np.errstate(over="ignore"):  # beyond float32 TensorBoard shows infinity
        value = np.array(values, "<f8").astype("<f4")
    step = np.array(steps, "<i8").view("<u8")[:, None]
    varint = (step >> np.arange(0, 63, 7, "<u8") & 127 | 128).astype(np.uint8)
    parts = [
        b"\x09",
        np.array(times, "<f8").view(np.uint8).reshape(-1, 8),  # Event.wall_time
        b"\x10",
        np.hstack([varint, (step >> np.uint64(63)).astype(np.uint8)]),  # Event.step
        # Event.summary { value { tag, simple_value } }, without its last four bytes
        message(5, message(1, message(1, name.encode()) + b"\x15" + bytes(4)))[:-4],
        value.view(np.uint8).reshape(-1, 4),
    ]
    spread = (
        np.tile(np.frombuffer(part, np.uint8), (len(rows), 1)) if isinstance(part, bytes) else part
        for part in parts
    )
    return records(np.hstack(list(spread)))


def message(field: int, content: bytes) -> bytes:
    """A protobuf field with a length."""
    length, size = b"", len(content)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([field << 3 | 2]) + length + bytes([size]) + content


def records(rows: np.ndarray) -> bytes:
    """TFRecords of a uint8 array [records, bytes]: length, its checksum, content, its checksum."""
    length = np.full((len(rows), 1), rows.shape[1], "<u8").view(np.uint8)
    return np.hstack([length, checksum(length), rows, checksum(rows)]).tobytes()


def checksum(rows: np.ndarray) -> np.ndarray:
    """The masked CRC-32C of each row of a uint8 array, as bytes [rows, 4]."""
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in rows.T:
        crc = CRC_TABLE[(crc ^ column) & 255] ^ crc >> 8
    crc = ~crc
    masked = (crc >> 15 | crc << 17) + np.uint32(0xA282EAD8)
    return masked.astype("<u4").view(np.uint8).reshape(-1, 4)


def crc_table() -> np.ndarray:
    """CRC-32C of each byte."""
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, crc >> 1 ^ np.uint32(0x82F63B78), crc >> 1)
    return crc


CRC_TABLE = crc_table()
