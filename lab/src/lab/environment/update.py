"""Another lab for this project: wheel, pin and lock, changed in one step or not at all."""

import re
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lab.environment import lock
from lab.ground import git, project
from lab.ground.errors import LabError

PIN = re.compile(r'"dl-remote-lab==([^"]*)"')
FILES = ("vendor", "pyproject.toml", "requirements.txt")


@dataclass(frozen=True)
class Update:
    """What became of the project."""

    old: str
    new: str
    news: str  # the sections of the CHANGELOG behind the old version, newest first
    changes: list[str]  # of the lock: lines with + or - before them


def update(wanted: str = "") -> Update:
    """Bring a lab into the project: a version, or a wheel; without either the newest of the index.

    LabError if what it would change has been edited, if there is no such lab, or if no lock fits;
    everything is then as it was.
    """
    root = project.root()
    edited = git.run("status", "--porcelain", "--", *FILES)
    if edited:
        raise LabError(
            f"{edited.splitlines()[0][3:]} has changes that are not committed: commit them, or"
            " git checkout them, before lab update."
        )
    settings, locked, old = root / "pyproject.toml", root / "requirements.txt", lock.wheel()
    pinned = PIN.search(settings.read_text("utf-8"))
    if not pinned:
        raise LabError('pyproject.toml has no dependency "dl-remote-lab==VERSION": put it back.')
    before = {path: path.read_bytes() for path in (settings, locked, old) if path and path.exists()}
    with tempfile.TemporaryDirectory(prefix="lab-update-") as folder:
        wheel = Path(wanted) if wanted.endswith(".whl") else download(wanted, Path(folder))
        version, changelog = read_wheel(wheel)
        new = root / "vendor" / wheel.name
        if new == old and before[old] == wheel.read_bytes():
            return Update(version, version, "", [])
        try:
            if old:
                old.unlink()
            new.parent.mkdir(exist_ok=True)
            shutil.copyfile(wheel, new)
            text = PIN.sub(f'"dl-remote-lab=={version}"', before[settings].decode("utf-8"))
            settings.write_bytes(text.encode("utf-8"))
            changes = lock.compile_lock([])
        except BaseException as error:
            new.unlink(missing_ok=True)
            for path, content in before.items():
                path.write_bytes(content)
            if isinstance(error, OSError):
                raise LabError(f"{error.filename}: {error.strerror}; nothing changed.") from None
            raise
    return Update(pinned[1], version, new_sections(changelog, pinned[1]), changes)


def download(version: str, folder: Path) -> Path:
    """The wheel of a version, or of the newest, from the package index."""
    name = f"dl-remote-lab=={version}" if version else "dl-remote-lab"
    python = ["--python", sys.executable]
    command = ["tool", "run", *python, "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    lock.uv(*command, name)
    return next(folder.glob("dl_remote_lab-*.whl"))


def read_wheel(wheel: Path) -> tuple[str, str]:
    """Version and CHANGELOG of a wheel; LabError if it is none of lab's."""
    named = lock.WHEEL.fullmatch(wheel.name)
    try:
        with zipfile.ZipFile(wheel) as archive:
            about = f"dl_remote_lab-{named[1]}.dist-info" if named else ""
            metadata = archive.read(f"{about}/METADATA").decode("utf-8")
            names = archive.namelist()
            log = next((name for name in names if name.endswith("/CHANGELOG.md")), None)
            changelog = archive.read(log).decode("utf-8") if log else ""
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise LabError(f"{wheel} is no wheel of dl-remote-lab: {error}") from None
    if not re.search(rf"^Version: {re.escape(named[1])}$", metadata, re.M):
        raise LabError(f"{wheel} holds another version than its name says.")
    return named[1], changelog


def new_sections(changelog: str, old: str) -> str:
    """The sections that are newer than a version: those before its own, or before its base's."""
    sections = re.split(r"(?m)^(?=## )", changelog)[1:]
    fresh = []
    for section in sections:
        if section.split()[1] in (old, old.partition("+")[0]):
            break
        fresh.append(section.strip())
    return "\n\n".join(fresh)
