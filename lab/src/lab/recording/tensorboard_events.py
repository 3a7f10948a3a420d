"""Scalars in TensorBoard's event format, encoded for all points of a metric at once.

TensorBoard's own writer takes ten times as long, most of it for a checksum in Python. Here every
field has a fixed length (a varint may have leading zeros), so that the points of a metric are the
rows of one array, whose checksums numpy computes together. docs/decisions.md has the numbers.
"""

import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Point = tuple[str, int, float, float]  # metric, step, value, seconds since 1970
Bytes = NDArray[np.uint8]


def new_file_name(folder: Path) -> str:
    """Return the name of a new event file in a folder: TensorBoard reads it after those there."""
    times = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*.*")]
    latest = max([time.time(), *(int(one) + 1 for one in times if one.isdecimal())])
    return f"events.out.tfevents.{latest:.0f}.{socket.gethostname()}.{os.getpid()}.0"


def encode_header() -> bytes:
    """Encode the event with which a file begins: the version of its format."""
    event = b"\x09" + np.float64(time.time()).tobytes() + encode_field(3, b"brain.Event:2")
    return encode_records(np.frombuffer(event, np.uint8)[None])


def encode_restart() -> bytes:
    """Encode the event that makes TensorBoard forget all points of the files before this one."""
    least = b"\x10" + b"\x80" * 9 + b"\x01"  # Event.step: -2^63
    started = encode_field(7, b"\x08\x01")  # Event.session_log { status: START }
    event = b"\x09" + np.float64(time.time()).tobytes() + least + started
    return encode_records(np.frombuffer(event, np.uint8)[None])


def encode_points(points: Iterable[Point]) -> bytes:
    """Encode points as events, each with one scalar summary."""
    metrics = defaultdict(list)
    for name, step, value, now in points:
        metrics[name].append((step, value, now))
    return b"".join(encode_metric(name, rows) for name, rows in metrics.items())


def encode_metric(name: str, rows: list[tuple[int, float, float]]) -> bytes:
    """Encode the points of one metric, (step, value, time) each."""
    steps, values, times = zip(*rows, strict=True)
    with np.errstate(over="ignore"):  # beyond float32 TensorBoard shows infinity
        value = np.array(values, "<f8").astype("<f4")
    step = np.array(steps, "<i8").view("<u8")[:, None]
    shifts = np.arange(0, 63, 7).astype("<u8")
    varint = (step >> shifts & np.uint64(127) | np.uint64(128)).astype(np.uint8)
    # Event.summary { value { tag, simple_value } }, without its last four bytes
    summary = encode_field(
        5, encode_field(1, encode_field(1, name.encode("utf-8", "replace")) + b"\x15" + bytes(4))
    )
    parts: list[Bytes | bytes] = [
        b"\x09",  # Event.wall_time
        np.array(times, "<f8").view(np.uint8).reshape(-1, 8),
        b"\x10",  # Event.step
        np.hstack([varint, (step >> np.uint64(63)).astype(np.uint8)]),
        summary[:-4],
        value.view(np.uint8).reshape(-1, 4),
    ]
    columns = [
        np.tile(np.frombuffer(part, np.uint8), (len(rows), 1)) if isinstance(part, bytes) else part
        for part in parts
    ]
    return encode_records(np.hstack(columns))


def encode_field(number: int, content: bytes) -> bytes:
    """Encode a protobuf field that has a length."""
    length, size = b"", len(content)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def encode_records(rows: Bytes) -> bytes:
    """Encode the rows of an array as TFRecords: length, its checksum, content, its checksum."""
    length = np.full((len(rows), 1), rows.shape[1], "<u8").view(np.uint8)
    return np.hstack([length, compute_checksums(length), rows, compute_checksums(rows)]).tobytes()


def compute_checksums(rows: Bytes) -> Bytes:
    """Compute the masked CRC-32C of each row, as bytes [rows, 4]."""
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in rows.T:
        crc = CRC_TABLE[(crc ^ column) & 255] ^ crc >> 8
    crc = ~crc
    masked = ((crc >> 15 | crc << 17) + np.uint32(0xA282EAD8)).astype("<u4")
    return np.ascontiguousarray(masked).view(np.uint8).reshape(-1, 4)


def make_crc_table() -> NDArray[np.uint32]:
    """Compute the CRC-32C of each byte."""
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, crc >> 1 ^ np.uint32(0x82F63B78), crc >> 1)
    return crc


CRC_TABLE = make_crc_table()
