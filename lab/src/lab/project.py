"""The project you are in: its names and folders, files that are written whole, and LabError.

For experiments and notebooks; a change of what is listed here is a new major version.

    name()              short name: of the folder, of the kernel and, with _ for -, of the package
    title()             name as people read it
    package()           name of the experiment's package in src/
    root()              the project's folder (Path)
    default_dataset()   the dataset that a run uses unless it names another one
    data_folder()       of all datasets: LAB_DATA, `data` of [here] in machines.local.toml, or data/
    dataset_folder(X)   of one dataset
    find_file(name)     the file that a setting of the type tracking.File names
    runs_folder()       of all records: LAB_RUNS, `runs` of [here], or runs/
    relative(path)      a path as text, relative to the project's folder if it lies inside
    write(path, text)   write a file so that no reader ever sees a part of it
    read_json(path)     the content of a JSON file; OSError or ValueError if it is none
    sha256(path)        hash of a file's content
    hash_manifest(X)    hash of a dataset's manifest, by which runs know the dataset; "" if none
    warn_of_leakage(...)  if a run's weights know what is in val or test of a dataset by now
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
