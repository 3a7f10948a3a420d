"""The project's git repository: create it, make the first commit, install the notebook filter.

bootstrap.py runs this from the wheel, before there is an environment: it, and what it imports, need
only the standard library of Python 3.8 or newer.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

# git variables that would point our calls at another repository, as inside a git hook.
LOCATION = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")

# The filter that keeps notebook output out of commits. git runs it at the top of any working tree,
# which has its own lab: in vendor/, for any Python, or in the environment. If both are missing, git
# goes on without it.
FILTER = "filter.notebook-output.clean"
NOTEBOOK_FILTER = """\
strip='import sys; sys.path[:0] = sys.argv[1:]
from lab.environment.notebook_filter import main; main()'; \
set -- vendor/dl_remote_lab-*.whl; \
if [ -f "$1" ] && command -v python3 >/dev/null; then exec python3 -I -c "$strip" "$1"; fi; \
if [ -x .venv/bin/python ]; then exec .venv/bin/python -I -c "$strip"; fi; \
echo "notebook output is not stripped: python3 or vendor/dl_remote_lab-*.whl is missing" >&2; \
exec cat"""


class Problem(Exception):
    """A step that cannot be done: the cause and the next step, in one line."""


class NoRepositoryError(Problem):
    """The folder is in no git repository."""


class Skip(Exception):
    """A step that has nothing to do here: why, in one line."""


def git(*arguments: str | Path, **variables: str) -> str:
    """Run git in the working directory and return what it printed; Problem if it fails."""
    passed = {name: text for name, text in os.environ.items() if name not in LOCATION}
    try:
        done = subprocess.run(
            ["git", *map(str, arguments)],
            env={**passed, "LC_ALL": "C", **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
    except OSError as error:
        raise Problem(f"git cannot be started: {error.strerror}.") from None
    errors, output = (os.fsdecode(text).strip() for text in (done.stderr, done.stdout))
    if done.returncode:
        raise explain(errors or output)
    return output


def explain(errors: str) -> Problem:
    """Turn git's errors into one line."""
    trust = re.search(r"git config --global --add safe\.directory .*", errors)
    if trust:
        return Problem(f"this folder belongs to another user; if you trust them: {trust.group()}")
    lines = errors.splitlines() or ["it gave no reason"]
    line = next((line for line in lines if line.startswith(("fatal: ", "error: "))), lines[-1])
    kind = NoRepositoryError if "not a git repository" in line else Problem
    return kind(f"git failed: {re.sub('^(fatal|error): ', '', line)}. Run git status for more.")


def set_up(root: Path) -> str:
    """Create the repository of the folder `root`, or what it lacks; return what was done."""
    if not shutil.which("git"):
        raise Skip("git is not installed")
    remove_leftovers(root)
    if not is_top_level(root):
        return f"created; {create(root)}"
    return complete(root) or "complete, with its notebook filter"


def is_top_level(root: Path) -> bool:
    """Return whether the project has a repository of its own; Skip if it is part of another one.

    A repository around it that ignores the project's folder does not count.
    """
    try:
        top = git("rev-parse", "--show-toplevel")
    except NoRepositoryError:
        return False
    if os.path.samefile(top, str(root)):
        return True
    if is_ignored(root):
        return False
    raise Skip(f"this folder is part of the repository {top}")


def is_ignored(folder: Path) -> bool:
    """Return whether the repository around a folder ignores it and tracks nothing in it."""
    try:
        git("check-ignore", "--quiet", folder)
    except Problem:
        return False
    return not git("ls-files", "--", folder)


def building_suffix() -> str:
    """Return the suffix of an unfinished repository's name: host and process id.

    From them a later set-up can tell whether it was abandoned.
    """
    return f"building-{socket.gethostname()}-{os.getpid()}"


def remove_leftovers(root: Path) -> None:
    """Remove what interrupted set-ups left behind."""
    start = f".git.building-{socket.gethostname()}-"
    for left in root.glob(f"{start}*"):
        pid = left.name[len(start) :]
        if not (pid.isdigit() and is_alive(int(pid))):
            shutil.rmtree(left, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """Return whether a process, maybe another user's, is there and has not ended."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except ProcessLookupError:
        return False
    except OSError:  # another user's, or a system without /proc
        return True
    return stat.rpartition(")")[2].split()[0] not in "ZX"  # a zombie has ended


def create(root: Path) -> str:
    """Create the repository under another name, so that a kill leaves no lock of git in it."""
    building = Path(f"{root}/.git.{building_suffix()}")
    location = {"GIT_DIR": f"{building}/.git", "GIT_WORK_TREE": str(root)}
    try:
        branch = git("config", "init.defaultBranch")
    except Problem:
        branch = "main"
    try:
        git("-c", f"init.defaultBranch={branch}", "init", "--quiet", building)
        done = complete(root, **location)
        Path(location["GIT_DIR"]).rename(root / ".git")
    finally:
        shutil.rmtree(str(building), ignore_errors=True)
    return done


def complete(root: Path, **location: str) -> str:
    """Give a repository its notebook filter and a first commit; return what was done, or ""."""
    if git("config", "--default", "", "--get", FILTER, **location) != NOTEBOOK_FILTER:
        git("config", FILTER, NOTEBOOK_FILTER, **location)
    if has_commit(**location):
        refresh_notebooks(root)
        return ""
    try:
        git("var", "GIT_COMMITTER_IDENT", **location)
    except Problem:
        raise Problem(
            "the first commit needs to know who you are: git config --global user.name NAME;"
            " git config --global user.email ADDRESS; then run python3 bootstrap.py."
        ) from None
    git("-c", "core.safecrlf=false", "add", "--all", **location)
    settings = (root / "pyproject.toml").read_text("utf-8")
    name = re.search('^name = "([^"]*)"', settings, re.M)
    message = f"Start {name.group(1) if name else root.name} from dl-remote-template"
    # not --no-verify: a prepare-commit-msg hook of the user would still run; and nothing that git
    # does in the background may hold the folder while it is renamed
    alone = ("-c", "core.hooksPath=/dev/null", "-c", "maintenance.auto=false")
    git(*alone, "commit", "--quiet", "--no-gpg-sign", "--message", message, **location)
    others = ("--others", "--directory", "--no-empty-directory")
    left = git("ls-files", *others, "--exclude-per-directory=.gitignore", **location).splitlines()
    if not left:
        return "first commit"
    names = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
    return f"first commit; your own git settings ignore {names}: git add --force what belongs in it"


def refresh_notebooks(root: Path) -> None:
    """Refresh git's index for notebooks that differ from it only in what the filter removes.

    git compares sizes first, so git status would list them, such as those bound to another kernel.
    """
    listed = ("--no-optional-locks", "status", "--porcelain", "--untracked-files=no", "--")
    for path in sorted(root.glob("notebooks/*.ipynb")):
        try:
            if git(*listed, path):
                git("diff", "--quiet", "--", path)
                git("add", "--", path)
        except Problem:  # really changed: left as it is
            continue


def has_commit(**location: str) -> bool:
    """Return whether the repository has a commit."""
    try:
        return bool(git("rev-parse", "--verify", "--quiet", "HEAD", **location))
    except Problem:
        return False


def check(root: Path) -> str:
    """Check that the repository is complete, changing nothing; Problem if something is missing."""
    if not shutil.which("git"):
        raise Skip("git is not installed")
    if not is_top_level(root):
        raise Problem("there is none yet")
    if not has_commit():
        raise Problem("it has no commit yet")
    if git("config", "--default", "", "--get", FILTER) != NOTEBOOK_FILTER:
        raise Problem("the notebook filter is missing")
    return "complete, with its notebook filter"


def main() -> int:
    """Set up the repository of the working directory; print one line, return 0 or 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up, as after Ctrl-C
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        print(set_up(Path.cwd()))
    except Skip as reason:
        print(f"skipped: {reason}")
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename}: {error.strerror}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
