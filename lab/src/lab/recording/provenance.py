"""What a run came from and ran on: code, packages, machine, job, data, seeds.

The environment is never dumped: it has secrets in it. Nothing here fails or waits for long: what
cannot be found out is None.
"""

import importlib.metadata
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from lab.ground import files, liveness, project
from lab.ground.errors import LabError
from lab.recording import package

TIMEOUT = 5  # seconds for nvidia-smi; a broken driver lets it hang
SLURM = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_NODELIST")
CREDENTIALS = re.compile(r"(?<=://)[^/@\s\"]*@")


def at_start(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is known when a run starts, but for its code."""
    return {
        "process": liveness.identify_process(),
        "software": {
            "python": platform.python_version(),
            "torch": version("torch"),
            "lab": package.identity(),
            "lock_sha256": files.sha256_or_none(project.root() / "requirements.txt"),
        },
        "job": {
            "lab": os.environ.get("LAB_JOB"),
            "slurm": {name: os.environ[name] for name in SLURM if name in os.environ},
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
        },
        "data": data(config.get("dataset")),
        "machine": {
            "cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
            "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        },
    }


def output(*command: str) -> str | None:
    """What a command prints; None if it fails, is missing or hangs."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None


def without_credentials(text: str) -> str:
    """The text without the user:password@ of addresses in it."""
    return CREDENTIALS.sub("", text)


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def data(dataset: Any) -> dict[str, Any]:
    """Which dataset, and the hash of the manifest that says what is in it."""
    if not isinstance(dataset, str):
        return {"dataset": None, "manifest_sha256": None}
    found = None
    with suppress(LabError):  # the run itself will say what is wrong with the data folder
        found = files.sha256_or_none(project.data_folder() / dataset / "manifest.json")
    return {"dataset": dataset, "manifest_sha256": found}


# --- GPUs ----------------------------------------------------------------------------------------


class Gpus(threading.Thread):
    """Asks nvidia-smi beside the run: it may take seconds, or hang."""

    def __init__(self):
        super().__init__(daemon=True)
        self.found: list[dict[str, Any]] | None = None  # None: no answer, yet or at all
        self.driver: str | None = None
        self.start()

    def run(self) -> None:
        if not shutil.which("nvidia-smi"):
            self.found = []
            return
        query = "--query-gpu=index,uuid,memory.total,driver_version,name"
        answer = output("nvidia-smi", query, "--format=csv,noheader,nounits")
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
        self.found = visible(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))

    def facts(self) -> dict[str, Any]:
        """What is known by now."""
        return {"gpus": self.found, "driver": self.driver}


def visible(gpus: list[dict[str, Any]], wanted: str | None) -> list[dict[str, Any]]:
    """Those that CUDA_VISIBLE_DEVICES leaves to the run; all of them if it is not understood."""
    if wanted is None:
        return gpus
    chosen = []
    for word in wanted.split(","):
        word = word.strip()
        if word in ("", "-1"):
            break  # CUDA ignores what comes behind it
        found = [one for one in gpus if one["index"] == word or one["uuid"].startswith(word)]
        if not found:
            return gpus  # a part of a GPU (MIG), say
        chosen += found[:1]
    return chosen


# --- what is only known later --------------------------------------------------------------------


def so_far(seed: int) -> dict[str, Any]:
    """What is known by now: seeds, determinism, peak memory. torch is asked if it is in use."""
    seeds = {"sacred": seed, "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "random")}
    determinism = {"CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG")}
    facts = {"seeds": seeds, "determinism": determinism}
    unit = 1024 if sys.platform == "darwin" else 1  # bytes there, KiB on Linux
    peaks = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own, child = (peak.ru_maxrss // unit // 1024 for peak in peaks)
    usage = {"peak_memory_mib": own, "peak_memory_largest_child_mib": child}
    torch = sys.modules.get("torch")
    if torch and hasattr(torch, "cuda"):  # else it is being imported at this moment
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
            usage["gpus"] = [gpu_usage(torch, n) for n in range(torch.cuda.device_count())]
    return facts | {"usage": usage}


def gpu_usage(torch: Any, number: int) -> dict[str, Any]:
    """What this process has used of a GPU."""
    properties = torch.cuda.get_device_properties(number)
    return {
        "name": properties.name,
        "uuid": str(getattr(properties, "uuid", "")) or None,
        "peak_memory_mib": torch.cuda.max_memory_allocated(number) >> 20,
        "peak_reserved_mib": torch.cuda.max_memory_reserved(number) >> 20,
    }
