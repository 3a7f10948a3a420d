"""The checks of lab doctor: facts in, verdicts out. Nothing is asked or run here."""

import re
from typing import Literal, NamedTuple

from lab.doctor.cluster_checks import check_cluster
from lab.doctor.facts import (
    FAILED,
    NUMBER,
    OK,
    UNKNOWN,
    WARNING,
    Check,
    Facts,
    Fix,
    Verdict,
    first_line,
    parse_version,
    short_version,
    worst,
)
from lab.doctor.machine_checks import (
    check_clock,
    check_disks,
    check_gpus,
    check_index,
    check_sessions,
)
from lab.ground.terminal import count_files


def judge(local: Facts, remote: Facts | None) -> list[Check]:
    """Return every check; without a connection (None) only those of this computer."""
    checks = [*check_programs(local, remote), *check_environment(local, remote)]
    checks += check_local(local)
    if remote is not None:
        by_slurm, lab = "slurm" in remote, first_line(local, "lab")
        checks += check_cluster(remote, lab) if by_slurm else check_gpus(remote)
        checks += [*check_disks(remote, lab), *check_clock(remote), check_index(local, remote)]
        checks += [] if by_slurm else check_sessions(local, remote)
    return [*checks, check_dataset(local, remote)]


class Program(NamedTuple):
    """What a program is needed for."""

    side: Literal["local", "remote", "both"]
    if_missing: Verdict
    oldest: tuple[int, ...]  # version that is new enough
    advice: str


PROGRAMS = {
    "ssh": Program("local", FAILED, (7, 3), "no machine can be reached: install OpenSSH"),
    "git": Program("both", FAILED, (2, 25), "code cannot be sent: install it"),
    "rsync": Program("both", WARNING, (), "files are copied by tar, which is slower: install it"),
    "tmux": Program("remote", WARNING, (2, 2), "lab shell ends with the connection: install it"),
    "script": Program("remote", WARNING, (), "lab run --interactive needs it: install util-linux"),
    "python3": Program("both", OK, (3, 8), "uv will download a Python"),
    "uv": Program("both", WARNING, (0, 9), "lab setup downloads it; or put it into ~/.local/bin"),
}


NOT_BEHIND_SLURM = ("tmux", "script")  # nothing of ours stays on a login node


def check_programs(local: Facts, remote: Facts | None) -> list[Check]:
    """Check the programs that are needed, and their versions."""
    unused = NOT_BEHIND_SLURM if "slurm" in (remote or {}) else ()
    checks = [check_program(name, local, remote) for name in PROGRAMS if name not in unused]
    python, uv = (parse_version(first_line(remote, name)) for name in ("python3", "uv"))
    known = first_line(remote, "python3") != "?" and first_line(remote, "uv") != "?"
    if known and python < (3, 8) and not uv:
        cause = "the machine has neither Python 3.8 nor uv, so no environment can be made"
        fix = "run curl -LsSf https://astral.sh/uv/install.sh | sh on it, which needs no root"
        checks.append(Check("environment tools", "", "missing", FAILED, f"{cause}: {fix}"))
    if remote is not None:
        *names, last = remote.get("missing", []) or ["?"]
        verdict = UNKNOWN if last != "asked" else FAILED if names else OK
        missing = ", ".join(names)
        advice = f"no job starts without {missing}: install coreutils and util-linux"
        checks.append(Check("basic tools", "", missing, verdict, advice if names else ""))
    return checks


def check_program(name: str, local: Facts, remote: Facts | None) -> Check:
    """Check one program on the sides where it is needed."""
    program = PROGRAMS[name]
    verdicts, causes, versions = [OK], [], {"local": "", "remote": ""}
    for side, owner, facts in (
        ("local", "this computer", local),
        ("remote", "the machine", remote),
    ):
        if program.side not in (side, "both"):
            continue
        found = first_line(facts, name)
        versions[side] = short_version(found)
        if found in ("missing", "broken"):
            verdicts.append(program.if_missing)
            problem = f"no {name}" if found == "missing" else f"a {name} that does not start"
            causes.append(f"{owner} has {problem}")
        elif not parse_version(found):
            verdicts.append(UNKNOWN)
        elif parse_version(found) < program.oldest:
            verdicts.append(WARNING)
            oldest = ".".join(map(str, program.oldest))
            causes.append(f"{owner} has {name} {versions[side]}, older than {oldest}")
    advice = f"{' and '.join(causes)}: {program.advice}" if causes else ""
    return Check(name, versions["local"], versions["remote"], worst(verdicts), advice)


def check_environment(local: Facts, remote: Facts | None) -> list[Check]:
    """Check on both sides for the environment of this lock, and whether its torch fits the GPUs."""
    wanted, lab = first_line(local, "environment"), first_line(local, "lab")
    set_up = f"{lab} setup, or {lab} doctor --fix"
    verdicts: dict[str, Verdict] = {"yes": OK, "no": FAILED}
    local_state = verdicts.get(first_line(local, "up to date"), UNKNOWN)
    remote_state = verdicts.get(first_line(remote, "environment"), UNKNOWN)
    words = {OK: wanted, FAILED: "not up to date", UNKNOWN: "?"}
    sides = words[local_state], words[remote_state]
    causes: list[str] = []
    fix: Fix = ""
    if local_state == FAILED:
        cause = "the environment on this computer does not match the lock"
        causes.append(f"{cause}: python3 bootstrap.py")
    if remote_state == FAILED:
        causes.append(f"the machine has no environment for this lock: {set_up}")
        remote_state, fix = WARNING, "setup"  # the next job would make it, too
    verdict = worst([local_state, remote_state])
    checks = [Check("environment", *sides, verdict, "; ".join(causes), fix)]
    if "no lock" in local:
        checks = [Check("lock", "not usable", "", FAILED, first_line(local, "no lock"))]
    if remote is not None:
        copies: dict[str, tuple[str, Verdict]] = {
            "yes": ("present", OK),
            "no": ("missing", WARNING),
        }
        word, verdict = copies.get(first_line(remote, "work"), ("?", UNKNOWN))
        advice, fix = "", ""
        if verdict == WARNING:
            advice, fix = f"the project is not on the machine yet: {set_up}", "setup"
        checks.append(Check("working copy", "", word, verdict, advice, fix))
    if first_line(local, "torch wanted") == "yes":
        checks.append(check_torch(local, remote))
    return checks


def check_torch(local: Facts, remote: Facts | None) -> Check:
    """Compare the machine's torch build with its GPUs and their driver."""
    build = parse_torch_build(remote)
    verdict, advice = judge_torch(build, local, remote)
    return Check("torch", parse_torch_build(local).version, build.version, verdict, advice)


class TorchBuild(NamedTuple):
    """What torch was built for; `version` is "?" if it is not known."""

    version: str
    cuda: str  # "": built without it
    rocm: bool


def judge_torch(build: TorchBuild, local: Facts, remote: Facts | None) -> tuple[Verdict, str]:
    """Return the verdict on the machine's torch, and the advice."""
    gpus = first_line(remote, "gpus")
    if first_line(remote, "environment") == "no" or build.version == "?":
        return UNKNOWN, ""
    if gpus == "none" or build.rocm:
        return OK, ""
    if gpus != "ok":
        return UNKNOWN, ""
    if not build.cuda:
        cause = f"the machine has GPUs, but its torch {build.version} is built without CUDA"
        folder = f"envs/{first_line(local, 'environment')}"
        fix = f"remove {folder} on it while no job runs, then {first_line(local, 'lab')} setup"
        return FAILED, f"{cause}: {fix}"
    lines = (remote or {}).get("gpus", [])
    driver = next((line[5:] for line in lines if line.startswith("cuda ")), "")
    if not parse_version(driver):
        return UNKNOWN, "nvidia-smi does not say which CUDA version the driver supports"
    if parse_version(driver)[:1] < parse_version(build.cuda)[:1]:
        cause = f"torch {build.version} needs a driver for CUDA {build.cuda}, but the machine's"
        older = f"torch for CUDA {parse_version(driver)[0]} (UV_TORCH_BACKEND)"
        fix = f"ask its administrator for a newer driver, or install {older}"
        return FAILED, f"{cause} supports only {driver}: {fix}"
    return OK, ""


def parse_torch_build(facts: Facts | None) -> TorchBuild:
    """Read the lines of torch's version.py."""
    values = {}
    for line in (facts or {}).get("torch", []):
        name, _, value = re.sub(r":[^=]*=", "=", line).replace("'", "").partition("=")
        values[name.strip()] = "" if value.strip() == "None" else value.strip()
    return TorchBuild(
        values.get("__version__", "?"), values.get("cuda", ""), bool(values.get("hip"))
    )


def check_local(local: Facts) -> list[Check]:
    """Check what concerns this computer alone."""
    busy = ", ".join(local.get("busy ports", []))
    ports = Check("local ports", "free", "", OK)
    if busy:
        cause = f"port {busy} is in use on this computer"
        effect = "lab notebook and lab tensorboard take the next; forwards of ssh-config need it"
        ports = Check("local ports", f"{busy} in use", "", WARNING, f"{cause}: {effect}")
    problem = first_line(local, "socket")
    if problem == "ok":
        return [ports, Check("ssh sockets", "usable", "", OK)]
    return [ports, Check("ssh sockets", "not usable", "", FAILED, problem)]


class Contents(NamedTuple):
    """What one side has of a dataset."""

    manifest: str  # its hash; "" without a dataset, "?" if that is not known
    summary: str
    files: tuple[int, int] | None  # how many, and their bytes; None: not counted


def check_dataset(local: Facts, remote: Facts | None) -> Check:
    """Compare the project's dataset on both sides: hash of the manifest, files, bytes."""
    name = first_line(local, "dataset name")
    mine, theirs = parse_contents(local), parse_contents(remote)
    if "no data" in local:
        return Check(f"data {name}", "", theirs.summary, FAILED, first_line(local, "no data"))
    verdict, advice = judge_dataset(name, mine, theirs, first_line(local, "lab"))
    return Check(f"data {name}", mine.summary, theirs.summary, verdict, advice)


def judge_dataset(name: str, mine: Contents, theirs: Contents, lab: str) -> tuple[Verdict, str]:
    """Return the verdict on the two sides of a dataset, and the advice."""
    if "?" in (mine.manifest, theirs.manifest):
        return UNKNOWN, ""
    if not mine.manifest and not theirs.manifest:
        return WARNING, f"there is no dataset {name} yet: the README says how to prepare one"
    if not theirs.manifest:
        return WARNING, f"the machine has no dataset {name}: {lab} push-data {name}"
    if not mine.manifest:
        return OK, ""  # a large one may stay on the machine
    if mine.manifest != theirs.manifest:
        return WARNING, f"the machine has a different dataset named {name}: rename one of the two"
    if not theirs.files or not mine.files:
        return UNKNOWN, "not all of its files could be counted in 8 s"
    if mine.files != theirs.files:
        cause = f"the machine's {name} has the same manifest, but missing, extra or truncated files"
        return WARNING, f"{cause}: {lab} push-data {name}"
    return OK, ""


def parse_contents(facts: Facts | None) -> Contents:
    """Read what is known of a dataset."""
    lines = (facts or {}).get("dataset")
    if lines is None:
        return Contents("?", "?", None)
    if not lines or not re.fullmatch("[0-9a-f]{12}", lines[0]):
        return Contents("", "none", None)
    found = re.fullmatch(f"({NUMBER}) ({NUMBER})", lines[1]) if len(lines) > 1 else None
    if not found:
        return Contents(lines[0], f"{lines[0]}, files not counted", None)
    number, size = int(found[1]), int(found[2])
    summary = f"{lines[0]}, {count_files(number)}, {size / 1e6:.1f} MB"
    return Contents(lines[0], summary, (number, size))
