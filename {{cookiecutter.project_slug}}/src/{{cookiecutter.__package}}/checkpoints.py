"""What a training run keeps: its best weights and its last state, from which it is continued.

Each is written under another name and renamed when it is whole, so that a crash at any moment
leaves a whole one.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import Accelerator
from accelerate.utils import load
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from lab.project import LabError

if TYPE_CHECKING:
    from .experiment import Config

WEIGHTS = "best.safetensors"
# What a continued run may change: how long it goes on.
FREE_ON_RESUME = {"epochs", "patience", "resume", "workers"}


def begin(folder: Path) -> None:
    """Make a new run's folder; LabError if that cannot be."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise LabError(f"{folder} cannot be made: {error.strerror}.") from None


def save_weights(accelerator: Accelerator, model: nn.Module, folder: Path) -> None:
    """The model's weights alone, for use: load them with safetensors.torch.load_file."""
    weights = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        with drafted(folder / "best.new") as draft:
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, draft)
            draft.replace(folder / WEIGHTS)


def save(accelerator: Accelerator, folder: Path, epoch: int, config: "Config") -> None:
    """The whole state after an epoch; the one before is removed when this one is there."""
    place = folder / f"epoch-{epoch:04}"
    with drafted(folder / f"{place.name}.new") as draft:
        accelerator.save_state(draft)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with drafted(draft):
            (draft / "config.json").write_text(json.dumps(plain(config), indent=1) + "\n")
            draft.rename(place)
        for older in set(checkpoints(folder)) - {place}:
            shutil.rmtree(older)


@contextmanager
def drafted(draft: Path) -> Iterator[Path]:
    """Remove what cannot be finished; LabError if that is the disk's doing."""
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


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("epoch-*") if path.name[6:].isdigit())


def find_run(models: Path, wanted: str) -> Path:
    """The models folder of the run with this id; LabError, with ids that are like it, if none."""
    runs = [path.name for path in sorted(models.glob("*")) if checkpoints(path)]
    if wanted in runs:
        return models / wanted
    alike = [name for name in runs if name.startswith(wanted)] or runs[-5:]
    there = ", ".join(alike) or "none"
    raise LabError(f"resume={wanted} is no run with a checkpoint in {models}; there are: {there}.")


def resume(accelerator: Accelerator, previous: Path, folder: Path, config: "Config") -> None:
    """Load the last checkpoint of an earlier run, and take its best weights over into `folder`.

    LabError if the checkpoint is damaged, or if the configuration or the number of processes
    differs in more than how long to go on: it would be neither the old run nor a new one.
    """
    checkpoint = checkpoints(previous)[-1]
    new = plain(config) | {"processes": accelerator.num_processes}
    with readable(previous):
        old = plain(type(config)())  # a setting that came later had its default
        old |= json.loads((checkpoint / "config.json").read_text())
        old |= {"processes": len(list(checkpoint.glob("random_states_*.pkl")))}
    differing = sorted(key for key in new if key not in FREE_ON_RESUME and old[key] != new[key])
    if differing:
        changes = ", ".join(f"{key} was {old[key]!r}, is {new[key]!r}" for key in differing)
        raise LabError(f"{previous.name} cannot be resumed with another configuration: {changes}.")
    with readable(previous):
        load_file(previous / WEIGHTS)
        # Accelerate goes on without random states that it cannot read
        load(checkpoint / f"random_states_{accelerator.process_index}.pkl")
        accelerator.load_state(checkpoint)
    accelerator.wait_for_everyone()  # what another process cannot read is not begun
    if accelerator.is_main_process:
        begin(folder)
        with drafted(folder / "best.new") as draft:
            shutil.copyfile(previous / WEIGHTS, draft)
            draft.rename(folder / WEIGHTS)


@contextmanager
def readable(run: Path) -> Iterator[None]:
    """LabError for whatever goes wrong: torch, pickle and safetensors have errors of their own."""
    try:
        yield
    except Exception as error:
        raise LabError(
            f"{run} cannot be continued: what it kept is damaged, or of another model"
            f" ({first_line(error)})."
        ) from error


def plain(config: "Config") -> dict:
    """The configuration as JSON has it: a tuple is a list."""
    return json.loads(json.dumps(asdict(config), default=str))


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
