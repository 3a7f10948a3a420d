"""The processes of a distributed run (torchrun, Accelerate): rank 0 records, the others report.

An error in another rank reaches the record through a file in a folder that all ranks can see.
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path

from lab.ground import files, liveness

# Equal in all processes of one launch; together different in the next one.
LAUNCH = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
JOB = ("SLURM_JOB_ID", "SLURM_STEP_ID", "LAB_JOB", "WORLD_SIZE")


def is_main_process() -> bool:
    """Whether this is the process that records: the only one, or rank 0."""
    return os.environ.get("RANK", "0") == "0"


def report_error(runs: Path, text: str) -> None:
    """Leave the text of an error for rank 0; called in the other ranks."""
    folder = launch_folder(runs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / f"rank-{os.environ['RANK']}.txt", text)
    except OSError as error:
        rank = os.environ["RANK"]
        print(f"warning: the error of rank {rank} cannot be recorded: {error}", file=sys.stderr)


def take_errors(runs: Path) -> str:
    """Return the errors that the other ranks left, each under its rank, and remove them."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return ""
    folder = launch_folder(runs)
    paths = sorted(folder.glob("rank-*"))
    errors = "".join(f"--- {path.stem}\n{path.read_text('utf-8')}" for path in paths)
    shutil.rmtree(folder, ignore_errors=True)
    return errors


def launch_folder(runs: Path) -> Path:
    """Return the folder for messages between the ranks of this launch."""
    facts = [os.environ.get(name, "") for name in LAUNCH + JOB]
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
        parent = os.getppid()  # all are on one machine, where torchrun's process is their parent
        facts += [str(parent), liveness.start_time(parent), liveness.boot_id()]
    return runs / "_ranks" / hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
