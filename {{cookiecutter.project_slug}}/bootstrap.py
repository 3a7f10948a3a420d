#!/usr/bin/env python3
"""Set this project up on any machine: environment, Jupyter kernel, git repository.

    python3 bootstrap.py            set up, or bring back in step with requirements.txt
    python3 bootstrap.py --check    is this machine in step? a table, and exit code 0 or 1
    python3 bootstrap.py lock       compile requirements.txt anew from pyproject.toml

It is safe to run again at any time. Standard library only, Python 3.8 or newer: it runs before
there is an environment. uv builds that beside its final place, and it is moved there when it is
whole: a set-up that was broken off leaves the old environment or the new one, never half of one.
"""

import argparse
import functools
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
SOURCE = ROOT / "src"  # --source names another folder
LOCK = ROOT / "requirements.txt"
STAMP = "lab-environment.json"  # written last: an environment that has it is whole
OLDEST_UV = (0, 9)

# What pip is told about where packages come from, and what uv calls the same.
PACKAGE_SOURCES = {
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
}
# torch pins its CUDA libraries itself; in the lock they would cost CPU machines gigabytes.
LOCAL_VERSION = re.compile(r"^(torch\w*==[^+\s;]+)\+\S+", re.M)  # torch 2.13.0+cpu
CUDA_PACKAGES = re.compile(r"(nvidia-|cuda-|triton\b)")

# The git filter that keeps notebook output out of commits. It needs no environment, and git runs it
# at the top of whatever working tree it is in; without Python, or in a commit that has no such
# file, git goes on.
FILTER = "filter.notebook-output.clean"
NOTEBOOK_FILTER = """\
if [ -f src/lab/notebook_filter.py ] && command -v python3 >/dev/null; \
then exec python3 -I src/lab/notebook_filter.py; fi; \
echo "notebook output is not stripped: python3 or src/lab/notebook_filter.py is missing" >&2; \
exec cat"""

# git variables that would point our calls at another repository, as inside a git hook.
GIT_LOCATION = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")

LOCK_HEADER = """\
# Every package of the environment, pinned: one lock for macOS and Linux, with a GPU or without.
# Made by `python3 bootstrap.py lock` from pyproject.toml; do not edit it by hand."""


class Problem(Exception):
    """A step that cannot be done: the cause and the next step, in one line."""


class Skip(Exception):
    """A step that has nothing to do here: why, in one line."""


def setting(name):
    """A string of pyproject.toml, such as `python = "3.11"`; tomllib came only with Python 3.11."""
    found = re.search(rf'^{name} = "([^"]*)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    if not found:
        raise Problem(f'pyproject.toml has no line {name} = "..."; put it back.')
    return found.group(1)


def run(command, **options):
    """Run a command in the project and return what it printed; Problem if it fails."""
    usual = {"cwd": ROOT, "text": True, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    options = {**usual, **options}
    try:
        done = subprocess.run([str(word) for word in command], **options)
    except OSError as error:
        raise Problem(f"{command[0]} cannot be started: {error.strerror}.") from None
    if done.returncode != 0:
        name = " ".join(Path(str(word)).name for word in command[:3])
        silent = "see above" if done.stderr is None else "it said nothing"
        said = (done.stderr or done.stdout or "").strip().splitlines() or [silent]
        cause = next((line for line in said if line.startswith(("fatal", "error"))), said[-1])
        raise Problem(f"{name} failed ({done.returncode}): {cause}")
    return done.stdout


# --- uv and the environment -------------------------------------------------------------------


def uv_version(uv):
    """(major, minor) of a uv program; (0, 0) if it does not answer."""
    try:
        answer = subprocess.run([uv, "--version"], stdout=subprocess.PIPE, text=True).stdout
        major, minor = re.search(r"(\d+)\.(\d+)", answer).groups()
        return int(major), int(minor)
    except (OSError, AttributeError):
        return 0, 0


def uv_folder():
    """The helper environment for a uv of our own."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "dl-remote-template", "uv")


@functools.lru_cache(maxsize=None)  # noqa: UP033 (Python 3.8)
def uv_at_hand():
    """A uv on this machine that is new enough, or None."""
    # a shell that ssh starts has no ~/.local/bin in its PATH
    homes = [Path.home() / ".local/bin/uv", Path.home() / ".cargo/bin/uv", uv_folder() / "bin/uv"]
    for candidate in [shutil.which("uv"), *map(str, homes)]:
        if candidate and os.path.exists(candidate) and uv_version(candidate) >= OLDEST_UV:
            return candidate
    return None


def find_uv():
    """A uv that is new enough: the user's own, or one from PyPI in a helper environment."""
    return uv_at_hand() or fetch_uv()


@functools.lru_cache(maxsize=None)  # noqa: UP033 (Python 3.8)
def fetch_uv():
    """Bring uv from PyPI into its helper environment; returns the program."""
    helper = uv_folder()
    print("uv is fetched from PyPI ...", flush=True)
    building = Path(f"{helper}.{mark()}")
    options = {"stderr": subprocess.STDOUT}
    try:
        helper.parent.mkdir(parents=True, exist_ok=True)
        remove_left_overs(helper)
        try:
            run([sys.executable, "-m", "venv", building], **options)
            pip = [building / "bin/python", "-m", "pip", "install"]
        except Problem:  # Debian keeps venv in a package of its own
            shutil.rmtree(building, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "install", "--target", building]
        run([*pip, "--quiet", "uv>={}.{}".format(*OLDEST_UV)], **options)
        shutil.rmtree(helper, ignore_errors=True)
        building.rename(helper)
    except (OSError, Problem) as error:
        shutil.rmtree(building, ignore_errors=True)
        raise Problem(
            f"uv is missing and cannot be fetched: {error} Install uv, or python3-venv and a"
            " network, then run python3 bootstrap.py."
        ) from None
    return str(helper / "bin/uv")


def own_environment():
    """The environment variables without what leads to another project's packages."""
    return {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}


def uv_environment():
    """The environment variables for uv, with the sources of packages that pip is told of."""
    variables = own_environment()
    for pip_name, uv_name in PACKAGE_SOURCES.items():
        if pip_name in variables and not variables.get(uv_name):
            words = variables[pip_name].split()  # pip separates by spaces
            variables[uv_name] = (" " if uv_name == "UV_INDEX" else ",").join(words)
    return variables


def package_sources():
    """Where the environment says that packages come from, in pip's or uv's variables."""
    names = [*PACKAGE_SOURCES, *PACKAGE_SOURCES.values(), "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"]
    return [os.environ[name] for name in names if os.environ.get(name)]


def torch_backend():
    """The option that picks torch for this machine's GPU, unless the user says where wheels are."""
    told = package_sources() or os.environ.get("UV_TORCH_BACKEND")
    return [] if told else ["--torch-backend=auto"]


def install_lock(into):
    """Install the locked packages; from uv's cache alone, without the network, if it has them all.

    Otherwise uv asks the index for news of each package, although the lock leaves nothing to
    choose. An index that the user names is always asked: offline, uv passes over one that it has
    not seen yet in silence, and takes the package from the next.
    """
    install = ["pip", "install", *into, *torch_backend(), "--requirement", LOCK]
    if not any("://" in source for source in package_sources()):
        try:
            uv_run(*install, "--offline", stderr=subprocess.PIPE)
            return
        except Problem:
            pass  # the cache lacks something
    uv_run(*install)


def uv_run(*arguments, **options):
    """Run uv; on a terminal it shows its progress itself, elsewhere only its errors."""
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    return run([find_uv(), *quiet, *arguments], env=uv_environment(), **options)


def mark():
    """What a half-made folder's name ends with: whose it is, so that it can be cleaned up later."""
    return f"building-{socket.gethostname()}-{os.getpid()}"


def remove_left_overs(folder):
    """Remove what earlier set-ups that were broken off left beside `folder`."""
    start = f"{folder}.building-{socket.gethostname()}-"
    for left in glob.glob(glob.escape(start) + "*"):
        try:
            os.kill(int(left[len(start) :]), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:
            pass  # that process lives, under another user


def lock_hash():
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def source_from(venv):
    """How an environment finds src/: relative, if it lies in or beside the project, or in envs/.

    So both can be moved. A relative path also has no foreign letters, at which a Python in the C
    locale would die.
    """
    if {SOURCE.parent, SOURCE.parent.parent} & set(venv.parents):
        packages = venv / "lib/python{}/site-packages".format(setting("python"))
        return os.path.relpath(SOURCE, packages)
    return str(SOURCE)


def stamp(venv):
    """What identifies a whole environment of this project."""
    return {"python": setting("python"), "lock": lock_hash(), "source": source_from(venv)}


def found_stamp(venv):
    """The stamp that an environment bears; {} if it is not one of ours, or not whole."""
    try:
        return json.loads((venv / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def out_of_step(venv):
    """Why the environment has to be built, or None: (what, details)."""
    found = found_stamp(venv)
    if not found:
        return "is missing" if not venv.exists() else "was not made by bootstrap.py, or not wholly"
    if not os.access(venv / "bin/python", os.X_OK):
        return "has lost its Python"
    names = {"python": "is for another Python", "lock": "is older than requirements.txt"}
    for key, value in stamp(venv).items():
        if found.get(key) != value:
            return names.get(key, "belongs to another folder")
    return None


def would_change(python, file):
    """Whether an environment lacks something that requirements.txt or pyproject.toml asks for."""
    asked = ["pip", "install", "--dry-run", "--offline", "--python", python, "--requirement", file]
    try:
        said = run([find_uv(), *asked], env=uv_environment(), stderr=subprocess.STDOUT)
    except Problem:  # what is missing is not in uv's cache either
        return True
    return "Would make no changes" not in said


def make_environment(venv):
    """Build the environment beside its place and move it there; returns what was done."""
    remove_left_overs(venv)
    reason = out_of_step(venv)
    if not reason and uv_at_hand() and would_change(venv / "bin/python", LOCK):
        reason = "has lost packages, or has others than requirements.txt"
    if not reason:
        doubt = "" if uv_at_hand() else ", as far as can be told without uv"
        return f"{venv.name} is in step with requirements.txt{doubt}"
    empty = venv.is_dir() and not os.listdir(venv)
    if venv.exists() and not empty and not (venv / "pyvenv.cfg").exists():
        raise Problem(f"{venv} exists and is no environment; choose another --venv folder.")
    python = setting("python")
    building = Path(f"{venv}.{mark()}")
    into = ["--python", building]
    try:
        building.parent.mkdir(parents=True, exist_ok=True)
        uv_run("venv", "--no-project", "--relocatable", "--python", python, building)
        install_lock(into)
        uv_run("pip", "install", *into, "--no-deps", "--editable", ".")
        for path in building.glob("lib/python*/site-packages/*.pth"):
            if path.read_text("utf-8").strip() == str(ROOT / "src"):
                path.write_text(source_from(venv) + "\n", "utf-8")
        (building / STAMP).write_text(json.dumps(stamp(venv), indent=1) + "\n", "utf-8")
        kept = put_in_place(building, venv)
    except OSError as error:
        raise Problem(f"{error.filename or venv}: {error.strerror}; nothing was changed.") from None
    except Problem as problem:
        raise Problem(f"{venv.name} {reason}, and {problem}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return f"{venv.name}, Python {python}, {count_packages(venv)} packages{kept}"


def put_in_place(building, venv):
    """Swap the new environment in; an environment that is not ours is set aside, not deleted."""
    kept = ""
    if venv.exists():
        ours = found_stamp(venv).get("source") == source_from(venv)
        aside = Path(f"{venv}.{mark()}-old") if ours else free_name(f"{venv}.before-bootstrap")
        venv.rename(aside)
        try:
            building.rename(venv)
        except OSError:
            aside.rename(venv)
            raise
        if ours:
            shutil.rmtree(aside, ignore_errors=True)
        else:
            kept = f"; the environment that was there is now {aside.name}"
    else:
        building.rename(venv)
    return kept


def free_name(path):
    number = 1
    candidate = Path(path)
    while candidate.exists():
        number += 1
        candidate = Path(f"{path}-{number}")
    return candidate


def count_packages(venv):
    return len(glob.glob(glob.escape(str(venv)) + "/lib/python*/site-packages/*.dist-info"))


# --- kernel and repository --------------------------------------------------------------------


def make_kernel(venv):
    """Register the Jupyter kernel; lab/kernel.py knows how a name clash is settled."""
    if not os.access(venv / "bin/python", os.X_OK):
        raise Skip("there is no environment to run it")
    install = [venv / "bin/python", "-m", "lab.cli", "kernel", "install"]
    return run(install, env=own_environment(), stderr=subprocess.PIPE).strip()


def git(*arguments, **location):
    """Run git in this folder, whatever repository a calling git hook may have set."""
    variables = {k: v for k, v in os.environ.items() if k not in GIT_LOCATION}
    options = {"env": {**variables, "LC_ALL": "C", **location}, "stderr": subprocess.PIPE}
    return run(["git", *arguments], **options).strip()


def make_repository():
    """Make what is missing of the git repository, its notebook filter and the first commit."""
    if not shutil.which("git"):
        raise Skip("git is not installed")
    remove_left_overs(ROOT / ".git")
    try:
        top = git("rev-parse", "--show-toplevel")
    except Problem as problem:
        if "not a git repository" not in str(problem):
            raise
        return f"made; {new_repository()}"
    if not os.path.samefile(top, ROOT):
        raise Skip(f"this folder is part of the repository {top}")
    return complete_repository() or "is there, with its notebook filter"


def new_repository():
    """Make a repository beside its place, where a kill leaves no lock of git's; then move it."""
    building = Path(f"{ROOT}/.git.{mark()}")
    location = {"GIT_DIR": f"{building}/.git", "GIT_WORK_TREE": str(ROOT)}
    try:
        branch = git("config", "init.defaultBranch")
    except Problem:
        branch = "main"
    try:
        git("-c", f"init.defaultBranch={branch}", "init", "--quiet", building)
        done = complete_repository(**location)
        os.rename(location["GIT_DIR"], ROOT / ".git")
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return done


def complete_repository(**location):
    """Give a repository its notebook filter and a first commit; what was done, "" if nothing."""
    if git("config", "--default", "", "--get", FILTER, **location) != NOTEBOOK_FILTER:
        git("config", FILTER, NOTEBOOK_FILTER, **location)
    if commits(**location):
        return ""
    try:
        git("var", "GIT_COMMITTER_IDENT", **location)
    except Problem:
        raise Problem(
            "the first commit needs to know who you are: git config --global user.name NAME;"
            " git config --global user.email ADDRESS; then run python3 bootstrap.py."
        ) from None
    git("-c", "core.safecrlf=false", "add", "--all", **location)
    message = f"Start {setting('name')} from dl-remote-template"
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


def commits(**location):
    """Whether the repository has a commit."""
    try:
        return bool(git("rev-parse", "--verify", "--quiet", "HEAD", **location))
    except Problem:
        return False


# --- the three commands -----------------------------------------------------------------------


def set_up(wanted):
    """Take the steps that are wanted; say what became of each; 1 if one failed."""
    steps = {
        "environment": (wanted.environment, lambda: make_environment(wanted.venv)),
        "kernel": (wanted.kernel, lambda: make_kernel(wanted.venv)),
        "repository": (wanted.git, make_repository),
    }
    table = []
    for name, (wish, step) in steps.items():
        table.append(outcome(name, step) if wish else ("skipped", name, "not asked for"))
    return report(table, "failed", "Mend what failed, then run: python3 bootstrap.py")


def outcome(name, step):
    """Run one step; it never raises: (done, skipped or failed; the step; details)."""
    try:
        return "done", name, step()
    except Skip as reason:
        return "skipped", name, str(reason)
    except (Problem, OSError) as problem:
        return "failed", name, str(problem)


def report(table, bad, advice):
    """Print rows of (state, step, details); 1 and an advice if one of them is bad."""
    for state, name, details in table:
        print(f"  {state:<8} {name:<12} {details}")
    if any(state == bad for state, *_ in table):
        print(advice)
        return 1
    return 0


def check(wanted):
    """Compare this machine with the project, changing nothing; 1 if something is out of step."""
    python = wanted.venv / "bin/python"
    steps = {
        "environment": (wanted.environment, lambda: check_environment(wanted.venv)),
        "packages": (wanted.environment, lambda: check_packages(python)),
        "kernel": (wanted.kernel, lambda: check_kernel(python)),
        "repository": (wanted.git, check_repository),
    }
    words = {"done": "ok", "skipped": "skipped", "failed": "stale"}
    table = [outcome(name, step) for name, (wish, step) in steps.items() if wish]
    table = [(words[state], name, details) for state, name, details in table]
    return report(table, "stale", "To mend it: python3 bootstrap.py")


def check_environment(venv):
    reason = out_of_step(venv)
    if reason:
        raise Problem(f"{venv.name} {reason}")
    torch = glob.glob(glob.escape(str(venv)) + "/lib/python*/site-packages/torch-*.dist-info")
    build = Path(torch[0]).name[len("torch-") : -len(".dist-info")] if torch else "is not installed"
    return f"Python {setting('python')}, lock {lock_hash()[:12]}, torch {build}"


def check_packages(python):
    """Hold the installed packages against the lock, and the lock against pyproject.toml."""
    if not os.access(python, os.X_OK):
        raise Problem("no environment to look into")
    if would_change(python, LOCK):
        raise Problem("some are missing or differ from requirements.txt")
    if would_change(python, ROOT / "pyproject.toml"):
        raise Problem(
            "requirements.txt lacks what pyproject.toml asks for; first: python3 bootstrap.py lock"
        )
    return f"{count_packages(python.parent.parent)} installed, as locked"


def check_kernel(python):
    if not os.access(python, os.X_OK):
        raise Problem("no environment to run it")
    listing = [python, "-m", "lab.cli", "kernel", "list", "--json"]
    kernels = json.loads(run(listing, env=own_environment(), stderr=subprocess.PIPE))
    names = [kernel["name"] for kernel in kernels if kernel["state"] == "this project"]
    if not names:
        raise Problem("not registered with Jupyter")
    return ", ".join(names)


def check_repository():
    if not shutil.which("git"):
        raise Skip("git is not installed")
    top = git("rev-parse", "--show-toplevel")
    if not os.path.samefile(top, ROOT):
        raise Skip(f"this folder is part of the repository {top}")
    if not commits():
        raise Problem("it has no commit yet")
    if git("config", "--default", "", "--get", FILTER) != NOTEBOOK_FILTER:
        raise Problem("the notebook filter is missing")
    return "is there, with its notebook filter"


def lock(uv_arguments):
    """Compile requirements.txt from pyproject.toml; what is pinned there stays if it still fits.

    One lock serves macOS and Linux, with a GPU or without: no addresses, no CUDA packages, no
    local versions.
    """
    draft = Path(f"{LOCK}.{mark()}")
    oldest = re.search(r">=\s*([0-9.]+)", setting("requires-python"))
    if not oldest:
        raise Problem("requires-python in pyproject.toml has to name the oldest: >=3.10.")
    before = LOCK.read_text("utf-8") if LOCK.exists() else ""
    try:
        draft.write_text(before, "utf-8")
        compiling = ["pip", "compile", "pyproject.toml", "--group=dev", "--output-file", draft]
        compiling += ["--universal", "--python-version", oldest[1], "--no-annotate", "--no-header"]
        uv_run(*compiling, *uv_arguments)
        compiled = draft.read_text("utf-8")
        draft.write_text(pins_only(compiled), "utf-8")
        if LOCAL_VERSION.search(compiled):  # uv split torch by where its local versions fit:
            uv_run(*compiling)  # from the bare version it makes one line again
        after = pins_only(draft.read_text("utf-8"))
        draft.write_text(after, "utf-8")
        draft.replace(LOCK)
    except OSError as error:
        raise Problem(f"{error.filename or LOCK}: {error.strerror}.") from None
    finally:
        if draft.exists():
            draft.unlink()
    old, new = set(before.splitlines()), set(after.splitlines())
    changes = [f"{'+' if line in new else '-'} {line}" for line in sorted(old ^ new)]
    print("\n".join(changes) or "requirements.txt is unchanged")
    if changes:
        print("To bring this machine in step: python3 bootstrap.py")
    return 0


def pins_only(compiled):
    """What uv compiled, without CUDA packages and local versions, under our own header."""
    pins = [
        LOCAL_VERSION.sub(r"\1", line)
        for line in compiled.splitlines()
        if line[:1].isalpha() and not CUDA_PACKAGES.match(line)
    ]
    return "\n".join([LOCK_HEADER, *pins]) + "\n"


def main():
    global SOURCE
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # a console may not know every letter
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", choices=["lock"], help="further options go to uv")
    parser.add_argument("--check", action="store_true", help="change nothing; tell what is stale")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", metavar="DIR")
    parser.add_argument(
        "--source", type=Path, default=SOURCE, metavar="DIR", help="the src/ it finds"
    )
    for step, what in [("venv", "environment"), ("kernel", "kernel"), ("git", "git")]:
        parser.add_argument(f"--no-{step}", action="store_false", dest=what)
    wanted, rest = parser.parse_known_args()
    if rest and wanted.command != "lock":
        parser.error(f"unknown: {' '.join(rest)}")
    if wanted.check and wanted.command == "lock":
        parser.error("lock changes requirements.txt, and --check changes nothing: one or the other")
    wanted.venv = Path(os.path.realpath(wanted.venv))
    SOURCE = Path(os.path.realpath(wanted.source))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing half-made stays
    try:
        if wanted.command == "lock":
            return lock(rest)
        return check(wanted) if wanted.check else set_up(wanted)
    except (Problem, OSError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nBroken off; nothing half-made is in use. Run again: python3 bootstrap.py")
        return 130


if __name__ == "__main__":
    sys.exit(main())
