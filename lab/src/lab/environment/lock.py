"""requirements.txt: every package of the environment, compiled from pyproject.toml by uv."""

import os
import re
import subprocess
import sys
from pathlib import Path

from lab.ground import files, project
from lab.ground.errors import LabError

# torch pins its CUDA libraries itself; in the lock they would cost CPU machines gigabytes.
LOCAL_VERSION = re.compile(r"^(torch\w*==[^+\s;]+)\+\S+", re.M)  # torch 2.13.0+cpu
CUDA_PACKAGES = re.compile(r"(nvidia-|cuda-|triton\b)")
WHEEL = re.compile(r"dl_remote_lab-([^-]+)-py3-none-any\.whl")
LAB = re.compile(r"dl-remote-lab==\S+")  # its wheel stands in its place, if there is one
HEADER = """\
# Every package of the environment, pinned: one lock for macOS and Linux, with a GPU or without.
# Made by `lab lock` from pyproject.toml; do not edit it by hand."""


def compile_lock(uv_arguments: list[str]) -> list[str]:
    """Compile requirements.txt anew; what is pinned there stays if it still fits. The changes.

    One lock serves macOS and Linux, with a GPU or without: no addresses, no CUDA packages, no
    local versions. Further arguments are uv's, such as --upgrade. LabError if uv fails.
    """
    root = project.root()
    lock = root / "requirements.txt"
    draft = lock.with_name(f"{lock.name}.{os.getpid()}")
    wanted = project.read_toml("pyproject.toml").get("project", {}).get("requires-python", "")
    oldest = re.search(r">=\s*([0-9.]+)", str(wanted))
    if not oldest:
        raise LabError("requires-python in pyproject.toml has to name the oldest: >=3.10.")
    before = lock.read_text("utf-8") if lock.exists() else ""
    try:
        draft.write_text(pins(before), "utf-8")
        command = ["pip", "compile", "pyproject.toml", "--group=dev", "--output-file", draft.name]
        command += ["--universal", "--python-version", oldest[1], "--no-annotate", "--no-header"]
        command += ["--find-links", "vendor"] if wheel() else []
        uv(*command, *uv_arguments)
        compiled = draft.read_text("utf-8")
        draft.write_text(pins(compiled), "utf-8")
        if LOCAL_VERSION.search(compiled):  # uv split torch by where its local versions fit:
            uv(*command)  # from the bare version it makes one line again
        after = whole(pins(draft.read_text("utf-8")))
        files.write(lock, after)
    except OSError as error:
        raise LabError(f"{error.filename or lock}: {error.strerror}.") from None
    finally:
        draft.unlink(missing_ok=True)
    old, new = set(before.splitlines()), set(after.splitlines())
    return [f"{'+' if line in new else '-'} {line}" for line in sorted(old ^ new)]


def pins(text: str) -> str:
    """Of a lock the pins alone, without CUDA packages and local versions."""
    lines = (LOCAL_VERSION.sub(r"\1", line) for line in text.splitlines())
    return "".join(f"{x}\n" for x in lines if x[:1].isalpha() and not CUDA_PACKAGES.match(x))


def whole(pinned: str) -> str:
    """The lock: our header, the wheel of lab in place of its pin, the pins, and the project."""
    found = wheel()
    lines = [line for line in pinned.splitlines() if not (found and LAB.match(line))]
    first = [f"./vendor/{found.name} # sha256 {files.sha256(found)}"] if found else []
    return "\n".join([HEADER, *first, *lines, "-e ."]) + "\n"


def wheel() -> Path | None:
    """The wheel of lab in this project; None for a team that has it on a package index."""
    found = sorted(project.root().glob("vendor/dl_remote_lab-*.whl"))
    if len(found) > 1:
        raise LabError(f"vendor/ holds {len(found)} wheels of lab: keep the one you want.")
    return found[0] if found else None


def uv(*arguments: object) -> None:
    """Run the uv that bootstrap.py uses, in the project; LabError if it fails."""
    done = run_uv("--quiet", *arguments)
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["it said nothing"]
        cause = next((line for line in lines if line.startswith("error")), lines[-1])
        print(*lines, sep="\n", file=sys.stderr)
        raise LabError(f"uv {arguments[0]} {arguments[1]} failed: {cause.strip()}")


def run_uv(*arguments: object, text: str | None = None) -> subprocess.CompletedProcess:
    """uv as bootstrap.py finds and calls it; what it printed comes in one."""
    root = project.root()
    command = [sys.executable, root / "bootstrap.py", "--uv", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    given = {"input": text} if text is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run([str(word) for word in command], cwd=root, **pipes, **given)
