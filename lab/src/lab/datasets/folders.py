"""Makes a dataset of any folder, and checks it: files as they are, with or without splits.

The same files give the same manifest, whatever folder they came from.
"""

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lab.datasets.links import link_tree
from lab.datasets.manifest import (
    MANIFEST,
    DatasetError,
    hash_text,
    is_file_of_dataset,
    read_local,
    read_text,
)
from lab.ground import files, project
from lab.ground.terminal import count_files, stream_for_bars

KIND = "files"  # in a manifest; without a kind it is of the project's own code
MAX_FILES = 1_000_000  # files and folders; a manifest can list fewer
HASHED = f'  : "{0:064}",\n'  # what the manifest has for a file besides its name
PACK = "pack them, as tar or zip files, say"


def add(dataset: str, source: Path, copy: bool = False) -> str:
    """Make a dataset of the files in a folder; returns a line about it.

    They are linked, or copied if `copy`, unless they are in the dataset's folder already. Hidden
    files are left out. Nothing is overwritten: DatasetError for a file that is in the way, and for
    another dataset of this name.
    """
    folder = project.dataset_folder(dataset)
    if not source.is_dir():
        raise DatasetError(f"{source} is not a folder: name the one that holds the files.")
    in_place = source.resolve() == folder.resolve()
    if folder.resolve().is_relative_to(source.resolve()) and not in_place:
        raise DatasetError(f"{source} contains the data folder: name a folder beside it.")
    found = find_files(source, in_place)
    if not found:
        raise DatasetError(f"{source} has no files.")
    foreign = sorted(set(find_files(folder, True)) - set(found)) if folder.exists() else []
    if foreign:
        raise DatasetError(
            f"{project.relative(folder)} has files that {source} lacks, such as {foreign[0]}:"
            " choose another name."
        )
    if sum(len(json.dumps(name)) + len(HASHED) for name in found) > files.MAX_BYTES - 1000:
        raise DatasetError(f"{source} has {len(found)} files, more than a manifest lists: {PACK}.")
    sizes = {name: path.stat().st_size for name, path in found.items()}
    hashes = hash_files(found, sizes, "reading")
    content = {"kind": KIND, "size": sum(sizes.values()), "files": hashes}
    text = json.dumps(content, indent=1) + "\n"
    before = read_text(folder)
    if before and before != text:
        raise DatasetError(
            f"{dataset} is another dataset, with manifest {hash_text(before)[:12]}: choose another"
            " name, as runs know a dataset by its manifest."
        )
    there = {name: folder / name for name in found if os.path.lexists(folder / name)}
    there = {name: path for name, path in there.items() if not is_link_to(path, found[name])}
    different = [] if in_place else find_changed(there, hashes)
    if different:
        raise DatasetError(
            f"{project.relative(folder / different[0])} has other content, and was kept: move it"
            " away, or choose another name."
        )
    if copy and not in_place:
        copy_files(found, folder, sizes, hashes)
    elif not in_place:
        link_tree(source.resolve(), folder)
    lacking = [name for name in found if not (folder / name).is_file()]
    if lacking:
        where = project.relative(folder / lacking[0])
        raise DatasetError(f"{where} cannot be linked, as a link is in the way: use --copy.")
    (folder / "models").mkdir(parents=True, exist_ok=True)
    files.write(folder / MANIFEST, text)
    how = "" if in_place or copy else f", linked to {source.resolve()}"
    what = f"{count_files(len(found))}, {sum(sizes.values()) / 1e6:.1f} MB"
    return f"{project.relative(folder)}: {what}{how}; manifest {hash_text(text)[:12]}"


def is_link_to(path: Path, target: Path) -> bool:
    """Whether a path leads to this file, through links."""
    return path.exists() and path.samefile(target)


def verify(dataset: str) -> list[str]:
    """Return a line for each file that differs from the manifest; DatasetError without one."""
    folder = project.dataset_folder(dataset)
    manifest = read_local(dataset)
    present, whole = find_files(folder, True), is_any_kind(dataset)
    tops = {*project.SPLITS, *(name.split("/")[0] for name in manifest.files)}
    known = {name: present[name] for name in manifest.files if name in present}
    problems = [f"missing   {name}" for name in manifest.files if name not in present]
    problems += [
        f"foreign   {name}"
        for name in present
        if name not in manifest.files and (whole or name.split("/")[0] in tops)
    ]
    return sorted(problems) + [f"changed   {one}" for one in find_changed(known, manifest.files)]


def is_any_kind(dataset: str) -> bool:
    """Whether the manifest was made by `lab data add`, so that verify() can check all of it."""
    try:
        content = files.parse_json(read_text(project.dataset_folder(dataset)))
        return bool(content.get("kind") == KIND)
    except (ValueError, AttributeError):
        return False


# --- files ---------------------------------------------------------------------------------------


def find_files(source: Path, is_dataset: bool) -> dict[str, Path]:
    """Find the files in a folder, sorted by their names in the dataset; links are followed.

    In the folder of a dataset, models/ and the manifest are left out; elsewhere they are refused.
    DatasetError for a file that no dataset can have.
    """
    found = {}
    for name, path in sorted(walk(source)):
        own = name == MANIFEST or name.startswith("models/")
        if is_dataset and own:
            continue
        if not is_file_of_dataset(name):
            raise DatasetError(f"{path} cannot be in a dataset under that name: rename it.")
        if not path.is_file():
            raise DatasetError(f"{path} is not a regular file, or is a broken link: remove it.")
        found[name] = path
    return found


def walk(source: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and path of everything but folders and hidden files, in any order.

    DatasetError for links that form a cycle, or that lead to a million files and folders.
    """
    waiting: list[tuple[Path, str, frozenset[tuple[int, int]]]] = [(source, "", frozenset())]
    seen = 0
    while waiting:
        folder, inside, above = waiting.pop()
        status = folder.stat()
        own = status.st_dev, status.st_ino  # realpath() is slow for paths of thousands of parts
        if own in above:
            raise DatasetError(f"{folder} is a link to a folder that it lies in: remove it.")
        with os.scandir(folder) as entries:
            listed = [entry for entry in entries if not entry.name.startswith(".")]
        seen += len(listed)
        if seen > MAX_FILES:
            raise DatasetError(f"{source} has more than {MAX_FILES} files and folders: {PACK}.")
        for entry in listed:
            name = f"{inside}{entry.name}"
            if files.is_folder(entry):
                waiting.append((Path(entry.path), f"{name}/", above | {own}))
            else:
                yield name, Path(entry.path)


class Ended(Exception):
    """Hashing has ended, as another file failed or the user interrupted it."""


def hash_files(paths: Mapping[str, Path], sizes: Mapping[str, int], action: str) -> dict[str, str]:
    """Hash files, several at once, with a progress bar in bytes once it takes over a second.

    Ctrl-C ends it at once, also in a file of many gigabytes.
    """
    hashes: dict[str, str] = {}
    remaining, ended = iter(list(paths.items())), threading.Event()

    def hash_some() -> None:
        try:
            for name, path in remaining:
                hashes[name] = files.sha256(path, go_on)
        except Ended:
            pass
        except BaseException:
            ended.set()
            raise

    def go_on(size: int) -> None:
        if ended.is_set():
            raise Ended
        advance(size)

    workers = min(8, os.cpu_count() or 1)
    with (
        show_progress(sum(sizes[name] for name in paths), action) as advance,
        ThreadPoolExecutor(workers) as pool,
    ):
        try:
            for done in [pool.submit(hash_some) for _ in range(workers)]:
                done.result()
        finally:
            ended.set()
    return {name: hashes[name] for name in paths}


@contextmanager
def show_progress(total: int, action: str) -> Iterator[Callable[[int], object]]:
    """Yield a function that advances a progress bar on a terminal, by a number of bytes."""
    if not sys.stderr.isatty():
        yield lambda size: None
        return
    from tqdm import tqdm

    options = {"unit": "B", "unit_scale": True, "delay": 1, "leave": False}
    with tqdm(total=total, desc=action, file=stream_for_bars(), **options) as bar:
        lock = threading.Lock()  # several threads advance

        def advance(size: int) -> None:
            with lock:
                bar.update(size)

        yield advance


def find_changed(paths: Mapping[str, Path], expected: Mapping[str, str]) -> list[str]:
    """Return the names of the files that do not have the expected hash."""
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    hashes = hash_files(paths, sizes, "checking")
    return [name for name, digest in hashes.items() if digest != expected[name]]


def copy_files(
    found: Mapping[str, Path], folder: Path, sizes: Mapping[str, int], hashes: Mapping[str, str]
) -> None:
    """Copy what is not there yet, with a progress bar; an interrupted call can be repeated."""
    missing = {name: path for name, path in found.items() if not (folder / name).exists()}
    with show_progress(sum(sizes[name] for name in missing), "copying") as advance:
        for name, path in missing.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(folder / name) as draft:
                if copy_file(path, draft, advance) != hashes[name]:
                    raise DatasetError(f"{path} changed while it was copied: try again.")


def copy_file(source: Path, target: Path, advance: Callable[[int], object]) -> str:
    """Copy a file and return the sha256 of what was copied."""
    digest = hashlib.sha256()
    with files.open_regular(source) as file, target.open("xb") as copy:
        while chunk := file.read(1 << 20):
            copy.write(chunk)
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()
