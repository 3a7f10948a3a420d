"""What a run came from and ran on: packages, machine, job, data, seeds.

The variables of the environment are never recorded: they hold secrets. Nothing here fails or waits
for long: what cannot be found out is None.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.environment import installed
from lab.ground import files, liveness, manifests, project
from lab.ground.errors import LabError
from lab.ground.terminal import print_message
from lab.recording import package, ranks

TIMEOUT = 5  # seconds for nvidia-smi; a broken driver lets it hang
SLURM = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_NODELIST")
CREDENTIALS = re.compile(r"(?<=://)[^/@\s\"]*@")


class Software(threading.Thread):
    """Finds out what is installed, while git takes the snapshot."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: dict[str, Any] = {}
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.found = {
                "python": sys.version.split()[0],
                "torch": installed.find_version("torch"),
                "lab": package.identify(),
                "lock_sha256": files.sha256_or_none(project.lock_file()),
                "not_as_locked": warn_of_differences(),
            }
        except BaseException as error:  # noqa: BLE001 # it is raised where it is waited for
            self.error = error

    def facts(self) -> dict[str, Any]:
        """Return what it found, once it has; or raise what stopped it."""
        self.join()
        if self.error:
            raise self.error
        return self.found


def collect_at_start(config: Mapping[str, Any], software: Software) -> dict[str, Any]:
    """Collect what is known when a run starts, except its code."""
    return {
        "process": liveness.identify_process(),
        "software": software.facts(),
        "job": {
            "lab": os.environ.get("LAB_JOB"),
            "slurm": {name: os.environ[name] for name in SLURM if name in os.environ},
            "processes": ranks.count_ranks(),
        },
        "data": identify_data(config.get("dataset")),
        "machine": {
            "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
            "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        },
    }


def warn_of_differences() -> list[str]:
    """Warn of the installed packages that differ from the lock, and return them."""
    differences = installed.find_differences(Path(sys.prefix))
    if differences:
        print_message(
            f"warning: this environment does not match {project.lock_file().name}:"
            f" {installed.summarize(differences)}. python3 bootstrap.py restores it.",
        )
    return differences


def read_output(*command: str) -> str | None:
    """Return what a command prints; None if it fails, is missing or hangs."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None


def remove_credentials(text: str) -> str:
    """Remove the user:password@ of every address in a text."""
    return CREDENTIALS.sub("", text)


def identify_data(dataset: Any) -> dict[str, str | None]:
    """Identify a dataset by its name and the hash of its manifest, which lists its files."""
    if not isinstance(dataset, str):
        return {"dataset": None, "manifest_sha256": None}
    manifest = None
    with suppress(LabError):  # the run itself will report what is wrong with the data folder
        manifest = manifests.hash_manifest(dataset) or None
    return {"dataset": dataset, "manifest_sha256": manifest}


# --- GPUs ----------------------------------------------------------------------------------------


class Gpus(threading.Thread):
    """Asks nvidia-smi in the background: it may take seconds, or hang."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: list[dict[str, Any]] | None = None  # None: no answer, or not yet
        self.driver: str | None = None
        self.start()

    def run(self) -> None:
        if not shutil.which("nvidia-smi"):
            self.found = []
            return
        query = "--query-gpu=index,uuid,memory.total,driver_version,name"
        answer = read_output("nvidia-smi", query, "--format=csv,noheader,nounits")
        rows = [line.split(", ", 4) for line in (answer or "").splitlines()]
        if answer is None or any(len(row) != 5 for row in rows):
            return
        gpus = [
            {
                "index": index,
                "uuid": uuid,
                "memory_mib": int(memory) if memory.isdigit() else None,  # "[N/A]"
                "name": name,
            }
            for index, uuid, memory, _, name in rows
        ]
        self.driver = rows[0][3] if rows else None
        self.found = select_visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))

    def facts(self) -> dict[str, Any]:
        """Return what is known by now."""
        return {"gpus": self.found, "driver": self.driver}


def select_visible(gpus: list[dict[str, Any]], devices: str | None) -> list[dict[str, Any]]:
    """Select the GPUs that CUDA_VISIBLE_DEVICES names; all of them if it is not understood."""
    if devices is None:
        return gpus
    chosen = []
    for word in map(str.strip, devices.split(",")):
        if word in ("", "-1"):
            break  # CUDA ignores what follows
        found = [one for one in gpus if one["index"] == word or one["uuid"].startswith(word)]
        if not found:
            return gpus  # a part of a GPU (MIG), say
        chosen += found[:1]
    return chosen


# --- what is only known later --------------------------------------------------------------------


def collect_so_far(seed: int | None) -> dict[str, Any]:
    """Collect what is known by now: seeds, determinism, peak memory; torch's if it is in use."""
    seeds: dict[str, Any] = {
        "sacred": seed,
        "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "random"),
    }
    determinism: dict[str, Any] = {
        "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    }
    facts: dict[str, Any] = {"seeds": seeds, "determinism": determinism}
    unit = 1024 if sys.platform == "darwin" else 1  # bytes on macOS, KiB on Linux
    peaks = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own, child = (peak.ru_maxrss // unit // 1024 for peak in peaks)
    usage: dict[str, Any] = {"peak_memory_mib": own, "peak_memory_largest_child_mib": child}
    torch = sys.modules.get("torch")
    if torch and hasattr(torch, "cuda"):  # without cuda, it is being imported at this moment
        seeds["torch"] = torch.initial_seed()
        determinism |= {
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "threads": torch.get_num_threads(),
        }
        facts["torch"] = {"version": str(torch.__version__), "cuda_build": torch.version.cuda}
        if torch.cuda.is_initialized():
            facts["torch"]["cudnn"] = torch.backends.cudnn.version()
            seeds["torch_cuda"] = torch.cuda.initial_seed()
            usage["gpus"] = [measure_gpu(torch, n) for n in range(torch.cuda.device_count())]
    return facts | {"usage": usage}


def measure_gpu(torch: Any, number: int) -> dict[str, Any]:
    """Measure how much memory of a GPU this process has used."""
    properties = torch.cuda.get_device_properties(number)
    return {
        "name": properties.name,
        "uuid": str(getattr(properties, "uuid", "")) or None,
        "peak_memory_mib": torch.cuda.max_memory_allocated(number) >> 20,
        "peak_reserved_mib": torch.cuda.max_memory_reserved(number) >> 20,
    }
