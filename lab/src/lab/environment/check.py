"""Check whether this computer is up to date with the project, changing nothing."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.environment import installed, lock, repository
from lab.ground import files, project
from lab.ground.errors import LabError

STAMP = "lab-environment.json"  # bootstrap.py writes it into an environment that is complete
SET_UP = "python3 bootstrap.py"


class Stale(Exception):
    """A part that is not up to date: why, in words."""


def check() -> list[dict[str, str]]:
    """Return a row for each part: state (ok, stale or skipped), part, details."""
    parts: dict[str, Callable[[], str]] = {
        "environment": check_environment,
        "packages": check_packages,
        "lab": check_lab,
        "kernel": check_kernel,
        "repository": lambda: repository.check(project.root()),
    }
    rows = []
    for part, check_part in parts.items():
        try:
            state, details = "ok", check_part()
        except repository.Skip as reason:
            state, details = "skipped", str(reason)
        except (Stale, LabError, repository.Problem, OSError) as error:
            state, details = "stale", str(error)
        rows.append({"state": state, "part": part, "details": details})
    return rows


def read_stamp(environment: Path) -> dict[str, Any]:
    """Read what bootstrap.py wrote into an environment; {} if it did not make it, or not all."""
    try:
        stamp = files.parse_json(files.read_text(environment / STAMP))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def find_environment() -> Path:
    """Return the project's environment; Stale if there is none."""
    folder = project.root() / ".venv"
    if not os.access(folder / "bin/python", os.X_OK):
        raise Stale(".venv is missing, or has lost its Python")
    return folder


def check_environment() -> str:
    """Check that .venv is complete, and made from this lock."""
    environment = find_environment()
    stamp = read_stamp(environment)
    if not stamp:
        raise Stale(".venv was not made by bootstrap.py, or is incomplete")
    digest = files.sha256(project.lock_file())
    python = project.python()
    if stamp.get("python") != python:
        raise Stale(".venv is for another Python")
    if stamp.get("lock") != digest:
        raise Stale(f".venv is older than {project.lock_file().name}")
    torch = next(environment.glob("lib/python*/site-packages/torch-*.dist-info"), None)
    build = torch.name[len("torch-") : -len(".dist-info")] if torch else "is not installed"
    return f"Python {python}, lock {digest[:12]}, torch {build}"


def check_packages() -> str:
    """Compare the installed packages with the lock, and the lock with pyproject.toml."""
    environment = find_environment()
    text = files.read_text(project.lock_file())
    if differences := installed.find_differences(environment):
        raise Stale(f"differ from {project.lock_file().name}: {installed.summarize(differences)}")
    table = project.read_toml("pyproject.toml").get("project", {})
    required = [*map(str, table.get("dependencies", [])), *lock.list_other_requirements()]
    required += ["-r requirements.txt"] if lock.has_requirements() else []
    pins, asked = lock.extract_pins(text), [one for one in required if not lock.LAB.match(one)]
    # one call of uv first: nearly always nothing is missing
    if not has_installed("\n".join([pins, *asked])):
        if not has_installed(pins):
            raise Stale(f"some are missing or differ from {project.lock_file().name}")
        if not has_installed("\n".join(asked)):
            inputs = " or ".join(lock.name_inputs())
            raise Stale(f"{project.lock_file().name} lacks what {inputs} asks for; first: lab lock")
    count = len(list(environment.glob("lib/python*/site-packages/*.dist-info")))
    return f"{count} installed, as locked"


def has_installed(requirements: str) -> bool:
    """Return whether the environment has everything on this list."""
    command = ["pip", "install", "--dry-run", "--offline", "--requirement", "-", "--python"]
    done = lock.run_uv(*command, find_environment(), text=requirements)
    return done.returncode == 0 and "Would make no changes" in done.stdout


def check_lab() -> str:
    """Check that the lock names the wheel of lab in vendor/, and that it is installed."""
    wheel = lock.find_wheel()
    if not wheel:
        raise repository.Skip("no wheel in vendor/: it comes from a package index")
    lines = files.read_text(project.lock_file()).splitlines()
    if f"./vendor/{wheel.name} # sha256 {files.sha256(wheel)}" not in lines:
        raise Stale(f"{project.lock_file().name} does not name {wheel.name}; first: lab lock")
    named = lock.WHEEL.fullmatch(wheel.name)
    version = named[1] if named else wheel.name
    pattern = f"lib/python*/site-packages/dl_remote_lab-{version}.dist-info"
    if not list(find_environment().glob(pattern)):
        raise Stale(f".venv does not have lab {version}")
    return version


def check_kernel() -> str:
    """Check that the project's kernel is registered with Jupyter."""
    from lab.environment import kernel

    find_environment()
    names = [one.name for one in kernel.list_kernels() if one.state == "this project"]
    if not names:
        raise Stale("not registered with Jupyter")
    return ", ".join(names)
