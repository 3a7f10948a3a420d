"""The training loop: plain PyTorch on Accelerate. It knows nothing of Sacred.

Accelerate moves model and batches to the device, does mixed precision and distributed training, and
saves the whole state: weights, optimizer, every random state.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import broadcast_object_list, set_seed
from torch import Tensor, nn
from tqdm import tqdm

from lab import project, tracking
from lab.project import LabError

from . import checkpoints, past_runs
from .accelerator import make_accelerator
from .loading import Batches, make_loaders
from .model import SmallCNN

if TYPE_CHECKING:
    from lab.tracking import Log

    from .data import ImageSplit
    from .experiment import Config

LOG_EVERY = 10  # steps; logging waits for the GPU


class Result(NamedTuple):
    """What a training run leaves."""

    weights: Path  # best.safetensors, by validation loss
    test: dict[str, float]  # what evaluate() returns for these weights on the test split


@dataclass
class Progress:
    """How far training has come; each checkpoint keeps it."""

    epoch: int = 0  # epochs that are finished
    batch: int = 0  # batches of the next epoch that are done
    step: int = 0  # optimizer steps that are done
    best_loss: float = math.inf  # on the validation split
    best_epoch: int = 0


def train(
    config: "Config", splits: dict[str, "ImageSplit"], models: Path, run_id: str, log: "Log"
) -> Result:
    """Train on the train split, keep the weights that are best on val, test them on the test split.

    Everything is saved in models/<run_id>/: best.safetensors, and the last state in step-NNNNNNNN/,
    from which `resume` continues. Metrics are logged by optimizer step.
    """
    accelerator = make_accelerator(config.mixed_precision)
    manifest = project.hash_manifest(config.dataset)
    set_seed(config.seed)
    folder = models / broadcast_object_list([run_id])[0]  # the id of rank 0, in every process

    model: nn.Module = SmallCNN(
        len(splits["train"].classes), config.channels, config.width, config.dropout
    )
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(
        model.parameters(), config.lr, weight_decay=config.weight_decay
    )
    if config.pretrained and not config.resume:
        checkpoints.load_weights(model, past_runs.find_weights(config.pretrained))
    model, optimizer = accelerator.prepare(model, optimizer)
    loaders, order = make_loaders(splits, config)
    loaders = {name: accelerator.prepare(loader) for name, loader in loaders.items()}
    progress = Progress()
    tracking.remove_drafts(folder)
    has_own = tracking.attempt() > 1 and past_runs.list_checkpoints(folder)  # on Slurm
    if has_own or config.resume:
        previous = folder if has_own else past_runs.find_run(config.resume)
        progress = Progress(**checkpoints.resume(accelerator, model, previous, folder))
    elif accelerator.is_main_process:
        checkpoints.make_folder(folder)

    saved = time.monotonic()
    total = config.epochs * len(loaders["train"])
    hidden = None if accelerator.is_main_process else True  # None: hidden without a terminal
    with tqdm(total=total, initial=progress.step, unit="step", disable=hidden) as bar:
        while progress.epoch < config.epochs and not past_runs.is_out_of_patience(
            config.patience, progress.epoch, progress.best_epoch
        ):
            order.epoch = progress.epoch
            model.train()
            batches = loaders["train"]
            if progress.batch:  # resumed in the middle of an epoch
                batches = skip_first_batches(batches, progress.batch)
            for images, labels in batches:
                loss = train_step(accelerator, model, optimizer, images, labels, config.clip_norm)
                progress.step, progress.batch = progress.step + 1, progress.batch + 1
                bar.update()
                if progress.step % LOG_EVERY == 0:
                    log(progress.step, {"train/loss": loss.item()})
                is_last = progress.batch == len(loaders["train"])
                if not is_last and is_due(accelerator, progress, saved, config.checkpoint_minutes):
                    checkpoints.save_state(accelerator, folder, progress, config, manifest)
                    saved = time.monotonic()
            scores = evaluate(accelerator, model, loaders["val"])
            progress.epoch, progress.batch = progress.epoch + 1, 0
            log(progress.step, {f"val/{name}": value for name, value in scores.items()})
            if accelerator.is_main_process:
                numbers = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
                bar.write(f"epoch {progress.epoch}/{config.epochs}: val {numbers}")
            if not math.isfinite(scores["loss"]):
                raise LabError(
                    f"the training diverged: val/loss is {scores['loss']} after epoch"
                    f" {progress.epoch}. A smaller lr or clip_norm may help."
                )
            if scores["loss"] < progress.best_loss:
                progress.best_loss, progress.best_epoch = scores["loss"], progress.epoch
                checkpoints.save_weights(accelerator, model, folder)
            checkpoints.save_state(accelerator, folder, progress, config, manifest)
            saved = time.monotonic()

    weights = folder / past_runs.WEIGHTS
    checkpoints.load_weights(accelerator.unwrap_model(model, keep_torch_compile=False), weights)
    test = evaluate(accelerator, model, loaders["test"])
    log(progress.step, {f"test/{name}": value for name, value in test.items()})
    accelerator.end_training()
    return Result(weights, test)


def train_step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    clip_norm: float,
) -> Tensor:
    """Take one optimizer step on a batch; return its loss, still on the device."""
    loss = nn.functional.cross_entropy(model(images), labels)
    accelerator.backward(loss)
    accelerator.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def is_due(accelerator: Accelerator, progress: Progress, saved: float, minutes: float) -> bool:
    """Return whether a checkpoint is due in any process; all must ask at the same step."""
    should_stop = tracking.should_stop()
    if progress.step % LOG_EVERY and (not should_stop or accelerator.num_processes > 1):
        return False  # asking the other processes waits for every GPU
    if should_stop or time.monotonic() - saved >= 60 * minutes:
        accelerator.set_trigger()
    return bool(accelerator.check_trigger())


@torch.no_grad()
def evaluate(accelerator: Accelerator, model: nn.Module, batches: Batches) -> dict[str, float]:
    """Compute the mean cross-entropy loss (nats) and the accuracy (0 to 1) of all samples.

    train() chooses the best weights by "loss"; every other metric is recorded as well.
    """
    model.eval()
    losses, hits = [], []
    for images, labels in batches:
        logits = model(images)
        loss = nn.functional.cross_entropy(logits, labels, reduction="none")
        # from every process, without the samples that only fill up its last batch
        loss, hit = accelerator.gather_for_metrics((loss, logits.argmax(dim=1) == labels))
        losses.append(loss)
        hits.append(hit)
    return {
        "accuracy": torch.cat(hits).float().mean().item(),
        "loss": torch.cat(losses).mean().item(),
    }
