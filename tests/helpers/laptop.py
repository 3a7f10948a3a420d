"""The project on the test bed's laptop, set up on the worker."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from helpers import hosts as bed
from helpers.projects import (
    EVERY_STEP,
    RECORDED,
    UV_CACHE,
    Project,
    cookiecutter,
    python_of,
    shorten,
)

# What is installed in them, besides lab; "served" is for Jupyter, TensorBoard and plots.
SNAPSHOTS = {
    "ready": RECORDED,
    "served": (*RECORDED, "jupyter", "matplotlib", "pandas", "tensorboard"),
}
EXPERIMENT = Path(__file__).with_name("small_experiment.py")
# Imports all of lab, and with it numpy, Sacred and pydantic: Python keeps them compiled.
IMPORT_ALL = """
import importlib, lab, pkgutil
for module in pkgutil.walk_packages(lab.__path__, "lab."):
    importlib.import_module(module.name)
"""
# What JupyterLab and a kernel import on the worker, and TensorBoard on the laptop.
IMPORT_JUPYTER = """
import debugpy.server.api, httpcore, httpx, ipykernel.debugger, ipykernel.kernelapp
import jupyter_lsp, psutil
import jupyter_server.services.kernels.connection.channels, jupyter_server_terminals
import jupyterlab.labapp, notebook.app
"""
IMPORT_BOARD = "import tensorboard.default, tensorboard.main"


def start_hosts(folder: Path, shared: Path | None = None) -> bed.Hosts:
    """The three hosts, in that folder, with the uv and the Python of the tests."""
    return bed.Hosts(folder, *find_programs(), shared)


def find_programs() -> tuple[str, str, str]:
    """The uv, its cache and the Python of the tests."""
    python = os.path.realpath(sys.executable) if sys.version_info[:2] == (3, 11) else None
    return shutil.which("uv"), UV_CACHE, python or python_of("3.11")


@dataclass(frozen=True)
class Laptop(Project):
    """The project on the test bed's laptop; `path` is where it lies on the real machine."""

    hosts: bed.Hosts = None
    inside: str = "/home/ada/my-experiment"

    def run(self, *command, check=True, **options) -> subprocess.CompletedProcess:
        """Run a command on the laptop, in the project, with its environment first in PATH."""
        return self.hosts.laptop.run(*command, check=check, **self._options(options))

    def popen(self, *command, **options) -> subprocess.Popen:
        return self.hosts.laptop.popen(*command, **self._options(options))

    def _options(self, options: dict) -> dict:
        environment = self.hosts.laptop.environment()
        path = f"{self.inside}/.venv/bin:{environment['PATH']}"
        env = {"PATH": path, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
        return {"cwd": self.inside, "env": env, **options}

    def lab(self, *arguments, **options) -> str:
        """What a lab command printed; with check=False the finished process."""
        done = self.run("lab", *arguments, **options)
        return done if options.get("check") is False else done.stdout

    def there(self, name: str) -> Path:
        """A file in the project's folder on the worker."""
        return self.hosts.worker.home / "lab/my-experiment" / name


def make_small_project(folder: Path, names=RECORDED, **answers) -> Project:
    """Bake a project in that folder whose experiment is small, with its environment."""
    done = cookiecutter(folder, skip=EVERY_STEP, **answers)
    assert done.returncode == 0, done.stdout
    small = Project(folder / "my-experiment")
    shorten(small, names)
    shutil.copy(EXPERIMENT, small.path / "src/my_experiment/experiment.py")
    small.bootstrap("--no-kernel")
    return small


def settle(hosts: bed.Hosts, snapshot: str) -> Laptop:
    """Bring the hosts to one of SNAPSHOTS: a small project on the laptop, set up on the worker."""
    laptop = Laptop(hosts.laptop.home / "my-experiment", hosts=hosts)
    with hosts.shared_snapshot(snapshot) as ours:
        if ours:
            hosts.clean()
            _set_up(laptop, SNAPSHOTS[snapshot])
    hosts.clean(snapshot)
    return laptop


def _set_up(laptop: Laptop, names: tuple[str, ...]) -> None:
    answers = {"remote": "ada@worker", "remote_gateway": "ada@gateway"}
    with tempfile.TemporaryDirectory() as folder:
        small = make_small_project(Path(folder), names, **answers)
        shutil.move(small.path, laptop.path)
    laptop.lab("setup")
    # as any git status of the user does: otherwise each command filters the notebooks again
    laptop.git("status", "--short")
    # each test starts from this snapshot, and need not compile what is compiled in it
    local, remote = (IMPORT_BOARD, IMPORT_JUPYTER) if "jupyter" in names else ("", "")
    laptop.run("python", "-c", IMPORT_ALL + local)
    python = "lab/my-experiment/work/.venv/bin/python"
    laptop.hosts.worker.run(python, "-c", IMPORT_ALL + remote)
