"""The code of a run: its snapshot, and whether that holds what the process has imported.

Files are edited at any time, but imported once. So the times at which they were written are noted
before the imports, and compared when the snapshot has been taken.
"""

import os
import sys
from collections.abc import Mapping, Set
from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any

from lab.code import snapshot
from lab.ground import git, project
from lab.ground.errors import LabError
from lab.ground.terminal import print_message


class Imports:
    """The imports of a process, or of a notebook's cell, between two of which autoreload renews."""

    def __init__(self) -> None:
        self.cell = current_cell()
        self.before = list_write_times()
        self.code: dict[str, Any] = {}  # of the last run
        self.in_snapshot: set[str] = set()  # the imported files that it holds
        self.since = self.before  # when it was taken

    def begin(self) -> None:
        """Start a run: what is not imported yet will be imported as it is now."""
        files = list_imported()
        self.before |= {file: t for file, t in list_write_times().items() if file not in files}

    def take_snapshot(self) -> dict[str, Any]:
        """Return the snapshot that holds what is imported; LabError if there is none.

        Where a file was edited between two runs of one process, it is that of the run before.
        """
        since, code = list_write_times(), take_snapshot()
        changed = describe_edited(self.before)
        if changed and not self.code:
            raise LabError(f"{changed} was edited while the run was starting: start it again.")
        if not changed:
            self.code, self.in_snapshot, self.since = code, list_imported(), since
        return dict(self.code)

    def problem(self) -> str:
        """Why the snapshot may not hold all that ran, or ""."""
        late = describe_edited(self.since, besides=self.in_snapshot)
        return late and (
            f"{late} was imported after the snapshot and edited since, so the commit may hold"
            " another version; add it to `modules` of tracking.Experiment."
        )


def take_snapshot() -> dict[str, Any]:
    """Take a snapshot: commit, parent, branch, dirty, folder; remotes and the diff.

    If that fails the run goes on, and `problem` says why.
    """
    try:
        taken = snapshot.take()
        return {**asdict(taken), "remotes": git.remote_urls(), "diff": snapshot.diff(taken)}
    except LabError as error:
        print_message(f"warning: the code of this run is not recorded: {error}")
        names = [field.name for field in fields(snapshot.Snapshot)]
        return {**dict.fromkeys(names), "remotes": {}, "diff": "", "problem": str(error)}


def current_cell() -> int | None:
    """Return the number of the notebook's cell that runs; None outside a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return shell.execution_count if shell else None


def sources_folder() -> str:
    """Return the folder src/ of the project, with links resolved; "" where there is no project."""
    try:
        return str(project.root() / "src")
    except LabError:
        return ""


def list_write_times() -> dict[str, int]:
    """List when each Python file of src/ was last written, in ns."""
    times = {}
    for folder, _, names in os.walk(sources_folder()):
        for name in names:
            if name.endswith(".py"):
                with suppress(OSError):  # an editor's lock is a dangling link
                    times[f"{folder}/{name}"] = os.stat(f"{folder}/{name}").st_mtime_ns
    return times


def list_imported() -> set[str]:
    """List the files of src/ that this process has imported."""
    files = (str(getattr(module, "__file__", "")) for module in list(sys.modules.values()))
    installed = (sys.prefix, sys.base_prefix)  # most files, of which the links need no resolving
    resolved = (os.path.realpath(file) for file in files if not file.startswith(installed))
    inside = f"{sources_folder()}/"
    return {file for file in resolved if file.startswith(inside)}


def describe_edited(since: Mapping[str, int], besides: Set[str] = frozenset()) -> str:
    """Name the imported files that were edited since these times; "" if there are none."""
    now = list_write_times()
    files = (file for file in list_imported() - besides if now.get(file) != since.get(file))
    return ", ".join(os.path.relpath(file, project.root()) for file in sorted(files))


imports = Imports()  # on a command line, everything is imported after this


def begin() -> None:
    """Start a run; in a new cell of a notebook, what has been imported counts from now on."""
    global imports  # noqa: PLW0603 # one per process, or cell
    if current_cell() != imports.cell:
        imports = Imports()
    imports.begin()
