"""The experiment's training against the same loop in bare PyTorch; run.py runs it in a project.

Prints one JSON object: for each workload its pairs of (ours, bare). Both sides have to end with the
same test scores, number for number; otherwise they did not do the same work.
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
from my_experiment import data, training
from my_experiment.experiment import Config, ex
from my_experiment.model import SmallCNN
from torch import nn
from torch.utils.data import DataLoader, RandomSampler

PAIRS = 15
WORKLOADS = {
    "32x32": {"image_size": 32, "epochs": 1, "patience": 0},
    "8x8": {"image_size": 8, "epochs": 5, "patience": 0},
}


class Stopwatch:
    """Adds up the passes over the training split; work that a GPU has still to do counts."""

    def __init__(self):
        self.wall = self.cpu = 0.0

    def __call__(self, work, *arguments):
        wall, cpu = time.perf_counter(), time.process_time()
        work(*arguments)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


def ours(settings, stopwatch):
    """A whole recorded run, as `python -m my_experiment.experiment` makes it."""
    train_epoch = training.train_epoch

    def watched(*arguments):
        stopwatch(train_epoch, *arguments)

    with patch.object(training, "train_epoch", watched):
        return ex.run(config_updates=settings, options={"--loglevel": "ERROR"}).result


def bare(settings, stopwatch):
    """What a careful person writes without Accelerate, Sacred, checkpoints and logging."""
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
    order = torch.Generator()
    shuffled = RandomSampler(splits["train"], generator=order)
    batches = DataLoader(splits["train"], config.batch_size, sampler=shuffled)

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
        for images, labels in DataLoader(split, config.batch_size):
            logits, labels = model(images.to(device)), labels.to(device)
            losses.append(nn.functional.cross_entropy(logits, labels, reduction="none"))
            hits.append(logits.argmax(dim=1) == labels)
        accuracy = torch.cat(hits).float().mean().item()
        return {"loss": torch.cat(losses).mean().item(), "accuracy": accuracy}

    best, weights = float("inf"), None
    for number in range(config.epochs):
        order.manual_seed(config.seed + number)
        stopwatch(epoch)
        loss = evaluate(splits["val"])["loss"]
        if loss < best:
            best, weights = loss, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return evaluate(splits["test"])


def measured(work, settings):
    """Seconds and cpu seconds of the loop, then of the whole run; and its test scores."""
    loop, whole = Stopwatch(), Stopwatch()
    scores = {}
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        whole(lambda: scores.update(work(settings, loop)))
    return {"loop": (loop.wall, loop.cpu), "whole": (whole.wall, whole.cpu), "scores": scores}


def main():
    measurements = {}
    for name, settings in WORKLOADS.items():
        config = Config(**settings)
        train = data.ImageSplit(config.dataset, "train", config.image_size, config.channels)
        pairs = [(measured(ours, settings), measured(bare, settings)) for _ in range(PAIRS + 1)]
        for one, other in pairs:
            if one["scores"] != other["scores"]:
                sys.exit(f"{name} is not the same work: {one['scores']}, {other['scores']}")
        # the first pair is the warm-up
        measurements[name] = {"samples": len(train) * config.epochs, "pairs": pairs[1:]}
    print(json.dumps(measurements))


if __name__ == "__main__":
    main()
