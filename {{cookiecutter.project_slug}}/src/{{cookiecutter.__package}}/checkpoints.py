"""What a training run saves: its best weights, and its last state, from which it can continue.

Each is renamed when it is complete: a crash at any moment leaves a complete one.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from accelerate.utils import load
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lab import tracking
from lab.project import LabError

from . import past_runs
from .past_runs import STATE, WEIGHTS, list_checkpoints

if TYPE_CHECKING:
    from .experiment import Config
    from .training import Progress


def make_folder(folder: Path) -> None:
    """Make the folder of a new run; LabError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=tracking.attempt() > 1)  # an earlier attempt made it
    except OSError as error:
        raise LabError(f"{folder} cannot be made: {error.strerror}.") from None


def save_weights(accelerator: Accelerator, model: nn.Module, folder: Path) -> None:
    """Save the model's weights alone, for use: safetensors.torch.load_file loads them."""
    weights = to_plain_names(accelerator.get_state_dict(model))
    if accelerator.is_main_process:
        with tracking.saving(folder / WEIGHTS) as draft:
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, draft)


def to_plain_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name the weights as the model itself does, without the prefixes of its wrappers."""
    # DDP puts its name in front, torch.compile its own before every part that it compiled
    return {
        name.removeprefix("module.").replace("_orig_mod.", ""): tensor
        for name, tensor in weights.items()
    }


def load_weights(model: nn.Module, file: Path) -> None:
    """Load weights into a model that is not wrapped yet; LabError names the first misfit."""
    with reporting_damage(file):
        weights = load_file(file)
    check_fit(model, weights, file)
    model.load_state_dict(weights)


def check_fit(model: nn.Module, weights: dict[str, Tensor], file: Path) -> None:
    """Raise LabError with the first name or shape that differs between weights and model."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wanted = {name: tuple(t.shape) for name, t in to_plain_names(model.state_dict()).items()}
    for name in [*wanted, *shapes]:
        if shapes.get(name) != wanted.get(name):
            texts = [str(one.get(name, "missing")) for one in (shapes, wanted)]
            raise LabError(
                f"{file} is of another model: {name} is {texts[0]} there, {texts[1]} in model.py."
            )


def save_state(
    accelerator: Accelerator, folder: Path, progress: "Progress", config: "Config", manifest: str
) -> None:
    """Save the whole state, then remove the one before; Interrupted if the job is to stop."""
    checkpoint = folder / f"step-{progress.step:08}"
    with tracking.saving(checkpoint) as draft:
        accelerator.save_state(draft)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            state = {
                "config": asdict(config),
                "progress": asdict(progress),
                "processes": accelerator.num_processes,
                "manifest": manifest,
                "points": tracking.save_points(),
            }
            text = json.dumps(state, indent=1, default=str)  # a setting may be a path
            (draft / STATE).write_text(text + "\n", "utf-8")
    for older in list_checkpoints(folder) if accelerator.is_main_process else ():
        if older < checkpoint:  # a newer one is that of a newer attempt
            shutil.rmtree(older)
    if tracking.should_stop():
        accelerator.set_trigger()
    if accelerator.check_trigger():
        raise tracking.Interrupted


def resume(
    accelerator: Accelerator, model: nn.Module, previous: Path, folder: Path
) -> dict[str, Any]:
    """Load the last checkpoint of an earlier run, and copy its best weights into `folder`.

    Returns that run's progress. LabError if something is damaged, or of another model. An earlier
    attempt of the same run has its checkpoint in `folder`.
    """
    checkpoint = past_runs.read_checkpoint(previous)
    best = previous / WEIGHTS
    with reporting_damage(previous):
        has_weights = checkpoint.progress["best_epoch"]  # not before the end of the first epoch
        weights = load_file(best) if has_weights else None
        # Accelerate would go on without random states that it cannot read
        load(checkpoint.folder / f"random_states_{accelerator.process_index}.pkl")
    if weights is not None:
        check_fit(model, weights, best)
    with reporting_damage(previous):
        accelerator.load_state(checkpoint.folder)
    accelerator.wait_for_everyone()  # no process continues if another cannot read its part
    if accelerator.is_main_process and previous == folder:
        tracking.keep_points(checkpoint.points)
    elif accelerator.is_main_process:
        make_folder(folder)
        if weights is not None:
            with tracking.saving(folder / WEIGHTS) as draft:
                shutil.copyfile(best, draft)
    return checkpoint.progress


@contextmanager
def reporting_damage(run: Path) -> Iterator[None]:
    """Raise LabError for any error: torch, pickle and safetensors each have their own."""
    try:
        yield
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise LabError(
            f"{run} cannot be loaded: its checkpoint or weights are damaged, or of another model"
            f" ({cause})."
        ) from error
