"""Compare what is installed in an environment with the project's lock."""

import re
import sys
from contextlib import suppress
from pathlib import Path

from lab.environment import markers
from lab.ground import files, project

DIST_INFO = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)\.dist-info")
PIN = re.compile(
    r"(?P<name>[\w.-]+)(?:==(?P<version>[^\s;]+)| @ (?P<address>\S+))\s*(?:;\s*(?P<marker>.+))?"
)
# torch pins its CUDA libraries itself; in the lock they would cost CPU machines gigabytes.
CUDA_PACKAGES = re.compile(r"(nvidia-|cuda-|triton\b)")


def find_differences(environment: Path, locked_by: Path | None = None) -> list[str]:
    """List the packages that differ from the lock, such as "numpy 2.0.1, locked 2.4.6".

    The lock is the project's own, or the file `locked_by`. Packages that the lock lacks count,
    except the project, lab, and the CUDA libraries that torch brings. [] if there is no lock.
    Takes some milliseconds: packages are compared by name and version, not by their files.
    """
    path = locked_by or project.lock_file()
    if not path.exists():
        return []
    locked = read_pins(files.read_text(path))
    installed = list_installed(environment)
    own = {"dl-remote-lab", normalize(project.name())}
    differences = []
    if not installed.keys() <= {*locked, *own}:
        own |= find_own(environment)
    for name in sorted({*locked, *installed} - own):
        wanted, found = locked.get(name), installed.get(name)
        if name in locked and not found:
            differences.append(f"{name} is missing, locked {wanted or 'by its address'}")
        elif found and name not in locked and not CUDA_PACKAGES.match(name):
            differences.append(f"{name} {found}, not locked")
        elif found and wanted and found.partition("+")[0] != wanted.partition("+")[0]:
            differences.append(f"{name} {found}, locked {wanted}")
    return differences


def find_dist_info(name: str) -> Path | None:
    """Find the *.dist-info folder of a package that this process can import.

    importlib.metadata does the same, but importing it takes longer than the rest of a record.
    """
    for folder in sys.path:
        for path in Path(folder).glob("*.dist-info"):
            found = DIST_INFO.fullmatch(path.name)
            if found and normalize(found["name"]) == name:
                return path
    return None


def find_version(name: str) -> str | None:
    """Find the version of an installed package; None if there is none."""
    path = find_dist_info(name)
    found = path and DIST_INFO.fullmatch(path.name)
    return found["version"] if found else None


def find_own(environment: Path) -> set[str]:
    """Find what is installed from the folder around the environment: the project, renamed or not.

    A run from before a rename is repeated under the project's old name.
    """
    own = set()
    for path in environment.glob("lib/python*/site-packages/*.dist-info/direct_url.json"):
        with suppress(OSError, ValueError, AttributeError):  # unreadable, or not an object
            origin = files.parse_json(files.read(path))
            name = DIST_INFO.fullmatch(path.parent.name)
            if name and origin.get("url") == environment.resolve().parent.as_uri():
                own.add(normalize(name["name"]))
    return own


def summarize(differences: list[str]) -> str:
    """Name the first three, and how many others there are."""
    others = f" and {len(differences) - 3} others" if len(differences) > 3 else ""
    return "; ".join(differences[:3]) + others


def read_pins(text: str) -> dict[str, str]:
    """Return {package: version} of the lines of a lock that apply to this system and Python.

    The version is "" if the lock has the address of a package instead.
    """
    pins = [pin for pin in map(PIN.match, text.splitlines()) if pin]
    holds = {marker: not marker or markers.holds(marker) for marker in {p["marker"] for p in pins}}
    return {normalize(pin["name"]): pin["version"] or "" for pin in pins if holds[pin["marker"]]}


def list_installed(environment: Path) -> dict[str, str]:
    """Return {package: version} of an environment, by the names of its *.dist-info folders."""
    paths = environment.glob("lib/python*/site-packages/*.dist-info")
    found = (DIST_INFO.fullmatch(path.name) for path in paths)
    return {normalize(one["name"]): one["version"] for one in found if one}


def normalize(name: str) -> str:
    """Write a package's name as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
