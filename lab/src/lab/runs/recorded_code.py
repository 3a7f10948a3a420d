"""The code that a record names: a commit, a folder and a module in it, and whether to trust it.

A record may have been written by another machine or by a stranger. What it says is checked against
a pattern before git or Python see it, and it does not decide by itself which code runs here.
"""

import os
import re
import shlex
from pathlib import PurePosixPath
from typing import Any

from lab.code import snapshot
from lab.ground import git, project
from lab.ground.errors import LabError
from lab.ground.terminal import escape
from lab.runs import reading

BRANCHES = "refs/heads"
EDITED = f"{BRANCHES}/edits/"  # branches of lab sync --back, with edits made on a machine


class Untrusted(LabError):
    """No branch or snapshot of this user holds the code."""


def require_recorded_commit(name: str, record: dict[str, Any]) -> str:
    """Get the commit that holds exactly the code that ran; LabError if none is recorded."""
    commit = reading.get_commit(record)
    if not commit:
        why = reading.get_dict(record, "code").get("problem") or "no commit is recorded."
        raise LabError(f"the code of {name} cannot be restored: {why}")
    return commit


def get_folder(record: dict[str, Any]) -> str:
    """Get the project's folder inside the recorded commit; it may have been moved since.

    LabError if that leads out of the commit.
    """
    return _get_inside(record, "code", "one inside the recorded commit")


def require_local_commit(name: str, record: dict[str, Any]) -> str:
    """Get the recorded commit; LabError also if this repository lacks it."""
    commit = require_recorded_commit(name, record)
    if not git.run("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", accept=(0, 1, 128)):
        raise LabError(
            f"the code of {name} is not in this repository: fetch commit {commit}, or use"
            " the file that lab export makes where it ran."
        )
    return commit


def require_own(name: str, commit: str) -> None:
    """Raise Untrusted unless a snapshot, a branch or HEAD of this user holds the commit.

    What lab sync brought from a machine does not count, nor what git fetched from elsewhere.
    """
    if git.run("for-each-ref", "--count=1", f"{snapshot.REFS}/{commit}"):
        return
    holding = ("for-each-ref", "--contains", commit, "--format=%(refname)")
    refs = git.run(*holding, BRANCHES, snapshot.REFS).split()
    if any(not ref.startswith(EDITED) for ref in refs):
        return
    head = git.run("rev-parse", "--verify", "--quiet", "HEAD", accept=(0, 1)).strip()
    if head and not git.run("rev-list", "-1", commit, f"^{head}"):
        return
    raise Untrusted(
        f"the code of {name} would run here, but no branch or snapshot of yours holds it: look at"
        f" git show {commit[:12]}; if you trust it, git branch NAME {commit[:12]} says so."
    )


def get_words(record: dict[str, Any]) -> list[str]:
    """Get the words of a command that `lab record` ran; [] for an experiment's own run."""
    words = reading.get_dict(record, "meta").get("words")
    if not words:
        return []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise LabError("the words of the recorded command are not a list of strings.")
    return words


def get_working_folder(record: dict[str, Any]) -> str:
    """Get the folder of the project in which a recorded command ran."""
    return _get_inside(record, "meta", "one inside the project")


def _get_inside(record: dict[str, Any], part: str, what: str) -> str:
    """Get the folder that a part of the record names; LabError if it leads outside."""
    folder = reading.get_text(reading.get_dict(record, part), "folder") or "."
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts or not folder.isprintable():
        raise LabError(f"the recorded folder {folder!r} is not {what}.")
    return os.path.normpath(folder)


def describe_program(commit: str, record: dict[str, Any]) -> str:
    """Return the command that ran, by the record, as one would type it."""
    words = get_words(record)
    return escape(shlex.join(words)) if words else f"python -m {find_module(commit, record)}"


def read_pyproject(commit: str, record: dict[str, Any]) -> dict[str, Any]:
    """Read the pyproject.toml of the recorded commit; {} if there is none that can be read."""
    path = os.path.normpath(f"{get_folder(record)}/pyproject.toml")
    try:
        return project.parse_toml(git.run("show", f"{commit}:{path}", limit=project.MAX_TOML_BYTES))
    except (LabError, ValueError):
        return {}


def find_module(commit: str, record: dict[str, Any]) -> str:
    """Find the module that was run, as `python -m` takes it, among the commit's own files."""
    main = reading.get_text(reading.get_dict(record, "experiment"), "mainfile") or ""
    source = project.source_name(read_pyproject(commit, record))
    if re.fullmatch(r"\w+(/\w+)*\.py", main):
        path = os.path.normpath(f"{get_folder(record)}/{source}/{main}")
        if git.run("ls-tree", "--full-tree", commit, path).startswith("100"):
            return main.removesuffix(".py").replace("/", ".")
    raise LabError(
        f"the recorded code lacks {source}/{main or '...'}, which ran: it cannot be repeated."
    )
