"""Device, precision and distributed training by Accelerate, as exact as PyTorch can be."""

import importlib.util
import logging
import os
import sys

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from lab.project import LabError

logging.getLogger("accelerate").setLevel("WARNING")  # not eight lines for every checkpoint


def make_accelerator(mixed_precision: str) -> Accelerator:
    """Prepare for one run; LabError if this device cannot train in that precision."""
    AcceleratorState._reset_state()  # a second run in one notebook may want another precision
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # said, or several ranks would not meet
        mixed_precision=mixed_precision,
    )
    if accelerator.device.type == "cpu" and mixed_precision == "fp16":
        raise LabError("mixed_precision=fp16 does nothing on a CPU: choose bf16 or no.")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA asks for it, to be exact
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # no pickle in a checkpoint can run anything
    torch.use_deterministic_algorithms(True, warn_only=True)
    if not importlib.util.find_spec("lomo_optim"):
        # Accelerate asks for this package twice in each step, which takes 0.2 ms.
        # None tells Python that it is not installed: no need to search.
        sys.modules["lomo_optim"] = None  # type: ignore[assignment]
    return accelerator
