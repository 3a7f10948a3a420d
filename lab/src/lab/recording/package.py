"""Which lab records a run: its version, its wheel, and whether it was changed."""

import base64
import csv
import hashlib
import importlib.metadata
import json
import zipfile
from pathlib import Path
from typing import Any

from lab.ground import files, project
from lab.ground.errors import LabError

DISTRIBUTION = "dl-remote-lab"


def identify() -> dict[str, Any]:
    """Return `version`, `wheel_sha256` (None without a wheel in vendor/) and `problem`, if any."""
    try:
        installed = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return {"version": None, "wheel_sha256": None, "problem": "lab is not installed."}
    version = installed.version
    wheel = find_wheel(version)
    facts = {"version": version, "wheel_sha256": wheel and files.sha256_or_none(wheel)}
    if is_editable(installed):
        return {**facts, "problem": "lab is installed as editable: its code is not recorded."}
    changed = find_changed_files(Path(str(installed.locate_file(""))), wheel, installed)
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


def is_editable(installed: importlib.metadata.Distribution) -> bool:
    try:
        origin = json.loads(installed.read_text("direct_url.json") or "{}")
    except ValueError:
        return False
    return bool(origin.get("dir_info", {}).get("editable"))


def find_changed_files(
    folder: Path, wheel: Path | None, installed: importlib.metadata.Distribution
) -> list[str]:
    """Find the files of lab that differ from the wheel's list, or without one, the installer's."""
    text = installed.read_text("RECORD") or ""
    if wheel:
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
