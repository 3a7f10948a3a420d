"""Where things are in this project, and the settings that pyproject.toml keeps for it."""

import os
import re
import sys
from functools import cache
from pathlib import Path

from lab.ground.errors import LabError

CACHE = "dl-remote-template"  # the name of our folder in ~/.cache
SPLITS = ("train", "val", "test")  # the folders of a dataset
DATASET = re.compile("[A-Za-z][A-Za-z0-9._-]*")


def root() -> Path:
    """The project that a command or a run acts on: LAB_PROJECT, or the one you stand in.

    That is the nearest folder above the working directory whose pyproject.toml has [tool.lab]. A
    script of a project (python -m my_experiment.experiment) acts on the project that it lies in,
    and is ended if that is not the one you stand in: the environment of one would run its own code
    while you look at the code of the other.

    Raises LabError if there is no project.
    """
    standing, own = _standing(), _of_script()
    if own and standing and own != standing:
        sys.exit(f"error: {describe_mismatch(own, standing)}")
    found = own or standing
    if not found:
        raise LabError(
            f"{Path.cwd()} is in no project (no folder above it has a pyproject.toml with"
            " [tool.lab]): cd into one, or name it by LAB_PROJECT."
        )
    return found


def describe_mismatch(imported: Path, standing: Path) -> str:
    """What is wrong when code of one project runs while you stand in another, and what to do."""
    return (
        f"you are in {standing}, but the code that would run is that of {imported}: run python3"
        " bootstrap.py and . .venv/bin/activate here, or cd there."
    )


def _standing() -> Path | None:
    told = os.environ.get("LAB_PROJECT")
    if told:
        found = Path(told).resolve()
        if not is_project(found):
            raise LabError(f"LAB_PROJECT={told}: there is no pyproject.toml with [tool.lab].")
        return found
    try:
        return find_project(Path.cwd())
    except FileNotFoundError:
        raise LabError("the working directory has been deleted: cd into a project.") from None


def _of_script() -> Path | None:
    """The project of the file that Python was started with; not of programs that are installed."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return _of_file(file) if file else None


@cache
def _of_file(file: str) -> Path | None:
    path, installed = Path(file).resolve(), Path(sys.prefix).resolve()
    return None if path.is_relative_to(installed) else find_project(path.parent)


def root_of(file: str | None) -> Path:
    """The folder of the project that a file lies in, as Python spells its path; else root()."""
    return (file and find_project(Path(file).absolute().parent)) or root()


def find_project(folder: Path) -> Path | None:
    """The nearest project that holds a folder, if any; a project is a folder like others, too."""
    return next((one for one in (folder, *folder.parents) if is_project(one)), None)


def is_project(folder: Path) -> bool:
    """Whether a folder's pyproject.toml has a table [tool.lab]."""
    try:
        text = (folder / "pyproject.toml").read_text("utf-8", "replace")
    except OSError:
        return False
    return re.search(r"^\[tool\.lab\]", text, re.M) is not None


def read_toml(name: str) -> dict:
    """The content of a TOML file in the project's folder; {} if there is none."""
    return _toml(root() / name)


def reload() -> None:
    """Forget what was read of the project's files: in a notebook they are edited meanwhile."""
    _toml.cache_clear()


@cache
def _toml(path: Path) -> dict:
    try:
        return parse_toml(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read: {error}") from None


def parse_toml(text: str) -> dict:
    """The content of a TOML text; ValueError if it is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def name() -> str:
    """The project's short name; the Jupyter kernel is called so too."""
    return read_toml("pyproject.toml")["project"]["name"]


def package() -> str:
    """The name of the experiment's package in src/."""
    named = read_toml("pyproject.toml")["tool"]["uv"]["build-backend"]["module-name"]
    return named if isinstance(named, str) else named[0]


def title() -> str:
    """The project's name as people read it."""
    return read_toml("pyproject.toml")["tool"]["lab"]["title"]


def default_dataset() -> str:
    """The dataset that a run takes unless it is told another one."""
    return read_toml("pyproject.toml")["tool"]["lab"]["dataset"]


def data_folder() -> Path:
    """Of all datasets: LAB_DATA, or `data` under [here] in machines.local.toml, or data/."""
    return _folder("LAB_DATA", "data")


def dataset_folder(dataset: str) -> Path:
    """Where a dataset lies here. LabError for what is no name of one."""
    if not DATASET.fullmatch(dataset):
        raise LabError(
            f"{dataset!r} is no name of a dataset: letters, digits, '.', '_' and '-', beginning"
            " with a letter."
        )
    return data_folder() / dataset


def runs_folder() -> Path:
    """Of all records: LAB_RUNS, or `runs` under [here] in machines.local.toml, or runs/."""
    return _folder("LAB_RUNS", "runs")


def cache_folder() -> Path:
    """What this user's lab keeps on this computer, of all projects."""
    return Path.home() / ".cache" / CACHE


def _folder(variable: str, key: str) -> Path:
    told = os.environ.get(variable) or _here().get(key, key)
    path = root() / os.path.expanduser(told)
    if path.is_symlink() and not path.exists():  # a new folder in its place would not be seen
        target = os.readlink(path)
        raise LabError(
            f"{relative(path)} is a link to {target}, which is not there: mount its disk?"
        )
    return path


def _here() -> dict[str, str]:
    """The table [here] of machines.local.toml, checked: where `data` and `runs` are."""
    file = "machines.local.toml"
    table = read_toml(file).get("here", {})
    for key, value in table.items() if isinstance(table, dict) else [("here", table)]:
        text = isinstance(value, str) and value.strip() and value.isprintable()
        if key not in ("data", "runs") or not text:
            raise LabError(
                f'{root() / file}: {key} = {value!r}: [here] takes data = "FOLDER" and'
                ' runs = "FOLDER", nothing else.'
            )
    return table


def relative(path: Path) -> str:
    """A path as people want to read it: from the project's folder if it lies in there."""
    top = root()
    return str(path.relative_to(top) if path.is_relative_to(top) else path)
