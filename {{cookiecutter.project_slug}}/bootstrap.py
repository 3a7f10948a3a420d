#!/usr/bin/env python3
"""Set this project up, or bring it up to date: environment, Jupyter kernel, git repository."""

import argparse
import configparser
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent
STAMP = "lab-environment.json"  # written last: an environment that has it is complete
OLDEST_UV = (0, 9)
PYTHONS = ("3.10", "3.11", "3.12", "3.13")  # for which the lock has packages
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dl-remote-template")
PIP = {"FIND_LINKS": "FIND_LINKS", "INDEX_URL": "DEFAULT_INDEX", "EXTRA_INDEX_URL": "INDEX"}
PIP_CONF = ["/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf"]
UV_TOML = ["/etc/uv/uv.toml", "~/.config/uv/uv.toml", ROOT / "uv.toml", ROOT / "pyproject.toml"]
UV_LINE = r"^ *(?:\[\[tool.uv.index|(?:url|index|[a-z-]*index-url|find-links|torch-backend) *=)(.+)"
SOURCES = ["UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"]
BUILDING = f".building-{os.uname().nodename}-"  # and the pid: suffix of an unfinished folder
FOREIGN = ("VIRTUAL_ENV", "PYTHONPATH", "LAB_PROJECT")  # they may point to another project


class Problem(Exception):
    """A step that cannot be done: the cause and the next step, in one line."""


def setting(name, default=""):
    """Read a string of [tool.lab] in pyproject.toml; Python 3.10 has no tomllib."""
    line = rf'^\[tool\.lab\](?:.*\n(?!\[))+?{name} = "([^"]*)"'
    found = re.search(line, (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    if not found and not default:
        raise Problem(f'[tool.lab] in pyproject.toml has no {name} = "..."; put it back.')
    return found.group(1) if found else default


def run(command, title="{} failed ({}): ", **options):
    """Run a command in the project and return what it printed; Problem if it fails."""
    usual = {"cwd": ROOT, "input": "", "stdout": subprocess.PIPE, "text": True, "errors": "replace"}
    try:
        done = subprocess.run([str(word) for word in command], **{**usual, **options})
    except OSError as error:
        raise Problem(f"{command[0]} cannot be started: {error.strerror}.") from None
    if done.returncode != 0:
        name = " ".join(Path(str(word)).name for word in command[:3])
        lines = (done.stderr or done.stdout or "").strip().splitlines() or ["see above"]
        cause = next((line for line in lines if line.startswith(("fatal", "error"))), lines[-1])
        raise Problem(title.format(name, done.returncode) + re.sub("^(error|lab): ", "", cause))
    return done.stdout


def remove_leftovers(folder):
    """Remove what earlier set-ups that were interrupted left beside `folder`."""
    for left in glob.glob(glob.escape(f"{folder}{BUILDING}") + "*"):
        pid = left[len(f"{folder}{BUILDING}") :]
        try:
            os.kill(int(pid), 0)
            stat = Path(f"/proc/{pid}/stat")  # a zombie has ended
            alive = not stat.exists() or ") Z " not in stat.read_text("utf-8", "replace")
        except (OSError, ValueError) as error:
            alive = isinstance(error, PermissionError)  # another user's
        if not alive:
            shutil.rmtree(left, ignore_errors=True)


def find_uv():
    """Find a uv that is new enough, or install one from PyPI into an environment of its own."""
    # a shell that ssh starts has no ~/.local/bin in its PATH
    folders = [Path.home() / ".local/bin", Path.home() / ".cargo/bin", CACHE / "uv/bin"]
    for uv in filter(None, [shutil.which("uv", path=path) for path in [None, *map(str, folders)]]):
        answer = subprocess.run([uv, "--version"], stdout=subprocess.PIPE, text=True).stdout
        version = re.search(r"(\d+)\.(\d+)", answer)
        if version and tuple(map(int, version.groups())) >= OLDEST_UV:
            return uv
    print("Downloading uv from PyPI ...", flush=True)
    helper = CACHE / "uv"
    building, merged = Path(f"{helper}{BUILDING}{os.getpid()}"), {"stderr": subprocess.STDOUT}
    try:
        CACHE.mkdir(0o700, parents=True, exist_ok=True)
        remove_leftovers(helper)
        pip = [sys.executable, "-m", "pip", "install", "--target", building]
        if not find_spec("pip"):  # an environment of uv's, or Debian, which keeps it in a package
            run([sys.executable, "-m", "venv", building], **merged)
            pip = [building / "bin/python", "-m", "pip", "install"]
        usual = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}  # whatever pip.conf says
        merged["env"] = {**os.environ, **usual}
        run([*pip, "--quiet", "uv>={}.{}".format(*OLDEST_UV)], **merged)
        shutil.rmtree(helper, ignore_errors=True)
        building.rename(helper)
    except (OSError, Problem) as error:
        shutil.rmtree(building, ignore_errors=True)
        raise Problem(f"uv is missing and cannot be downloaded: {error} Install uv.") from None
    return str(helper / "bin/uv")


def variables():
    """Return the variables for uv and lab: no other project's, and pip's settings as uv's."""
    passed = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    conf = configparser.RawConfigParser(strict=False)
    conf.read(map(os.path.expanduser, [*PIP_CONF, passed.get("PIP_CONFIG_FILE", "")]), "utf-8")
    for pip, uv in PIP.items():
        key = pip.lower().replace("_", "-")
        found = [conf.get(section, key, fallback="") for section in ("install", "global")]
        words = (passed.get(f"PIP_{pip}") or found[0] or found[1]).split()  # by spaces in pip
        if words and not passed.get(f"UV_{uv}"):
            passed[f"UV_{uv}"] = (" " if uv == "INDEX" else ",").join(words)
            if uv == "INDEX":  # pip takes a version from whichever index has it
                passed.setdefault("UV_INDEX_STRATEGY", "unsafe-first-match")
    return passed


def uv_run(*arguments, **options):
    """Run uv; on a terminal it shows its progress, elsewhere only its errors."""
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    return run([find_uv(), *quiet, *arguments], env=variables(), **options)


def install_lock(python):
    """Install the lock, torch for this GPU, without the network if uv's cache has it all."""
    lines = (ROOT / setting("lock", "requirements.txt")).read_text("utf-8").splitlines()
    own = [line for line in lines if line.startswith(("./", "-e "))]  # in this folder
    for path, _, digest in (line.partition(" # sha256 ") for line in own):
        if digest and digest != hashlib.sha256((ROOT / path).read_bytes()).hexdigest():
            raise Problem(f"{path} is not the file that the lock names: git checkout both.")
    pins = "\n".join(line for line in lines if line not in own)
    named = [line for line in lines if line.startswith("--")]  # from the user's requirements.txt
    sources = named + [variables()[name] for name in SOURCES if variables().get(name)]
    for path in filter(os.path.isfile, map(os.path.expanduser, UV_TOML)):
        sources += re.findall(UV_LINE, Path(path).read_text("utf-8", "replace"), re.M)
    backend = [] if sources or os.environ.get("UV_TORCH_BACKEND") else ["--torch-backend=auto"]
    backend += ["--index-strategy=unsafe-best-match"] if named else []  # as pip takes them
    from_pins = ["pip", "install", "--python", python, *backend, "--requirement", "-"]
    try:
        if any("://" in source for source in sources):
            raise Problem  # offline, uv skips an index that it has not seen yet
        uv_run(*from_pins, "--offline", input=pins, stderr=subprocess.PIPE)
    except Problem:  # the cache lacks something
        uv_run(*from_pins, input=pins)
    words = [word for line in own for word in line.partition(" #")[0].split()]
    compat = "--config-setting=editable_mode=compat"  # setuptools, too, links by a path
    uv_run("pip", "install", "--python", python, "--no-deps", compat, *words)  # the lock has those


def make_stamp(venv, source):
    """Describe a complete environment of this project: what it was made from and contains."""
    lock = hashlib.sha256((ROOT / setting("lock", "requirements.txt")).read_bytes()).hexdigest()
    packages = sorted(path.name for path in venv.glob("lib/python*/site-packages/*.dist-info"))
    # relative in or beside the project: both can move, and not every locale can read the whole path
    if {source, source.parent} & set(venv.parents):
        source = os.path.relpath(source, next(venv.glob("lib/python*/site-packages"), venv))
    return {"python": setting("python"), "lock": lock, "source": str(source), "packages": packages}


def why_outdated(venv, source):
    """Return why the environment must be built, or None, and whether the existing one is ours."""
    made = make_stamp(venv, source)
    try:
        found = json.loads((venv / STAMP).read_text("utf-8"))
        changed = set(found["packages"]) ^ set(made["packages"])
    except (OSError, ValueError, LookupError):
        return "was not completed by bootstrap.py" if venv.exists() else "is missing", False
    ours = found["source"] == made["source"]
    reasons = {
        "has lost its Python": not os.access(venv / "bin/python", os.X_OK),
        "is for another Python": found["python"] != made["python"],
        "is older than its lock": found["lock"] != made["lock"],
        "has other packages than its lock": changed,
        "belongs to another folder": not ours,
    }
    return next((reason for reason, true in reasons.items() if true), None), ours


def create_venv(folder):
    """Create an empty environment, with a Python that uv finds or downloads."""
    version, soon = setting("python"), {"UV_HTTP_RETRIES": "0", **variables()}
    venv = [find_uv(), "venv", "--quiet", "--no-project", "--relocatable", "--python", version]
    try:
        return run([*venv, folder], env=soon, stderr=subprocess.PIPE)
    except Problem:
        found = run([find_uv(), "python", "list", "--only-installed"], env=soon)
        there = [one for one in PYTHONS if f"cpython-{one}." in found] or ["none"]
        if version in there:
            raise
        fix = f"install it, or change `python` in pyproject.toml (installed: {', '.join(there)})"
        raise Problem(f"there is no Python {version}, and none to download: {fix}.") from None


def make_environment(venv, source):
    """Build the environment under another name, then rename it; return what was done."""
    remove_leftovers(venv)
    reason, ours = why_outdated(venv, source)
    if not reason:
        return f"{venv.name} is up to date with its lock"
    if venv.is_file() or venv.is_dir() and os.listdir(venv) and not (venv / "pyvenv.cfg").exists():
        raise Problem(f"{venv} exists and is not an environment; choose another --venv folder.")
    building = Path(f"{venv}{BUILDING}{os.getpid()}")
    try:
        create_venv(building)
        install_lock(building)
        made = make_stamp(building, source)  # the path to src/ is the same from .venv
        for path in building.glob("lib/python*/site-packages/*.pth"):
            folder = path.read_text("utf-8").strip()
            if f"{folder}/".startswith(f"{ROOT}/"):
                path.write_text(folder.replace(str(ROOT), made["source"], 1) + "\n", "utf-8")
        (building / STAMP).write_text(json.dumps(made, indent=1) + "\n", "utf-8")
        note = put_in_place(building, venv, ours)
    except OSError as error:
        raise Problem(f"{error.filename or venv}: {error.strerror}; nothing was changed.") from None
    except Problem as problem:
        raise Problem(f"{venv.name} {reason}, and {problem}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return f"{venv.name}, Python {made['python']}, {len(made['packages'])} packages{note}"


def put_in_place(building, venv, ours):
    """Swap the new environment in; one that is not ours is renamed, not deleted."""
    existed = venv.exists()
    aside = Path(f"{venv}{BUILDING}{os.getpid()}-old" if ours else f"{venv}.before-bootstrap")
    aside = Path(f"{aside}-{os.getpid()}") if aside.exists() else aside
    try:
        if existed:
            venv.rename(aside)
        building.rename(venv)
    except OSError:
        if existed and not venv.exists():
            aside.rename(venv)
        raise
    if ours:
        shutil.rmtree(aside, ignore_errors=True)
    return f"; the old environment is now {aside.name}" if existed and not ours else ""


def run_lab(python, extra, *arguments):
    """Run a command of lab and return what it printed, which may be "skipped: REASON"."""
    if not os.access(python, os.X_OK):
        return "skipped: there is no environment to run it"
    options = {"env": {**variables(), **extra}, "stderr": subprocess.PIPE}
    return run([python, "-m", *arguments], title="", **options).strip()


def set_up(wanted):
    """Take the wanted steps and report each; return 1 if one failed."""
    wheel, python = next(ROOT.glob("vendor/dl_remote_lab-*.whl"), None), wanted.venv / "bin/python"
    early = (sys.executable, {"PYTHONPATH": str(wheel)}) if wheel else (python, {})  # any Python
    steps = {
        "environment": lambda: make_environment(wanted.venv, wanted.source),
        "kernel": lambda: run_lab(python, {}, "lab.cli", "kernel", "install"),
        "repository": lambda: run_lab(*early, "lab.environment.repository"),
    }
    if wheel and wanted.repository:  # git need not wait for the environment
        steps["repository"] = ThreadPoolExecutor(1).submit(steps["repository"]).result
    failed = False
    for name, step in steps.items():
        try:
            state, details = "done", step() if getattr(wanted, name) else "skipped: not asked for"
            if details.startswith("skipped: "):
                state, details = details.split(": ", 1)
        except (Problem, OSError, configparser.Error) as why:
            state, details, failed = "failed", str(why), True
        print(f"  {state:<8} {name:<12} {details}", flush=True)
    if failed:
        print("Fix what failed, then run: python3 bootstrap.py")
    return int(failed)


def main():
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # for consoles without Unicode
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", metavar="DIR")
    parser.add_argument("--source", type=Path, default=ROOT, metavar="DIR")
    for step, what in [("venv", "environment"), ("kernel", "kernel"), ("git", "repository")]:
        parser.add_argument(f"--no-{step}", action="store_false", dest=what)
    parser.add_argument("--uv", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    wanted.venv, wanted.source = (Path(os.path.realpath(p)) for p in (wanted.venv, wanted.source))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up, as after Ctrl-C
    try:
        if wanted.uv is not None:
            return subprocess.run([find_uv(), *wanted.uv], env=variables()).returncode
        return set_up(wanted)
    except (Problem, OSError, configparser.Error) as problem:
        return str(problem)  # sys.exit prints it to stderr, and ends with 1
    except KeyboardInterrupt:
        print("\nInterrupted. Run again: python3 bootstrap.py")
        return 130


if __name__ == "__main__":
    sys.exit(main())
