"""Where things are in this project, and the settings that pyproject.toml keeps for it."""

import os
import re
import sys
import threading
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATASET = re.compile("[A-Za-z][A-Za-z0-9._-]*")


class UserError(Exception):
    """A mistake that the person at the keyboard can mend: one line, the cause and the next step."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it."""
        return [f"error: {self}"]


@cache
def toml(name: str) -> dict:
    """The content of a TOML file in the project's folder; {} if there is none."""
    path = ROOT / name
    try:
        return parse_toml(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def parse_toml(text: str) -> dict:
    """The content of a TOML text; ValueError if it is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def name() -> str:
    """The project's short name; the Jupyter kernel is called so too."""
    return toml("pyproject.toml")["project"]["name"]


def package() -> str:
    """The name of the experiment's package in src/."""
    return toml("pyproject.toml")["tool"]["uv"]["build-backend"]["module-name"][0]


def title() -> str:
    """The project's name as people read it."""
    return toml("pyproject.toml")["tool"]["lab"]["title"]


def default_dataset() -> str:
    """The dataset that a run takes unless it is told another one."""
    return toml("pyproject.toml")["tool"]["lab"]["dataset"]


def data_folder() -> Path:
    """Of all datasets: LAB_DATA, or `data` under [here] in machines.local.toml, or data/."""
    return _folder("LAB_DATA", "data")


def dataset_folder(dataset: str) -> Path:
    """Where a dataset lies here. UserError for what is no name of one."""
    if not DATASET.fullmatch(dataset):
        raise UserError(
            f"{dataset!r} is no name of a dataset: letters, digits, '.', '_' and '-', beginning"
            " with a letter."
        )
    return data_folder() / dataset


def runs_folder() -> Path:
    """Of all records: LAB_RUNS, or `runs` under [here] in machines.local.toml, or runs/."""
    return _folder("LAB_RUNS", "runs")


def _folder(variable: str, key: str) -> Path:
    told = os.environ.get(variable) or _here().get(key, key)
    path = ROOT / os.path.expanduser(told)
    if path.is_symlink() and not path.exists():  # a new folder in its place would not be seen
        target = os.readlink(path)
        raise UserError(f"{shown(path)} is a link to {target}, which is not there: mount its disk?")
    return path


def _here() -> dict[str, str]:
    """The table [here] of machines.local.toml, checked: where `data` and `runs` are."""
    file = "machines.local.toml"
    table = toml(file).get("here", {})
    for key, value in table.items() if isinstance(table, dict) else [("here", table)]:
        text = isinstance(value, str) and value.strip() and value.isprintable()
        if key not in ("data", "runs") or not text:
            raise UserError(
                f'{ROOT / file}: {key} = {value!r}: [here] takes data = "FOLDER" and'
                ' runs = "FOLDER", nothing else.'
            )
    return table


def shown(path: Path) -> str:
    """A path as people want to read it: from the project's folder if it lies in there."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def write(path: Path, text: str | bytes, lasting: bool = True) -> bool:
    """Write a file so that nobody ever sees half of it, if `lasting` not even after a power cut.

    One that holds the same already is left alone: False. One that was there keeps its mode.
    """
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    path = Path(os.path.realpath(path))  # a link into a repository of dotfiles stays one
    if path.exists() and path.read_bytes() == content:
        return False
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with draft.open("wb") as file:
            if path.exists():
                os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
            file.write(content)
            file.flush()
            if lasting:  # else some file systems keep the new name and lose the content
                os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return True


def sha256(path: Path) -> str:
    """Of a file's content, whatever its size; OSError if it cannot be read."""
    import hashlib  # slow to import

    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            total.update(piece)
    return total.hexdigest()
