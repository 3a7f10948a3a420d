"""The training loop: plain PyTorch on Accelerate. It knows nothing of Sacred.

Accelerate places model and batches on the device, does mixed precision and several processes, and
saves the whole state: weights, optimizer, every random state.
"""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, broadcast_object_list, set_seed
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from lab.project import LabError

from . import checkpoints
from .model import SmallCNN

if TYPE_CHECKING:
    from lab.tracking import Log

    from .data import ImageSplit
    from .experiment import Config

logging.getLogger("accelerate").setLevel("WARNING")  # not eight lines for every checkpoint

LOG_EVERY = 10  # steps; each one waits for the GPU once


class Result(NamedTuple):
    """What a training run leaves."""

    weights: Path  # best.safetensors, by validation loss
    test: dict[str, float]  # loss and accuracy of these weights on the test split


@dataclass
class Progress:
    """How far training has come; Accelerate saves it with each checkpoint."""

    epoch: int = 0  # epochs that are finished
    step: int = 0  # optimizer steps that are done
    best_loss: float = float("inf")  # on the validation split
    best_epoch: int = 0

    def state_dict(self) -> dict:
        return asdict(self)

    def load_state_dict(self, state: dict) -> None:
        self.__dict__.update(state)


def train(
    config: "Config", splits: Mapping[str, "ImageSplit"], models: Path, run_id: str, log: "Log"
) -> Result:
    """Train on the train split, keep the weights that are best on val, test them on the test split.

    Everything is kept in models/<run_id>/: best.safetensors, and the state after the last finished
    epoch in epoch-NNNN/, from which `resume` goes on. Metrics go to `log` by optimizer step.
    """
    AcceleratorState._reset_state()  # a second run in one notebook may want another precision
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # said, or several processes would not meet
        mixed_precision=config.mixed_precision,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
    )
    if accelerator.device.type == "cpu" and config.mixed_precision == "fp16":
        raise LabError("mixed_precision=fp16 does nothing on a CPU: choose bf16 or no.")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA asks for it, to be exact
    torch.use_deterministic_algorithms(True, warn_only=True)
    set_seed(config.seed)
    folder = models / broadcast_object_list([run_id])[0]  # rank 0 decides for every process
    previous = checkpoints.find_run(models, config.resume) if config.resume else None

    model = SmallCNN(len(splits["train"].classes), config.channels, config.width, config.dropout)
    optimizer = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)
    loaders = {name: loader(split, config, name == "train") for name, split in splits.items()}
    model, optimizer = accelerator.prepare(model, optimizer)
    loaders = {name: accelerator.prepare(one) for name, one in loaders.items()}
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    if previous:
        checkpoints.resume(accelerator, previous, folder, config)
    elif accelerator.is_main_process:
        checkpoints.begin(folder)

    main = accelerator.is_main_process
    total = config.epochs * len(loaders["train"])
    hidden = None if main else True  # None: hidden where there is no terminal
    with tqdm(total=total, initial=progress.step, unit="step", disable=hidden) as bar:
        while progress.epoch < config.epochs and not out_of_patience(progress, config):
            loaders["train"].set_epoch(progress.epoch)  # its shuffle follows from seed and epoch
            train_epoch(accelerator, model, optimizer, loaders["train"], config, progress, log, bar)
            scores = evaluate(accelerator, model, loaders["val"])
            progress.epoch += 1
            log(progress.step, {f"val/{name}": value for name, value in scores.items()})
            if main:
                numbers = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
                bar.write(f"epoch {progress.epoch}/{config.epochs}: val {numbers}")
            if not math.isfinite(scores["loss"]):
                raise LabError(
                    f"val/loss is {scores['loss']} after epoch {progress.epoch}: the training"
                    " diverged; a smaller lr or clip_norm may help."
                )
            if scores["loss"] < progress.best_loss:
                progress.best_loss, progress.best_epoch = scores["loss"], progress.epoch
                checkpoints.save_weights(accelerator, model, folder)
            checkpoints.save(accelerator, folder, progress.epoch, config)

    weights = folder / checkpoints.WEIGHTS
    accelerator.unwrap_model(model).load_state_dict(load_file(weights))
    test = evaluate(accelerator, model, loaders["test"])
    log(progress.step, {f"test/{name}": value for name, value in test.items()})
    accelerator.end_training()
    return Result(weights, test)


def loader(split: "ImageSplit", config: "Config", shuffle: bool) -> DataLoader:
    """Batches of a split: images [batch, channels, size, size] and class indices [batch]."""
    memory = torch.cuda.is_available()
    return DataLoader(
        split, config.batch_size, shuffle=shuffle, num_workers=config.workers, pin_memory=memory
    )


def train_epoch(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: DataLoader,
    config: "Config",
    progress: Progress,
    log: "Log",
    bar: tqdm,
) -> None:
    """One pass over the training split."""
    model.train()
    for images, labels in batches:
        loss = nn.functional.cross_entropy(model(images), labels)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        progress.step += 1
        bar.update()
        if progress.step % LOG_EVERY == 0:
            log(progress.step, {"train/loss": loss.item()})


@torch.no_grad()
def evaluate(accelerator: Accelerator, model: nn.Module, batches: DataLoader) -> dict[str, float]:
    """Mean cross-entropy loss (nats) and accuracy (0 to 1) over all samples of a split."""
    model.eval()
    losses, hits = [], []
    for images, labels in batches:
        logits = model(images)
        loss = nn.functional.cross_entropy(logits, labels, reduction="none")
        loss, hit = accelerator.gather_for_metrics((loss, logits.argmax(dim=1) == labels))
        losses.append(loss)
        hits.append(hit)
    return {
        "loss": torch.cat(losses).mean().item(),
        "accuracy": torch.cat(hits).float().mean().item(),
    }


def out_of_patience(progress: Progress, config: "Config") -> bool:
    """Whether the validation loss has not improved for `patience` epochs."""
    return bool(config.patience) and progress.epoch - progress.best_epoch >= config.patience
