"""The lock: all packages of the environment, compiled by uv."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from lab.environment.installed import CUDA_PACKAGES
from lab.ground import files, project
from lab.ground.errors import LabError, explain_os_error
from lab.ground.terminal import print_message

LOCAL_VERSION = re.compile(r"^(torch\w*==[^+\s;]+)\+\S+", re.M)  # torch 2.13.0+cpu
WHEEL = re.compile(r"dl_remote_lab-([^-]+)-py3-none-any\.whl")
LAB = re.compile(r"dl-remote-lab==\S+")  # replaced by its wheel, if there is one
OLDEST = (3, 10)  # Python that lab runs on
# Lines of a requirements file that include another one, or say where packages come from.
INCLUDED = re.compile(r"(?m)^[ \t]*(?:-r|--requirement)[ =]*(\S+)")
SOURCE = re.compile(r"(?m)^[ \t]*(-i|-f|--index-url|--extra-index-url|--find-links)[ =]*(\S+)")
LONG = {"-i": "--index-url", "-f": "--find-links"}
HEADER = """\
# Every package of the environment, pinned: one lock for macOS and Linux, with a GPU or without.
# Made by `lab lock` from {}; do not edit it by hand."""


def compile_lock(uv_arguments: list[str]) -> list[str]:
    """Compile the lock, keeping pins that still fit; return the lines that changed.

    One lock serves macOS and Linux, with a GPU or without: no addresses, no CUDA packages, no
    local versions. The arguments are passed to uv, such as --upgrade. LabError if uv fails.
    """
    root = project.root()
    lock = project.lock_file()
    files.refuse_links(root, [lock.name])
    draft = lock.with_name(f"{lock.name}.{os.urandom(4).hex()}")  # a name that no repository has
    dev = draft.with_name(f"{draft.name}.dev.in")
    oldest, inputs = find_oldest_python(), list_inputs()
    sources = find_sources(root / "requirements.txt") if has_requirements() else []
    before = files.read_text(lock) if lock.exists() else read_foreign_pins(root)
    try:
        draft.write_text(extract_pins(before), "utf-8")
        # uv takes no --group from a project that it does not manage
        links = ["--find-links ./vendor"] if find_wheel() else []  # an option would hide the user's
        dev.write_text("\n".join([*links, *list_other_requirements()]), "utf-8")
        command = ["pip", "compile", *inputs, dev.name, "--output-file", draft.name]
        command += ["--universal", "--python-version", oldest, "--no-annotate", "--no-header"]
        command += ["--index-strategy=unsafe-best-match"] if sources else []  # as pip takes them
        check_uv(*command, *uv_arguments)
        compiled = files.read_text(draft)
        draft.write_text(extract_pins(compiled), "utf-8")
        if LOCAL_VERSION.search(compiled):  # uv split torch by where its local versions fit:
            check_uv(*command)  # from the bare version it makes one line again
        after = format_lock(sources, extract_pins(files.read_text(draft)))
        files.write(lock, after)
    except OSError as error:
        raise LabError(f"{explain_os_error(error, lock)}.") from None
    finally:
        draft.unlink(missing_ok=True)
        dev.unlink(missing_ok=True)
    old, new = set(before.splitlines()), set(after.splitlines())
    return [f"{'+' if line in new else '-'} {line}" for line in sorted(old ^ new)]


def extract_pins(text: str) -> str:
    """Return the pins of a lock, without CUDA packages and local versions."""
    lines = (LOCAL_VERSION.sub(r"\1", line) for line in text.splitlines())
    return "".join(f"{x}\n" for x in lines if x[:1].isalnum() and not CUDA_PACKAGES.match(x))


def format_lock(sources: list[str], pins: str) -> str:
    """Put a lock together: header, sources, wheel of lab (instead of its pin), pins, project."""
    wheel = find_wheel()
    lines = [line for line in pins.splitlines() if not (wheel and LAB.match(line))]
    first = [f"./vendor/{wheel.name} # sha256 {files.sha256(wheel)}"] if wheel else []
    header = HEADER.format(" and ".join(name_inputs()))
    last = ["-e ."] if is_package() else []
    return "\n".join([header, *sources, *first, *lines, *last]) + "\n"


# --- what the project asks for --------------------------------------------------------------------


def list_inputs() -> list[str]:
    """List the files that say what the user's code needs, as uv reads them."""
    settings = project.read_toml("pyproject.toml")
    inputs = ["requirements.txt"] if has_requirements() else []
    if "project" in settings or ("build-system" in settings and is_package()):
        return ["pyproject.toml", *inputs]
    return [*(["setup.py"] if (project.root() / "setup.py").exists() else []), *inputs]


def name_inputs() -> list[str]:
    """Name all files that the lock is compiled from."""
    return list(dict.fromkeys(["pyproject.toml", *list_inputs()]))


def has_requirements() -> bool:
    """Return whether the project has a requirements.txt that is not the lock."""
    path = project.root() / "requirements.txt"
    return path != project.lock_file() and path.exists()


def list_other_requirements() -> list[str]:
    """List what else the environment needs: the group dev, and `requires` of [tool.lab]."""
    dev = project.get_table(project.read_toml("pyproject.toml"), "dependency-groups").get("dev")
    dev = dev if isinstance(dev, list) else []
    own = project.list_setting("requires", 'write a list of packages, as in ["pip>=25"]')
    return [*filter(lambda one: isinstance(one, str), dev), *own]


def is_package() -> bool:
    """Return whether the project itself is installed into its environment, by uv's rule."""
    settings = project.read_toml("pyproject.toml")
    uv, poetry = (project.get_table(settings, "tool", name) for name in ("uv", "poetry"))
    has_backend = "build-system" in settings or (project.root() / "setup.py").exists()
    return bool(uv.get("package", has_backend)) and bool(poetry.get("package-mode", True))


def find_oldest_python() -> str:
    """Return the oldest Python that the lock serves: requires-python's, or the environment's."""
    settings = project.get_table(project.read_toml("pyproject.toml"), "project")
    oldest = re.search(r">=\s*(\d{1,4})\.(\d{1,4})", str(settings.get("requires-python", "")))
    if oldest and (int(oldest[1]), int(oldest[2])) >= OLDEST:
        return f"{oldest[1]}.{oldest[2]}"
    return project.python()


def find_sources(path: Path) -> list[str]:
    """Find where a requirements file, and those it includes, say that packages come from.

    Each file is read once, however often it is included.
    """
    found: list[str] = []
    waiting, seen = [path.resolve()], set[Path]()
    while waiting:
        path = waiting.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        text = files.read_text(path)
        found += (f"{LONG.get(option, option)} {value}" for option, value in SOURCE.findall(text))
        included = [(path.parent / name).resolve() for name in INCLUDED.findall(text)]
        waiting += reversed(included)
    return list(dict.fromkeys(found))


def read_foreign_pins(root: Path) -> str:
    """Return the pins of a uv.lock or poetry.lock, to start a first lock from; "" if none."""
    for name in ("uv.lock", "poetry.lock"):
        with suppress(OSError, ValueError, LookupError, TypeError):
            packages = project.parse_toml(files.read_text(root / name))["package"]
            found = [(one["name"], one["version"]) for one in packages if "version" in one]
            times = Counter(name for name, _ in found)
            return "".join(f"{n}=={v}\n" for n, v in found if times[n] == 1)
    return ""


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

    `env`: variables in addition to ours.
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
        errors="replace",
        check=False,
    )


def find_default_index() -> str:
    """Find the package index that pip asks if nobody names one; "" without pip."""
    try:
        from pip._internal.models.index import PyPI  # pip names it nowhere else
    except ImportError:
        return ""
    return str(PyPI.simple_url)
