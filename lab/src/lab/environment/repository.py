"""The project's git repository: made, given its first commit, and the filter for its notebooks.

bootstrap.py runs this out of the wheel, before there is an environment: standard library only,
Python 3.8 or newer, and nothing imported that is not so too.
"""

import glob
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

# The filter that keeps notebook output out of commits. git runs it at the top of whatever working
# tree it is in, which has its own lab: in vendor/, for any Python, or in the environment. Where
# there is neither, git goes on.
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


class Skip(Exception):
    """There is nothing to do here: why, in one line."""


def git(*arguments, **location):
    """What git printed, run in this folder; Problem if it fails."""
    variables = {name: text for name, text in os.environ.items() if name not in LOCATION}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**variables, "LC_ALL": "C", **location}
    try:
        done = subprocess.run(["git", *map(str, arguments)], env=environment, **pipes)
    except OSError as error:
        raise Problem(f"git cannot be started: {error.strerror}.") from None
    said, output = (os.fsdecode(text).strip() for text in (done.stderr, done.stdout))
    if done.returncode:
        lines = (said or output).splitlines() or ["it said nothing"]
        cause = next((line for line in lines if line.startswith(("fatal", "error"))), lines[-1])
        raise Problem(
            f"git {' '.join(map(str, arguments[:2]))} failed ({done.returncode}): {cause}"
        )
    return output


def make(root):
    """Make what is missing of the repository of the folder `root`; returns what was done."""
    if not shutil.which("git"):
        raise Skip("git is not installed")
    remove_left_overs(root)
    try:
        top = git("rev-parse", "--show-toplevel")
    except Problem as problem:
        if "not a git repository" not in str(problem):
            raise
        return f"made; {make_new(root)}"
    if not os.path.samefile(top, str(root)):
        raise Skip(f"this folder is part of the repository {top}")
    return complete(root) or "is there, with its notebook filter"


def mark():
    """What a half-made repository's name ends with: whose it is, to be removed later."""
    return f"building-{socket.gethostname()}-{os.getpid()}"


def remove_left_overs(root):
    """Remove what earlier set-ups that were interrupted left."""
    start = f"{root}/.git.building-{socket.gethostname()}-"
    for left in glob.glob(glob.escape(start) + "*"):
        pid = left[len(start) :]
        if not (pid.isdigit() and is_alive(int(pid))):
            shutil.rmtree(left, ignore_errors=True)


def is_alive(pid):
    """Whether there is such a process, maybe another user's, that has not ended."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except ProcessLookupError:
        return False
    except OSError:  # another user's, or a system without /proc
        return True
    return stat.rpartition(")")[2].split()[0] not in "ZX"  # nobody may have waited for it


def make_new(root):
    """Make a repository beside its place, where a kill leaves no lock of git's; then move it."""
    building = Path(f"{root}/.git.{mark()}")
    location = {"GIT_DIR": f"{building}/.git", "GIT_WORK_TREE": str(root)}
    try:
        branch = git("config", "init.defaultBranch")
    except Problem:
        branch = "main"
    try:
        git("-c", f"init.defaultBranch={branch}", "init", "--quiet", building)
        done = complete(root, **location)
        os.rename(location["GIT_DIR"], str(root / ".git"))
    finally:
        shutil.rmtree(str(building), ignore_errors=True)
    return done


def complete(root, **location):
    """Give a repository its notebook filter and a first commit; what was done, "" if nothing."""
    if git("config", "--default", "", "--get", FILTER, **location) != NOTEBOOK_FILTER:
        git("config", FILTER, NOTEBOOK_FILTER, **location)
    if has_commit(**location):
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
    # not --no-verify: with it a prepare-commit-msg hook of the user's still runs; and nothing that
    # git would do in the background may hold the folder while it is renamed
    alone = ("-c", "core.hooksPath=/dev/null", "-c", "maintenance.auto=false")
    git(*alone, "commit", "--quiet", "--no-gpg-sign", "--message", message, **location)
    others = ("--others", "--directory", "--no-empty-directory")
    left = git("ls-files", *others, "--exclude-per-directory=.gitignore", **location).splitlines()
    if not left:
        return "first commit"
    names = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
    return (
        f"first commit; your own git settings ignore {names}: git add --force what is to be in it"
    )


def has_commit(**location):
    """Whether the repository has a commit."""
    try:
        return bool(git("rev-parse", "--verify", "--quiet", "HEAD", **location))
    except Problem:
        return False


def check(root):
    """What is there, in words, changing nothing; Problem if something is missing."""
    if not shutil.which("git"):
        raise Skip("git is not installed")
    top = git("rev-parse", "--show-toplevel")
    if not os.path.samefile(top, str(root)):
        raise Skip(f"this folder is part of the repository {top}")
    if not has_commit():
        raise Problem("it has no commit yet")
    if git("config", "--default", "", "--get", FILTER) != NOTEBOOK_FILTER:
        raise Problem("the notebook filter is missing")
    return "is there, with its notebook filter"


def main():
    """Make the repository of the working directory; one line, and 0 or 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing half-made stays
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    try:
        print(make(Path.cwd()))
        return 0
    except Skip as reason:
        print(f"skipped: {reason}")
        return 0
    except Problem as problem:
        print(problem, file=sys.stderr)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
