"""Which lab recorded a run: its version, its wheel, and whether its files were changed."""

import binascii
import hashlib
import zipimport
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.environment.installed import DIST_INFO, find_dist_info
from lab.ground import files, project
from lab.ground.errors import LabError

DISTRIBUTION = "dl-remote-lab"
read_wheels: set[Path] = set()  # wheels that this process has read


def identify() -> dict[str, Any]:
    """Return `version`, `wheel_sha256` (None without a wheel in vendor/) and `problem`, if any."""
    dist_info = find_dist_info(DISTRIBUTION)
    named = dist_info and DIST_INFO.fullmatch(dist_info.name)
    if not dist_info or not named:
        return {"version": None, "wheel_sha256": None, "problem": "lab is not installed."}
    version = named["version"]
    wheel = find_wheel(version)
    facts = {"version": version, "wheel_sha256": wheel and files.sha256_or_none(wheel)}
    if is_editable(dist_info):
        return {**facts, "problem": "lab is installed as editable: its code is not recorded."}
    changed = find_changed_files(dist_info.parent, wheel, dist_info)
    problem = (
        f"lab was changed after its installation: {', '.join(changed[:3])}." if changed else ""
    )
    return {**facts, "problem": problem}


def find_wheel(version: str) -> Path | None:
    """Find the project's wheel of this version; None if it has none."""
    try:
        vendor = project.root() / "vendor"
    except LabError:
        return None
    return next(iter(vendor.glob(f"dl_remote_lab-{version}-*.whl")), None)


def is_editable(dist_info: Path) -> bool:
    try:
        origin = files.read_json(dist_info / "direct_url.json")
    except (OSError, ValueError):
        return False
    return bool(origin.get("dir_info", {}).get("editable"))


def find_changed_files(folder: Path, wheel: Path | None, dist_info: Path) -> list[str]:
    """Find the files of lab that differ from the wheel's list, or without one, the installer's."""
    text = ""
    with suppress(OSError):
        text = files.read_text(dist_info / "RECORD")
    if wheel:
        try:
            text = read_from_wheel(wheel, f"{dist_info.name}/RECORD").decode("utf-8")
        except (OSError, ImportError, ValueError, EOFError, zlib.error):
            return [wheel.name]
    changed = []
    for line in text.splitlines():  # no name of a file of lab has a comma, which would be quoted
        name, _, rest = line.partition(",")
        digest = rest.partition(",")[0]
        if name.startswith("lab/") and digest.startswith("sha256="):
            try:
                found = to_base64(hashlib.sha256(files.read(folder / name)).digest())
            except OSError:
                found = ""
            if digest != f"sha256={found}":
                changed.append(name)
    return changed


def read_from_wheel(wheel: Path, name: str) -> bytes:
    """Read a file of a wheel; raises what zipimport raises.

    The modules zipfile, csv and base64 are slow to import.
    """
    archive = zipimport.zipimporter(str(wheel))
    if wheel in read_wheels:
        archive.invalidate_caches()  # it may be another file by now
    read_wheels.add(wheel)
    return archive.get_data(name)


def to_base64(digest: bytes) -> str:
    """Write a hash as wheels do."""
    text = binascii.b2a_base64(digest, newline=False).decode()
    return text.rstrip("=").replace("+", "-").replace("/", "_")
