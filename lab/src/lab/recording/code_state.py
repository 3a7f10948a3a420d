"""The code of a run: its snapshot, and whether that holds what the process has imported.

Files are edited at any time, and imported once. So the times of the last writing are kept from
before the imports on, and compared when the snapshot is there.
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


def sources() -> str:
    """The folder src/ of the project, without links; "" where there is no project."""
    try:
        return str(project.root() / "src")
    except LabError:
        return ""


class Imports:
    """The imports of a process, or of a notebook's cell: autoreload renews them between two."""

    def __init__(self):
        self.cell = cell()
        self.before = written()
        self.code: dict[str, Any] = {}  # of the last run
        self.known: set[str] = set()  # files that it holds
        self.since = self.before  # when it was taken

    def begin(self) -> None:
        """A run begins: what is not imported yet will be as it is now."""
        files = imported()
        self.before |= {file: time for file, time in written().items() if file not in files}

    def snapshot(self) -> dict[str, Any]:
        """The snapshot that holds what is imported; LabError if there is none.

        Where a file was edited between two runs of one process, it is that of the run before.
        """
        since, code = written(), take()
        changed = edited(self.before)
        if changed and not self.code:
            raise LabError(f"{changed} was edited while the run was starting: start it again.")
        if not changed:
            self.code, self.known, self.since = code, imported(), since
        return dict(self.code)

    def doubt(self) -> str:
        """Why the snapshot may not hold all that ran, or ""."""
        late = edited(self.since, besides=self.known)
        return late and (
            f"{late} was imported after the snapshot and edited since, so the commit may hold"
            " another text; name it in `modules` of tracking.Experiment."
        )


def take() -> dict[str, Any]:
    """A snapshot: commit, parent, branch, dirty, folder; remotes and the diff.

    Where none can be made, `problem` says why, and so does the run.
    """
    try:
        taken = snapshot.take()
        return {**asdict(taken), "remotes": git.remote_urls(), "diff": snapshot.diff(taken)}
    except LabError as error:
        print(f"warning: the code of this run is not kept: {error}", file=sys.stderr)
        names = [field.name for field in fields(snapshot.Snapshot)]
        return {**dict.fromkeys(names), "remotes": {}, "diff": "", "problem": str(error)}


def cell() -> int | None:
    """The number of the notebook's cell that runs; None outside of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return shell.execution_count if shell else None


def written() -> dict[str, int]:
    """When each Python file of src/ was written last, in ns."""
    times = {}
    for folder, _, names in os.walk(sources()):
        for name in names:
            if name.endswith(".py"):
                with suppress(OSError):  # an editor's lock, which is a link to nowhere
                    times[f"{folder}/{name}"] = os.stat(f"{folder}/{name}").st_mtime_ns
    return times


def imported() -> set[str]:
    """The files of src/ that this process has imported."""
    files = (str(getattr(module, "__file__", "")) for module in list(sys.modules.values()))
    installed = (sys.prefix, sys.base_prefix)  # the rest is little: it may be asked for its links
    real = (os.path.realpath(file) for file in files if not file.startswith(installed))
    inside = f"{sources()}/"
    return {file for file in real if file.startswith(inside)}


def edited(since: Mapping[str, int], besides: Set[str] = frozenset()) -> str:
    """The names of the imported files that are not as they were then."""
    now = written()
    files = (file for file in imported() - besides if now.get(file) != since.get(file))
    return ", ".join(os.path.relpath(file, project.root()) for file in sorted(files))


imports = Imports()  # a command line begins here


def begin() -> None:
    """A run begins: what `imports` is about is this process, or this cell."""
    global imports
    if cell() != imports.cell:
        imports = Imports()
    imports.begin()
