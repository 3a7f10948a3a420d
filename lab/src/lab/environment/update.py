"""Bring another version of lab into this project: wheel, pin and lock, all of them or none."""

import re
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

try:
    from lzma import LZMAError
except ImportError:  # a Python that was built without it; zipfile then raises RuntimeError
    from zlib import error as LZMAError  # type: ignore[assignment] # noqa: N812

from lab.environment import lock
from lab.ground import files, git, project
from lab.ground.errors import LabError, explain_os_error

PIN = re.compile(r'"dl-remote-lab==([^"]*)"')
MAX_TEXT_BYTES = 4 << 20  # bytes of a text in a wheel
# What zipfile raises for a file that is not an archive, is damaged, encrypted, or packed otherwise.
BAD_ARCHIVE = (
    OSError,
    KeyError,
    ValueError,
    RuntimeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
)


@dataclass(frozen=True)
class Update:
    """What an update changed."""

    old: str
    new: str
    changelog: str  # its sections after the old version, newest first
    changes: list[str]  # of the lock: lines with + or - before them


def list_files() -> list[str]:
    """Name what an update changes."""
    return ["vendor", "pyproject.toml", project.lock_file().name]


def update(wanted: str = "") -> Update:
    """Install a version of lab, or a wheel, into the project; by default the newest of the index.

    LabError if what it would change has been edited, if there is no such version, or if no lock
    fits; then nothing is changed.
    """
    root = project.root()
    edited = git.run("status", "--porcelain", "--", *list_files())
    if edited:
        raise LabError(
            f"{edited.splitlines()[0][3:]} has changes that are not committed: commit them, or"
            " git checkout them, before lab update."
        )
    settings, locked, old = root / "pyproject.toml", project.lock_file(), lock.find_wheel()
    pinned = PIN.search(files.read_text(settings))
    if not pinned:
        raise LabError('pyproject.toml has no dependency "dl-remote-lab==VERSION": put it back.')
    before = {path: files.read(path) for path in (settings, locked, old) if path and path.exists()}
    with tempfile.TemporaryDirectory(prefix="lab-update-") as folder:
        is_file = wanted.endswith(".whl") and "://" not in wanted
        wheel = Path(wanted) if is_file else download(wanted, Path(folder))
        version, changelog = read_wheel(wheel)
        new = root / "vendor" / wheel.name
        named = [path.relative_to(root).as_posix() for path in (new, *before)]
        files.refuse_links(root, named)
        content = files.read(wheel)  # now, as it may be the old one
        if new == old and before[old] == content and pinned[1] == version:
            return Update(version, version, "", [])
        try:
            if old:
                old.unlink()
            new.parent.mkdir(exist_ok=True)
            new.write_bytes(content)
            text = PIN.sub(f'"dl-remote-lab=={version}"', before[settings].decode("utf-8"))
            settings.write_bytes(text.encode("utf-8"))
            changes = lock.compile_lock([])
        except BaseException as error:
            new.unlink(missing_ok=True)
            for path, previous in before.items():
                path.write_bytes(previous)
            if isinstance(error, OSError):
                raise LabError(f"{explain_os_error(error, root)}; nothing changed.") from None
            raise
    return Update(pinned[1], version, new_sections(changelog, pinned[1]), changes)


def download(version: str, folder: Path) -> Path:
    """Download the wheel of a version (the newest for "") from the index, or one at an address."""
    named = "dl-remote-lab @ " if "://" in version else "dl-remote-lab=="
    name = f"{named}{version}" if version else "dl-remote-lab"
    python = ["--python", sys.executable]
    command = ["tool", "run", *python, "pip", "download", "--quiet", "--no-deps", "--dest"]
    lock.check_uv(*command, folder, name)
    wheel = next(folder.glob("dl_remote_lab-*.whl"), None)
    if not wheel:
        raise LabError(f"{name} has no wheel: name one, lab update FILE.")
    return wheel


def read_wheel(wheel: Path) -> tuple[str, str]:
    """Return the version and the CHANGELOG of a wheel; LabError if it is not a wheel of lab."""
    named = lock.WHEEL.fullmatch(wheel.name)
    if not named:
        raise LabError(
            f"{wheel} is not named dl_remote_lab-VERSION-py3-none-any.whl, as wheels of lab are."
        )
    try:
        with files.open_regular(wheel) as opened, zipfile.ZipFile(opened) as archive:
            metadata = read_entry(archive, f"dl_remote_lab-{named[1]}.dist-info/METADATA")
            names = archive.namelist()
            log = next((name for name in names if name.endswith("/CHANGELOG.md")), None)
            changelog = read_entry(archive, log) if log else ""
    except BAD_ARCHIVE as error:
        raise LabError(f"{wheel} is not a wheel of lab: {error}") from None
    if not re.search(rf"^Version: {re.escape(named[1])}$", metadata, re.M):
        raise LabError(f"{wheel} does not contain the version in its name.")
    return named[1], changelog


def read_entry(archive: zipfile.ZipFile, name: str) -> str:
    """Return the text of a file in a wheel; ValueError if it is too long for memory."""
    with archive.open(name) as file:
        content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise ValueError(f"{name} has more than {MAX_TEXT_BYTES >> 20} MiB")
    return content.decode("utf-8")


def new_sections(changelog: str, old: str) -> str:
    """Return the sections above the one of the old version, or of the version it is based on."""
    sections = re.split(r"(?m)^(?=## )", changelog)[1:]
    new = []
    for section in sections:
        if section.split()[1] in (old, old.partition("+")[0]):
            break
        new.append(section.strip())
    return "\n\n".join(new)
