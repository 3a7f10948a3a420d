"""Identify the process of a run, and tell whether it still runs."""

import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any, Literal

State = Literal["RUNNING", "LOST", "UNKNOWN"]

FRESH = timedelta(minutes=1)  # six heartbeats: after a younger one the run is alive
STALE = timedelta(minutes=10)  # after an older one it is lost; in between it is unknown


def identify_process(pid: int | None = None) -> dict[str, Any]:
    """Describe a local process, or this one, so that no later process can be mistaken for it."""
    pid = pid or os.getpid()
    return {"host": os.uname().nodename, "boot": boot_id(), "pid": pid, "started": start_time(pid)}


@cache
def boot_id() -> str:
    """Identify this computer's current boot, and the namespace of its process ids."""
    if sys.platform != "linux":
        return _read_output("sysctl", "-n", "kern.boottime")
    number = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{number} {os.readlink('/proc/self/ns/pid')}"


def start_time(pid: int) -> str:
    """Return when a process started, in the kernel's format; "" if there is no such process."""
    if sys.platform != "linux":
        return _read_output("ps", "-o", "lstart=", "-p", str(pid))
    try:
        line = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")  # it may have any name
    except OSError:
        return ""
    fields = line.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]  # a zombie has ended


def _read_output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def judge_state(
    process: dict[str, Any], heartbeat: str | None, now: datetime | None = None
) -> State:
    """Judge a run whose record says that it is running.

    A local run is looked up by its process. A run on another machine is judged by the age of its
    last heartbeat (ISO 8601, UTC), and is UNKNOWN if that is inconclusive.
    """
    if process.get("boot") == boot_id():
        found = start_time(process.get("pid", 0))
        return "RUNNING" if found and process.get("started") == found else "LOST"
    try:
        beat = datetime.fromisoformat(heartbeat or "").replace(tzinfo=timezone.utc)
    except (TypeError, ValueError):
        return "UNKNOWN"
    age = (now or datetime.now(timezone.utc)) - beat
    if age < -FRESH:
        return "UNKNOWN"  # the clocks differ
    if age < FRESH:
        return "RUNNING"
    # an old heartbeat: a process of this computer was started before its last boot
    return "LOST" if age > STALE or process.get("host") == os.uname().nodename else "UNKNOWN"
