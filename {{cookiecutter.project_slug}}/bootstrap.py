#!/usr/bin/env python3
"""Set this project up on any machine: environment, Jupyter kernel, git repository.

    python3 bootstrap.py            set up, or bring up to date with requirements.txt
    python3 bootstrap.py --uv ...   run uv as it is run here, for lab lock and lab check

It is safe to run again at any time. Standard library only, Python 3.8 or newer: it runs before
there is an environment. uv builds that beside its final place, and it is moved there when it is
whole: a set-up that was interrupted leaves the old environment or the new one, never half of one.
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
LOCK = ROOT / "requirements.txt"
STAMP = "lab-environment.json"  # written last: an environment that has it is whole
OLDEST_UV = (0, 9)
# What pip is told about where packages come from, and what uv calls the same.
PACKAGE_SOURCES = {
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
}


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
    usual = {"cwd": ROOT, "stdout": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}
    usual.update({} if "input" in options else {"stdin": subprocess.DEVNULL})
    try:
        done = subprocess.run([str(word) for word in command], **{**usual, **options})
    except OSError as error:
        raise Problem(f"{command[0]} cannot be started: {error.strerror}.") from None
    if done.returncode != 0:
        name = " ".join(Path(str(word)).name for word in command[:3])
        silent = "see above" if done.stderr is None else "it said nothing"
        said = (done.stderr or done.stdout or "").strip().splitlines() or [silent]
        cause = next((line for line in said if line.startswith(("fatal", "error"))), said[-1])
        raise Problem(f"{name} failed ({done.returncode}): {cause}")
    return done.stdout


# --- uv ---------------------------------------------------------------------------------------


def uv_folder():
    """The helper environment for a uv of our own."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "dl-remote-template", "uv")


@functools.lru_cache(maxsize=None)  # noqa: UP033 (Python 3.8)
def uv_at_hand():
    """A uv on this machine that is new enough, or None."""
    # a shell that ssh starts has no ~/.local/bin in its PATH
    homes = [Path.home() / ".local/bin/uv", Path.home() / ".cargo/bin/uv", uv_folder() / "bin/uv"]
    for uv in [shutil.which("uv"), *map(str, homes)]:
        try:
            answer = uv and subprocess.run([uv, "--version"], stdout=subprocess.PIPE, text=True)
        except OSError:
            continue
        version = answer and re.search(r"(\d+)\.(\d+)", answer.stdout)
        if version and tuple(map(int, version.groups())) >= OLDEST_UV:
            return uv
    return None


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
    """The environment variables without what leads to another project and its packages."""
    foreign = ("VIRTUAL_ENV", "PYTHONPATH", "LAB_PROJECT")
    return {name: value for name, value in os.environ.items() if name not in foreign}


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


def uv_run(*arguments, **options):
    """Run uv; on a terminal it shows its progress itself, elsewhere only its errors."""
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    return run([uv_at_hand() or fetch_uv(), *quiet, *arguments], env=uv_environment(), **options)


# --- the environment --------------------------------------------------------------------------


def locked():
    """The lock in two parts: pins, as a text; and what is in this folder, as uv's words."""
    pins, own = [], []
    for line in LOCK.read_text("utf-8").splitlines():
        words, _, comment = line.partition(" #")
        if not words.startswith(("./", "-e")):
            pins.append(line)
            continue
        own += words.split()
        told = re.search("sha256 ([0-9a-f]{64})", comment)
        if told and told[1] != hashlib.sha256((ROOT / words.strip()).read_bytes()).hexdigest():
            raise Problem(f"{words.strip()} is not the file that requirements.txt names.")
    return "\n".join(pins), own


def install_lock(python):
    """Install the locked packages; from uv's cache alone, without the network, if it has them all.

    Otherwise uv asks the index for news of each package, although the lock leaves nothing to
    choose. An index that the user names is always asked: offline, uv passes over one that it has
    not seen yet in silence, and takes the package from the next. What lies in this folder comes
    last and without dependencies: the lock has them.
    """
    pins, own = locked()
    told = package_sources() or os.environ.get("UV_TORCH_BACKEND")
    backend = [] if told else ["--torch-backend=auto"]  # torch for this machine's GPU
    install = ["pip", "install", "--python", python]
    from_pins = [*install, *backend, "--requirement", "-"]
    try:
        if any("://" in source for source in package_sources()):
            raise Problem
        uv_run(*from_pins, "--offline", input=pins, stderr=subprocess.PIPE)
    except Problem:  # the cache lacks something
        uv_run(*from_pins, input=pins)
    uv_run(*install, "--no-deps", *own)


def mark():
    """What a half-made folder's name ends with: whose it is, so that it can be cleaned up later."""
    return f"building-{socket.gethostname()}-{os.getpid()}"


def remove_left_overs(folder):
    """Remove what earlier set-ups that were interrupted left beside `folder`."""
    start = f"{folder}.building-{socket.gethostname()}-"
    for left in glob.glob(glob.escape(start) + "*"):
        try:
            os.kill(int(left[len(start) :]), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:
            pass  # that process lives, under another user


def stamp(venv, source):
    """What identifies a whole environment of this project, and how it finds src/.

    That is relative, if the environment lies in or beside the project, or in envs/: so both can be
    moved. A relative path also has no foreign letters, at which a Python in the C locale would die.
    """
    lock = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if {source.parent, source.parent.parent} & set(venv.parents):
        source = os.path.relpath(source, next(iter(packages(venv)), venv / "lib/python/packages"))
    return {"python": setting("python"), "lock": lock, "source": str(source)}


def packages(venv):
    """The folders of installed packages in an environment: one."""
    return [Path(path) for path in glob.glob(f"{glob.escape(str(venv))}/lib/python*/site-packages")]


def found_stamp(venv):
    """The stamp that an environment bears; {} if it is not one of ours, or not whole."""
    try:
        return json.loads((venv / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def out_of_date(venv, source):
    """Why the environment has to be built, or None."""
    found = found_stamp(venv)
    if not found:
        return "is missing" if not venv.exists() else "was not made by bootstrap.py, or not wholly"
    if not os.access(venv / "bin/python", os.X_OK):
        return "has lost its Python"
    names = {"python": "is for another Python", "lock": "is older than requirements.txt"}
    for key, value in stamp(venv, source).items():
        if found.get(key) != value:
            return names.get(key, "belongs to another folder")
    if not uv_at_hand():
        return None
    asked = ["pip", "install", "--dry-run", "--offline", "--python", venv, "--requirement", "-"]
    try:  # loudly: --quiet would hide the answer
        options = {"env": uv_environment(), "stderr": subprocess.STDOUT, "input": locked()[0]}
        said = run([uv_at_hand(), *asked], **options)
    except Problem:  # what is missing is not in uv's cache either
        said = ""
    same = "Would make no changes" in said
    return None if same else "has lost packages, or has others than requirements.txt"


def make_environment(venv, source):
    """Build the environment beside its place and move it there; returns what was done."""
    remove_left_overs(venv)
    reason = out_of_date(venv, source)
    if not reason:
        doubt = "" if uv_at_hand() else ", as far as can be told without uv"
        return f"{venv.name} is up to date with requirements.txt{doubt}"
    empty = venv.is_dir() and not os.listdir(venv)
    if venv.exists() and not empty and not (venv / "pyvenv.cfg").exists():
        raise Problem(f"{venv} exists and is no environment; choose another --venv folder.")
    building = Path(f"{venv}.{mark()}")
    try:
        building.parent.mkdir(parents=True, exist_ok=True)
        uv_run("venv", "--no-project", "--relocatable", "--python", setting("python"), building)
        install_lock(building)
        # both lie in one folder, and the way from there to src/ is the same
        made = stamp(building, source)
        for path in building.glob("lib/python*/site-packages/*.pth"):
            if path.read_text("utf-8").strip() == str(ROOT / "src"):
                path.write_text(made["source"] + "\n", "utf-8")
        (building / STAMP).write_text(json.dumps(made, indent=1) + "\n", "utf-8")
        kept = put_in_place(building, venv, made["source"])
    except OSError as error:
        raise Problem(f"{error.filename or venv}: {error.strerror}; nothing was changed.") from None
    except Problem as problem:
        raise Problem(f"{venv.name} {reason}, and {problem}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    count = sum(len(list(folder.glob("*.dist-info"))) for folder in packages(venv))
    return f"{venv.name}, Python {setting('python')}, {count} packages{kept}"


def put_in_place(building, venv, source):
    """Swap the new environment in; an environment that is not ours is set aside, not deleted."""
    if not venv.exists():
        building.rename(venv)
        return ""
    ours = found_stamp(venv).get("source") == source
    number, aside = 1, Path(f"{venv}.{mark()}-old" if ours else f"{venv}.before-bootstrap")
    while aside.exists():
        number += 1
        aside = Path(f"{venv}.before-bootstrap-{number}")
    venv.rename(aside)
    try:
        building.rename(venv)
    except OSError:
        aside.rename(venv)
        raise
    if not ours:
        return f"; the environment that was there is now {aside.name}"
    shutil.rmtree(aside, ignore_errors=True)
    return ""


# --- the steps --------------------------------------------------------------------------------


def make_kernel(venv):
    """Register the Jupyter kernel; lab knows how a name clash is settled."""
    if not os.access(venv / "bin/python", os.X_OK):
        raise Skip("there is no environment to run it")
    install = [venv / "bin/python", "-m", "lab.cli", "kernel", "install"]
    return run(install, env=own_environment(), stderr=subprocess.PIPE).strip()


def make_repository(venv):
    """Make what is missing of git repository, notebook filter and first commit; lab knows how."""
    wheels = sorted(map(str, ROOT.glob("vendor/dl_remote_lab-*.whl")))  # Python imports from it
    python = sys.executable if wheels else venv / "bin/python"
    if not os.access(python, os.X_OK):
        raise Skip("there is no environment to run it")
    variables = {**own_environment(), "PYTHONPATH": os.pathsep.join(wheels)}
    command = [python, "-m", "lab.environment.repository"]
    said = run(command, env=variables, stderr=subprocess.PIPE).strip()
    if said.startswith("skipped: "):
        raise Skip(said[len("skipped: ") :])
    return said


def outcome(step):
    """Run one step; it never raises: (done, skipped or failed; details)."""
    try:
        return "done", step()
    except Skip as reason:
        return "skipped", str(reason)
    except (Problem, OSError) as problem:
        return "failed", str(problem)


def set_up(wanted):
    """Take the steps that are wanted; say what became of each; 1 if one failed."""
    steps = {
        "environment": (wanted.environment, lambda: make_environment(wanted.venv, wanted.source)),
        "kernel": (wanted.kernel, lambda: make_kernel(wanted.venv)),
        "repository": (wanted.git, lambda: make_repository(wanted.venv)),
    }
    states = set()
    for name, (asked, step) in steps.items():
        state, details = outcome(step) if asked else ("skipped", "not asked for")
        print(f"  {state:<8} {name:<12} {details}", flush=True)
        states.add(state)
    if "failed" in states:
        print("Fix what failed, then run: python3 bootstrap.py")
    return int("failed" in states)


def main():
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # a console may not know every letter
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--venv", type=os.path.realpath, default=ROOT / ".venv", metavar="DIR")
    parser.add_argument(
        "--source", type=os.path.realpath, default=ROOT / "src", help="the src/ that it finds"
    )
    for step, what in [("venv", "environment"), ("kernel", "kernel"), ("git", "git")]:
        parser.add_argument(f"--no-{step}", action="store_false", dest=what)
    parser.add_argument("--uv", nargs=argparse.REMAINDER, help="run uv")
    wanted = parser.parse_args()
    wanted.venv, wanted.source = Path(os.path.realpath(wanted.venv)), Path(wanted.source)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing half-made stays
    try:
        if wanted.uv is not None:
            uv = uv_at_hand() or fetch_uv()
            return subprocess.run([uv, *wanted.uv], env=uv_environment()).returncode
        return set_up(wanted)
    except (Problem, OSError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; nothing half-made is in use. Run again: python3 bootstrap.py")
        return 130


if __name__ == "__main__":
    sys.exit(main())
