"""Which lab records a run: its version, its wheel, and whether it was changed."""

import base64
import csv
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.environment.installed import find_dist_info, find_version
from lab.ground import files, project
from lab.ground.errors import LabError

DISTRIBUTION = "dl-remote-lab"


def identify() -> dict[str, Any]:
    """Return `version`, `wheel_sha256` (None without a wheel in vendor/) and `problem`, if any."""
    noted, version = find_dist_info(DISTRIBUTION), find_version(DISTRIBUTION)
    if not noted or not version:
        return {"version": None, "wheel_sha256": None, "problem": "lab is not installed."}
    wheel = find_wheel(version)
    facts = {"version": version, "wheel_sha256": wheel and files.sha256_or_none(wheel)}
    if is_editable(noted):
        return {**facts, "problem": "lab is installed as editable: its code is not recorded."}
    changed = find_changed_files(noted.parent, wheel, noted)
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


def is_editable(noted: Path) -> bool:
    try:
        origin = files.read_json(noted / "direct_url.json")
    except (OSError, ValueError):
        return False
    return bool(origin.get("dir_info", {}).get("editable"))


def find_changed_files(folder: Path, wheel: Path | None, noted: Path) -> list[str]:
    """Find the files of lab that differ from the wheel's list, or without one, the installer's."""
    text = ""
    with suppress(OSError):
        text = files.read_text(noted / "RECORD")
    if wheel:
        import zipfile  # slow to import

        try:
            with zipfile.ZipFile(wheel) as archive:
                (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/RECORD")]
                text = archive.read(name).decode("utf-8")
        except (OSError, ValueError, zipfile.BadZipFile):
            return [wheel.name]
    changed = []
    for name, digest, _ in csv.reader(text.splitlines()):
        if name.startswith("lab/") and digest.startswith("sha256="):
            try:
                content = files.read(folder / name)
            except OSError:
                content = b""
            actual = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            if digest != f"sha256={actual.decode()}":
                changed.append(name)
    return changed
