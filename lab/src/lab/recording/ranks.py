"""The processes of one run (torchrun, Accelerate): rank 0 records, the others tell it errors."""

import hashlib
import os
import shutil
from pathlib import Path

from lab.ground import files, liveness

# Equal in all processes of one launch; together different in the next one.
LAUNCH = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
JOB = ("SLURM_JOB_ID", "SLURM_STEP_ID", "LAB_JOB", "WORLD_SIZE")


def is_main_process() -> bool:
    """Whether this is the process that records: the only one, or rank 0 of several."""
    return os.environ.get("RANK", "0") == "0"


def launch_folder(runs: Path) -> Path:
    """Where the ranks of this launch leave messages for rank 0, in a folder that all can see."""
    known = [os.environ.get(name, "") for name in LAUNCH + JOB]
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
        parent = os.getppid()  # all on this machine: torchrun's own process is the same for them
        known += [str(parent), liveness.start_time(parent), liveness.boot_id()]
    return runs / "_ranks" / hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]


def report(runs: Path, error: str) -> None:
    """From a rank above 0: leave the text of an error for the record that rank 0 writes."""
    folder = launch_folder(runs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / f"rank-{os.environ['RANK']}.txt", error)
    except OSError as failure:
        print(f"the error of rank {os.environ['RANK']} cannot be recorded: {failure}")


def collect(runs: Path) -> str:
    """In rank 0: the errors of the others, each under its rank; they are taken away."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return ""
    folder = launch_folder(runs)
    paths = sorted(folder.glob("rank-*"))
    collected = "".join(f"--- {path.stem}\n{path.read_text('utf-8')}" for path in paths)
    shutil.rmtree(folder, ignore_errors=True)
    return collected
