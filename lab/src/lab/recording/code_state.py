"""The code of a run: its snapshot, and whether that holds what the process has imported.

A file is imported once, but may be edited at any time. So its modification time is noted when it is
imported, and compared when the snapshot has been taken.
"""

import importlib.machinery
import os
import site
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.code import snapshot
from lab.ground import git, project
from lab.ground.errors import LabError
from lab.ground.terminal import print_message

INSTALLED = (str(Path(os.__file__).parent), *site.getsitepackages())
AUTORELOAD = "IPython.extensions.autoreload"
loaded: dict[str, int | None] = {}  # when each imported file was written, in ns


class Imports:
    """What this process has imported from the project, and the commit that holds it."""

    def __init__(self) -> None:
        self.cell = current_cell()
        self.code: dict[str, Any] = {}  # the snapshot of the last run
        self.held: set[str] = set()  # the imported files that its snapshot holds
        self.taken = 0  # when that was taken, in ns
        self.written: dict[str, int | None] = {}  # modification times of the sources then

    def take_snapshot(self) -> dict[str, Any]:
        """Return the snapshot that holds what is imported; LabError if there is none.

        If a file was edited between two runs of one process, it is the snapshot of the first.
        """
        if current_cell() != self.cell and AUTORELOAD in sys.modules:
            self.cell = current_cell()  # autoreload has updated edited modules without an import
            loaded.update({file: find_write_time(file) for file in loaded})
        taken, written, code = time.time_ns(), list_write_times(), take_snapshot()
        imported = list_imported()
        edited = [file for file, when in imported.items() if find_write_time(file) != when]
        if edited and not self.code:
            raise LabError(
                "edited while the run was starting or, in a notebook, since the import:"
                f" {join_names(edited)}; start it again."
            )
        if not edited:
            self.code, self.held = code, set(imported)
            self.taken, self.written = taken, written
        return dict(self.code)

    def problem(self) -> str:
        """Why the snapshot may not hold all that ran, or ""."""
        imported = list_imported()
        late = [file for file in imported.keys() - self.held if self.is_newer(file, imported[file])]
        if late:
            return (
                f"imported after the snapshot and edited since: {join_names(late)}; the commit may"
                " hold another version. Name what is imported late in `modules` of"
                " tracking.Experiment."
            )
        return describe_absent(self.code, map(name_in_project, imported))

    def is_newer(self, file: str, when: int | None) -> bool:
        """Whether a file was written after the snapshot."""
        if file in self.written:
            return when != self.written[file]
        return when is None or when > self.taken


def take_snapshot() -> dict[str, Any]:
    """Take a snapshot: commit, parent, branch, dirty, folder; remotes and the diff.

    If that fails the run goes on, and `problem` says why.
    """
    try:
        taken = snapshot.take()
        facts = taken._asdict()
        if not taken.problem:
            del facts["problem"]
        return {**facts, "remotes": git.remote_urls(), "diff": snapshot.diff(taken)}
    except LabError as error:
        print_message(f"warning: the code of this run is not recorded: {error}")
        return {
            **dict.fromkeys(snapshot.Snapshot._fields),
            "remotes": {},
            "diff": "",
            "problem": str(error),
        }


def note_problem(code: dict[str, Any], problem: str) -> None:
    """Warn of what a record's commit may not hold, and add it to the record.

    Without a commit the record already says why.
    """
    if problem and (code.get("commit") or not code.get("problem")):
        code["problem"] = " ".join(filter(None, [code.get("problem"), problem]))
        print_message(f"warning: {problem}")


def current_cell() -> int | None:
    """Return the number of the notebook's cell that runs; None outside a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return shell.execution_count if shell else None


def describe_absent(code: Mapping[str, Any], names: Iterable[str]) -> str:
    """Say which files of the project the commit of a run does not hold; "" if it holds all."""
    files = sorted({name for name in names if "\n" not in name})
    commit, folder = code.get("commit"), code.get("folder") or "."
    if not commit or not files:
        return ""
    asked = (f"{commit}:{os.path.normpath(f'{folder}/{name}')}" for name in files)
    try:
        answers = git.run("cat-file", "--batch-check", stdin="".join(f"{one}\n" for one in asked))
    except LabError:
        return ""
    lines = answers.splitlines()
    absent = [name for name, line in zip(files, lines, strict=False) if line.endswith(" missing")]
    why = "ignored by git, or listed in `outputs`"
    return f"ran, but not in the commit: {', '.join(absent[:5])} ({why})." if absent else ""


# --- imported files ------------------------------------------------------------------------------


def note_imports() -> None:
    """Note when each imported file was written: those imported until now and from now on."""
    loader: Any = importlib.machinery.SourceFileLoader
    original = loader.get_code

    def get_code(self: Any, fullname: str) -> Any:
        when = find_write_time(self.path)
        code = original(self, fullname)
        note_import(self.path, when)
        return code

    loader.get_code = get_code
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.startswith("/"):  # torch sets some that are not paths
            note_import(file, find_write_time(file))


def note_import(file: str, when: int | None) -> None:
    if not file.startswith(INSTALLED):  # most are installed: skip the slow realpath()
        loaded[os.path.realpath(file)] = when


def find_write_time(file: str) -> int | None:
    """When a file was last written, in ns; None if it is gone."""
    with suppress(OSError):
        return os.stat(file).st_mtime_ns
    return None


def list_imported() -> dict[str, int | None]:
    """List the imported files of the project, and when each had been written at its import."""
    try:
        top = f"{project.root()}/"
    except LabError:
        return {}
    inside = {file: when for file, when in list(loaded.items()) if file.startswith(top)}
    return {file: when for file, when in inside.items() if file.endswith(".py")}


def list_write_times() -> dict[str, int | None]:
    """List when each file of the project's packages, and of its own folder, was last written."""
    try:
        top = str(project.root())
        source = str(project.source_folder(project.root()))
    except LabError:
        return {}
    names = [entry.path for entry in os.scandir(top)]
    for folder, inner, found in os.walk(source):
        if folder == top:  # packages alone: data/ and .venv may have a million files
            inner[:] = [one for one in inner if Path(top, one, "__init__.py").exists()]
        names += (f"{folder}/{one}" for one in found)
    return {name: find_write_time(name) for name in names if name.endswith(".py")}


def join_names(files: Iterable[str]) -> str:
    return ", ".join(sorted(map(name_in_project, files)))


def name_in_project(file: str) -> str:
    return os.path.relpath(file, project.root())


note_imports()  # as early as possible: files imported before may have been edited since
imports = Imports()
