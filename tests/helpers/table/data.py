"""A table of numbers, one row per sample, its target in the last column, with an explicit split.

python -m my_experiment.data prepare
python -m my_experiment.data verify

These write scikit-learn's diabetes table, and look for files that are not as the manifest says and
for rows that are in two splits. A dataset is data/<dataset>/{train,val,test}/table.npy.
"""

import argparse
import hashlib
import io
import json
import sys
from importlib.metadata import distribution
from typing import Any

import numpy as np
from lab.project import LabError
from numpy.typing import NDArray

from lab import project


class TableSplit:
    """One split: a sequence of (row, target), scaled as the training split is."""

    def __init__(self, dataset: str, split: str):
        scale = read_manifest(dataset)["scale"]
        table = np.load(project.dataset_folder(dataset) / split / "table.npy")
        scaled = (table - np.array(scale["mean"])) / np.array(scale["std"])
        self.rows = scaled.astype(np.float32)
        self.columns = self.rows.shape[1] - 1

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], np.float32]:
        return self.rows[index, :-1], self.rows[index, -1]


def read_manifest(dataset: str) -> dict[str, Any]:
    """Read the manifest of a dataset; LabError if there is none or it is damaged."""
    path = project.dataset_folder(dataset) / "manifest.json"
    try:
        manifest: dict[str, Any] = project.read_json(path)
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read ({error}): prepare writes it.") from None
    return manifest


def load_table() -> NDArray[np.float64]:
    """Load scikit-learn's diabetes table: 442 rows of ten measurements and what came of them."""
    folder = "sklearn/datasets/data"
    parts = [
        np.loadtxt(
            str(distribution("scikit-learn").locate_file(f"{folder}/diabetes_{name}.csv.gz"))
        )
        for name in ("data_raw", "target")
    ]
    return np.column_stack(parts)


def write_dataset(dataset: str, table: NDArray[np.float64], seed: int) -> None:
    """Draw a split of the rows, write it, and then its manifest."""
    rows = table[np.random.default_rng(seed).permutation(len(table))]
    val, test = len(rows) * 6 // 10, len(rows) * 8 // 10
    parts = dict(zip(project.SPLITS, np.split(rows, [val, test]), strict=True))
    files = {}
    for split, part in parts.items():
        content = io.BytesIO()
        np.save(content, part)
        files[f"{split}/table.npy"] = hashlib.sha256(content.getvalue()).hexdigest()
        path = project.dataset_folder(dataset) / split / "table.npy"
        if path.exists() and project.sha256(path) != files[f"{split}/table.npy"]:
            raise LabError(f"{path} is of another split: choose another --dataset.")
        path.parent.mkdir(parents=True, exist_ok=True)
        project.write(path, content.getvalue())
    train = parts["train"]
    scale = {"mean": train.mean(axis=0).tolist(), "std": train.std(axis=0).tolist()}
    manifest = {"dataset": dataset, "seed": seed, "scale": scale, "files": files}
    text = json.dumps(manifest, indent=1) + "\n"
    project.write(project.dataset_folder(dataset) / "manifest.json", text)


def verify(dataset: str) -> list[str]:
    """Find what is wrong, one line each: missing and changed files, rows that are in two splits."""
    folder, problems, seen = project.dataset_folder(dataset), [], {}
    for name, digest in read_manifest(dataset)["files"].items():
        if not (folder / name).is_file():
            problems.append(f"missing   {name}")
        elif project.sha256(folder / name) != digest:
            problems.append(f"changed   {name}")
        else:
            others = {seen.setdefault(row, name) for row in map(bytes, np.load(folder / name))}
            problems += [f"leakage   rows of {one} in {name}" for one in sorted(others - {name})]
    return problems


def main(words: list[str] | None = None) -> int:
    """Run the command; 0: done, 1: failed or damaged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["prepare", "verify"])
    parser.add_argument("--dataset", default=project.default_dataset())
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    try:
        if args.command == "prepare":
            write_dataset(args.dataset, load_table(), args.seed)
        problems = verify(args.dataset)
    except LabError as error:
        problems = [f"error: {error}"]
    print("\n".join(problems) or f"{args.dataset} matches its manifest")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
