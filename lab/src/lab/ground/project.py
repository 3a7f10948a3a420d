"""The current project: its folder, and what pyproject.toml and machines.local.toml say about it."""

import os
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from lab.ground import files
from lab.ground.errors import LabError
from lab.ground.terminal import escape_text

MAX_TOML_BYTES = 1 << 20  # bytes of pyproject.toml or machines.toml
# The parser takes minutes for a key of this many parts.
LONG_KEY = re.compile(r"""(?<![\w"'.-])(?:[\w"'-]+[ \t]*\.[ \t]*){100}""")
CACHE = "dl-remote-template"  # the name of our folder in ~/.cache
SPLITS = ("train", "val", "test")  # the folders of a dataset
DATASET = re.compile("[A-Za-z][A-Za-z0-9._-]*")
# Of a project; files and hosts in ssh's configuration get it. Python packages allow no other names.
NAME = re.compile("[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
FETCHED = re.compile("runs/|jobs/[^/]+/code|data/[^/]+/models/")  # folders that a fetch fills
PYTHON = re.compile(r"3\.\d{1,2}(\.\d{1,3})?", re.ASCII)


def root() -> Path:
    """Return the project that a command or a run acts on: LAB_PROJECT, or the current one.

    The current project is the nearest folder above the working directory whose pyproject.toml has
    [tool.lab]. A script of a project (python -m my_experiment.experiment) acts on the project that
    it lies in, and is refused in another one: it would run the code of one project while you look
    at the code of the other.

    Raises LabError if there is no project.
    """
    current, own = _current(), _of_script()
    if own and current and own != current:
        sys.exit(escape_text(f"error: {describe_mismatch(own, current)}"))
    found = own or current
    if not found:
        raise LabError(
            f"{Path.cwd()} is not in a project (no folder above it has a pyproject.toml with"
            " [tool.lab]): cd into one, or set LAB_PROJECT."
        )
    return found


def describe_mismatch(imported: Path, current: Path) -> str:
    """Say that the code of one project would run in another one, and what to do."""
    return (
        f"you are in {current}, but the code that would run is that of {imported}: run python3"
        " bootstrap.py and . .venv/bin/activate here, or cd there."
    )


def _current() -> Path | None:
    named = os.environ.get("LAB_PROJECT")
    if named:
        folder = Path(named).resolve()
        if not is_project(folder):
            raise LabError(f"LAB_PROJECT={named} has no pyproject.toml with [tool.lab].")
        return folder
    try:
        return find_project(Path.cwd())
    except FileNotFoundError:
        raise LabError("the working directory has been deleted: cd into a project.") from None


def _of_script() -> Path | None:
    """Return the project of the script that Python runs, unless that is an installed program."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return _of_file(file) if file else None


@cache
def _of_file(file: str) -> Path | None:
    path, installed = Path(file).resolve(), Path(sys.prefix).resolve()
    return None if path.is_relative_to(installed) else find_project(path.parent)


def root_of(file: str | None) -> Path:
    """Return the folder of the project that a file lies in, with links unresolved; else root()."""
    return (file and find_project(Path(file).absolute().parent)) or root()


def find_project(folder: Path) -> Path | None:
    """Find the nearest project at or above a folder.

    What a fetch brought into a project does not count: a machine could choose what runs here.
    """
    found: Path | None = None
    for one in (folder, *folder.parents):
        if is_project(one) and (not found or FETCHED.match(found.relative_to(one).as_posix())):
            found = one
    return found


def is_project(folder: Path) -> bool:
    """Whether a folder's pyproject.toml has a table [tool.lab]."""
    try:
        text = files.read_text(folder / "pyproject.toml", "replace", MAX_TOML_BYTES)
    except OSError:
        return False
    return re.search(r"^\[tool\.lab\]", text, re.M) is not None


def read_toml(name: str) -> dict[str, Any]:
    """Read a TOML file in the project's folder; {} if it does not exist."""
    return _read_toml(root() / name)


def reload() -> None:
    """Forget the TOML files that were read: they may change while a notebook runs."""
    _read_toml.cache_clear()


@cache
def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(files.read_text(path, limit=MAX_TOML_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read: {error}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML; ValueError if it is not valid, or nested too deeply."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    if LONG_KEY.search(text):
        raise ValueError("a key has more than 100 parts")
    try:
        content: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    files.refuse_depth(content)
    return content


def _setting(*keys: str) -> Any:
    """A value of pyproject.toml; LabError if it is missing."""
    value: Any = read_toml("pyproject.toml")
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            raise LabError(f"{root() / 'pyproject.toml'} has no {'.'.join(keys)}: put it back.")
        value = value[key]
    return value


def name() -> str:
    """The project's short name, which is also the name of its Jupyter kernel."""
    own = _text_setting(read_toml("pyproject.toml"), "name", "")  # if there is no [project]
    found = own or str(_setting("project", "name"))
    return _require(NAME.fullmatch(found), "name", found, "letters, digits, '.', '_' and '-'")


def lock_file() -> Path:
    """The file of the project's lock."""
    return root() / lock_name(read_toml("pyproject.toml"))


def lock_name(settings: dict[str, Any]) -> str:
    """The name of the lock that a pyproject.toml gives: `lock` in [tool.lab], requirements.txt."""
    found = _text_setting(settings, "lock", "requirements.txt")
    if Path(found).name != found:
        raise LabError(f"lock = {found!r} in pyproject.toml: name a file beside it.")
    return found


def source_name(settings: dict[str, Any]) -> str:
    """The folder from which a project's own packages are imported: `source` in [tool.lab], src."""
    found = _text_setting(settings, "source", "src")
    if Path(found).is_absolute() or ".." in Path(found).parts:
        raise LabError(f"source = {found!r} in pyproject.toml: name a folder beside it.")
    return found


def source_folder(folder: Path) -> Path:
    """The folder from which the packages of the project in a folder are imported."""
    return folder / source_name(_read_toml(folder / "pyproject.toml"))


def _text_setting(settings: dict[str, Any], key: str, default: str) -> str:
    """A text in [tool.lab] of a pyproject.toml, or the default."""
    value = get_table(settings, "tool", "lab").get(key, default)
    if not isinstance(value, str) or not value.isprintable():
        raise LabError(f"{key} = {value!r} in pyproject.toml: write text in quotes.")
    return value


def get_table(settings: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A table inside others; {} if it is missing or something else."""
    table: Any = settings
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else {}


def _require(fits: object, key: str, value: str, rule: str) -> str:
    """Return a value of pyproject.toml; LabError if it does not fit the rule."""
    if not fits:
        raise LabError(f"{root() / 'pyproject.toml'}: {key} = {value!r}: it must be {rule}.")
    return value


def package() -> str:
    """The name of the experiment's package in src/."""
    names = _setting("tool", "uv", "build-backend", "module-name")
    name = str(names[0] if isinstance(names, list) and names else names)
    is_package = all(part.isidentifier() for part in name.split("."))
    return _require(is_package, "module-name", name, "the name of a package")


def title() -> str:
    """The project's name as people read it."""
    return str(_setting("tool", "lab", "title"))


def python() -> str:
    """The version of Python for the environment, such as 3.11."""
    found = str(_setting("tool", "lab", "python"))
    return _require(PYTHON.fullmatch(found), "python", found, 'a version, such as "3.11"')


def default_dataset() -> str:
    """The dataset that a run uses unless it names another one."""
    found = str(_setting("tool", "lab", "dataset"))
    return _require(DATASET.fullmatch(found), "dataset", found, "the name of a folder in data/")


def list_setting(
    key: str, advice: str, is_valid: Callable[[str], bool] = lambda one: True
) -> list[str]:
    """A list of strings in [tool.lab], [] if missing; LabError with the advice otherwise."""
    found = get_table(read_toml("pyproject.toml"), "tool", "lab").get(key, [])
    if isinstance(found, list) and all(isinstance(one, str) and is_valid(one) for one in found):
        return found
    raise LabError(f"{root() / 'pyproject.toml'}: {key} = {found!r}: {advice}.")


def outputs() -> list[str]:
    """The folders and files that commands write: `outputs` of [tool.lab], without a / at the end.

    No snapshot contains them. LabError for a name that leads out of the project.
    """

    def is_inside(name: str) -> bool:
        path = Path(name)
        inside = path.parts and not path.is_absolute() and ".." not in path.parts
        return bool(inside) and name.isprintable()

    advice = 'write a list of folders in the project, as in outputs = ["out/", "logs/"]'
    return [str(Path(name)) for name in list_setting("outputs", advice, is_inside)]


def data_folder() -> Path:
    """The folder of all datasets: LAB_DATA, `data` of [here] in machines.local.toml, or data/."""
    return _folder("LAB_DATA", "data")


def dataset_folder(dataset: str) -> Path:
    """The local folder of a dataset. LabError if that cannot be the name of one."""
    if not DATASET.fullmatch(str(dataset)):  # a damaged record may name anything
        raise LabError(
            f"{dataset!r} is not a valid name of a dataset: use letters, digits, '.', '_' and '-',"
            " and begin with a letter."
        )
    return data_folder() / dataset


def runs_folder() -> Path:
    """The folder of all records: LAB_RUNS, `runs` of [here] in machines.local.toml, or runs/."""
    return _folder("LAB_RUNS", "runs")


def cache_folder() -> Path:
    """The folder of this user's caches on this computer, which all projects share."""
    return Path.home() / ".cache" / CACHE


def _folder(variable: str, key: str) -> Path:
    text = os.environ.get(variable) or _local_folders().get(key, key)
    path = root() / os.path.expanduser(text)
    if path.is_symlink() and not path.exists():  # a new folder could hide the old content
        target = os.readlink(path)
        raise LabError(
            f"{relative(path)} links to {target}, which does not exist: is its disk mounted?"
        )
    return path


def _local_folders() -> dict[str, str]:
    """Read the table [here] of machines.local.toml: where `data` and `runs` are; or LabError."""
    file = "machines.local.toml"
    table = read_toml(file).get("here", {})
    folders = {}
    for key, value in table.items() if isinstance(table, dict) else [("here", table)]:
        valid = isinstance(value, str) and value.strip() and value.isprintable()
        if key not in ("data", "runs") or not valid:
            raise LabError(
                f'{root() / file}: {key} = {value!r}: [here] takes data = "FOLDER" and'
                ' runs = "FOLDER", nothing else.'
            )
        folders[key] = value
    return folders


def relative(path: Path) -> str:
    """Return a path as text, relative to the project's folder if it lies inside."""
    top = root()
    return str(path.relative_to(top) if path.is_relative_to(top) else path)
