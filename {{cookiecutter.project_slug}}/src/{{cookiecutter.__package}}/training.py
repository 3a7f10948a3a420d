"""The training loop: plain PyTorch on Accelerate. It knows nothing of Sacred.

Accelerate moves model and batches to the device, does mixed precision and distributed training, and
saves the whole state: weights, optimizer, every random state.
"""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, broadcast_object_list, set_seed
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from lab.project import LabError

from . import checkpoints
from .model import SmallCNN

if TYPE_CHECKING:
    from lab.tracking import Log

    from .data import ImageSplit
    from .experiment import Config

logging.getLogger("accelerate").setLevel("WARNING")  # not eight lines for every checkpoint

LOG_EVERY = 10  # steps; logging waits for the GPU

Batches = DataLoader[tuple[Tensor, Tensor]]  # images [batch, channels, size, size], labels [batch]


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

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def train(
    config: "Config", splits: Mapping[str, "ImageSplit"], models: Path, run_id: str, log: "Log"
) -> Result:
    """Train on the train split, keep the weights that are best on val, test them on the test split.

    Everything is saved in models/<run_id>/: best.safetensors, and the state after the last finished
    epoch in epoch-NNNN/, from which `resume` continues. Metrics are logged by optimizer step.
    """
    accelerator = make_accelerator(config)
    set_seed(config.seed)
    folder = models / broadcast_object_list([run_id])[0]  # the id of rank 0, in every process
    previous = checkpoints.find_run(models, config.resume) if config.resume else None

    model: nn.Module = SmallCNN(
        len(splits["train"].classes), config.channels, config.width, config.dropout
    )
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(
        model.parameters(), config.lr, weight_decay=config.weight_decay
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    loaders = {
        name: accelerator.prepare(make_loader(split, config, shuffle=name == "train"))
        for name, split in splits.items()
    }
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    if previous:
        checkpoints.resume(accelerator, previous, folder, config)
    elif accelerator.is_main_process:
        checkpoints.make_folder(folder)

    total = config.epochs * len(loaders["train"])
    hidden = None if accelerator.is_main_process else True  # None: hidden without a terminal
    with tqdm(total=total, initial=progress.step, unit="step", disable=hidden) as bar:
        while progress.epoch < config.epochs and not is_out_of_patience(progress, config):
            loaders["train"].set_epoch(progress.epoch)  # seed and epoch determine the order
            train_epoch(accelerator, model, optimizer, loaders["train"], config, progress, log, bar)
            scores = evaluate(accelerator, model, loaders["val"])
            progress.epoch += 1
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
            checkpoints.save_state(accelerator, folder, progress.epoch, config)

    weights = folder / checkpoints.WEIGHTS
    accelerator.unwrap_model(model).load_state_dict(load_file(weights))
    test = evaluate(accelerator, model, loaders["test"])
    log(progress.step, {f"test/{name}": value for name, value in test.items()})
    accelerator.end_training()
    return Result(weights, test)


def make_accelerator(config: "Config") -> Accelerator:
    """Set up devices, precision and determinism; LabError for a precision that does nothing."""
    AcceleratorState._reset_state()  # a second run in one notebook may want another precision
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # else distributed processes would not connect
        mixed_precision=config.mixed_precision,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
    )
    if accelerator.device.type == "cpu" and config.mixed_precision == "fp16":
        raise LabError("mixed_precision=fp16 does nothing on a CPU: choose bf16 or no.")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which CUDA needs to be exact
    torch.use_deterministic_algorithms(True, warn_only=True)
    return accelerator


def make_loader(split: "ImageSplit", config: "Config", shuffle: bool) -> Batches:
    """Make the loader of a split's batches."""
    dataset = cast("Dataset[tuple[Tensor, Tensor]]", split)  # any sequence will do for DataLoader
    return DataLoader(
        dataset,
        config.batch_size,
        shuffle=shuffle,
        num_workers=config.workers,
        pin_memory=torch.cuda.is_available(),
    )


def train_epoch(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    config: "Config",
    progress: Progress,
    log: "Log",
    bar: "tqdm[None]",
) -> None:
    """Train on every batch of the training split once."""
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
def evaluate(accelerator: Accelerator, model: nn.Module, batches: Batches) -> dict[str, float]:
    """Compute the mean cross-entropy loss (nats) and the accuracy (0 to 1) of all samples."""
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
        "loss": torch.cat(losses).mean().item(),
        "accuracy": torch.cat(hits).float().mean().item(),
    }


def is_out_of_patience(progress: Progress, config: "Config") -> bool:
    """Whether the validation loss has not improved for `patience` epochs."""
    return bool(config.patience) and progress.epoch - progress.best_epoch >= config.patience
