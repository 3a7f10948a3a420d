"""Splitting a folder of images into train, val and test."""

import hashlib
import io
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lab.project import LabError

from . import images

UNPORTABLE = set('<>:"\\|?*')  # characters that some file systems refuse in a name


class Sample(NamedTuple):
    """An image to put into a split."""

    label: str
    name: str  # of its file in the dataset
    read: Callable[[], bytes]
    pixels: str  # the hash of its decoded pixels: the same image in another file has the same
    size: tuple[int, int]  # width, height
    channels: int  # 1 gray, 3 color


def make_sample(label: str, name: str, read: Callable[[], bytes]) -> Sample:
    """Decode an image and describe it; ImageError if it cannot be used."""
    image = images.decode(io.BytesIO(read()))
    pixels = np.asarray(image)
    channels = 1 if (pixels == pixels[..., :1]).all() else 3
    return Sample(label, name, read, hash_pixels(image), image.size, channels)


def hash_pixels(image: Image.Image) -> str:
    """Hash what an RGB image shows, whatever the format of its file."""
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def find_images(
    source: Path, show_progress: Callable[[list[Path], str], Iterable[Path]]
) -> list[Sample]:
    """Read every image of a folder that has one sub-folder per class; hidden files are left out.

    The same image counts once, however often it was saved. LabError names every file that cannot
    be used, every name that another computer could not hold, and images that are in two classes.
    """
    if not source.is_dir():
        raise LabError(f"{source} is not a folder: split needs one with a sub-folder per class.")
    paths = sorted(p for p in source.glob("*/*") if is_candidate(source, p))
    samples: list[Sample] = []
    first_with: dict[str, Path] = {}
    problems = find_bad_names(paths)
    for path in show_progress(paths, "reading"):
        label, name = (unicodedata.normalize("NFC", part) for part in path.parts[-2:])
        try:
            found = make_sample(label, name, partial(images.read_file, path))
        except images.ImageError as error:
            problems.append(f"{path} {error}")
            continue
        first = first_with.setdefault(found.pixels, path)
        if first is path:
            samples.append(found)
        elif unicodedata.normalize("NFC", first.parent.name) != label:
            problems.append(f"{path} shows the same image as {first}, of another class")
    if problems:
        raise LabError(f"{source} cannot be split:\n  " + "\n  ".join(problems))
    return samples


def is_candidate(source: Path, path: Path) -> bool:
    """Return whether a path looks like <class>/<image> and is not hidden."""
    parts = path.relative_to(source).parts
    hidden = any(part.startswith(".") for part in parts)
    return len(parts) == 2 and not hidden and path.suffix.lower() in images.SUFFIXES


def find_bad_names(paths: Iterable[Path]) -> list[str]:
    """List names that would clash, or could not exist, on some other computer.

    macOS stores some characters decomposed, and ignores case. Names that differ only in how they
    are composed count as one.
    """
    problems = []
    spellings = defaultdict(set)
    for path in paths:
        label, name = (unicodedata.normalize("NFC", part) for part in path.parts[-2:])
        spellings[label.casefold()].add(label)
        spellings[f"{label.casefold()}/{name.casefold()}"].add(str(path))
        for part in {label, name}:
            foreign = UNPORTABLE & set(part) or not part.isprintable() or part[-1] in ". "
            if foreign:
                problems.append(f"{str(path)!r}: rename {part!r}, not every system can hold it")
    for same in spellings.values():
        if len(same) > 1:
            problems.append(f"{' and '.join(sorted(same))} differ in spelling only: rename one")
    return sorted(set(problems))


def describe_left_out(source: Path, samples: list[Sample]) -> str:
    """Describe what no sample holds: other files, copies, empty classes; "" if nothing."""
    files = [path for path in source.rglob("*") if path.is_file()]
    images_there = [p for p in files if is_candidate(source, p)]
    kinds = Counter(p.suffix.lower() or "without a suffix" for p in set(files) - set(images_there))
    rest = [f"{number} {kind}" for kind, number in sorted(kinds.items())]
    if copies := len(images_there) - len(samples):
        rest.append(f"{copies} copies of other images")
    classes = {unicodedata.normalize("NFC", p.name) for p in source.glob("[!.]*") if p.is_dir()}
    empty = sorted(classes - {sample.label for sample in samples})
    return ", ".join(rest + [f"all of class {name}" for name in empty])


def draw_split(
    samples: Iterable[Sample],
    seed: int,
    val: float,
    test: float,
    like: Mapping[str, str] | None = None,
) -> dict[str, Sample]:
    """Draw a split for every sample; return {"train/<class>/<name>": sample}, sorted.

    Class by class, in the order of a hash of seed and pixels: the first samples are for test, the
    next for val, at least one each. So an image stays where it is when others are added, apart from
    a few at the borders. `like` maps the pixels of images to the splits that they keep in any case.
    """
    by_class = defaultdict(list)
    for one in samples:
        by_class[one.label].append(one)
    if len(by_class) < 2:
        raise LabError(f"a split needs two classes or more, and there are {len(by_class)}.")
    drawn = {}
    for label, members in sorted(by_class.items()):
        splits = {one.pixels: (like or {}).get(one.pixels, "") for one in members}
        free = sorted((pixels for pixels in splits if not splits[pixels]), key=draw_order(seed))
        for split, fraction in (("test", test), ("val", val)):
            wanted = max(1, round(fraction * len(members))) - list(splits.values()).count(split)
            chosen, free = free[: max(0, wanted)], free[max(0, wanted) :]
            splits.update(dict.fromkeys(chosen, split))
        splits.update(dict.fromkeys(free, "train"))
        if "train" not in splits.values():
            raise LabError(f"class {label} has only {len(members)} images: none is left for train.")
        drawn.update({f"{splits[one.pixels]}/{label}/{one.name}": one for one in members})
    return dict(sorted(drawn.items()))


def draw_order(seed: int) -> Callable[[str], bytes]:
    """Return the sort key of a draw: the hash of seed and pixels."""
    return lambda pixels: hashlib.sha256(f"{seed}/{pixels}".encode()).digest()
