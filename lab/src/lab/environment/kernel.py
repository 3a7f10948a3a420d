"""The project's Jupyter kernel: its name, which no other project has, and its notebooks."""

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from jupyter_core.paths import jupyter_data_dir

from lab.ground import errors, files, project

MARK = project.CACHE  # the key in kernel.json under which we keep the project's folder
CONFIG = '{"KernelSpecManager": {"allowed_kernelspecs": ["%s"]}}\n'  # of this environment's Jupyter
OURS = re.compile(re.escape(CONFIG).replace("%s", '[^"]*'))


@dataclass(frozen=True)
class Kernel:
    """A kernel of this user, and whether its Python still exists."""

    name: str
    title: str
    python: str
    folder: str  # of its project; "" if lab did not make the kernel
    state: Literal["this project", "other", "gone"]  # gone: its Python no longer exists


def kernels_folder() -> Path:
    """Return the folder where Jupyter keeps this user's kernels."""
    return Path(jupyter_data_dir(), "kernels")


def list_kernels() -> list[Kernel]:
    """List this user's kernels by name, without those that Jupyter cannot read."""
    found = (read_kernel(path.parent) for path in sorted(kernels_folder().glob("*/kernel.json")))
    return [kernel for kernel in found if kernel]


def read_kernel(path: Path) -> Kernel | None:
    """Read the kernel in a folder; None if Jupyter could not read it either."""
    try:
        spec = files.parse_json(files.read_text(path / "kernel.json"))
        python = os.fspath(spec["argv"][0])
        folder = os.fspath(spec.get("metadata", {}).get(MARK, {}).get("project", ""))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    state: Literal["this project", "other", "gone"] = "other"
    if not shutil.which(python):
        state = "gone"
    elif folder and Path(folder) == project.root():
        state = "this project"
    return Kernel(path.name, spec.get("display_name", path.name), python, folder, state)


def is_free(path: Path) -> bool:
    """Return whether the project may use a kernel folder: free, its own, or a deleted project's."""
    if not path.exists():
        return True
    kernel = read_kernel(path)
    if not kernel or not kernel.folder:
        return False
    return Path(kernel.folder) == project.root() or not Path(kernel.folder).exists()


def own_names() -> list[str]:
    """Return the names of this project's kernels."""
    return [kernel.name for kernel in list_kernels() if kernel.folder == str(project.root())]


def install() -> str:
    """Register this Python as the project's kernel, bind the notebooks to it; return what was done.

    The kernel has the project's name. If that name belongs to another folder, it gets the first
    free one of NAME-2, NAME-3, ... Kernels that the project had under another name are removed.
    """
    if not find_spec("ipykernel"):
        raise errors.LabError("ipykernel is not installed; run lab lock.")
    try:  # the part in C; importing all of ipykernel takes a second in a new environment
        import_module("zmq")
    except Exception as error:  # noqa: BLE001 - a broken package may raise anything
        raise errors.LabError(
            f"ipykernel cannot start, as zmq cannot be imported ({error!r}); delete {sys.prefix}"
            " and run python3 bootstrap.py."
        ) from None
    usual, own = project.name(), own_names()
    fitting = [name for name in own if re.fullmatch(rf"{re.escape(usual)}(-\d+)?", name)]
    names = [*fitting, usual, *(f"{usual}-{number}" for number in range(2, 1000))]
    name = next(name for name in names if is_free(kernels_folder() / name))
    title = project.title() + name.removeprefix(usual)
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": title,
        "language": "python",
        "metadata": {"debugger": True, MARK: {"project": str(project.root())}},
    }
    file = kernels_folder() / name / "kernel.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write(file, json.dumps(spec, indent=1) + "\n")
        hide_others(name)
        for other in own:
            if other != name:
                shutil.rmtree(kernels_folder() / other)
        bound = bind_notebooks(name, title)
    except OSError as error:
        raise errors.LabError(f"{errors.explain_os_error(error, file)}.") from None
    done = [name]
    if name != usual:
        done.append(f"because the name {usual} belongs to {describe_owner(usual)}")
    if bound:
        done.append(f"written into {', '.join(bound)}")
    return "; ".join(done)


def server_config() -> Path:
    """Return the path of the configuration by which this environment's Jupyter offers one kernel.

    ipykernel adds one called "Python 3", which is ours under another name.
    """
    return Path(sys.prefix, "etc", "jupyter", "jupyter_server_config.json")


def is_configured_by_user() -> bool:
    """Return whether there is such a configuration that we did not write."""
    config = server_config()
    return config.exists() and not OURS.fullmatch(files.read_text(config, "replace"))


def hide_others(name: str) -> None:
    """Make this environment's Jupyter offer only this kernel, unless the user has configured it."""
    if not is_configured_by_user():
        server_config().parent.mkdir(parents=True, exist_ok=True)
        files.write(server_config(), CONFIG % name)


def describe_owner(name: str) -> str:
    """Say whose kernel has this name."""
    kernel = read_kernel(kernels_folder() / name)
    return (kernel.folder or kernel.python) if kernel else "another program"


def bind_notebooks(name: str, title: str) -> list[str]:
    """Write the kernel's name into the Python notebooks/*.ipynb; return those that changed.

    Nothing is written without our filter, as git would then show the user's notebooks as edited.
    """
    changed: list[str] = []
    attributes = project.root() / ".gitattributes"
    text = files.read_text(attributes, "replace") if attributes.exists() else ""
    if "filter=notebook-output" not in text:
        return changed
    for path in sorted(project.root().glob("notebooks/*.ipynb")):
        if files.find_link(project.root(), f"notebooks/{path.name}"):
            continue  # another project's, perhaps
        try:
            notebook = files.parse_json(files.read_text(path))
            spec = notebook["metadata"].get("kernelspec") or {}
            is_python = spec.get("language", "python") == "python"
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # not a notebook: Jupyter will say so when it is opened
        if is_python and spec.get("name") != name:
            spec |= {"name": name, "display_name": title, "language": "python"}
            notebook["metadata"]["kernelspec"] = spec
            files.write(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
            changed.append(path.name)
    return changed


def remove() -> list[str]:
    """Remove this project's kernels from Jupyter's list; return their names."""
    if not is_configured_by_user():
        server_config().unlink(missing_ok=True)
    removed = own_names()
    for name in removed:
        shutil.rmtree(kernels_folder() / name)
    return removed
