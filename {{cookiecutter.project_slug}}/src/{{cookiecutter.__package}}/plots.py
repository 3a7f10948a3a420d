"""Figures for notebooks and runs."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import data, images


def plot_samples(dataset: str, split: str, columns: int = 12, seed: int = 0) -> Figure:
    """Plot some images of each class of a split, one row per class."""
    manifest = data.read_manifest(dataset)
    classes, files = manifest["classes"], manifest["files"]
    draw = np.random.default_rng(seed)
    figure, axes = plt.subplots(
        len(classes), columns, figsize=(0.5 * columns, 0.5 * len(classes)), squeeze=False
    )
    for row, label in zip(axes, classes, strict=True):
        paths = [path for path in files if path.startswith(f"{split}/{label}/")]
        chosen = draw.permutation(paths)[:columns]
        for axis in row:
            axis.axis("off")
        for axis, path in zip(row, chosen, strict=False):
            with images.open_file(data.folder(dataset) / path) as file:
                axis.imshow(images.decode(file))
    figure.suptitle(f"{dataset}/{split}")
    return figure


def count_images(dataset: str) -> pd.DataFrame:
    """Count the images of each class (rows) in each split (columns)."""
    counts = pd.DataFrame(data.read_manifest(dataset)["counts"]).rename_axis("class")
    return counts.fillna(0).astype(int)
