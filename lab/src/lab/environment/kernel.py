"""The project's Jupyter kernel: its name, which is nobody else's, and the notebooks bound to it."""

import json
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from jupyter_core.paths import jupyter_data_dir

from lab.ground import errors, files, project

MARK = project.CACHE  # in kernel.json: made by us, and for which folder


@dataclass(frozen=True)
class Kernel:
    """A kernel of this user, and whether its environment is still there."""

    name: str
    title: str
    python: str
    folder: str  # of the project it belongs to; "" if we did not make it
    state: str  # "this project", "other", "gone": its Python is not there any more


def folder() -> Path:
    """Where Jupyter keeps the kernels of this user."""
    return Path(jupyter_data_dir(), "kernels")


def list_kernels() -> list[Kernel]:
    """Every kernel of this user, by name; one whose kernel.json is broken is left out."""
    found = (read(path.parent) for path in sorted(folder().glob("*/kernel.json")))
    return [kernel for kernel in found if kernel]


def read(path: Path) -> Kernel | None:
    """The kernel in one folder, or None if Jupyter could not read it either."""
    try:
        spec = json.loads((path / "kernel.json").read_text("utf-8"))
        python = spec["argv"][0]
        belongs = spec.get("metadata", {}).get(MARK, {}).get("project", "")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    if not shutil.which(python):
        state = "gone"
    else:
        state = "this project" if belongs and Path(belongs) == project.root() else "other"
    return Kernel(path.name, spec.get("display_name", path.name), python, belongs, state)


def may_take(path: Path) -> bool:
    """Whether a kernel folder is free, this project's, or of one of our projects that is gone."""
    if not path.exists():
        return True
    kernel = read(path)
    if not kernel or not kernel.folder:
        return False
    return Path(kernel.folder) == project.root() or not Path(kernel.folder).exists()


def mine() -> list[str]:
    """The names of this project's kernels."""
    return [kernel.name for kernel in list_kernels() if kernel.folder == str(project.root())]


def install() -> str:
    """Register this Python as the project's kernel and bind the notebooks to it; what was done.

    The name is the project's. If a kernel of that name belongs to another folder, that one stays
    and the first free of NAME-2, NAME-3, ... is taken.
    """
    if not find_spec("ipykernel"):
        raise errors.LabError("ipykernel is not installed; run lab lock.")
    try:
        import_module("ipykernel")
    except Exception as error:
        raise errors.LabError(
            f"ipykernel cannot be imported ({error!r}); delete {sys.prefix} and run"
            " python3 bootstrap.py."
        ) from None
    wanted = project.name()
    names = [*mine(), wanted, *(f"{wanted}-{number}" for number in range(2, 1000))]
    name = next(name for name in names if may_take(folder() / name))
    title = project.title() + name.removeprefix(wanted)
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": title,
        "language": "python",
        "metadata": {"debugger": True, MARK: {"project": str(project.root())}},
    }
    place = folder() / name / "kernel.json"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write(place, json.dumps(spec, indent=1) + "\n")
        offer_only(name)
        bound = bind_notebooks(name, title)
    except OSError as error:
        raise errors.LabError(f"{error.filename}: {error.strerror}.") from None
    said = [name]
    if name != wanted:
        said.append(f"because the name {wanted} belongs to {owner(wanted)}")
    if bound:
        said.append(f"written into {', '.join(bound)}")
    return "; ".join(said)


def only() -> Path:
    """The settings by which a Jupyter of this environment offers the project's kernel alone.

    ipykernel brings one called "Python 3", which is the same without the name.
    """
    return Path(sys.prefix, "etc", "jupyter", "jupyter_server_config.json")


def offer_only(name: str) -> None:
    """Write these settings, unless the user has some of their own in their place."""
    ours = '{"KernelSpecManager": {"allowed_kernelspecs": ["'
    if not only().exists() or only().read_text("utf-8").startswith(ours):
        only().parent.mkdir(parents=True, exist_ok=True)
        files.write(only(), f'{ours}{name}"]}}}}\n')


def owner(name: str) -> str:
    """Whose kernel that is, in words."""
    kernel = read(folder() / name)
    return (kernel.folder or kernel.python) if kernel else "another program"


def bind_notebooks(name: str, title: str) -> list[str]:
    """Write the kernel's name into the Python notebooks/*.ipynb; returns those that changed."""
    changed = []
    for path in sorted(project.root().glob("notebooks/*.ipynb")):
        try:
            notebook = json.loads(path.read_text("utf-8"))
            spec = notebook["metadata"].get("kernelspec") or {}
            foreign = spec.get("language", "python") != "python"
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # half-written or no notebook: Jupyter will say so when it is opened
        if not foreign and spec.get("name") != name:
            spec |= {"name": name, "display_name": title, "language": "python"}
            notebook["metadata"]["kernelspec"] = spec
            files.write(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
            changed.append(path.name)
    return changed


def remove() -> list[str]:
    """Take this project's kernels out of Jupyter's list; nobody else's."""
    only().unlink(missing_ok=True)
    removed = mine()
    for name in removed:
        shutil.rmtree(folder() / name)
    return removed
