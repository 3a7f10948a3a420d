"""Repeating a recorded run with its code, environment and data, and comparing the numbers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from lab.code import snapshot
from lab.datasets import folders
from lab.environment.check import read_stamp
from lab.environment.installed import find_differences
from lab.ground import files, git, interrupts, manifests, plain_json, portable, project
from lab.ground.errors import LabError
from lab.ground.files import sha256_or_none
from lab.ground.ids import new_id
from lab.ground.terminal import escape, print_text
from lab.runs import archive, comparison, reading, recorded_code, records

MAX_PROCESSES = 64  # on one computer
VARIABLES = {  # the values that are accepted from a record
    "PYTHONHASHSEED": "[0-9]{1,10}",
    "OMP_NUM_THREADS": "[1-9][0-9]{0,3}",
    "CUBLAS_WORKSPACE_CONFIG": "[0-9:]{1,40}",
}


class Outcome(NamedTuple):
    """The result of a repetition."""

    run: str  # the id of the new record
    rows: list[comparison.Row]
    differences: list[str]  # what else differs between the two: packages, processor, GPUs
    same: bool  # all numbers are identical, or within the tolerance


class Plan(NamedTuple):
    """What will run, by the record: checked, as somebody else may have written that."""

    folder: str  # inside the commit
    module: str  # for python -m
    command: str  # of the experiment
    processes: int
    words: list[str]  # of a command that lab record ran; it has no module
    working_folder: str  # where that ran, inside the project
    earlier: str  # the run whose outputs it had


@interrupts.as_exceptions()  # so that the checkout is removed, whatever ends this
def reproduce(
    wanted: str,
    tolerance: float = 0.0,
    keep: bool = False,
    agree: Callable[[str], bool] = lambda text: False,
) -> Outcome:
    """Run a recorded run again, from its snapshot, and compare every number.

    `wanted` is a run, or a file of lab export. The code is checked out beside the project and
    removed at the end, unless `keep` is set; the new record stays and names the old one. LabError
    says what cannot be restored: code, data or environment.

    LabError for code that no branch or snapshot of this user holds, unless it comes in a file and
    `agree` returns True. That is called with some lines about what would run, and also before a
    recorded command runs.
    """
    file, asked = Path(wanted), False

    def ask(text: str) -> bool:
        nonlocal asked
        asked = True
        return agree(text)

    old = archive.unpack(file, ask) if file.suffix == ".zip" else records.find(wanted)
    record, config = (reading.read_json(old / name) for name in ("run.json", "config.json"))
    state = reading.get_state(record) if config else "without a readable config.json"
    if state in ("UNREADABLE", "RUNNING") or not config:
        raise LabError(f"{old.name} is {state}: it cannot be repeated.")
    commit = recorded_code.require_local_commit(old.name, record)
    recorded_code.require_own(old.name, commit)
    plan = make_plan(old.name, commit, record, config)
    if plan.words and not asked and not agree(describe_command(old.name, plan)):
        raise LabError("nothing was run: --yes runs the recorded command without asking.")
    check_manifest(reading.get_dict(record, "data"))
    beside = git.top_level().parent
    parent = beside if os.access(beside, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix=f"{project.root().name}-reproduce-", dir=parent))
    try:
        add = ["worktree", "add", "--quiet", "--detach", str(folder / "code"), commit]
        git.run(*snapshot.SETTINGS, "-c", "checkout.workers=0", *add)
        code = (folder / "code" / plan.folder).resolve()
        if not code.is_relative_to((folder / "code").resolve()):
            raise LabError(f"{plan.folder} in the recorded commit is a link that leads out of it.")
        print_step("code", f"{commit[:12]} in {code}")
        check_files(record, code)
        python = prepare_environment(code, record)
        variables = make_variables(code, record)
        verify_data(python, code, plan.module, record, variables)
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        settings = os.path.relpath(folder / "config.json", code)
        new = run_experiment(python, code, plan, old.name, settings, variables)
    finally:
        if keep:
            print_step(
                "kept", f"{folder}; to remove it: rm -r {quote(str(folder))}; git worktree prune"
            )
        else:
            git.run("worktree", "remove", "--force", str(folder / "code"), accept=range(256))
            shutil.rmtree(folder, ignore_errors=True)
    again = reading.read_json(new / "run.json")
    if not again:
        raise LabError("the run did not start, or left no record: see above.")
    state = reading.get_state(again)
    if state == "FAILED" and reading.get_state(record) != "FAILED":
        trace = [str(line).strip() for line in reading.get_list(again, "fail_trace")]
        cause = (trace or ["it left no cause"])[-1]
        raise LabError(f"the repetition, {new.name}, failed: {cause}")
    if state not in comparison.ENDED:
        raise LabError(f"the repetition, {new.name}, is {state}: its numbers cannot be compared.")
    rows = comparison.compare(old, new, tolerance)
    if not comparison.has_number(rows):
        output = "the same" if have_same_output(old, new) else "different"
        raise LabError(
            f"{old.name} recorded no number to compare with {new.name}; their output is {output}."
        )
    same = all(row.same for row in rows)
    return Outcome(new.name, rows, comparison.describe_surroundings(record, again), same)


def have_same_output(old: Path, new: Path) -> bool:
    """Whether two runs have printed the same; False if that cannot be read."""
    try:
        return files.read(old / "cout.txt") == files.read(new / "cout.txt")
    except OSError:
        return False


def print_step(name: str, details: str) -> None:
    print_text(f"{name:<12} {details}")


# --- restoring -----------------------------------------------------------------------------------


def make_plan(name: str, commit: str, record: dict[str, Any], config: dict[str, Any]) -> Plan:
    """Make the plan of a repetition; LabError if the record has what no run of lab could have."""
    command = record.get("command") or "run"
    processes = reading.get_dict(record, "job").get("processes", 1)
    words, folder = recorded_code.get_words(record), recorded_code.get_folder(record)
    if words:
        options = reading.get_dict(reading.get_dict(record, "meta"), "options")
        earlier = reading.get_text(options, "--from") or ""
        inside = recorded_code.get_working_folder(record)
        return Plan(folder, "", "", 1, words, inside, earlier)
    if not isinstance(command, str) or not re.fullmatch(r"\w+(\.\w+)*", command, re.A):
        raise LabError(f"the recorded command of {name} is not a valid name: {command!r}.")
    if not isinstance(processes, int) or processes > MAX_PROCESSES:
        raise LabError(f"{name} had {processes} processes: at most {MAX_PROCESSES} run here.")
    try:
        plain_json.restore(config)  # else Sacred would make objects of it, by calling functions
    except (ValueError, TypeError) as error:
        raise LabError(f"config.json of {name} is not plain data: {error}.") from None
    return Plan(folder, recorded_code.find_module(commit, record), command, processes, [], ".", "")


def describe_command(name: str, plan: Plan) -> str:
    """Describe the command that would run: a record from a machine may contain any command."""
    command = escape(" ".join(map(quote, plan.words)))
    return f"the record of {name} says that this ran, in {plan.working_folder}:\n  {command}"


def check_manifest(data: dict[str, Any]) -> None:
    """Raise LabError if the dataset is not the one that the run had, as its record says."""
    dataset, expected = (reading.get_text(data, key) for key in ("dataset", "manifest_sha256"))
    if not dataset or not expected:
        return
    found = manifests.hash_manifest(dataset)
    if found != expected:
        manifest = project.dataset_folder(dataset) / "manifest.json"
        cause = f"has another hash ({found[:12]})" if found else "is missing"
        raise LabError(
            f"the dataset {dataset} cannot be restored: {project.relative(manifest)} {cause}; the"
            f" run had {expected[:12]}. Fetch that dataset, or point LAB_DATA to it."
        )


def check_files(record: dict[str, Any], code: Path) -> None:
    """Raise LabError if a file that a setting names is not the one that the run had."""
    listed = reading.get_dict(record, "meta").get("files")
    for one in listed if isinstance(listed, list) else []:
        if not isinstance(one, dict):
            raise LabError("the record names its files in a form that this lab does not know.")
        name, expected = str(one.get("path")), str(one.get("sha256"))
        try:
            path = portable.locate(portable.to_portable(name), code)
        except ValueError as error:
            raise LabError(f"the file {name} cannot be restored: {error}.") from None
        found = sha256_or_none(path) if path.is_file() else None
        if found != expected:
            cause = f"has another hash ({found[:12]})" if found else "is missing"
            raise LabError(
                f"the file {name} cannot be restored: it {cause}; the run had {expected[:12]}."
            )


def prepare_environment(code: Path, record: dict[str, Any]) -> str:
    """Return the Python of an environment with the recorded packages, built if need be."""
    settings, recorded = read_checked_out_settings(code), reading.get_dict(record, "software")
    locked = code / project.lock_name(settings)
    lock = sha256_or_none(locked)
    if lock is None or recorded.get("lock_sha256") not in (None, lock):
        raise LabError(f"the recorded lock is not the {locked.name} of the recorded commit.")
    version = settings["tool"]["lab"]["python"]
    stamp = read_stamp(Path(sys.prefix))
    is_same = (stamp.get("lock"), stamp.get("python")) == (lock, version)
    if is_same and not find_differences(Path(sys.prefix), locked):
        print_step("environment", f"{sys.prefix}, of the same lock")
        return sys.executable
    print_step("environment", f"building it from the recorded lock {lock[:12]} ...")
    bootstrap = [sys.executable, "bootstrap.py", "--no-kernel", "--no-git"]
    if run_command(bootstrap, cwd=code):
        raise LabError(f"the recorded lock {lock[:12]} cannot be installed: see above.")
    return str(code / ".venv" / "bin" / "python")


def read_checked_out_settings(code: Path) -> dict[str, Any]:
    """Read the pyproject.toml of the recorded commit; LabError if it has no [tool.lab] python."""
    try:
        settings = project.parse_toml(files.read_text(code / "pyproject.toml"))
        str(settings["tool"]["lab"]["python"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LabError(f"pyproject.toml of the recorded commit cannot be used: {error}.") from None
    return settings


def make_variables(code: Path, record: dict[str, Any]) -> dict[str, str]:
    """Make the variables for the repeated run: this project's folders, the recorded settings."""
    determinism, seeds = reading.get_dict(record, "determinism"), reading.get_dict(record, "seeds")
    source = code / project.source_name(read_checked_out_settings(code))
    variables = {**os.environ, "PYTHONPATH": str(source), "LAB_PROJECT": str(code)}
    variables["LAB_DATA"] = str(project.data_folder().resolve())
    variables["LAB_RUNS"] = str(project.runs_folder().resolve())
    recorded = {
        "PYTHONHASHSEED": seeds.get("PYTHONHASHSEED"),
        # with more threads, sums round differently
        "OMP_NUM_THREADS": determinism.get("threads"),
        "CUBLAS_WORKSPACE_CONFIG": determinism.get("CUBLAS_WORKSPACE_CONFIG"),
    }
    for name, value in recorded.items():
        if re.fullmatch(VARIABLES[name], str(value)):
            variables[name] = str(value)
    if "torch" in record and not reading.get_dict(record, "usage").get("gpus"):
        variables["CUDA_VISIBLE_DEVICES"] = ""  # it ran on the CPU
    return variables


def verify_data(
    python: str, code: Path, module: str, record: dict[str, Any], variables: dict[str, str]
) -> None:
    """Check every file of the dataset against its manifest, with the run's own code if it can."""
    data = reading.get_dict(record, "data")
    dataset, manifest = reading.get_text(data, "dataset"), data.get("manifest_sha256")
    package = module.partition(".")[0]
    if not dataset or not manifest:
        return
    if folders.is_any_kind(dataset) or not (code / "src" / (package or "-") / "data.py").exists():
        refuse_problems(dataset, folders.verify(dataset))
        return
    command = [python, "-m", f"{package}.data", "verify", "--dataset", dataset]
    done = subprocess.run(
        command,
        cwd=code,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    refuse_problems(dataset, done.stdout.strip().splitlines() if done.returncode else [])


def refuse_problems(dataset: str, lines: list[str]) -> None:
    """Print lines about what is wrong with a dataset, and raise LabError if there are any."""
    if lines:
        more = f"... {len(lines) - 20} more" if len(lines) > 20 else ""
        print_text(*lines[:20], more, sep="\n")
        raise LabError(
            f"the dataset {dataset} does not match its manifest: fix what is listed above."
        )
    print_step("data", f"{dataset} is as recorded")


def run_experiment(
    python: str,
    code: Path,
    plan: Plan,
    old: str,
    settings: str,
    variables: dict[str, str],
) -> Path:
    """Run the experiment with the recorded configuration; returns the folder of the new record."""
    name = new_id()
    options = ["--id", name, "--comment", f"reproduces {old}"]
    if plan.words:
        options += [f"--from={plan.earlier}"] if plan.earlier else []
        print_step("run", name)
        command = [python, "-m", "lab.cli", "record", *options, "--", *plan.words]
        run_command(command, cwd=code / plan.working_folder, env=variables)
        return project.runs_folder() / name
    launch = [python, "-m"]
    if plan.processes > 1:
        number = f"--nproc-per-node={plan.processes}"
        launch += ["torch.distributed.run", "--standalone", number, "-m"]
    what = [plan.command, "with", settings]
    print_step("run", name)
    run_command([*launch, plan.module, *options, *what], cwd=code, env=variables)
    return project.runs_folder() / name


def run_command(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> int:
    """Run a command to its end, also if a signal ends it; returns its exit code."""
    process: subprocess.Popen[bytes] | None = None
    try:
        with interrupts.deferred():  # a signal finds the command started, or not at all
            process = subprocess.Popen(command, cwd=cwd, env=env)
        return process.wait()
    except KeyboardInterrupt as interrupt:
        if process:
            # Ctrl-C in a terminal has reached it too, and another SIGINT would count as a second
            process.send_signal(getattr(interrupt, "number", signal.SIGTERM))
            process.wait()  # it finishes its record
        raise
