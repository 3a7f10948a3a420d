"""What is well and what is not: facts in, checks out. Nothing is asked or run here."""

import re

from lab.doctor.facts import (
    FAILED,
    OK,
    UNKNOWN,
    WARNING,
    Check,
    Facts,
    first_line,
    parse_version,
    short_version,
    worst,
)
from lab.doctor.machine_checks import check_clock, check_disks, check_gpus, check_sessions
from lab.ground.terminal import count_files

OUTDATED, MISSING = "not up to date", "not there"  # an environment; the work copy


def judge(here: Facts, there: Facts | None) -> list[Check]:
    """Every check; without a connection (None) only what this computer has to say."""
    checks = [*check_programs(here, there), *check_environment(here, there), *check_laptop(here)]
    if there is not None:
        checks += [
            *check_gpus(there),
            *check_disks(there),
            *check_clock(there),
            *check_sessions(here, there),
        ]
    return [*checks, *check_dataset(here, there)]


# name: where it is needed, what happens without it, how bad that is, the oldest that will do
PROGRAMS = {
    "ssh": ("here", FAILED, (7, 3), "nothing gets there: install OpenSSH"),
    "git": ("both", FAILED, (2, 25), "the code cannot get there: install it"),
    "rsync": ("both", WARNING, (), "data is brought by a slower way: install it"),
    "tmux": ("there", WARNING, (2, 2), "jobs run, but lab shell does not stay: install it"),
    "script": ("there", WARNING, (), "lab run --interactive needs it: install util-linux"),
    "python3": ("both", OK, (3, 8), "uv has to bring a Python"),
    "uv": ("both", WARNING, (0, 9), "setup fetches one from PyPI; or put one in ~/.local/bin"),
}


def check_programs(here: Facts, there: Facts | None) -> list[Check]:
    """The programs that are needed, and their versions."""
    checks = []
    for name, (needed, without, oldest, advice) in PROGRAMS.items():
        verdicts, causes = [OK], []
        for side, facts in (("this computer", here), ("the machine", there)):
            if needed == "here" and facts is there or needed == "there" and facts is here:
                continue
            found = first_line(facts, name)
            if found in ("missing", "broken"):
                verdicts.append(without)
                words = {"missing": f"has no {name}", "broken": f"has a {name} that does not start"}
                causes.append(f"{side} {words[found]}")
            elif not parse_version(found):
                verdicts.append(UNKNOWN)
            elif parse_version(found) < oldest:
                verdicts.append(WARNING)
                wanted = ".".join(map(str, oldest))
                causes.append(f"{side} has {name} {short_version(found)}, older than {wanted}")
        sides = [short_version(first_line(facts, name)) for facts in (here, there)]
        sides[1] = "" if needed == "here" else sides[1]
        sides[0] = "" if needed == "there" else sides[0]
        said = f"{' and '.join(causes)}: {advice}" if causes else ""
        checks.append(Check(name, *sides, worst(verdicts), said))
    python, uv = (parse_version(first_line(there, name)) for name in ("python3", "uv"))
    known = first_line(there, "python3") != "?" and first_line(there, "uv") != "?"
    if known and python < (3, 8) and not uv:
        cause = "the machine has neither Python 3.8 or newer nor uv, so there can be no environment"
        fix = "curl -LsSf https://astral.sh/uv/install.sh | sh there needs no root"
        checks.append(Check("environment tools", "", "missing", FAILED, f"{cause}: {fix}"))
    if there is not None:
        missing = there.get("missing", ["?"])
        lacks = ", ".join(missing[:-1])
        verdict = UNKNOWN if missing[-1:] != ["asked"] else FAILED if lacks else OK
        advice = f"no job starts there without {lacks}: install coreutils and util-linux"
        checks.append(Check("basic tools", "", lacks, verdict, advice if lacks else ""))
    return checks


def check_environment(here: Facts, there: Facts | None) -> list[Check]:
    """Is the environment of this lock there and here, and does its torch fit the machine?"""
    wanted, lab = first_line(here, "environment"), first_line(here, "lab")
    fixes = {"here": "python3 bootstrap.py", "there": f"{lab} setup, or {lab} doctor --fix"}
    states = {"yes": OK, "no": FAILED}
    verdicts = {
        "here": states.get(first_line(here, "up to date"), UNKNOWN),
        "there": states.get(first_line(there, "environment"), UNKNOWN),
    }
    says = {OK: wanted, FAILED: OUTDATED, UNKNOWN: "?"}
    bad = [side for side, verdict in verdicts.items() if verdict == FAILED]
    causes = [f"requirements.txt is not what is installed {side}: {fixes[side]}" for side in bad]
    if bad == ["there"]:  # a job makes it, too: it only takes a while
        verdicts["there"] = WARNING
        causes = [f"the machine has no environment of this requirements.txt yet: {fixes['there']}"]
    sides = [says[FAILED if side in bad else verdicts[side]] for side in verdicts]
    checks = [Check("environment", *sides, worst(list(verdicts.values())), "; ".join(causes))]
    if there is not None:
        made = first_line(there, "work")
        verdict = {"yes": OK, "no": WARNING}.get(made, UNKNOWN)
        advice = f"the project is not on the machine yet: {fixes['there']}"
        word = {"yes": "is there", "no": MISSING}.get(made, "?")
        checks.append(Check("work copy", "", word, verdict, advice if verdict == WARNING else ""))
    if first_line(here, "torch wanted") == "yes":
        checks.append(check_torch(here, there))
    return checks


def check_torch(here: Facts, there: Facts | None) -> Check:
    """The torch build there, held against its GPUs and their driver."""
    builds = [parse_torch_build(facts) for facts in (here, there)]
    version, cuda, other = builds[1]
    row = ("torch", builds[0][0], version)
    if first_line(there, "environment") == "no" or version == "?":
        return Check(*row, UNKNOWN)
    state = first_line(there, "gpus")
    driver = next((line[5:] for line in there["gpus"] if line.startswith("cuda ")), "")
    if state == "none" or other:
        return Check(*row, OK)
    if state != "ok":
        return Check(*row, UNKNOWN)
    if not cuda:
        cause = f"torch {version} there is built without CUDA, and the machine has GPUs"
        old, again = f"envs/{first_line(here, 'environment')}", f"{first_line(here, 'lab')} setup"
        fix = f"remove {old} there while no job runs, then {again}"
        return Check(*row, FAILED, f"{cause}: {fix}")
    if not driver:
        return Check(*row, UNKNOWN, "nvidia-smi does not say which CUDA the driver knows")
    if parse_version(driver)[:1] < parse_version(cuda)[:1]:
        cause = f"torch {version} needs a driver for CUDA {cuda}, and the machine's knows {driver}"
        fix = f"a newer driver (its administrator), or torch for CUDA {parse_version(driver)[0]}"
        return Check(*row, FAILED, f"{cause}: {fix}: UV_TORCH_BACKEND")
    return Check(*row, OK)


def parse_torch_build(facts: Facts | None) -> tuple[str, str, bool]:
    """torch's version, its CUDA ("" without), and whether it is built for another make of GPU."""
    words = {}
    for line in (facts or {}).get("torch", []):
        name, _, value = re.sub(r":[^=]*=", "=", line).replace("'", "").partition("=")
        words[name.strip()] = "" if value.strip() == "None" else value.strip()
    return words.get("__version__", "?"), words.get("cuda", ""), bool(words.get("hip"))


def check_laptop(here: Facts) -> list[Check]:
    """What concerns this computer alone."""
    busy = here.get("busy ports", [])
    advice = (
        f"port {', '.join(busy)} is in use here: lab notebook and lab tensorboard take the next"
    )
    ports = Check(
        "ports here",
        f"{', '.join(busy)} busy" if busy else "free",
        "",
        WARNING if busy else OK,
        f"{advice}; a forward of lab ssh-config needs it free" if busy else "",
    )
    socket = first_line(here, "socket")
    verdict = OK if socket == "ok" else FAILED
    word = "usable" if verdict == OK else "not usable"
    return [ports, Check("ssh sockets", word, "", verdict, "" if verdict == OK else socket)]


def check_dataset(here: Facts, there: Facts | None) -> list[Check]:
    """Is the project's dataset the same on both sides? hash of the manifest, files, bytes."""
    name = first_line(here, "dataset name")
    mine, theirs = (parse_dataset(facts) for facts in (here, there))
    row = (f"data {name}", mine[1], theirs[1])
    fix = f"{first_line(here, 'lab')} push-data {name}"
    if "?" in (mine[0], theirs[0]):
        return [Check(*row, UNKNOWN)]
    if not mine[0] and not theirs[0]:
        advice = f"there is no dataset {name} yet: the README tells how to prepare one"
        return [Check(*row, WARNING, advice)]
    if not theirs[0]:
        return [Check(*row, WARNING, f"the machine has no dataset {name}: {fix}")]
    if not mine[0]:
        return [Check(*row, OK)]  # large ones stay there
    if mine[0] != theirs[0]:
        advice = f"{name} is another dataset there than here: give one of them another name"
        return [Check(*row, WARNING, advice)]
    if not theirs[2] or not mine[2]:
        return [Check(*row, UNKNOWN, "the files are too many to be counted in 8 s")]
    if mine[2] != theirs[2]:
        cause = f"files of {name} are missing, foreign or cut short there"
        return [Check(*row, WARNING, f"{cause}, although the manifest is the same: {fix}")]
    return [Check(*row, OK)]


def parse_dataset(facts: Facts | None) -> tuple[str, str, tuple[int, int] | None]:
    """Of a dataset: the hash of its manifest ("" without one), a word for it, files and bytes."""
    lines = (facts or {}).get("dataset")
    if lines is None:
        return "?", "?", None
    if not lines or not re.fullmatch("[0-9a-f]{12}", lines[0]):
        return "", "none", None
    found = re.fullmatch(r"(\d+) (\d+)", lines[1]) if len(lines) > 1 else None
    if not found:
        return lines[0], f"{lines[0]}, files not counted", None
    number, size = int(found[1]), int(found[2])
    return lines[0], f"{lines[0]}, {count_files(number)}, {size / 1e6:.1f} MB", (number, size)
