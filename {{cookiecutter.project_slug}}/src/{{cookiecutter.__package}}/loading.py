"""Batches of a split; their order and augmentation depend only on seed, epoch and index.

So a run that was interrupted in the middle of an epoch continues exactly where it was, whatever
its workers had loaded.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lab import tracking

if TYPE_CHECKING:
    from .data import ImageSplit
    from .experiment import Config

Image = NDArray[np.float32]  # [channels, size, size]
Batches = DataLoader[tuple[Tensor, Tensor]]  # images [batch, channels, size, size], labels [batch]


class EpochOrder(Sampler[tuple[int, int]]):
    """Every index once, shuffled by seed and epoch; yields (epoch, index). Set `epoch` first."""

    def __init__(self, size: int, seed: int):
        self.size, self.seed, self.epoch = size, seed, 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        return ((self.epoch, index) for index in order.tolist())


class TrainingSamples(Dataset[tuple[Image, int]]):
    """The training split as the model sees it: augmented differently in each epoch."""

    def __init__(self, split: "ImageSplit", config: "Config"):
        self.split, self.shift, self.seed = split, config.shift, config.seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Image, int]:
        epoch, index = key
        image, label = self.split[index]
        if self.shift:
            image = augment(image, self.shift, np.random.default_rng([self.seed, epoch, index]))
        return image, label


def augment(image: Image, shift: int, draw: np.random.Generator) -> Image:
    """Move an image [channels, height, width] by up to `shift` pixels; its edge is repeated.

    Your own augmentation goes here. It must take all its random numbers from `draw`.
    """
    down, right = draw.integers(0, 2 * shift + 1, size=2)
    padded = np.pad(image, ((0, 0), (shift, shift), (shift, shift)), mode="edge")
    return padded[:, down : down + image.shape[1], right : right + image.shape[2]]


def make_loaders(
    splits: dict[str, "ImageSplit"], config: "Config"
) -> tuple[dict[str, Batches], EpochOrder]:
    """Make a loader for each split; return them and the order of the training split."""
    order = EpochOrder(len(splits["train"]), config.seed)
    loaders = {}
    for name, split in splits.items():
        is_train = name == "train"
        samples: Any = TrainingSamples(split, config) if is_train else split
        loader: DataLoader[Any] = DataLoader(
            samples,
            config.batch_size,
            sampler=order if is_train else None,
            num_workers=config.workers,
            persistent_workers=config.workers > 0,  # they keep the images that they have read
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=tracking.ignore_in_worker,
            generator=torch.Generator(),  # else each epoch would draw from the model's random state
        )
        loaders[name] = cast(Batches, loader)
    return loaders, order
