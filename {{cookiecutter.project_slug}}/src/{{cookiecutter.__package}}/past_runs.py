"""Models that earlier runs left in data/<dataset>/models: found by the run's id, without torch."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lab import project, records
from lab.project import LabError

WEIGHTS = "best.safetensors"
STATE = "state.json"  # of a checkpoint: the settings of its run, and how far it had come
# What a resumed run may change: how long it trains, and how its data is loaded.
FREE_ON_RESUME = {"epochs", "patience", "resume", "workers", "checkpoint_minutes"}


class Checkpoint(NamedTuple):
    """A complete checkpoint: its folder, and what is known without loading it."""

    folder: Path
    config: dict[str, Any]
    progress: dict[str, Any]
    processes: int
    manifest: str  # sha256 of the dataset's manifest
    points: int  # what tracking.save_points() returned


def list_checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.name[5:].isdigit())


def find_weights(wanted: str) -> Path:
    """Return the best weights of a run, by its id or the beginning of it; LabError if none."""
    return find_run(wanted, WEIGHTS) / WEIGHTS


def find_run(wanted: str, file: str = f"step-*/{STATE}") -> Path:
    """Return the folder of a run in data/<dataset>/models, of any dataset, that contains `file`.

    `wanted` is the run's id or the beginning of it, or `last` or `last~1` as for the lab command.
    If it matches no run or several, LabError lists candidates.
    """
    if wanted.startswith("last"):
        wanted = records.find(wanted).name
    folders = {
        path.name: path for path in project.data_folder().glob("*/models/*") if any(path.glob(file))
    }
    matching = [name for name in sorted(folders) if name.startswith(wanted)]
    if wanted in folders or len(matching) == 1:
        return folders[wanted if wanted in folders else matching[0]]
    candidates = ", ".join(matching or sorted(folders)[-5:]) or "none"
    kind = "weights" if file == WEIGHTS else "a checkpoint"
    why = "begins several runs" if matching else f"is not a run with {kind}"
    where = project.relative(project.data_folder())
    raise LabError(f"{wanted} {why} in {where}; there are: {candidates}.")


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the last complete checkpoint of a run; LabError if it is damaged."""
    path = list_checkpoints(folder)[-1]
    try:
        state = project.read_json(path / STATE)
        names = ("epoch", "batch", "step", "best_loss", "best_epoch")  # of numbers
        config, progress = {**state["config"]}, {n: state["progress"][n] + 0 for n in names}
        config |= {n: config[n] + 0 for n in ("epochs", "patience") if n in config}
        others = (state[name] for name in ("processes", "manifest", "points"))
        return Checkpoint(path, config, progress, *others)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise LabError(f"{path}: its {STATE} is damaged ({type(error).__name__}).") from None


def inherit(typed: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the run that `resume` names, with what was typed instead.

    LabError, before there is a record, if the run cannot go on as it was: another setting, dataset
    or number of processes, or nothing left to train. Without `resume`, return only `pretrained`, as
    a whole id.
    """
    if not typed.get("resume"):
        if not typed.get("pretrained"):
            return {}
        folder = find_run(str(typed["pretrained"]), WEIGHTS)
        if list_checkpoints(folder):
            checkpoint, dataset = read_checkpoint(folder), str({**defaults, **typed}["dataset"])
            learned = str(checkpoint.config.get("dataset"))
            project.warn_of_leakage(folder.name, learned, checkpoint.manifest, dataset)
        return {"pretrained": folder.name}
    folder = find_run(str(typed["resume"]))
    checkpoint = read_checkpoint(folder)
    old = {name: checkpoint.config.get(name, value) for name, value in defaults.items()}
    processes = int(os.environ.get("WORLD_SIZE") or 1)
    differing = [
        f"{name} was {old.get(name)!r}, is {value!r}"
        for name, value in sorted(typed.items())
        if name not in FREE_ON_RESUME and old.get(name) != value
    ]
    if processes != checkpoint.processes:
        differing.append(f"it had {checkpoint.processes} processes, now {processes}")
    if project.hash_manifest(str(old["dataset"])) != checkpoint.manifest:
        differing.append(f"the manifest of dataset {old['dataset']} has changed")
    if differing:
        raise LabError(
            f"{folder.name} cannot be resumed: {'; '.join(differing)}."
            f" pretrained={folder.name} starts a new run from its weights."
        )
    new = {**old, **typed, "resume": folder.name}
    done, best = checkpoint.progress["epoch"], checkpoint.progress["best_epoch"]
    if done >= new["epochs"]:
        raise LabError(f"{folder.name} has no epochs left: epochs={2 * done} continues it.")
    if is_out_of_patience(new["patience"], done, best):
        raise LabError(
            f"{folder.name} stopped after {done} epochs, as val/loss was best in epoch {best}:"
            f" patience={2 * new['patience']} continues it."
        )
    return new


def is_out_of_patience(patience: int, epoch: int, best_epoch: int) -> bool:
    """Return whether validation loss has not improved for `patience` epochs; 0: never."""
    return bool(patience) and epoch - best_epoch >= patience
