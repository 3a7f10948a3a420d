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
    figure, axes = plt.subplots(figsize=(0.5 * columns, 0.5 * len(classes)))  # one: axes are slow
    for row, label in enumerate(classes):
        paths = [path for path in files if path.startswith(f"{split}/{label}/")]
        for column, path in enumerate(draw.permutation(paths)[:columns]):
            with images.open_file(data.folder(dataset) / path) as file:
                image = images.decode(file)
            width, height = (0.9 * side / max(image.size) for side in image.size)
            axes.imshow(image, extent=(column, column + width, row + height, row))
    axes.set(xlim=(0, columns), ylim=(len(classes), 0))
    axes.axis("off")
    figure.suptitle(f"{dataset}/{split}")
    return figure


def count_images(dataset: str) -> pd.DataFrame:
    """Count the images of each class (rows) in each split (columns)."""
    counts = pd.DataFrame(data.read_manifest(dataset)["counts"]).rename_axis("class")
    return counts.fillna(0).astype(int)
