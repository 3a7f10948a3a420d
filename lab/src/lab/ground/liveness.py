"""Which process a run is, and whether it is still there: a lost run must not be called running."""

import os
import socket
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

FRESH = timedelta(minutes=1)  # six heartbeats: younger, and the run is taken to be alive
STALE = timedelta(minutes=10)  # older, and it is not; in between nothing is said


def identify_process(pid: int | None = None) -> dict[str, Any]:
    """A process of this machine, or this one, so that no later process is mistaken for it."""
    pid = pid or os.getpid()
    return {"host": socket.gethostname(), "boot": boot_id(), "pid": pid, "started": start_time(pid)}


@cache
def boot_id() -> str:
    """Names this machine's current boot, and the container in which pids are counted."""
    if sys.platform == "linux":
        number = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{number} {os.readlink('/proc/self/ns/pid')}"
    return _read_output("sysctl", "-n", "kern.boottime")


def start_time(pid: int) -> str:
    """When a process started, in the kernel's words; "" if there is no such process."""
    if sys.platform != "linux":
        return _read_output("ps", "-o", "lstart=", "-p", str(pid))
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]  # a zombie has ended


def _read_output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def judge_state(process: dict[str, Any], heartbeat: str | None, now: datetime | None = None) -> str:
    """RUNNING, LOST or UNKNOWN, for a run whose record says that it is running.

    On this machine the process itself is looked for. A run of another machine is judged by the age
    of its last heartbeat (ISO 8601, UTC); UNKNOWN if that says nothing.
    """
    if process.get("boot") == boot_id():
        there = process.get("started") and process["started"] == start_time(process.get("pid", 0))
        return "RUNNING" if there else "LOST"
    try:
        beat = datetime.fromisoformat(heartbeat).replace(tzinfo=timezone.utc)
    except (TypeError, ValueError):
        return "UNKNOWN"
    age = (now or datetime.now(timezone.utc)) - beat
    if age < -FRESH:
        return "UNKNOWN"  # the clocks differ
    if age < FRESH:
        return "RUNNING"
    # this machine was restarted since, or the other one has been silent for long
    return "LOST" if age > STALE or process.get("host") == socket.gethostname() else "UNKNOWN"
