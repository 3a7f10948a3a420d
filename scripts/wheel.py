"""Build lab/ into the template: the wheel in vendor/, its pin and its line in the lock.

Run by `make wheel`. The same source gives the same bytes, whenever and wherever it is built.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "{{cookiecutter.project_slug}}"
VENDOR = PROJECT / "vendor"
EPOCH = "1577836800"  # the time of every file in the wheel: 2020-01-01


def build_wheel(folder: Path) -> Path:
    """Build the wheel of lab/ into a folder, and return its path."""
    with tempfile.TemporaryDirectory() as clean:  # only the package's files, no caches or drafts
        source = Path(clean, "lab")
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
            shutil.copyfile(ROOT / "lab" / name, source / name)
        for path in sorted((ROOT / "lab/src/lab").rglob("*")):
            if path.suffix in (".py", ".sh", ".bash", ".txt") or path.name == "py.typed":
                target = source / path.relative_to(ROOT / "lab")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
                target.chmod(0o644)
        command = ["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder), str(source)]
        subprocess.run(command, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH})
    (wheel,) = folder.glob("dl_remote_lab-*.whl")
    return wheel


def main() -> None:
    """Replace the wheel, its line in the lock and its pin."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        VENDOR.mkdir(exist_ok=True)
        for old in VENDOR.glob("dl_remote_lab-*.whl"):
            old.unlink()
        shutil.copyfile(wheel, VENDOR / wheel.name)
    digest = hashlib.sha256((VENDOR / wheel.name).read_bytes()).hexdigest()
    line = f"./vendor/{wheel.name} # sha256 {digest}"
    lock = PROJECT / "requirements.txt"
    text, found = re.subn(r"(?m)^\./vendor/.*$", line, lock.read_text("utf-8"))
    if not found:
        sys.exit(f"{lock} names no wheel. Run: make lock")
    lock.write_text(text, "utf-8")
    version = wheel.name.split("-")[1]
    settings = PROJECT / "pyproject.toml"
    text = settings.read_text("utf-8")
    settings.write_text(
        re.sub('"dl-remote-lab==[^"]*"', f'"dl-remote-lab=={version}"', text), "utf-8"
    )
    print(line)


if __name__ == "__main__":
    main()
