"""Datasets as folders of images, with an explicit split and a manifest that lists every file.

python -m {{ cookiecutter.__package }}.data prepare
python -m {{ cookiecutter.__package }}.data split FOLDER --dataset NAME
python -m {{ cookiecutter.__package }}.data verify

These write scikit-learn's digits, or your own images (one sub-folder of FOLDER per class), and look
for files that are not as the manifest says and for leakage. A dataset is in
data/<dataset>/{train,val,test}/<class>/<image>, with manifest.json and the models trained on it
beside the splits. LAB_DATA, or `data` in machines.local.toml, moves data/ elsewhere.
"""

import argparse
import hashlib
import io
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import TypedDict, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from lab import project
from lab.project import LabError

from . import images, splitting

SPLITS = project.SPLITS
CACHE_LIMIT = 2**30  # bytes: a split that is smaller, as 8-bit pixels, stays in memory once read

Item = TypeVar("Item")


class Manifest(TypedDict):
    """What a dataset consists of; the content of manifest.json."""

    dataset: str
    source: str
    seed: int
    fractions: dict[str, float]  # of val and test
    classes: list[str]
    counts: dict[str, dict[str, int]]  # of images, by split and class
    image_size: int  # that loses nothing: the median of the shorter sides, at most 224
    channels: int  # 1 if all images are gray, else 3
    files: dict[str, str]  # the sha256 of each "train/<class>/<name>"


class ImageSplit:
    """One split of a dataset: a sequence of (image, class index), as a PyTorch DataLoader takes it.

    An image is float32 [channels, size, size], from 0 to 1, as a viewer displays it: rotated as its
    EXIF says, and on white where it is transparent. What belongs to the split is what the manifest
    lists, not what happens to be in the folder.
    """

    def __init__(self, dataset: str, split: str, size: int, channels: int):
        manifest = read_manifest(dataset)
        self.classes = manifest["classes"]
        self.paths = [path for path in manifest["files"] if path.startswith(f"{split}/")]
        if not self.paths:
            raise LabError(f"the manifest of dataset {dataset} lists no images in {split}/.")
        self.labels = [self.classes.index(path.split("/")[1]) for path in self.paths]
        self.folder = folder(dataset)
        self.size = (size, size)
        self.mode = {1: "L", 3: "RGB"}[channels]
        self.caches = len(self.paths) * channels * size**2 <= CACHE_LIMIT
        self.cache: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], int]:
        pixels = self.cache.get(index)
        if pixels is None:
            pixels = self._read(self.folder / self.paths[index])
            if self.caches:
                self.cache[index] = pixels
        return pixels.astype(np.float32) / np.float32(255), self.labels[index]

    def _read(self, path: Path) -> NDArray[np.uint8]:
        """Read the pixels of an image, [channels, size, size]."""
        try:
            with images.open_file(path) as file:
                image = images.decode(file).convert(self.mode)
        except images.ImageError as error:
            raise LabError(f"{path} {error}; {this_command()} verify tells more.") from None
        return np.atleast_3d(np.asarray(image.resize(self.size))).transpose(2, 0, 1)


def folder(dataset: str) -> Path:
    """Return the folder of a dataset."""
    return project.dataset_folder(dataset)


def read_manifest(dataset: str) -> Manifest:
    """Read the manifest of a dataset; LabError if there is none or it is damaged."""
    path = folder(dataset) / "manifest.json"
    try:
        content = project.read_json(path)
        if not (isinstance(content, dict) and content.keys() >= {"classes", "files"}):
            raise ValueError("it does not list classes and files")
    except FileNotFoundError:
        raise LabError(
            f"there is no dataset {dataset} yet in {project.relative(project.data_folder())};"
            f" {this_command()} prepare makes it, and split makes one of your own images."
        ) from None
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read: {error}") from None
    return cast(Manifest, content)


def list_files(dataset: str) -> list[str]:
    """List the files of the three splits, "train/<class>/<name>", without hidden ones."""
    root = folder(dataset)
    paths = (path for split in SPLITS for path in (root / split).rglob("*") if not path.is_dir())
    return [path.relative_to(root).as_posix() for path in paths if not path.name.startswith(".")]


def verify(dataset: str) -> list[str]:
    """List what is wrong: changed, unreadable, missing or foreign files, and leakage.

    Leakage is the same pixels in two splits, in whatever file format. This does not find an
    image that was scaled, cropped or recompressed, as it has other pixels.
    """
    expected = read_manifest(dataset)["files"]
    root, present = folder(dataset), set(list_files(dataset))
    problems = [f"missing   {path}" for path in sorted(set(expected) - present)]
    problems += [f"foreign   {path}" for path in sorted(present - set(expected))]
    by_pixels = defaultdict(list)
    for path in show_progress(sorted(present), "verifying"):
        try:
            content = images.read_file(root / path)
            if expected.get(path) not in (None, sha256(content)):
                problems.append(f"changed   {path}")
            by_pixels[splitting.hash_pixels(images.decode(io.BytesIO(content)))].append(path)
        except images.ImageError as error:
            problems.append(f"unreadable {path}: {error}")
    for paths in by_pixels.values():
        if len({path.split("/")[0] for path in paths}) > 1:
            problems.append(f"leakage   the same image in {' and '.join(paths)}")
    return problems


def warn_of_lost_detail(dataset: str, image_size: int, channels: int) -> None:
    """Warn on stderr if the settings reduce what the images show: fewer pixels, or no color."""
    manifest = read_manifest(dataset)
    fits = {"image_size": manifest.get("image_size", 0), "channels": manifest.get("channels", 1)}
    if image_size < fits["image_size"] or channels < fits["channels"]:
        print(
            f"warning: image_size={image_size} channels={channels} loses detail or color;"
            f" image_size={fits['image_size']} channels={fits['channels']} keeps all of {dataset}.",
            file=sys.stderr,
        )


# --- making a dataset -----------------------------------------------------------------------------


@cache
def load_digits() -> list[splitting.Sample]:
    """Load scikit-learn's handwritten digits: 1,797 gray images of 8x8 pixels, ten classes."""
    # the file that its load_digits() reads: importing scikit-learn takes longer than all the rest
    path = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(path), delimiter=",", dtype=np.uint8)  # 64 pixels, 0 to 16; the digit
    samples = []
    for number, (pixels, label) in enumerate(zip(table[:, :-1], table[:, -1], strict=True)):
        content = io.BytesIO()
        Image.fromarray(pixels.reshape(8, 8) * 15).save(content, "png")  # from 0 to 240
        samples.append(splitting.make_sample(str(label), f"{number:04}.png", content.getvalue))
    return samples


def map_pixels(dataset: str) -> dict[str, str]:
    """Map the pixels of every image of a dataset to its split; damaged ones are left out."""
    splits = {}
    for path in show_progress(list(read_manifest(dataset)["files"]), "reading"):
        try:
            with images.open_file(folder(dataset) / path) as file:
                image = images.decode(file)
        except images.ImageError:
            continue
        splits[splitting.hash_pixels(image)] = path.split("/")[0]
    return splits


def write_dataset(
    dataset: str,
    source: str,
    samples: list[splitting.Sample],
    seed: int,
    val: float,
    test: float,
    like: str = "",
) -> Manifest:
    """Write a split into data/<dataset>/ and then its manifest, which is returned.

    Images that are in the dataset `like` go into the split that they have there.
    A file that already has the right content stays, so an interrupted call can be repeated. Any
    other file in the three folders is named in an error, and never overwritten or removed.
    """
    if not 0 < val < 1 or not 0 < test < 1 or val + test >= 1:
        raise LabError(f"--val {val} --test {test}: use two fractions above 0 with a sum below 1.")
    drawn = splitting.draw_split(samples, seed, val, test, map_pixels(like) if like else {})
    root = folder(dataset)
    foreign = sorted(set(list_files(dataset)) - set(drawn))
    if foreign:
        raise LabError(
            f"{project.relative(root)} holds {len(foreign)} files that are not of this split, such"
            f" as {foreign[0]}: move them away, or choose another name with --dataset."
        )
    hashes = {}
    try:
        for path, sample in show_progress(drawn.items(), "writing"):
            content = sample.read()
            hashes[path] = sha256(content)
            write_image(root / path, content)
        manifest = Manifest(
            dataset=dataset,
            source=source,
            seed=seed,
            fractions={"val": val, "test": test},
            classes=sorted({sample.label for sample in samples}),
            counts={
                split: dict(Counter(p.split("/")[1] for p in drawn if p.startswith(f"{split}/")))
                for split in SPLITS
            },
            image_size=min(224, sorted(min(s.size) for s in samples)[len(samples) // 2]),
            channels=max(sample.channels for sample in samples),
            files=hashes,
        )
        (root / "models").mkdir(exist_ok=True)
        project.write(root / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    except OSError as error:
        raise LabError(
            f"{error.filename or root}: {error.strerror}. Fix that and run the same command again."
        ) from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f": {project.relative(root)} is incomplete; run the same command again to complete it"
        ) from None
    return manifest


def write_image(path: Path, content: bytes) -> None:
    """Write a file unless it already has this content; LabError if it has other content."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        project.write(path, content, durable=False)
    elif path.read_bytes() != content:
        raise LabError(f"{path} exists with other content: move it away first.")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def show_progress(items: Collection[Item], action: str) -> Iterable[Item]:
    """Show a progress bar on a terminal, once it takes longer than a second."""
    bar: Iterable[Item] = tqdm(items, desc=action, delay=1, leave=False, disable=None)
    return bar


# --- the command ----------------------------------------------------------------------------------


def this_command() -> str:
    """Return the command that runs this file, for messages."""
    return f"python -m {__package__}.data"


def main(words: list[str] | None = None) -> int:
    """Run the command; return 0 if it succeeds, 1 if it fails or finds damage, 2 if misused."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # for names that a terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return run_command(words)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        print(f"\ninterrupted{interrupt}", file=sys.stderr)
        return 130


def run_command(words: list[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog=this_command(),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["prepare", "split", "verify"])
    parser.add_argument("source", nargs="?", type=Path, help="for split: a folder of class folders")
    parser.add_argument("--dataset", default=project.default_dataset(), help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of the draw [%(default)s]")
    parser.add_argument("--val", type=float, default=0.2, help="fraction for val [%(default)s]")
    parser.add_argument("--test", type=float, default=0.2, help="fraction for test [%(default)s]")
    parser.add_argument("--like", default="", help="a dataset whose images keep their splits")
    args = parser.parse_args(words)
    if (args.command == "split") != (args.source is not None):
        parser.error("split, and only split, takes a folder of images")
    root = folder(args.dataset)  # refuses a wrong name before all the images are read
    if args.command == "verify":
        problems = verify(args.dataset)
        print("\n".join(problems) or f"{args.dataset} matches its manifest")
        return 1 if problems else 0
    if args.command == "split":
        source, samples = str(args.source), splitting.find_images(args.source, show_progress)
        if left_out := splitting.describe_left_out(args.source, samples):
            print(f"left out: {left_out}")
    else:
        source, samples = "sklearn.datasets.load_digits", load_digits()
    fractions = args.val, args.test
    manifest = write_dataset(args.dataset, source, samples, args.seed, *fractions, args.like)
    counts = ", ".join(f"{split} {sum(manifest['counts'][split].values())}" for split in SPLITS)
    print(f"{project.relative(root)}: {len(manifest['classes'])} classes, {counts}")
    if args.command == "split":
        names = f"image_size={manifest['image_size']} channels={manifest['channels']}"
        print(f"settings that fit: with dataset={args.dataset} {names}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
