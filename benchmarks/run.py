"""Compare the template with its rivals, side by side on this computer, and check what it promises.

    make bench                                  everything, some minutes
    make bench ARGS="generation training"       some of: generation creation first_run training

Ours and the rival take turns, so that other work on the computer affects both; the ratio is the
median of the pairs' ratios. "cpu" is the same ratio in processor time (user + system, with every
child process), which other work disturbs less. PyTorch's threads wait for each other, so on a busy
computer its comparison needs OMP_NUM_THREADS=1 to mean anything. Exit code 1 if a promise does not
hold.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

TEMPLATE = Path(__file__).resolve().parents[1]
LOCK = TEMPLATE / "{{cookiecutter.project_slug}}" / "requirements.txt"
# What the default answers result in.
PROJECT, PACKAGE, PYTHON_VERSION = "my-experiment", "my_experiment", "3.11"


class Row(NamedTuple):
    """One line of the table."""

    name: str
    ours: str
    rival: str = ""
    ratio: str = ""
    cpu: str = ""
    promise: str = ""
    holds: bool | None = None  # None: nothing is promised


# --- measuring --------------------------------------------------------------------------------


def isolate(home: Path) -> None:
    """Set up an empty home folder, but keep using the user's warm caches."""
    commands = {
        "UV_CACHE_DIR": ["uv", "cache", "dir"],
        "UV_PYTHON_INSTALL_DIR": ["uv", "python", "dir"],
        "PIP_CACHE_DIR": [sys.executable, "-m", "pip", "cache", "dir"],
    }
    caches = {name: run(command).strip() for name, command in commands.items()}
    for name in list(os.environ):
        foreign = name.startswith(("GIT_", "XDG_", "JUPYTER", "SSH_", "LAB_", "DL_TEMPLATE_"))
        if foreign or name in ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH"):
            del os.environ[name]
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\n\tname = Bench\n\temail = bench@example.org\n")
    own = {"HOME": home, "JUPYTER_DATA_DIR": home / "jupyter", "GIT_CONFIG_NOSYSTEM": 1}
    os.environ.update({name: str(value) for name, value in {**caches, **own}.items()})


def run(command: list, cwd: Path | None = None, stderr=subprocess.PIPE, **variables: str) -> str:
    """Run a command and return what it printed; if it fails, show that and end."""
    options = {"cwd": cwd, "env": {**os.environ, **variables}, "stdin": subprocess.DEVNULL}
    options.update(stdout=subprocess.PIPE, stderr=stderr, text=True)
    done = subprocess.run([str(word) for word in command], **options)
    if done.returncode != 0:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr or ''}")
    return done.stdout


def read_child_cpu() -> float:
    """Return the processor seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(work, folder: Path) -> tuple[float, float]:
    """Return the (seconds, cpu seconds) of work(folder), in a folder that is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    start, before = time.perf_counter(), read_child_cpu()
    work(folder)
    return time.perf_counter() - start, read_child_cpu() - before


def measure_pairs(ours, rival, number: int, root: Path) -> list:
    """Return pairs of measurements (ours, rival); the warm-up pair does not count."""
    sides = {root / "ours": ours, root / "rival": rival}
    return [[measure(work, at) for at, work in sides.items()] for _ in range(number + 1)][1:]


def make_row(name: str, pairs: list, better: str, bound: float | None = None, samples=0) -> Row:
    """Return the row for pairs of (seconds, cpu seconds).

    The ratio is ours/rival in seconds where `better` is "<=", and in speed where it is ">=".
    With `samples` the two sides are shown as samples per second.
    """
    seconds = [statistics.median(one[0] for one in side) for side in zip(*pairs, strict=True)]
    shown = [f"{samples / s:.0f} /s" if samples else f"{s:.3g} s" for s in seconds]
    slower = [[ours[i] / rival[i] for ours, rival in pairs] for i in (0, 1)]
    clock, cpu = (
        statistics.median(x if better == "<=" else 1 / x for x in ratios) for ratios in slower
    )
    holds = bound and (clock <= bound if better == "<=" else clock >= bound)
    promise = f"{better} {bound}" if bound else ""
    return Row(name, *shown, f"{clock:.2f}", f"{cpu:.2f}", promise, holds)


# --- what is compared -------------------------------------------------------------------------


def cookiecutter(folder: Path, template: Path = TEMPLATE, skip: str = "") -> None:
    command = [sys.executable, "-m", "cookiecutter", "--no-input", template, "-o", folder]
    said = run(command, DL_TEMPLATE_SKIP=skip)
    if "failed" in said:  # it keeps the files and ends with 0, whatever fails
        sys.exit(said)


def train_first_run(project: Path) -> None:
    """The two commands of the README."""
    run([".venv/bin/python", "-m", f"{PACKAGE}.data", "prepare"], cwd=project)
    run([".venv/bin/python", "-m", f"{PACKAGE}.experiment"], cwd=project)


def generation(root: Path) -> list[Row]:
    """The files alone, against cookiecutter on a template of one file."""
    empty = root / "empty"
    (empty / "{{cookiecutter.project_slug}}").mkdir(parents=True)
    (empty / "{{cookiecutter.project_slug}}" / "README.md").write_text("A project.\n")
    (empty / "cookiecutter.json").write_text('{"project_slug": "a-project"}\n')

    def ours(folder):
        cookiecutter(folder, skip="venv,kernel,git")

    def rival(folder):
        cookiecutter(folder, template=empty)

    pairs = measure_pairs(ours, rival, 25, root)
    return [make_row("generation, against an empty template", pairs, "<=", 1.3)]


def creation(root: Path) -> list[Row]:
    """A whole project, against the environment alone, which uv makes from the same lock."""
    if "PIP_FIND_LINKS" in os.environ:  # uv does not read pip's variables; bootstrap.py tells it
        sources = {"UV_FIND_LINKS": ",".join(os.environ["PIP_FIND_LINKS"].split())}
    else:
        sources = {"UV_TORCH_BACKEND": "auto"}

    def uv_alone(folder, *options):
        run(["uv", "venv", "--no-project", "--python", PYTHON_VERSION, folder / "venv"])
        pins = folder / "pins.txt"  # without what lies in a project
        lines = LOCK.read_text("utf-8").splitlines(keepends=True)
        pins.write_text("".join(line for line in lines if not line.startswith(("./", "-e"))))
        install = ["uv", "pip", "install", "--python", folder / "venv", "-r", pins]
        run([*install, *options], **sources)

    def uv_offline(folder):
        uv_alone(folder, "--offline")

    # The second row is without the network, which costs uv anything from nothing (it remembers an
    # answer for ten minutes) to seconds; nothing is promised about it.
    return [
        make_row(
            "creation, against uv alone", measure_pairs(cookiecutter, uv_alone, 9, root), "<=", 1.3
        ),
        make_row(
            "creation, against uv offline", measure_pairs(cookiecutter, uv_offline, 9, root), "<="
        ),
    ]


def first_run(root: Path) -> list[Row]:
    """From the command to the end of the first run, against the same by hand with pip."""
    files = root / "files"
    cookiecutter(files, skip="venv,kernel,git")
    python = run(["uv", "python", "find", PYTHON_VERSION]).strip()

    def ours(folder):
        cookiecutter(folder)
        train_first_run(folder / PROJECT)

    def by_hand(folder):
        project = folder / PROJECT
        shutil.copytree(files / PROJECT, project)  # takes some milliseconds
        pip = [".venv/bin/python", "-m", "pip", "install", "--quiet"]
        run([python, "-m", "venv", ".venv"], cwd=project)
        run([*pip, "--requirement", "requirements.txt"], cwd=project)
        run([*pip, "--editable", "."], cwd=project)
        train_first_run(project)

    return [make_row("first run, against pip", measure_pairs(ours, by_hand, 2, root), ">=", 7)]


def training(root: Path) -> list[Row]:
    """Samples per second, against bare PyTorch; and what print_config imports."""
    cookiecutter(root)
    project = root / PROJECT
    run([".venv/bin/python", "-m", f"{PACKAGE}.data", "prepare"], cwd=project)
    here = Path(__file__).with_name("training.py")
    measurements = json.loads(run([".venv/bin/python", here], cwd=project))
    rows = []
    for workload, found in measurements.items():
        for part in ("loop", "whole"):
            name = f"training {workload}, {part}, against bare PyTorch"
            bound = 0.95 if part == "loop" else None
            pairs = [(ours[part], bare[part]) for ours, bare in found["pairs"]]
            rows.append(make_row(name, pairs, ">=", bound, found["samples"]))
    return [*rows, check_imports(project)]


def check_imports(project: Path) -> Row:
    """Return a row without times: which of the slow packages print_config imports."""
    command = [".venv/bin/python", "-X", "importtime", "-m", f"{PACKAGE}.experiment"]
    lines = run([*command, "print_config"], cwd=project, stderr=subprocess.STDOUT).splitlines()
    names = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    slow = sorted(names & {"torch", "sklearn", "tensorboard", "pandas"})
    known = "sacred" in names  # otherwise the output was not understood
    shown = ", ".join(slow) or "none"
    return Row("slow imports of print_config", shown, promise="none", holds=known and not slow)


COMPARISONS = {work.__name__: work for work in (generation, creation, first_run, training)}


def main() -> int:
    wanted = sys.argv[1:] or list(COMPARISONS)
    unknown = set(wanted) - set(COMPARISONS)
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are {', '.join(COMPARISONS)}", file=sys.stderr)
        return 2
    rows = [Row("", "ours", "rival", "ratio", "cpu", "promise")]
    print_row(rows[0])
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        isolate(Path(folder, "home"))
        for name in wanted:
            print(f"{name} ...", file=sys.stderr, flush=True)
            Path(folder, name).mkdir()
            for row in COMPARISONS[name](Path(folder, name)):
                print_row(row)
                rows.append(row)
            shutil.rmtree(Path(folder, name))
    return 1 if any(row.holds is False for row in rows) else 0


def print_row(row: Row) -> None:
    """Print one line of the table."""
    cells = f"{row.ours:>9} {row.rival:>9} {row.ratio:>6} {row.cpu:>6}  {row.promise:<8}"
    word = {True: "holds", False: "DOES NOT HOLD", None: ""}[row.holds]
    print(f"{row.name:<46} {cells} {word}".rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
