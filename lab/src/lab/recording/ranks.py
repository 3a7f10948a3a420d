"""The processes of a distributed run (torchrun, Accelerate): rank 0 records, the others report.

An error in another rank reaches the record through a file in a folder that all ranks can see. In
the same folder rank 0 names the runs that it has chosen, as by resume=last.
"""

import hashlib
import json
import os
import re
import shutil
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from lab.ground import files, liveness
from lab.ground.terminal import print_message

# Equal in all processes of a launch; taken together, different in the next launch.
LAUNCH = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
# What a rank's error says when another rank has died: a consequence, not the cause.
CONSEQUENCE = (
    "(?i)connection (closed|reset|refused|aborted|was)|by peer|broken pipe|remote process exited"
    "|gloo|nccl|socket|timed out|timeout"
)
CHOICE = "chosen.json"
PATIENCE = 60.0  # seconds to wait for the choice of rank 0
STALE = 600.0  # seconds after which a choice is of another launch, whose rank 0 was killed
WAIT = 2.0  # seconds for the error of the rank that failed first, which may still be unwinding
JOB = ("SLURM_JOB_ID", "SLURM_STEP_ID", "LAB_JOB", "LAB_ATTEMPT", "WORLD_SIZE")


def is_main_process() -> bool:
    """Whether this is the process that records: the only one, or rank 0."""
    return (os.environ.get("RANK") or "0") == "0"


def count_ranks() -> int:
    """Return how many ranks the run has: 1 unless a launcher has set WORLD_SIZE to a number."""
    text = os.environ.get("WORLD_SIZE", "")
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 1


def is_distributed() -> bool:
    """Whether the run has more than one rank."""
    return count_ranks() > 1


def share_choice(runs: Path, choice: dict[str, str]) -> None:
    """Tell the other ranks which runs rank 0 has chosen: setting and id of each.

    Rank 0 makes its record after this, and for a slower rank that would be the last run.
    """
    if is_distributed() and is_main_process():
        path = launch_folder(runs) / CHOICE
        with suppress(OSError):  # the others then wait in vain, and choose for themselves
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, json.dumps(choice))


def await_choice(runs: Path) -> dict[str, str]:
    """Wait for the choice of rank 0; {} in rank 0 itself, and if none comes."""
    if not is_distributed() or is_main_process():
        return {}
    path, end = launch_folder(runs) / CHOICE, time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(OSError, ValueError, AttributeError):
            if time.time() - path.stat().st_mtime < STALE:
                return {name: str(run) for name, run in files.read_json(path).items()}
        time.sleep(0.05)
    return {}


def report_error(runs: Path, text: str) -> None:
    """Leave the text of an error for rank 0; called in the other ranks."""
    folder = launch_folder(runs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a traceback may have what is not UTF-8: the name of a file, say
        content = text.encode("utf-8", "backslashreplace")
        files.write(folder / f"rank-{os.environ['RANK']}.txt", content)
    except OSError as error:
        rank = os.environ["RANK"]
        print_message(f"warning: the error of rank {rank} cannot be recorded: {error}")


class Failure(NamedTuple):
    """The error of a rank: its traceback, and when that was reported."""

    rank: str
    time: float
    text: str

    @property
    def is_consequence(self) -> bool:
        """Whether it only says that another rank has died."""
        lines = self.text.strip().splitlines()[-6:]  # tracebacks indent source code
        return any(re.search(CONSEQUENCE, line) for line in lines if not line.startswith(" "))


def take_errors(runs: Path, wait: bool = False) -> list[Failure]:
    """Return the errors that the other ranks left, by rank, and remove them.

    `wait`: wait a moment for an error that is not the consequence of another rank's.
    """
    if not is_distributed():
        return []
    folder, end = launch_folder(runs), time.monotonic() + WAIT
    while True:
        failures = [
            Failure(path.stem, path.stat().st_mtime, files.read_text(path, "replace"))
            for path in sorted(folder.glob("rank-*"))
        ]
        found = any(not failure.is_consequence for failure in failures)
        if found or not wait or time.monotonic() > end:
            break
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)
    return failures


def find_first(own: str, when: datetime, others: list[Failure]) -> Failure:
    """Find the failure that came first, of rank 0's own (if any) and the others."""
    failures = list(others)
    if own:
        failures.append(Failure("rank-0", when.replace(tzinfo=timezone.utc).timestamp(), own))
    return min(failures, key=lambda failure: (failure.is_consequence, failure.time))


def launch_folder(runs: Path) -> Path:
    """Return the folder for messages between the ranks of this launch."""
    facts = [os.environ.get(name, "") for name in LAUNCH + JOB]
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
        parent = os.getppid()  # all are on one machine, where torchrun's process is their parent
        facts += [str(parent), liveness.start_time(parent), liveness.boot_id()]
    return runs / "_ranks" / hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
