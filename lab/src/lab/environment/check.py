"""Is this computer up to date with the project? Step by step, changing nothing."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.environment import lock, repository
from lab.ground import files, project
from lab.ground.errors import LabError

STAMP = "lab-environment.json"  # bootstrap.py leaves it in an environment that is whole
SET_UP = "python3 bootstrap.py"


class Stale(Exception):
    """Something is not up to date: what, in words."""


def check() -> list[dict[str, str]]:
    """A row for each part: state (ok, stale or skipped), part, details."""
    steps: dict[str, Callable[[], str]] = {
        "environment": environment,
        "packages": packages,
        "lab": package,
        "kernel": kernel,
        "repository": lambda: repository.check(project.root()),
    }
    rows = []
    for part, step in steps.items():
        try:
            state, details = "ok", step()
        except repository.Skip as reason:
            state, details = "skipped", str(reason)
        except (Stale, LabError, repository.Problem, OSError) as error:
            state, details = "stale", str(error)
        rows.append({"state": state, "part": part, "details": details})
    return rows


def read_stamp(environment: Path) -> dict[str, Any]:
    """What bootstrap.py says of an environment that it has made; {} if it is none, or not whole."""
    try:
        stamp = json.loads((environment / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def venv() -> Path:
    """The project's environment; LabError if there is none."""
    place = project.root() / ".venv"
    if not os.access(place / "bin/python", os.X_OK):
        raise Stale(".venv is missing, or has lost its Python")
    return place


def environment() -> str:
    """Whether .venv is whole and that of this lock."""
    stamp = read_stamp(venv())
    if not stamp:
        raise Stale(".venv was not made by bootstrap.py, or not wholly")
    digest = files.sha256(project.root() / "requirements.txt")
    python = project.python()
    if stamp.get("python") != python:
        raise Stale(".venv is for another Python")
    if stamp.get("lock") != digest:
        raise Stale(".venv is older than requirements.txt")
    torch = next(venv().glob("lib/python*/site-packages/torch-*.dist-info"), None)
    build = torch.name[len("torch-") : -len(".dist-info")] if torch else "is not installed"
    return f"Python {python}, lock {digest[:12]}, torch {build}"


def packages() -> str:
    """Hold the installed packages against the lock, and the lock against pyproject.toml."""
    text = (project.root() / "requirements.txt").read_text("utf-8")
    if would_change(lock.pins(text)):
        raise Stale("some are missing or differ from requirements.txt")
    table = project.read_toml("pyproject.toml").get("project", {})
    asked = [str(one) for one in table.get("dependencies", [])]
    if would_change("\n".join(one for one in asked if not lock.LAB.match(one))):
        raise Stale("requirements.txt lacks what pyproject.toml asks for; first: lab lock")
    count = len(list(venv().glob("lib/python*/site-packages/*.dist-info")))
    return f"{count} installed, as locked"


def would_change(requirements: str) -> bool:
    """Whether the environment lacks something of this list."""
    asked = ["pip", "install", "--dry-run", "--offline", "--python", venv(), "--requirement", "-"]
    done = lock.run_uv(*asked, text=requirements)
    return done.returncode != 0 or "Would make no changes" not in done.stdout


def package() -> str:
    """Whether the wheel of lab is the one that the lock names, and the one that is installed."""
    wheel = lock.wheel()
    if not wheel:
        raise repository.Skip("no wheel in vendor/: it comes from a package index")
    lines = (project.root() / "requirements.txt").read_text("utf-8").splitlines()
    if f"./vendor/{wheel.name} # sha256 {files.sha256(wheel)}" not in lines:
        raise Stale(f"requirements.txt does not name {wheel.name}; first: lab lock")
    named = lock.WHEEL.fullmatch(wheel.name)
    version = named[1] if named else wheel.name
    if not list(venv().glob(f"lib/python*/site-packages/dl_remote_lab-{version}.dist-info")):
        raise Stale(f".venv has another lab than {version}")
    return version


def kernel() -> str:
    """Whether Jupyter has this project's kernel."""
    from lab.environment import kernel as jupyter

    venv()
    names = [one.name for one in jupyter.list_kernels() if one.state == "this project"]
    if not names:
        raise Stale("not registered with Jupyter")
    return ", ".join(names)
