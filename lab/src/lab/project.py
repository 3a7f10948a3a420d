"""The project you are in: its names and folders, files that are written whole, and LabError.

For experiments and notebooks; a change of what is listed here is a new major version.

    name()              the short name: of the folder, the kernel and, with _ for -, the package
    title()             the name as people read it
    package()           the name of the experiment's package in src/
    root()              the project's folder (Path)
    default_dataset()   the dataset that a run uses unless it names another one
    data_folder()       the folder of all datasets: LAB_DATA, `data` in the table [here] of
                        machines.local.toml, or data/
    dataset_folder(X)   the folder of one dataset
    find_file(name)     the file that a setting of the type tracking.File names
    runs_folder()       the folder of all records: LAB_RUNS, `runs` in the table [here], or runs/
    relative(path)      a path as text, relative to the project's folder if it lies inside
    write(path, text)   write a file so that no reader ever sees a part of it
    read_json(path)     the content of a JSON file; OSError or ValueError if it has none
    sha256(path)        the hash of a file's content
    hash_manifest(X)    the hash of a dataset's manifest, by which a record names it; "" if none
    warn_of_leakage(...)  warn if a run was trained on files that are now in val or test
    SPLITS              the folders of a dataset: train, val, test
    LabError            an error that is shown as one line: the cause and the next step
"""

from lab.ground.errors import LabError
from lab.ground.files import read_json, sha256, write
from lab.ground.manifests import hash_manifest, warn_of_leakage
from lab.ground.portable import find_file
from lab.ground.project import (
    SPLITS,
    data_folder,
    dataset_folder,
    default_dataset,
    name,
    package,
    relative,
    root,
    runs_folder,
    title,
)

__all__ = [
    "SPLITS",
    "LabError",
    "data_folder",
    "dataset_folder",
    "default_dataset",
    "find_file",
    "hash_manifest",
    "name",
    "package",
    "read_json",
    "relative",
    "root",
    "runs_folder",
    "sha256",
    "title",
    "warn_of_leakage",
    "write",
]
