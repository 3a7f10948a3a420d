"""Comparing two runs number by number: are they the same, and what may have made them differ?"""

import fnmatch
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.ground import project
from lab.runs import listing, reading, records

ENDED = ("COMPLETED", "FAILED")  # states of runs whose points are complete

# Metrics that measure the clock: no repetition has the same. docs/any-script.md names them.
CLOCK = re.compile(
    r"(.*[/_. -])?(time|runtime|seconds?|secs?|ms|duration|elapsed|eta|throughput|fps)"
    r"|.*(_per_|/)(seconds?|secs?|s)",
    re.IGNORECASE,
)
NOT_COMPARED = "a time: not compared"
Series = list[tuple[int, Any]]  # step and value of each point


@dataclass(frozen=True)
class Row:
    """The comparison of one metric."""

    metric: str
    recorded: Any  # its last value in the recorded run
    now: Any  # its last value in the repetition
    same: bool  # all points are identical or within the tolerance, or it is a time
    verdict: str  # `same` in words


def compare(old: Path, new: Path, tolerance: float) -> list[Row]:
    """Compare all points of two runs; one row per metric."""
    before, after, clocks = read_series(old), read_series(new), read_clocks()
    state = reading.get_state(reading.read_json(old / "run.json"))
    rows = []
    if state in ENDED:
        now = reading.get_state(reading.read_json(new / "run.json"))
        same = now == state
        rows.append(Row("state", state, now, same, "identical" if same else "differs"))
    else:  # it was interrupted: compare the points that it had until then
        after = {name: points[: len(before.get(name, []))] for name, points in after.items()}
        before = {name: points for name, points in before.items() if points}
        after = {name: points for name, points in after.items() if name in before}
    for name in dict.fromkeys([*before, *after]):
        first, second = before.get(name, []), after.get(name, [])
        recorded, now = (points[-1][1] if points else "" for points in (first, second))
        if is_clock(name, clocks):
            rows.append(Row(name, recorded, now, True, NOT_COMPARED))
        else:
            rows.append(Row(name, recorded, now, *compare_series(first, second, tolerance)))
    return rows


def has_number(rows: list[Row]) -> bool:
    """Whether any metric was compared."""
    return any(row.recorded not in ENDED and row.verdict != NOT_COMPARED for row in rows)


def read_clocks() -> list[str]:
    """Read the patterns of metrics that measure time: `clocks` of [tool.lab]."""
    return project.list_setting("clocks", 'write a list of patterns, as in clocks = ["perf/*"]')


def is_clock(metric: str, patterns: list[str]) -> bool:
    """Whether a metric is a time or a rate, which is shown but not compared."""
    name = metric.removeprefix("result ")
    return bool(CLOCK.fullmatch(name)) or any(fnmatch.fnmatchcase(name, one) for one in patterns)


def read_series(folder: Path) -> dict[str, Series]:
    """Read the points of every metric, and each value of the result as a series of one point."""
    found: dict[str, Series] = {}
    for metric, step, value, _ in records.points(folder / "metrics.jsonl"):
        found.setdefault(metric, []).append((step, value))
    record = reading.read_json(folder / "run.json")
    for name, value in listing.make_row(folder.name, record, {})["result"].items():
        found[f"result {name}".strip()] = [(0, value)]
    return found


def compare_series(first: Series, second: Series, tolerance: float) -> tuple[bool, str]:
    """Compare two series; returns whether they are the same, and the verdict. NaN equals NaN."""
    if len(first) != len(second):
        return False, f"differs: {len(first)} points recorded, {len(second)} now"
    if [step for step, _ in first] != [step for step, _ in second]:
        return False, "differs: the points are at other steps"
    gaps = [(step, measure_gap(a, b), b) for (step, a), (_, b) in zip(first, second, strict=True)]
    differing = [step for step, size, _ in gaps if size]
    if not differing:
        return True, "identical"
    most = f"by {max(size for _, size, _ in gaps):.3g} at most"
    within = all(
        size <= tolerance * max(1.0, abs(value) if isinstance(value, float) else 0.0)
        for _, size, value in gaps
    )
    if within:
        return True, f"within the tolerance, {most}"
    return False, f"differs from step {differing[0]} on, {most}"


def measure_gap(first: Any, second: Any) -> float:
    """Measure how far apart two values are: 0 if equal, infinite unless both are numbers."""
    if repr(first) == repr(second):
        return 0.0
    try:
        size = abs(float(first) - float(second))
    except (TypeError, ValueError, OverflowError):
        return math.inf
    return size if math.isfinite(size) else math.inf


def describe_surroundings(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """List what may make numbers differ although code, configuration and data are the same."""

    def collect_facts(record: dict[str, Any]) -> dict[str, Any]:
        software, torch = reading.get_dict(record, "software"), reading.get_dict(record, "torch")
        usage = reading.get_dict(record, "usage")
        gpus = [gpu.get("name") for gpu in reading.get_list(usage, "gpus") if isinstance(gpu, dict)]
        return {
            "Python": software.get("python"),
            "torch": torch.get("version"),
            "packages": records.describe_packages(software),
            "CUDA": torch.get("cuda_build"),
            "cuDNN": torch.get("cudnn"),
            "GPUs": ", ".join(map(str, gpus)) or "none",
            "driver": reading.get_dict(record, "machine").get("driver") if gpus else None,
            "processor": reading.get_dict(record, "host").get("cpu"),
            "threads": reading.get_dict(record, "determinism").get("threads"),
        }

    now = collect_facts(new)
    return [
        f"{name}: {value} when it was recorded, {now[name]} now"
        for name, value in collect_facts(old).items()
        if value != now[name]
    ]
