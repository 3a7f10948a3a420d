"""Datasets as folders of images, with an explicit split and a manifest that says what is in it.

python -m PACKAGE.data prepare             scikit-learn's digits, split, into data/<dataset>/
python -m PACKAGE.data split FOLDER        your images instead: one sub-folder of FOLDER per class
python -m PACKAGE.data verify              is every file as the manifest says? any leakage?

A dataset lies in data/<dataset>/{train,val,test}/<class>/<image>, with manifest.json and the models
trained on it beside the splits. LAB_DATA, or `data` in machines.local.toml, puts data/ elsewhere.
"""

import argparse
import hashlib
import io
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from lab import project
from lab.project import LabError

SPLITS = project.SPLITS
KEPT = 2**30  # bytes: a split that takes less, as 8-bit pixels, is kept in memory once it is read
IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class Sample(NamedTuple):
    """An image that is to be put into a split."""

    label: str
    name: str  # of the file
    read: Callable[[], bytes]


class ImageSplit:
    """One split of a dataset: a sequence of (image, class index), as a PyTorch DataLoader takes it.

    An image is float32 [channels, size, size], from 0 to 1, as a viewer shows it: turned as its
    EXIF says, and on white where it is transparent. What belongs to the split is what the manifest
    lists, not what happens to lie in the folder.
    """

    def __init__(self, dataset: str, split: str, size: int, channels: int):
        known = manifest(dataset)
        self.classes: list[str] = known["classes"]
        self.paths = [path for path in known["files"] if path.startswith(f"{split}/")]
        self.labels = [self.classes.index(path.split("/")[1]) for path in self.paths]
        self.folder = folder(dataset)
        self.size = (size, size)
        self.mode = {1: "L", 3: "RGB"}[channels]
        self.keeps = len(self.paths) * channels * size**2 <= KEPT
        self.kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        pixels = self.kept.get(index)
        if pixels is None:
            pixels = self._read(self.folder / self.paths[index])
            if self.keeps:
                self.kept[index] = pixels
        return pixels.astype(np.float32) / 255, self.labels[index]

    def _read(self, path: Path) -> np.ndarray:
        """The pixels of an image, uint8 [channels, size, size]."""
        try:
            with Image.open(path) as image:
                image = as_shown(image).convert(self.mode)
                return np.atleast_3d(np.asarray(image.resize(self.size))).transpose(2, 0, 1)
        except OSError as error:
            raise LabError(f"{path}: {error}; {module()} verify tells more.") from None


def as_shown(image: Image.Image) -> Image.Image:
    """The image as a viewer shows it: phones only note in EXIF how they were held."""
    with suppress(Exception):  # whatever Pillow makes of broken EXIF, the picture is whole
        ImageOps.exif_transpose(image, in_place=True)
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")  # convert("RGB") would show the colours that were made invisible
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def folder(dataset: str) -> Path:
    """Where a dataset lies."""
    return project.dataset_folder(dataset)


def manifest(dataset: str) -> dict:
    """What a dataset consists of: source, seed, classes, counts, and the sha256 of every file."""
    path = folder(dataset) / "manifest.json"
    try:
        known = json.loads(path.read_text("utf-8"))
        if not (isinstance(known, dict) and {"classes", "files"} <= known.keys()):
            raise ValueError("it does not say what is in a dataset")
        return known
    except FileNotFoundError:
        raise LabError(
            f"there is no dataset {dataset} yet in {project.relative(project.data_folder())};"
            f" {module()} prepare makes it, and split makes one of your own images."
        ) from None
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read: {error}") from None


def digits() -> list[Sample]:
    """scikit-learn's packaged handwritten digits: 1,797 grey images of 8x8 pixels, ten classes."""
    # the file that load_digits() reads: importing scikit-learn takes longer than all the rest here
    path = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(path, delimiter=",", dtype=np.uint8)  # 64 pixels from 0 to 16, and the digit
    samples = []
    for number, (pixels, label) in enumerate(zip(table[:, :-1], table[:, -1], strict=True)):
        content = io.BytesIO()
        Image.fromarray(pixels.reshape(8, 8) * 15).save(content, "png")  # from 0 to 240
        samples.append(Sample(str(label), f"{number:04}.png", content.getvalue))
    return samples


def images_in(source: Path) -> list[Sample]:
    """Every image of a folder that has one sub-folder per class; the same picture counts once."""
    if not source.is_dir():
        raise LabError(f"{source} is no folder; split wants one with a sub-folder per class.")
    samples, first_with = [], {}
    paths = sorted(
        path
        for path in source.glob("[!.]*/[!.]*")  # hidden ones are no part of a dataset
        if path.suffix.lower() in IMAGES
    )
    for path in progress(paths, "reading"):
        try:
            content = path.read_bytes()
            Image.open(io.BytesIO(content)).verify()
            with Image.open(io.BytesIO(content)) as image:
                image.load()  # verify() does not look into every kind
        except UnidentifiedImageError:
            raise LabError(f"{path} is no image; mend or remove it.") from None
        # Pillow calls a broken PNG a SyntaxError
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise LabError(f"{path} is no whole image ({error}); mend or remove it.") from None
        if image.mode.startswith(("I", "F")):  # they would be cut off at 255
            raise LabError(f"{path} has more than 8 bits for each colour: convert it first.")
        twin = first_with.setdefault(sha256(content), path)
        if twin is path:
            samples.append(Sample(path.parent.name, path.name, path.read_bytes))
        elif twin.parent.name != path.parent.name:
            raise LabError(f"{twin} and {path} are the same picture in two classes; remove one.")
    known = set(paths)
    others = Counter(
        path.suffix.lower() or "without a suffix"
        for path in source.rglob("*")
        if path.is_file() and path not in known
    )
    left_out = [f"{number} {kind}" for kind, number in sorted(others.items())]
    if copies := len(paths) - len(samples):
        left_out.append(f"{copies} copies of the same picture")
    folders = {path.name for path in source.glob("[!.]*") if path.is_dir()}
    empty = sorted(folders - {sample.label for sample in samples})
    left_out += [f"the whole class {name}" for name in empty]
    if left_out:
        print(f"left out: {', '.join(left_out)}")
    return samples


def assign(samples: Iterable[Sample], seed: int, val: float, test: float) -> dict[str, Sample]:
    """Draw a split for every sample, class by class, so that each has its share of every class.

    Returns {"train/<class>/<name>": sample}. The draw depends only on the seed and the names; each
    class gets at least one sample in each split.
    """
    by_class = defaultdict(list)
    for sample in samples:
        by_class[sample.label].append(sample)
    if len(by_class) < 2:
        raise LabError(f"a split needs two classes or more, and there are {len(by_class)}.")
    drawn = {}
    for label, members in sorted(by_class.items()):
        splits = ["val"] * max(1, round(val * len(members)))
        splits += ["test"] * max(1, round(test * len(members)))
        if len(splits) >= len(members):
            raise LabError(
                f"class {label} has only {len(members)} images: none is left for train."
            )
        splits += ["train"] * (len(members) - len(splits))
        members = sorted(members, key=lambda sample: sample.name)
        random.Random(f"{seed}/{label}").shuffle(members)
        for split, sample in zip(splits, members, strict=True):
            drawn[f"{split}/{label}/{sample.name}"] = sample
    return dict(sorted(drawn.items()))


def write(
    dataset: str, source: str, samples: list[Sample], seed: int, val: float, test: float
) -> dict:
    """Write a split into data/<dataset>/ and then its manifest; returns the manifest.

    A file that is already there as it should be stays, so a broken-off writing can be repeated.
    Anything else in the three folders is refused by name: it is never overwritten or removed.
    """
    if not 0 < val < 1 or not 0 < test < 1 or val + test >= 1:
        raise LabError(f"val {val} and test {test}: two shares above 0 that leave some for train.")
    drawn = assign(samples, seed, val, test)
    place = folder(dataset)
    foreign = sorted(set(files_in(dataset)) - set(drawn))
    if foreign:
        raise LabError(
            f"{project.relative(place)} holds {len(foreign)} files that are not of this split, such"
            f" as {foreign[0]}; move them away, or choose another name with --dataset."
        )
    hashes = {}
    try:
        for path, sample in progress(drawn.items(), "writing"):
            content = sample.read()
            hashes[path] = sha256(content)
            put(place / path, content)
        known = {
            "dataset": dataset,
            "source": source,
            "seed": seed,
            "shares": {"val": val, "test": test},
            "classes": sorted({sample.label for sample in samples}),
            "counts": {split: count(drawn, split) for split in SPLITS},
            "files": hashes,
        }
        (place / "models").mkdir(exist_ok=True)
        put(place / "manifest.json", (json.dumps(known, indent=1) + "\n").encode(), replace=True)
    except OSError as error:
        raise LabError(
            f"{error.filename or place}: {error.strerror}; mend it and repeat."
        ) from None
    except KeyboardInterrupt:
        unfinished = f": {project.relative(place)} is not whole; the same command completes it"
        raise KeyboardInterrupt(unfinished) from None
    return known


def count(paths: Iterable[str], split: str) -> dict[str, int]:
    """How many of the paths are in a split, by class."""
    return dict(Counter(path.split("/")[1] for path in paths if path.startswith(f"{split}/")))


def put(path: Path, content: bytes, replace: bool = False) -> None:
    """Write a file so that it is there wholly or not at all; one with other content is refused."""
    if path.exists() and not replace:
        if path.read_bytes() != content:
            raise LabError(f"{path} is there with other content; move it away first.")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def files_in(dataset: str) -> list[str]:
    """The files of the three splits, "train/<class>/<name>", without hidden ones (.gitkeep)."""
    place = folder(dataset)
    paths = (path for split in SPLITS for path in (place / split).rglob("*") if path.is_file())
    return [path.relative_to(place).as_posix() for path in paths if not path.name.startswith(".")]


def verify(dataset: str) -> list[str]:
    """What is wrong, one line each: changed, unreadable, missing and foreign files, leakage."""
    expected = manifest(dataset)["files"]
    present = set(files_in(dataset))
    problems = [f"missing   {path}" for path in sorted(set(expected) - present)]
    problems += [f"foreign   {path}" for path in sorted(present - set(expected))]
    place, same = folder(dataset), defaultdict(list)
    for path in progress(sorted(present), "verifying"):
        try:
            found = sha256((place / path).read_bytes())
        except OSError as error:
            problems.append(f"unreadable {path}: {error.strerror}")
            continue
        same[found].append(path)
        if expected.get(path, found) != found:
            problems.append(f"changed   {path}")
    for paths in same.values():
        if len({path.split("/")[0] for path in paths}) > 1:
            problems.append(f"leakage   the same content in {' and '.join(paths)}")
    return problems


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def progress(items: Iterable, what: str) -> Iterable:
    """A progress bar on a terminal, once it takes longer than a second."""
    return tqdm(items, desc=what, delay=1, leave=False, disable=None)


def module() -> str:
    """How this file is run, for messages."""
    return f"python -m {__package__}.data"


def main(arguments: list[str] | None = None) -> int:
    sys.stdout.reconfigure(errors="backslashreplace")  # for names that a terminal cannot show
    try:
        return command(arguments)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as ended:
        print(f"\ninterrupted{ended}", file=sys.stderr)
        return 130


def command(arguments: list[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog=module(), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["prepare", "split", "verify"])
    parser.add_argument("source", nargs="?", type=Path, help="for split: a folder of class folders")
    parser.add_argument("--dataset", default=project.default_dataset(), help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of the draw [%(default)s]")
    parser.add_argument("--val", type=float, default=0.2, help="share for val [%(default)s]")
    parser.add_argument("--test", type=float, default=0.2, help="share for test [%(default)s]")
    wanted = parser.parse_args(arguments)
    if (wanted.command == "split") != (wanted.source is not None):
        parser.error("split, and only split, takes a folder of images")
    folder(wanted.dataset)  # a wrong name is refused before all the images are read
    if wanted.command == "verify":
        problems = verify(wanted.dataset)
        print("\n".join(problems) or f"{wanted.dataset} is as its manifest says")
        return 1 if problems else 0
    if wanted.command == "split":
        source, samples = str(wanted.source), images_in(wanted.source)
    else:
        source, samples = "sklearn.datasets.load_digits", digits()
    known = write(wanted.dataset, source, samples, wanted.seed, wanted.val, wanted.test)
    counts = ", ".join(f"{split} {sum(known['counts'][split].values())}" for split in SPLITS)
    print(f"{project.relative(folder(wanted.dataset))}: {len(known['classes'])} classes, {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
