"""Portable names of files: valid in a job, in `lab reproduce` and on a colleague's computer.

data/X is X in the data folder and runs/X is X in the folder of records, wherever these two are; any
other name is that of a file in the project, which should be in git.
"""

import os
from pathlib import Path

from lab.ground import git, project
from lab.ground.errors import LabError


def to_portable(text: str) -> str:
    """Return the portable name of a file; ValueError if there is none.

    `text` is such a name already, or an absolute path into one of the three folders.
    """
    path = os.path.normpath(os.path.expanduser(text)) if text else ""
    if Path(path).is_absolute():
        for name, folder in (*_folders().items(), ("", project.root())):
            for top, inside in ((folder, path), (folder.resolve(), os.path.realpath(path))):
                if Path(inside).is_relative_to(top):
                    return Path(name, Path(inside).relative_to(top)).as_posix()
    if Path(path).is_absolute() or path.split("/")[0] == "..":
        raise ValueError("it is outside the project, data/ and runs/: put it into one of them")
    return path


def find_file(name: str) -> Path:
    """Find the file that a setting of the type `tracking.File` names; LabError if it is missing."""
    path = locate(name, project.root())
    if not path.is_file():
        advice = {
            "data": "lab fetch-data brings a dataset, and LAB_DATA names the data folder",
            "runs": "lab fetch brings records, and LAB_RUNS names their folder",
        }
        first = name.partition("/")[0]
        own = "a setting names a file by its path in the project"
        raise LabError(f"there is no file {name}: {advice.get(first, own)}.")
    return path


def locate(name: str, root: Path) -> Path:
    """Return where a file should be, in a project or checkout with that folder."""
    first, _, rest = name.partition("/")
    return _folders()[first] / rest if rest and first in _folders() else root / name


def explain_not_portable(value: str) -> str:
    """Say why an existing file, as a setting names it, is not found elsewhere; "" if it is.

    "" also for an absolute path outside the project: it may lead to a shared disk.
    """
    if not os.path.isfile(value):  # noqa: PTH113 # Path's raises for a text of 10 kB
        return ""
    path, top = Path(os.path.abspath(value)), project.root()
    if Path(value).is_absolute():
        return "is an absolute path into the project" if path.is_relative_to(top) else ""
    if not path.is_relative_to(top):
        return "lies outside the project"
    inside = path.relative_to(top).as_posix()
    if os.path.normpath(value) != inside:
        return f"is relative to {Path.cwd()}, not to the project"
    ignored = git.run("check-ignore", "--", inside, accept=(0, 1, 128), cwd=top)
    return "is ignored by git, so that no checkout has it" if ignored else ""


def _folders() -> dict[str, Path]:
    return {"data": project.data_folder(), "runs": project.runs_folder()}
