"""The manifest of a dataset: which files it consists of, by their sha256."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from lab.ground import files, project
from lab.ground.errors import LabError
from lab.ground.files import is_plain_path, parse_json

MANIFEST = "manifest.json"


class DatasetError(LabError):
    """A dataset is missing, damaged, or different on the two sides; nothing was overwritten."""


class Manifest(NamedTuple):
    """What a dataset consists of."""

    text: str  # manifest.json
    hash: str  # sha256 of the text: datasets with the same one are the same
    files: dict[str, str]  # path: sha256


def parse_manifest(text: str, folder: str, advice: str = "") -> Manifest:
    """Parse the manifest.json of a folder; DatasetError if it is missing or damaged.

    `advice` says what to do if it is missing.
    """
    if not text:
        raise DatasetError(f"there is no dataset in {folder}: it has no manifest.json.{advice}")
    try:
        files = parse_json(text)["files"]
        good = all(
            is_file_of_dataset(path) and encode(path) and re.fullmatch("[0-9a-f]{64}", digest)
            for path, digest in files.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise DatasetError(f"manifest.json in {folder} is damaged: prepare the dataset again.")
    return Manifest(text, hash_text(text), files)


def is_file_of_dataset(path: str) -> bool:
    """Whether a dataset may have a file of this name: plain, and not in models/, which runs fill.

    Nor may it begin with -, as a program would take it for an option.
    """
    top = path.partition("/")[0].casefold()
    return is_plain_path(path) and not path.startswith("-") and top not in ("models", MANIFEST)


def read_text(folder: Path) -> str:
    """Read the manifest of a dataset's folder; "" if it has none."""
    try:
        return files.read(folder / MANIFEST).decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def read_local(dataset: str) -> Manifest:
    """Read the manifest of a dataset on this computer, as parse_manifest() does."""
    folder = project.dataset_folder(dataset)
    advice = f" lab data add {dataset} FOLDER makes one; or prepare it as the README says."
    return parse_manifest(read_text(folder), str(project.relative(folder)), advice)


def encode(name: str) -> bytes:
    """Return the bytes of a name, which need not be UTF-8."""
    return name.encode("utf-8", "surrogateescape")


def hash_text(text: str) -> str:
    """Return the sha256 of a text as it is on disk."""
    import hashlib  # slow to import

    return hashlib.sha256(encode(text)).hexdigest()


def find_missing(
    manifest: Manifest, source: Mapping[str, int], target: Mapping[str, int]
) -> list[str]:
    """Return the files that the target lacks, by the sizes of the files on both sides.

    DatasetError if the target has files of the same names with other sizes.
    """
    other = [path for path in manifest.files if target.get(path, source[path]) != source[path]]
    require_none("kept, as the size differs at the destination", other)
    return [path for path in manifest.files if path not in target]


def require_none(problem: str, paths: Iterable[str]) -> None:
    """Raise DatasetError if there are such paths."""
    paths = list(paths)
    if paths:
        names = ", ".join(paths[:5])
        more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
        raise DatasetError(f"nothing was put in place; {problem}: {names}{more}.")


def checksum_line(path: str, digest: str) -> str:
    """Return a line for sha256sum -c, which escapes line ends and backslashes."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == path else chr(92)}{digest}  {escaped}\n"
