"""Make a repository a project: all of it or nothing, and no line of the user's is changed."""

import importlib.metadata
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lab.adoption import texts
from lab.adoption.survey import Answers, Repository
from lab.environment import lock, update
from lab.ground import files, git, project
from lab.ground.errors import LabError, explain_os_error
from lab.ssh import machines

PACKAGE = "dl-remote-lab"


@dataclass(frozen=True)
class Adoption:
    """What `lab init` did."""

    added: list[str]  # new files, by their names in the project
    extended: list[str]  # the user's files, with new lines at their ends
    notes: list[str]  # what was left alone, and what the user has to know

    @property
    def undo(self) -> str:
        """The commands that undo all of it."""
        restore = [f"git checkout -- {shlex.join(self.extended)}"] if self.extended else []
        return "; ".join([*restore, f"git clean -fdx -- {shlex.join(self.added)}"])


def adopt(repository: Repository, answers: Answers, wheel: str = "") -> Adoption:
    """Write everything that a project needs, and compile its lock.

    `wheel` is the wheel of lab to use; by default the one that this lab was installed from.
    LabError if a file is in the way or has uncommitted edits, or if no lock fits; then nothing is
    changed.
    """
    root, locked = repository.root, repository.find_lock()
    version = find_version(wheel)
    new = texts.make(repository, answers, version, locked)
    own = f"vendor/dl_remote_lab-{version}-py3-none-any.whl"
    names = [*new, locked, own]
    refuse_edits(repository, [*names, ".gitignore"])
    new_folder = not (root / "vendor").exists()
    before = read_all(root, [*names, ".gitignore"])
    previous = os.environ.get("LAB_PROJECT")
    os.environ["LAB_PROJECT"] = str(root)  # for what asks for the current project
    try:
        for name, content in new.items():
            (root / name).write_bytes(content)
        project.reload()
        machines.read_all()
        bring_wheel(wheel, version, root / own)
        lock.compile_lock([])
        include(repository, [*names, "pyproject.toml"])
    except BaseException as error:
        for name, old in before.items():
            if old is None:
                (root / name).unlink(missing_ok=True)
            else:
                (root / name).write_bytes(old)
        if new_folder:
            shutil.rmtree(root / "vendor", ignore_errors=True)
        if isinstance(error, OSError):
            raise LabError(f"{explain_os_error(error, root)}; nothing was changed.") from None
        raise
    finally:
        if previous is None:
            del os.environ["LAB_PROJECT"]
        else:
            os.environ["LAB_PROJECT"] = previous
        project.reload()
    after = read_all(root, before)
    changed = [name for name in sorted(before) if after[name] != before[name]]
    extended = [name for name in changed if before[name] is not None]
    added = [name for name in changed if before[name] is None]
    added = ["vendor" if name == own and new_folder else name for name in added]
    return Adoption(added, extended, make_notes(repository, locked))


def read_all(root: Path, names: Iterable[str]) -> dict[str, bytes | None]:
    """Read these files; None for one that does not exist."""
    paths = {name: root / name for name in names}
    return {name: files.read(path) if path.exists() else None for name, path in paths.items()}


def refuse_edits(repository: Repository, names: list[str]) -> None:
    """Raise LabError if a file is in the way, or has edits that could not be restored."""
    root = repository.root
    files.refuse_links(root, names)
    for name in ("bootstrap.py", "machines.local.toml"):
        if name in names and (root / name).exists():
            raise LabError(f"{root / name} exists, and lab needs that name: rename yours.")
    edited = git.run("status", "--porcelain", "--", *names, cwd=root)
    if edited:
        raise LabError(
            f"{edited.splitlines()[0][3:]} has changes that are not committed: commit them first,"
            " so that git can undo what lab init does."
        )


def find_version(wheel: str) -> str:
    """Return the version of lab that the project gets: that of the wheel, or of this lab."""
    if wheel:
        return update.read_wheel(Path(wheel))[0]
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise LabError("this lab is not installed: name its wheel with --wheel FILE.") from None


def bring_wheel(wheel: str, version: str, target: Path) -> None:
    """Put the wheel of lab into the project: the given one, or what this lab was installed from.

    pip, pipx and uv note the file or address that they were given; otherwise it was an index.
    """
    target.parent.mkdir(exist_ok=True)
    source = wheel or find_origin()
    path = unquote(urlsplit(source).path) if source.startswith("file:") else source
    if path and "://" not in path:
        if not path.endswith(".whl") or not Path(path).exists():
            advice = "name one with --wheel FILE"
            raise LabError(f"lab was installed from {path}, which is gone or no wheel: {advice}.")
        if update.read_wheel(Path(path))[0] != version:
            raise LabError(f"{path} is no longer the wheel of lab {version}: name it with --wheel.")
        target.write_bytes(files.read(path))  # unlike a copy, this may be the file itself
        return
    with tempfile.TemporaryDirectory(prefix="lab-init-") as folder:
        shutil.copyfile(update.download(path or version, Path(folder)), target)


def find_origin() -> str:
    """Find the file or address that this lab was installed from; "" for a package index."""
    text = importlib.metadata.distribution(PACKAGE).read_text("direct_url.json")
    return str(json.loads(text).get("url", "")) if text else ""


def include(repository: Repository, names: list[str]) -> None:
    """Make sure that the user's .gitignore does not hide these files: every job needs them."""

    def find_ignored() -> list[str]:
        command, listed = ("check-ignore", "--no-index", "--stdin", "-z"), "\0".join(names)
        found = git.split_null(
            git.run(*command, cwd=repository.root, stdin=f"{listed}\0", accept=(0, 1))
        )
        return [name for name in found if name != "machines.local.toml"]

    if ignored := find_ignored():
        parents = {f"!/{Path(name).parts[0]}/" for name in ignored if "/" in name}
        lines = [*sorted(parents), *(f"!/{name}" for name in ignored)]
        path = repository.root / ".gitignore"
        path.write_bytes(texts.append(repository, ".gitignore", lines))
    if still := find_ignored():
        raise LabError(f"git ignores {still[0]}, which every job needs: allow it in .gitignore.")


def make_notes(repository: Repository, locked: str) -> list[str]:
    """List what was left alone, and what the user has to know."""
    root, notes = repository.root, []
    if (root / "machines.toml").exists() and git.run("ls-files", "--", "machines.toml", cwd=root):
        notes.append("machines.toml: yours, unchanged")
    if (root / "requirements.txt").exists() and locked != "requirements.txt":
        notes.append(f"requirements.txt: yours; {locked} is compiled from it (lab lock)")
    if (root / "uv.lock").exists():
        notes.append("uv.lock: yours; uv sync and uv run would rebuild .venv from it")
    if imported := repository.imported:
        names = f"{', '.join(imported[:8])}{' …' if len(imported) > 8 else ''}"
        notes.append(f"your code imports {names}: list them in requirements.txt, then lab lock")
    unread = repository.find_unread()
    advice = "not read; list its packages in requirements.txt, then lab lock"
    return [*notes, *(f"{name}: {advice}" for name in unread)]
