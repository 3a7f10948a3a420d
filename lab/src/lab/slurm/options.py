"""The options of sbatch for a job: those of machines.toml, of lab run, and lab's own."""

import re
from collections.abc import Iterable, Mapping

from lab.ground.errors import UsageError

NAME = re.compile("[a-z]([a-z0-9-]*[a-z0-9])?")
VALUE = re.compile(r"[^\s\"'\\#`$%]{1,200}")
SIGNAL = re.compile(r"B:USR1@[0-9]{1,5}")
GPU_OPTIONS = ("gres", "gpus", "gpus-per-node", "gpus-per-task")
# Options that lab sets itself, and why or what to use instead.
OURS = {
    **dict.fromkeys(
        ("job-name", "output", "error", "open-mode"), "lab logs finds the output by it"
    ),
    **dict.fromkeys(("input", "chdir", "wrap"), "lab run -- COMMAND says what runs"),
    **dict.fromkeys(
        ("export", "export-file", "get-user-env"), "use lab run --env, or prelude in machines.toml"
    ),
    **dict.fromkeys(("array", "wait", "parsable", "test-only", "hold"), "one lab run is one job"),
    **dict.fromkeys(("clusters", "cluster"), "each cluster is a machine in machines.toml"),
}
ONE = ("nodes", "ntasks", "ntasks-per-node")  # a job is one command on one node


def find_broken_rule(name: str, value: str | int | bool) -> str | None:
    """Return the rule that an option breaks. True is an option without a value."""
    if not NAME.fullmatch(name):
        return "expected the long name of an sbatch option, without --"
    if name in OURS:
        return f"lab sets {name} itself; {OURS[name]}"
    if isinstance(value, bool):
        return None
    if name in ONE and str(value) != "1":
        return "a job has one node and one task, which may start one process for each GPU"
    if name == "signal" and not SIGNAL.fullmatch(str(value)):
        return "it must be B:USR1@SECONDS: on USR1 a run writes a checkpoint"
    if not isinstance(value, int) and not VALUE.fullmatch(value):
        return "a value cannot contain spaces, quotes or any of \\ # ` $ %"
    return None


def parse(words: Iterable[str]) -> dict[str, str | bool]:
    """Return the options of --slurm: NAME=VALUE, or NAME. UsageError for one not allowed."""
    found: dict[str, str | bool] = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        found[name] = value if equals else True
        rule = find_broken_rule(name, found[name])
        if rule:
            raise UsageError(f"--slurm {name}: {rule}.")
    return found


def choose(
    standing: Mapping[str, str | int | bool],
    given: Mapping[str, str | bool],
    time: str = "",
    gpus: str = "some",
) -> dict[str, str]:
    """Return the options of one job by their names; an option without a value has "".

    `standing` are those of the machine, which `given` and `time` override. `gpus`: "some" leaves
    their GPUs as they are, "0" removes them, a number replaces theirs and keeps the type.
    """
    merged = {**standing, **given, **({"time": time} if time else {})}
    options = {
        name: "" if value is True else str(value)
        for name, value in merged.items()
        if value is not False
    }
    if gpus != "some":
        options = _set_gpus(options, gpus)
    return options


def make_variables(options: Mapping[str, str], gpus: str = "some") -> dict[str, str]:
    """Return the variables of a script that asks Slurm for an allocation with these options."""
    return {
        "asked": " ".join(f"{name}={text}".rstrip("=") for name, text in options.items()),
        "some_gpus": "yes" if gpus == "some" and not asks_for_gpus(options) else "",
    }


def asks_for_gpus(options: Mapping[str, str]) -> bool:
    """Return whether these options ask for GPUs."""
    gres = options.get("gres", "").split(",")
    return any(one.split(":")[0] == "gpu" for one in gres) or any(
        name in options for name in GPU_OPTIONS[1:]
    )


def _set_gpus(options: dict[str, str], gpus: str) -> dict[str, str]:
    """Return options with that number of GPUs in place of theirs, of the same type."""
    kind = ""
    others: list[str] = []
    kept = {}
    for name, value in options.items():
        if name == "gres":
            for one in value.split(","):
                if one.split(":")[0] == "gpu":
                    kind = _read_type(one.removeprefix("gpu").removeprefix(":")) or kind
                else:
                    others.append(one)
        elif name in GPU_OPTIONS:
            kind = _read_type(value) or kind
        else:
            kept[name] = value
    if gpus != "0":
        others.insert(0, ":".join(filter(None, ("gpu", kind, gpus))))
    return {**kept, **({"gres": ",".join(others)} if others else {})}


def _read_type(text: str) -> str:
    """Return a100 of a100:2 and of a100; "" of 2."""
    name = text.split(":", maxsplit=1)[0]
    return "" if name.isdigit() else name


def make_batch_script(id: str, options: Mapping[str, str]) -> str:
    """Return the batch script of a job; its one argument is the job's folder."""
    ours = {"job-name": name_job(id), "nodes": "1", "ntasks": "1", "open-mode": "append"}
    ours |= {"signal": "B:USR1@60"}
    if "no-requeue" not in options:
        ours["requeue"] = ""
    lines = [
        f"#SBATCH --{name}{'=' if value else ''}{value}"
        for name, value in {**ours, **options}.items()
    ]
    return "\n".join(["#!/bin/sh", *lines, *BODY]) + "\n"


BODY = (
    "trap 'near=yes' USR1 # the time limit is near; Slurm may say so at once",
    'cd "$1" && . ./slurm_batch.sh',
)


def name_job(id: str) -> str:
    """Return the name of a job in Slurm, which no other has."""
    return f"lab-{id}"
