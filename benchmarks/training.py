"""The experiment's training against the same loop in bare PyTorch; run.py runs it in a project.

Prints one JSON object: for each workload its pairs of (ours, bare). Both sides must end with
exactly the same test scores; otherwise they did not do the same work.
"""

import copy
import json
import os
import random
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import numpy as np
import torch
from accelerate import Accelerator
from my_experiment import data
from my_experiment.experiment import Config, ex
from my_experiment.loading import TrainingSamples
from my_experiment.model import SmallCNN
from torch import nn
from torch.utils.data import DataLoader

PAIRS = 15
WORKLOADS = {
    "32x32": {"image_size": 32, "epochs": 1, "patience": 0},
    "8x8": {"image_size": 8, "epochs": 5, "patience": 0},
}
TRIAL = {"trial": {"image_size": 8, "epochs": 1, "patience": 0, "width": 4}}  # for the tests


class Stopwatch:
    """Adds up the seconds and the processor seconds of what it watches, a GPU's work included."""

    def __init__(self):
        self.wall = self.cpu = 0.0

    def __enter__(self):
        self.started = time.perf_counter(), time.process_time()

    def __exit__(self, *_):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        wall, cpu = self.started
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


class Watched:
    """Batches that time each epoch, from asking for the first batch to the end of the last step."""

    def __init__(self, batches, stopwatch):
        self.batches, self.stopwatch = batches, stopwatch

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        with self.stopwatch:
            yield from self.batches


def ours(settings, stopwatch):
    """Make a whole recorded run, as `python -m my_experiment.experiment` does."""
    prepare = Accelerator.prepare

    def prepare_watched(accelerator, *arguments):
        prepared = prepare(accelerator, *arguments)
        is_train = isinstance(getattr(arguments[0], "dataset", None), TrainingSamples)
        return Watched(prepared, stopwatch) if is_train else prepared

    with patch.object(Accelerator, "prepare", prepare_watched):
        return ex.run(config_updates=settings, options={"--loglevel": "ERROR"}).result


def bare(settings, stopwatch):
    """Train as a careful person does without Accelerate, Sacred, checkpoints and logging."""
    config = Config(**settings)
    torch.use_deterministic_algorithms(True, warn_only=True)
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    splits = {
        name: data.ImageSplit(config.dataset, name, config.image_size, config.channels)
        for name in data.SPLITS
    }
    classes = len(splits["train"].classes)
    model = SmallCNN(classes, config.channels, config.width, config.dropout).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)
    order: list[int] = []  # by seed and epoch, as ours has it, for the same scores
    options = {"batch_size": config.batch_size, "generator": torch.Generator()}
    batches = Watched(DataLoader(splits["train"], sampler=order, **options), stopwatch)

    def epoch():
        model.train()
        for images, labels in batches:
            images, labels = images.to(device), labels.to(device)
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(split):
        model.eval()
        losses, hits = [], []
        for images, labels in DataLoader(split, **options):
            logits, labels = model(images.to(device)), labels.to(device)
            losses.append(nn.functional.cross_entropy(logits, labels, reduction="none"))
            hits.append(logits.argmax(dim=1) == labels)
        accuracy = torch.cat(hits).float().mean().item()
        return {"loss": torch.cat(losses).mean().item(), "accuracy": accuracy}

    best, weights = float("inf"), None
    for number in range(config.epochs):
        shuffled = np.random.default_rng([config.seed, number]).permutation(len(splits["train"]))
        order[:] = shuffled.tolist()
        epoch()
        loss = evaluate(splits["val"])["loss"]
        if loss < best:
            best, weights = loss, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return evaluate(splits["test"])


def measure(work, settings):
    """Return the (seconds, cpu seconds) of the loop and of the whole run, and the test scores."""
    loop, whole = Stopwatch(), Stopwatch()
    scores = {}
    with open(os.devnull, "w") as out, redirect_stdout(out), redirect_stderr(out), whole:
        scores.update(work(settings, loop))
    return {"loop": (loop.wall, loop.cpu), "whole": (whole.wall, whole.cpu), "scores": scores}


def main():
    number, workloads = (0, TRIAL) if sys.argv[1:] == ["trial"] else (PAIRS, WORKLOADS)
    measurements = {}
    for name, settings in workloads.items():
        config = Config(**settings)
        train = data.ImageSplit(config.dataset, "train", config.image_size, config.channels)
        pairs = [(measure(ours, settings), measure(bare, settings)) for _ in range(number + 1)]
        for one, other in pairs:
            if one["scores"] != other["scores"]:
                sys.exit(f"{name} is not the same work: {one['scores']}, {other['scores']}")
        # the first pair is the warm-up
        measurements[name] = {"samples": len(train) * config.epochs, "pairs": pairs[1:]}
    print(json.dumps(measurements))


if __name__ == "__main__":
    main()
