#!/usr/bin/env python3
"""Set this project up on any machine: environment, Jupyter kernel, git repository.

python3 bootstrap.py            set up, or bring up to date; safe to run again at any time
python3 bootstrap.py --uv ...   run uv as it is run here, for lab lock and lab check
"""

import argparse
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "requirements.txt"
STAMP = "lab-environment.json"  # written last: an environment that has it is whole
OLDEST_UV = (0, 9)
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dl-remote-template")
# What pip is told about where packages come from, and what uv calls the same.
PIP = {"FIND_LINKS": "FIND_LINKS", "INDEX_URL": "DEFAULT_INDEX", "EXTRA_INDEX_URL": "INDEX"}
SOURCES = ["UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"]
FOREIGN = ("VIRTUAL_ENV", "PYTHONPATH", "LAB_PROJECT")  # lead to another project


class Problem(Exception):
    """A step that cannot be done: the cause and the next step, in one line."""


class Skip(Problem):
    """A step that has nothing to do here: why, in one line."""


def setting(name):
    """A string of pyproject.toml, such as `python = "3.11"`; tomllib came only with Python 3.11."""
    found = re.search(rf'^{name} = "([^"]*)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    if not found:
        raise Problem(f'pyproject.toml has no line {name} = "..."; put it back.')
    return found.group(1)


def run(command, **options):
    """Run a command in the project and return what it printed; Problem if it fails."""
    usual = {"cwd": ROOT, "input": "", "stdout": subprocess.PIPE, "text": True, "errors": "replace"}
    try:
        done = subprocess.run([str(word) for word in command], **{**usual, **options})
    except OSError as error:
        raise Problem(f"{command[0]} cannot be started: {error.strerror}.") from None
    if done.returncode != 0:
        name = " ".join(Path(str(word)).name for word in command[:3])
        said = (done.stderr or done.stdout or "").strip().splitlines() or ["see above"]
        cause = next((line for line in said if line.startswith(("fatal", "error"))), said[-1])
        raise Problem(f"{name} failed ({done.returncode}): {cause}")
    return done.stdout


def mark():
    """What a half-made folder's name ends with: whose it is, so that it can be cleaned up later."""
    return f"building-{os.uname().nodename}-{os.getpid()}"


def remove_left_overs(folder):
    """Remove what earlier set-ups that were interrupted left beside `folder`."""
    start = f"{folder}.building-{os.uname().nodename}-"
    for left in glob.glob(glob.escape(start) + "*"):
        try:
            os.kill(int(left[len(start) :]), 0)
        except PermissionError:
            continue  # that process lives, under another user
        except (OSError, ValueError):
            shutil.rmtree(left, ignore_errors=True)


def find_uv():
    """A uv that is new enough: one that is at hand, or else from PyPI in a helper environment."""
    # a shell that ssh starts has no ~/.local/bin in its PATH
    folders = [Path.home() / ".local/bin", Path.home() / ".cargo/bin", CACHE / "uv/bin"]
    for uv in filter(None, [shutil.which("uv", path=path) for path in [None, *map(str, folders)]]):
        answer = subprocess.run([uv, "--version"], stdout=subprocess.PIPE, text=True).stdout
        version = re.search(r"(\d+)\.(\d+)", answer)
        if version and tuple(map(int, version.groups())) >= OLDEST_UV:
            return uv
    print("uv is fetched from PyPI ...", flush=True)
    helper = CACHE / "uv"
    building, said = Path(f"{helper}.{mark()}"), {"stderr": subprocess.STDOUT}
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        remove_left_overs(helper)
        try:
            run([sys.executable, "-m", "venv", building], **said)
            pip = [building / "bin/python", "-m", "pip", "install"]
        except Problem:  # Debian keeps venv in a package of its own
            shutil.rmtree(building, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "install", "--target", building]
        run([*pip, "--quiet", "uv>={}.{}".format(*OLDEST_UV)], **said)
        shutil.rmtree(helper, ignore_errors=True)
        building.rename(helper)
    except (OSError, Problem) as error:
        shutil.rmtree(building, ignore_errors=True)
        advice = "Install uv, or python3-venv and a network, then run python3 bootstrap.py."
        raise Problem(f"uv is missing and cannot be fetched: {error} {advice}") from None
    return str(helper / "bin/uv")


def variables():
    """The environment for uv and lab: nothing of another project, pip's sources in uv's words."""
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    for pip, uv in PIP.items():
        words = kept.get(f"PIP_{pip}", "").split()  # pip separates by spaces
        if words and not kept.get(f"UV_{uv}"):
            kept[f"UV_{uv}"] = (" " if uv == "INDEX" else ",").join(words)
    return kept


def uv_run(*arguments, **options):
    """Run uv; on a terminal it shows its progress itself, elsewhere only its errors."""
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    return run([find_uv(), *quiet, *arguments], env=variables(), **options)


def locked():
    """The lock in two parts: pins, as a text; and what lies in this folder, as uv's words."""
    lines = LOCK.read_text("utf-8").splitlines()
    own = [line for line in lines if line.startswith(("./", "-e"))]
    for words, _, digest in (line.partition(" # sha256 ") for line in own):
        if digest and digest != hashlib.sha256((ROOT / words).read_bytes()).hexdigest():
            raise Problem(f"{words} is not the file that requirements.txt names.")
    pins = "\n".join(line for line in lines if line not in own)
    return pins, [word for line in own for word in line.partition(" #")[0].split()]


def install_lock(python):
    """Install the locked packages; from uv's cache alone, without the network, if it has them all.

    Otherwise uv asks the index for news of each package. An index that the user names is always
    asked: offline, uv passes over one that it has not seen yet in silence, and takes the package
    from the next. What lies in this folder comes without dependencies: the lock has them.
    """
    pins, own = locked()
    told = [variables()[name] for name in SOURCES if variables().get(name)]
    # unless told otherwise: torch for this machine's GPU
    backend = [] if told or os.environ.get("UV_TORCH_BACKEND") else ["--torch-backend=auto"]
    from_pins = ["pip", "install", "--python", python, *backend, "--requirement", "-"]
    try:
        if any("://" in source for source in told):
            raise Problem
        uv_run(*from_pins, "--offline", input=pins, stderr=subprocess.PIPE)
    except Problem:  # the cache lacks something
        uv_run(*from_pins, input=pins)
    uv_run("pip", "install", "--python", python, "--no-deps", *own)


def stamp(venv, source):
    """What identifies a whole environment of this project, and what is in it."""
    lock = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    packages = sorted(path.name for path in venv.glob("lib/python*/site-packages/*.dist-info"))
    # relative in or beside the project: both can be moved, and a C locale dies of foreign letters
    if {source.parent, source.parent.parent} & set(venv.parents):
        source = os.path.relpath(source, next(venv.glob("lib/python*/site-packages"), venv))
    return {"python": setting("python"), "lock": lock, "source": str(source), "packages": packages}


def out_of_date(venv, source):
    """Why the environment has to be built, or None; and whether the one that is there is ours."""
    made = stamp(venv, source)
    try:
        found = json.loads((venv / STAMP).read_text("utf-8"))
        lost = set(found["packages"]) - set(made["packages"])
    except (OSError, ValueError, LookupError):
        return (
            "was not made by bootstrap.py, or not wholly" if venv.exists() else "is missing",
            False,
        )
    ours = found["source"] == made["source"]
    reasons = {
        "has lost its Python": not os.access(venv / "bin/python", os.X_OK),
        "is for another Python": found["python"] != made["python"],
        "is older than requirements.txt": found["lock"] != made["lock"],
        "has lost packages, or has others than requirements.txt": lost,
        "belongs to another folder": not ours,
    }
    return next((reason for reason, true in reasons.items() if true), None), ours


def make_environment(venv, source):
    """Build the environment beside its place and, whole, move it there; returns what was done."""
    remove_left_overs(venv)
    reason, ours = out_of_date(venv, source)
    if not reason:
        return f"{venv.name} is up to date with requirements.txt"
    if venv.is_file() or venv.is_dir() and os.listdir(venv) and not (venv / "pyvenv.cfg").exists():
        raise Problem(f"{venv} exists and is no environment; choose another --venv folder.")
    building = Path(f"{venv}.{mark()}")
    try:
        building.parent.mkdir(parents=True, exist_ok=True)
        uv_run("venv", "--no-project", "--relocatable", "--python", setting("python"), building)
        install_lock(building)
        made = stamp(building, source)  # the way from there to src/ is that from its final place
        for path in building.glob("lib/python*/site-packages/*.pth"):
            if path.read_text("utf-8").strip() == str(ROOT / "src"):
                path.write_text(made["source"] + "\n", "utf-8")
        (building / STAMP).write_text(json.dumps(made, indent=1) + "\n", "utf-8")
        kept = put_in_place(building, venv, ours)
    except OSError as error:
        raise Problem(f"{error.filename or venv}: {error.strerror}; nothing was changed.") from None
    except Problem as problem:
        raise Problem(f"{venv.name} {reason}, and {problem}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return f"{venv.name}, Python {made['python']}, {len(made['packages'])} packages{kept}"


def put_in_place(building, venv, ours):
    """Swap the new environment in; an environment that is not ours is set aside, not deleted."""
    there, aside = (
        venv.exists(),
        Path(f"{venv}.{mark()}-old" if ours else f"{venv}.before-bootstrap"),
    )
    if aside.exists():
        aside = Path(f"{aside}-{os.getpid()}")
    try:
        if there:
            venv.rename(aside)
        building.rename(venv)
    except OSError:
        if there and not venv.exists():
            aside.rename(venv)
        raise
    if ours:
        shutil.rmtree(aside, ignore_errors=True)
    return f"; the environment that was there is now {aside.name}" if there and not ours else ""


def ask_lab(python, extra, *arguments):
    """What a command of lab prints; Skip if there is no Python to run it."""
    if not os.access(python, os.X_OK):
        raise Skip("there is no environment to run it")
    options = {"env": {**variables(), **extra}, "stderr": subprocess.PIPE}
    said = run([python, "-m", *arguments], **options).strip()
    if said.startswith("skipped: "):
        raise Skip(said[len("skipped: ") :])
    return said


def set_up(wanted):
    """Take the steps that are wanted; say what became of each; 1 if one failed."""
    wheel, python = next(ROOT.glob("vendor/*.whl"), None), wanted.venv / "bin/python"
    early = (sys.executable, {"PYTHONPATH": str(wheel)}) if wheel else (python, {})  # any Python
    steps = {
        "environment": lambda: make_environment(wanted.venv, wanted.source),
        "kernel": lambda: ask_lab(python, {}, "lab.cli", "kernel", "install"),
        "repository": lambda: ask_lab(*early, "lab.environment.repository"),
    }
    failed = False
    for name, step in steps.items():
        try:
            if not getattr(wanted, name):
                raise Skip("not asked for")
            state, details = "done", step()
        except (Problem, OSError) as why:
            state, details = "skipped" if isinstance(why, Skip) else "failed", str(why)
        failed |= state == "failed"
        print(f"  {state:<8} {name:<12} {details}", flush=True)
    if failed:
        print("Fix what failed, then run: python3 bootstrap.py")
    return int(failed)


def main():
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # a console may not know every letter
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", metavar="DIR")
    parser.add_argument("--source", type=Path, default=ROOT / "src", metavar="DIR")
    for step, what in [("venv", "environment"), ("kernel", "kernel"), ("git", "repository")]:
        parser.add_argument(f"--no-{step}", action="store_false", dest=what)
    parser.add_argument("--uv", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    wanted.venv, wanted.source = (Path(os.path.realpath(p)) for p in (wanted.venv, wanted.source))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing half-made stays
    try:
        if wanted.uv is not None:
            return subprocess.run([find_uv(), *wanted.uv], env=variables()).returncode
        return set_up(wanted)
    except (Problem, OSError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; nothing half-made is in use. Run again: python3 bootstrap.py")
        return 130


if __name__ == "__main__":
    sys.exit(main())
