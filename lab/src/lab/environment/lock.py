"""The lock requirements.txt: all packages of the environment, compiled by uv."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from lab.ground import files, project
from lab.ground.errors import LabError
from lab.ground.terminal import print_message

# torch pins its CUDA libraries itself; in the lock they would cost CPU machines gigabytes.
LOCAL_VERSION = re.compile(r"^(torch\w*==[^+\s;]+)\+\S+", re.M)  # torch 2.13.0+cpu
CUDA_PACKAGES = re.compile(r"(nvidia-|cuda-|triton\b)")
WHEEL = re.compile(r"dl_remote_lab-([^-]+)-py3-none-any\.whl")
LAB = re.compile(r"dl-remote-lab==\S+")  # replaced by its wheel, if there is one
HEADER = """\
# Every package of the environment, pinned: one lock for macOS and Linux, with a GPU or without.
# Made by `lab lock` from pyproject.toml; do not edit it by hand."""


def compile_lock(uv_arguments: list[str]) -> list[str]:
    """Compile requirements.txt, keeping pins that still fit; return the lines that changed.

    One lock serves macOS and Linux, with a GPU or without: no addresses, no CUDA packages, no
    local versions. Further arguments are uv's, such as --upgrade. LabError if uv fails.
    """
    root = project.root()
    lock = root / "requirements.txt"
    draft = lock.with_name(f"{lock.name}.{os.getpid()}")
    dev = lock.with_name(f"{lock.name}.{os.getpid()}.dev.in")
    pythons = project.read_toml("pyproject.toml").get("project", {}).get("requires-python", "")
    oldest = re.search(r">=\s*([0-9.]+)", str(pythons))
    if not oldest:
        raise LabError("requires-python in pyproject.toml must name the oldest Python: >=3.10.")
    before = files.read_text(lock) if lock.exists() else ""
    try:
        draft.write_text(extract_pins(before), "utf-8")
        # uv takes no --group from a project that it does not manage
        more = project.read_toml("pyproject.toml").get("dependency-groups", {}).get("dev", [])
        dev.write_text("\n".join(map(str, more)), "utf-8")
        command = ["pip", "compile", "pyproject.toml", dev.name, "--output-file", draft.name]
        command += ["--universal", "--python-version", oldest[1], "--no-annotate", "--no-header"]
        command += ["--find-links", "vendor"] if find_wheel() else []
        check_uv(*command, *uv_arguments)
        compiled = files.read_text(draft)
        draft.write_text(extract_pins(compiled), "utf-8")
        if LOCAL_VERSION.search(compiled):  # uv split torch by where its local versions fit:
            check_uv(*command)  # from the bare version it makes one line again
        after = format_lock(extract_pins(files.read_text(draft)))
        files.write(lock, after)
    except OSError as error:
        raise LabError(f"{error.filename or lock}: {error.strerror}.") from None
    finally:
        draft.unlink(missing_ok=True)
        dev.unlink(missing_ok=True)
    old, new = set(before.splitlines()), set(after.splitlines())
    return [f"{'+' if line in new else '-'} {line}" for line in sorted(old ^ new)]


def extract_pins(text: str) -> str:
    """Return the pins of a lock, without CUDA packages and local versions."""
    lines = (LOCAL_VERSION.sub(r"\1", line) for line in text.splitlines())
    return "".join(f"{x}\n" for x in lines if x[:1].isalpha() and not CUDA_PACKAGES.match(x))


def format_lock(pins: str) -> str:
    """Put a lock together: header, wheel of lab (instead of its pin), pins, and the project."""
    wheel = find_wheel()
    lines = [line for line in pins.splitlines() if not (wheel and LAB.match(line))]
    first = [f"./vendor/{wheel.name} # sha256 {files.sha256(wheel)}"] if wheel else []
    return "\n".join([HEADER, *first, *lines, "-e ."]) + "\n"


def find_wheel() -> Path | None:
    """Return the wheel of lab in this project; None if it comes from a package index."""
    found = sorted(project.root().glob("vendor/dl_remote_lab-*.whl"))
    if len(found) > 1:
        raise LabError(f"vendor/ holds {len(found)} wheels of lab: delete all but one.")
    return found[0] if found else None


def check_uv(*arguments: str | Path) -> None:
    """Run the project's uv; if it fails, print what it said, and raise LabError."""
    done = run_uv("--quiet", *arguments)
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["it gave no reason"]
        cause = next((line for line in lines if line.startswith("error")), lines[-1])
        print_message(*lines, sep="\n")
        raise LabError(f"uv {arguments[0]} {arguments[1]} failed: {cause.strip()}")


def run_uv(
    *arguments: str | Path, text: str | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run uv as bootstrap.py finds and calls it; both its outputs are in stdout.

    `env`: variables that it has beside ours.
    """
    root = project.root()
    return subprocess.run(
        [sys.executable, root / "bootstrap.py", "--uv", *arguments],
        cwd=root,
        env={**os.environ, **(env or {})},
        input=text or "",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )


def find_default_index() -> str:
    """Find the package index that pip asks if nobody names one; "" without pip."""
    try:
        from pip._internal.models.index import PyPI  # it says so nowhere else
    except ImportError:
        return ""
    return str(PyPI.simple_url)
