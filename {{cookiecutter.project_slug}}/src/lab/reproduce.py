"""Repeating a recorded run: code, environment and data as they were, then number against number."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from lab import git, interrupts, listing, project, records, snapshot
from lab.project import UserError
from lab.provenance import sha256_or_none

ENDED = ("COMPLETED", "FAILED")  # of these runs all points count; of others those that there are
STAMP = "lab-environment.json"  # bootstrap.py leaves it in an environment that is whole
RECORD, BUNDLE = "record/", "code.bundle"  # in an exported run


class Outcome(NamedTuple):
    """What came of a repetition."""

    run: str  # the id of the new record
    rows: list[dict[str, Any]]  # metric, recorded, now (the last values), verdict
    other: list[str]  # in what else the two runs differ: packages, processor, GPUs
    same: bool  # all numbers are identical, or within the tolerance


@interrupts.as_exceptions()  # so that the checkout is removed, whatever ends this
def reproduce(wanted: str, tolerance: float = 0.0, keep: bool = False) -> Outcome:
    """Run a recorded run again, from its snapshot, and compare every number.

    `wanted` is a run, or a file that export() made. The code is checked out beside the project and
    removed at the end, unless `keep`; the new record is kept and names the old one. UserError says
    what cannot be restored: code, data or environment.
    """
    file = Path(wanted)
    old = unpack(file) if file.suffix == ".zip" else records.find(wanted)
    record, config = (records.read_json(old / name) for name in ("run.json", "config.json"))
    state = listing.state(record) if config else "without a readable config.json"
    if state in ("UNREADABLE", "RUNNING") or not config:
        raise UserError(f"{old.name} is {state}: it cannot be repeated.")
    commit = require_code(old.name, record)
    check_manifest(record)
    beside = git.top().parent
    beside = beside if os.access(beside, os.W_OK) else None
    holder = Path(tempfile.mkdtemp(prefix=f"{project.ROOT.name}-reproduce-", dir=beside))
    try:
        add = ["worktree", "add", "--quiet", "--detach", str(holder / "code"), commit]
        git.run(*snapshot.SETTINGS, "-c", "checkout.workers=0", *add)
        code = holder / "code" / folder_of(record)
        say("code", f"{commit[:12]} in {code}")
        python = environment(code, record)
        variables = child_environment(code, record)
        verify_data(python, code, record, variables)
        (holder / "config.json").write_text(json.dumps(config), "utf-8")
        new = run(python, code, record, old.name, os.path.relpath(holder, code), variables)
    finally:
        if keep:
            say("kept", f"{holder}; to remove it: rm -r {quote(str(holder))}; git worktree prune")
        else:
            git.run("worktree", "remove", "--force", str(holder / "code"), accept=range(256))
            shutil.rmtree(holder, ignore_errors=True)
    again = records.read_json(new / "run.json")
    if not again:
        raise UserError("the run did not start, or left no record: see above.")
    state = listing.state(again)
    if state not in ENDED:
        raise UserError(f"the repetition, {new.name}, is {state}: its numbers say nothing.")
    rows = compare(old, new, tolerance)
    if not rows:
        raise UserError(f"{old.name} recorded no number that {new.name} could be compared with.")
    same = all(row["verdict"].startswith(("identical", "within")) for row in rows)
    return Outcome(new.name, rows, surroundings(record, again), same)


def say(what: str, details: str) -> None:
    print(f"{what:<12} {details}", flush=True)


# --- restoring -----------------------------------------------------------------------------------


def code_of(name: str, record: dict[str, Any]) -> str:
    """The commit that holds exactly the code that ran; UserError if none is recorded."""
    commit = str(listing.commit(record) or "")
    if not re.fullmatch("[0-9a-f]{40,64}", commit):
        why = listing.part(record, "code").get("problem") or "no commit is recorded."
        raise UserError(f"the code of {name} cannot be restored: {why}")
    return commit


def folder_of(record: dict[str, Any]) -> str:
    """Where the project lay inside the recorded commit; it may have been renamed or moved since."""
    return str(listing.part(record, "code").get("folder") or ".")


def require_code(name: str, record: dict[str, Any]) -> str:
    """code_of(), and that it is in this repository."""
    commit = code_of(name, record)
    if not git.run("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", accept=(0, 1, 128)):
        raise UserError(
            f"the code of {name} is not in this repository: fetch commit {commit}, or take"
            " the file that lab export makes where it ran."
        )
    return commit


def check_manifest(record: dict[str, Any]) -> None:
    """UserError if the dataset is another one than the run had."""
    data = listing.part(record, "data")
    dataset, expected = data.get("dataset"), data.get("manifest_sha256")
    if not isinstance(dataset, str) or expected is None:
        return
    manifest = project.data_folder() / dataset / "manifest.json"
    found = sha256_or_none(manifest)
    if found != expected:
        cause = f"is another one ({found[:12]})" if found else "is missing"
        raise UserError(
            f"the dataset {dataset} cannot be restored: {project.shown(manifest)} {cause}, the run"
            f" had {expected[:12]}. Bring that dataset here, or point LAB_DATA to it."
        )


def environment(code: Path, record: dict[str, Any]) -> str:
    """The Python of an environment with the recorded packages: the present one if it is such."""
    lock, recorded = sha256_or_none(code / "requirements.txt"), listing.part(record, "software")
    if lock is None or recorded.get("lock_sha256") not in (None, lock):
        raise UserError("the recorded lock is not the requirements.txt of the recorded commit.")
    settings = project.parse_toml((code / "pyproject.toml").read_text("utf-8"))
    stamp = records.read_json(Path(sys.prefix, STAMP))
    if (stamp.get("lock"), stamp.get("python")) == (lock, settings["tool"]["lab"]["python"]):
        say("environment", f"{sys.prefix}, of the same lock")
        return sys.executable
    say("environment", f"is built from the recorded lock {lock[:12]} ...")
    bootstrap = [sys.executable, "bootstrap.py", "--no-kernel", "--no-git"]
    if wait(bootstrap, cwd=code):
        raise UserError(f"the recorded lock {lock[:12]} cannot be installed here: see above.")
    return str(code / ".venv" / "bin" / "python")


def child_environment(code: Path, record: dict[str, Any]) -> dict[str, str]:
    """The variables for the repeated run: this project's folders, the recorded settings."""
    determinism, seeds = listing.part(record, "determinism"), listing.part(record, "seeds")
    variables = {**os.environ, "PYTHONPATH": str(code / "src")}
    variables["LAB_DATA"] = str(project.data_folder().resolve())
    variables["LAB_RUNS"] = str(project.runs_folder().resolve())
    if str(seeds.get("PYTHONHASHSEED", "random")).isdigit():
        variables["PYTHONHASHSEED"] = str(seeds["PYTHONHASHSEED"])
    if determinism.get("threads"):  # sums over other parts of a tensor round differently
        variables["OMP_NUM_THREADS"] = str(determinism["threads"])
    if determinism.get("CUBLAS_WORKSPACE_CONFIG"):
        variables["CUBLAS_WORKSPACE_CONFIG"] = str(determinism["CUBLAS_WORKSPACE_CONFIG"])
    if "torch" in record and not listing.part(record, "usage").get("gpus"):
        variables["CUDA_VISIBLE_DEVICES"] = ""  # it ran on the CPU
    return variables


def verify_data(python: str, code: Path, record: dict[str, Any], variables: dict[str, str]) -> None:
    """Let the run's own code hold every file of the dataset against the manifest."""
    dataset = listing.part(record, "data").get("dataset")
    package = module_of(code, record).partition(".")[0]
    if not isinstance(dataset, str) or not (code / "src" / package / "data.py").exists():
        return
    command = [python, "-m", f"{package}.data", "verify", "--dataset", dataset]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=code, env=variables, **options)
    if done.returncode:
        lines = done.stdout.strip().splitlines()
        print(*lines[:20], f"... {len(lines) - 20} more" if len(lines) > 20 else "", sep="\n")
        raise UserError(f"the dataset {dataset} is not as its manifest says: mend what is above.")
    say("data", f"{dataset} is as recorded")


def module_of(code: Path, record: dict[str, Any]) -> str:
    """What was run, as `python -m` takes it."""
    main = listing.part(record, "experiment").get("mainfile")
    paths = [Path(main)] if isinstance(main, str) and not main.startswith("lab/") else []
    paths += [path.relative_to(code / "src") for path in code.glob("src/*/experiment.py")]
    for path in paths:
        if (code / "src" / path).is_file() and not path.is_absolute():
            return ".".join(path.with_suffix("").parts)
    raise UserError("the recorded code has no src/*/experiment.py to run.")


def run(
    python: str, code: Path, record: dict[str, Any], old: str, holder: str, variables: dict
) -> Path:
    """Run the experiment with the recorded configuration; returns the folder of the new record."""
    from lab.recorder import new_run_id  # Sacred takes half a second to import

    name = new_run_id()
    launch = [python, "-m"]
    processes = listing.part(record, "job").get("processes", 1)
    if isinstance(processes, int) and processes > 1:
        launch += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    options = ["--id", name, "--comment", f"reproduces {old}"]
    what = [record.get("command") or "run", "with", f"{holder}/config.json"]
    say("run", name)
    wait([*launch, module_of(code, record), *options, *what], cwd=code, env=variables)
    return project.runs_folder() / name


def wait(command: list[str], **options) -> int:
    """Run a command to its end, also if a signal brings that about; returns its exit code."""
    process = subprocess.Popen(command, **options)
    try:
        return process.wait()
    except KeyboardInterrupt as ended:
        # on Ctrl-C the terminal has told it too: another SIGINT would count as a second press
        process.send_signal(getattr(ended, "number", signal.SIGTERM))
        process.wait()  # it finishes its record
        raise


# --- comparing -----------------------------------------------------------------------------------


def compare(old: Path, new: Path, tolerance: float) -> list[dict[str, Any]]:
    """One row per metric: its last recorded value, the last one now, and what all points say."""
    before, after = series(old), series(new)
    state = listing.state(records.read_json(old / "run.json"))
    rows = []
    if state in ENDED:
        now = listing.state(records.read_json(new / "run.json"))
        verdict = "identical" if now == state else "differs"
        rows.append({"metric": "state", "recorded": state, "now": now, "verdict": verdict})
    else:  # it did not come to its end: what it had until then counts
        after = {name: points[: len(before.get(name, []))] for name, points in after.items()}
        before = {name: points for name, points in before.items() if points}
        after = {name: points for name, points in after.items() if name in before}
    for name in dict.fromkeys([*before, *after]):
        first, second = before.get(name, []), after.get(name, [])
        last = {"recorded": first[-1][1] if first else "", "now": second[-1][1] if second else ""}
        rows.append({"metric": name, **last, "verdict": verdict_on(first, second, tolerance)})
    return rows


def series(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """(step, value) of every point of every metric; each value of the result is one more."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for metric, step, value, _ in records.points(folder / "metrics.jsonl"):
        found.setdefault(metric, []).append((step, value))
    record = records.read_json(folder / "run.json")
    for name, value in listing.summary(folder.name, record, {})["result"].items():
        found[f"result {name}".strip()] = [(0, value)]
    return found


def verdict_on(first: list[tuple], second: list[tuple], tolerance: float) -> str:
    """In words, whether two series are the same; NaN is the same as NaN."""
    if [step for step, _ in first] != [step for step, _ in second]:
        return f"differs: {len(first)} points recorded, {len(second)} now, or at other steps"
    gaps = [(step, gap(a, b), b) for (step, a), (_, b) in zip(first, second, strict=True)]
    apart = [step for step, size, _ in gaps if size]
    if not apart:
        return "identical"
    most = f"by {max(size for _, size, _ in gaps):.3g} at most"
    near = all(
        size <= tolerance * max(1.0, abs(value) if isinstance(value, float) else 0.0)
        for _, size, value in gaps
    )
    return f"within the tolerance, {most}" if near else f"differs from step {apart[0]} on, {most}"


def gap(first: Any, second: Any) -> float:
    """How far apart two values are; 0 only if they are the same, infinite if one is no number."""
    if repr(first) == repr(second):
        return 0.0
    try:
        size = abs(float(first) - float(second))
    except (TypeError, ValueError):
        return math.inf
    return size if math.isfinite(size) else math.inf


def surroundings(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What may make numbers differ although code, configuration and data are the same."""

    def facts(record: dict[str, Any]) -> dict[str, Any]:
        software, torch, usage = (listing.part(record, k) for k in ("software", "torch", "usage"))
        gpus = [gpu.get("name") for gpu in usage.get("gpus") or [] if isinstance(gpu, dict)]
        return {
            "Python": software.get("python"),
            "torch": torch.get("version"),
            "CUDA": torch.get("cuda_build"),
            "cuDNN": torch.get("cudnn"),
            "GPUs": ", ".join(map(str, gpus)) or "none",
            "driver": listing.part(record, "machine").get("driver") if gpus else None,
            "processor": listing.part(record, "host").get("cpu"),
            "threads": listing.part(record, "determinism").get("threads"),
        }

    now = facts(new)
    return [
        f"{name}: {value} when it was recorded, {now[name]} now"
        for name, value in facts(old).items()
        if value != now[name]
    ]


# --- one file for another machine ----------------------------------------------------------------


def export(wanted: str, file: Path) -> Path:
    """Pack a run's record, its code (with the history that leads to it) and its lock into a zip.

    Returns its path, which ends with .zip.
    """
    folder = records.find(wanted)
    record = records.read_json(folder / "run.json")
    if listing.state(record) == "RUNNING":
        raise UserError(f"{folder.name} is RUNNING: export it when it has ended.")
    commit = require_code(folder.name, record)
    if git.run("rev-parse", "--is-shallow-repository").strip() == "true":
        raise UserError("this clone has only a part of the history: git fetch --unshallow first.")
    if file.suffix != ".zip" and not file.exists():
        file = file.with_name(f"{file.name}.zip")
    if file.exists():
        raise UserError(f"{file} exists: choose another name.")
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory() as place:
            ref, bundle = f"{snapshot.REFS}/{commit}", Path(place, BUNDLE)
            git.run("update-ref", ref, commit)
            git.run("bundle", "create", str(bundle), ref)
            with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as pack:
                for path in sorted(folder.rglob("*")):
                    if path.is_file():
                        inside = path.relative_to(folder).as_posix()
                        pack.write(path, f"{RECORD}{folder.name}/{inside}")
                pack.write(bundle, BUNDLE)
                lock = os.path.normpath(f"{folder_of(record)}/requirements.txt")
                pack.writestr("requirements.txt", git.run("show", f"{commit}:{lock}"))
        os.replace(draft, file)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error}.") from None
    finally:
        draft.unlink(missing_ok=True)
    return file


def unpack(file: Path) -> Path:
    """Take over record, code and new notes of an exported run; returns its folder in runs/."""
    runs = project.runs_folder()
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with (
            zipfile.ZipFile(file) as pack,
            tempfile.TemporaryDirectory(prefix="_import-", dir=runs) as place,
        ):
            pack.extractall(place)
            (record,) = Path(place, RECORD).iterdir()
            content = records.read_json(record / "run.json")
            ref = f"{snapshot.REFS}/{code_of(record.name, content)}"
            git.run("fetch", "--quiet", "--no-tags", str(Path(place, BUNDLE)), f"{ref}:{ref}")
            kept = runs / record.name
            if not kept.exists():
                record.rename(kept)
            elif records.read_json(kept / "run.json") != content:
                raise UserError(f"{project.shown(kept)} is another record than that of {file}.")
            else:
                records.add_notes(kept, records.notes(record))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is no file of lab export: {error}.") from None
    return kept
