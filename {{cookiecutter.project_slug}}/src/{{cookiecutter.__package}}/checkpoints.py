"""What a training run saves: its best weights, and its last state, from which it can continue.

Each is written under another name and renamed when it is complete, so that a crash at any moment
leaves a complete one.
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
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from lab.project import LabError

if TYPE_CHECKING:
    from .experiment import Config

WEIGHTS = "best.safetensors"
# What a resumed run may change: how long it goes on.
FREE_ON_RESUME = {"epochs", "patience", "resume", "workers"}


def make_folder(folder: Path) -> None:
    """Make the folder of a new run; LabError if that fails."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise LabError(f"{folder} cannot be made: {error.strerror}.") from None


def save_weights(accelerator: Accelerator, model: nn.Module, folder: Path) -> None:
    """Save the model's weights alone, for use: safetensors.torch.load_file loads them."""
    weights = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        with removing_on_error(folder / "best.new") as draft:
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, draft)
            draft.replace(folder / WEIGHTS)


def save_state(accelerator: Accelerator, folder: Path, epoch: int, config: "Config") -> None:
    """Save the whole state after an epoch, then remove the one before."""
    checkpoint = folder / f"epoch-{epoch:04}"
    draft = folder / f"{checkpoint.name}.new"
    with removing_on_error(draft):
        accelerator.save_state(draft)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with removing_on_error(draft):
            (draft / "config.json").write_text(json.dumps(to_plain(config), indent=1) + "\n")
            draft.rename(checkpoint)
        for older in set(list_checkpoints(folder)) - {checkpoint}:
            shutil.rmtree(older)


@contextmanager
def removing_on_error(draft: Path) -> Iterator[Path]:
    """Remove an unfinished file or folder if an error comes; LabError if the disk caused it."""
    try:
        yield draft
    except BaseException as error:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)
        if isinstance(error, (OSError, RuntimeError, SafetensorError)):  # torch's is a RuntimeError
            raise LabError(
                f"{draft} cannot be written ({first_line(error)}); is the disk or the quota full?"
            ) from error
        raise


def list_checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("epoch-*") if path.name[6:].isdigit())


def find_run(models: Path, run_id: str) -> Path:
    """Find the folder of the run with this id; LabError, with similar ids, if there is none."""
    runs = [path.name for path in sorted(models.glob("*")) if list_checkpoints(path)]
    if run_id in runs:
        return models / run_id
    similar = [name for name in runs if name.startswith(run_id)] or runs[-5:]
    raise LabError(
        f"resume={run_id}: no run with this id has a checkpoint in {models};"
        f" there are: {', '.join(similar) or 'none'}."
    )


def resume(accelerator: Accelerator, previous: Path, folder: Path, config: "Config") -> None:
    """Load the last checkpoint of an earlier run, and copy its best weights into `folder`.

    LabError if the checkpoint is damaged, or if the configuration or the number of processes
    differs in more than how long to go on: it would be neither the old run nor a new one.
    """
    checkpoint = list_checkpoints(previous)[-1]
    new = to_plain(config) | {"processes": accelerator.num_processes}
    with reporting_damage(previous):
        old = to_plain(type(config)())  # a setting that was added later had its default
        old |= json.loads((checkpoint / "config.json").read_text())
        old |= {"processes": len(list(checkpoint.glob("random_states_*.pkl")))}
    differing = sorted(key for key in new if key not in FREE_ON_RESUME and old[key] != new[key])
    if differing:
        changes = ", ".join(f"{key} was {old[key]!r}, is {new[key]!r}" for key in differing)
        raise LabError(f"{previous.name} cannot be resumed with another configuration: {changes}.")
    with reporting_damage(previous):
        load_file(previous / WEIGHTS)
        # Accelerate would go on without random states that it cannot read
        load(checkpoint / f"random_states_{accelerator.process_index}.pkl")
        accelerator.load_state(checkpoint)
    accelerator.wait_for_everyone()  # no process begins if another one cannot read its part
    if accelerator.is_main_process:
        make_folder(folder)
        with removing_on_error(folder / "best.new") as draft:
            shutil.copyfile(previous / WEIGHTS, draft)
            draft.rename(folder / WEIGHTS)


@contextmanager
def reporting_damage(run: Path) -> Iterator[None]:
    """Raise LabError for any error: torch, pickle and safetensors each have their own."""
    try:
        yield
    except Exception as error:
        raise LabError(
            f"{run} cannot be resumed: its checkpoint or weights are damaged, or of another model"
            f" ({first_line(error)})."
        ) from error


def to_plain(config: "Config") -> dict[str, Any]:
    """Convert the configuration to what JSON has: a tuple becomes a list."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    return plain


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
