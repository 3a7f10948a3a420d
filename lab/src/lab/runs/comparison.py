"""Two runs, number against number: are they the same, and what may have made them differ?"""

import math
from pathlib import Path
from typing import Any

from lab.runs import listing, reading, records

ENDED = ("COMPLETED", "FAILED")  # of these runs all points count; of others those that there are


def compare(old: Path, new: Path, tolerance: float) -> list[dict[str, Any]]:
    """One row per metric: its last recorded value, the last one now, and what all points say."""
    before, after = series(old), series(new)
    state = reading.state(reading.read_json(old / "run.json"))
    rows = []
    if state in ENDED:
        now = reading.state(reading.read_json(new / "run.json"))
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
    record = reading.read_json(folder / "run.json")
    for name, value in listing.summary(folder.name, record, {})["result"].items():
        found[f"result {name}".strip()] = [(0, value)]
    return found


def verdict_on(
    first: list[tuple[int, Any]], second: list[tuple[int, Any]], tolerance: float
) -> str:
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
        software, torch, usage = (reading.part(record, k) for k in ("software", "torch", "usage"))
        gpus = [gpu.get("name") for gpu in usage.get("gpus") or [] if isinstance(gpu, dict)]
        return {
            "Python": software.get("python"),
            "torch": torch.get("version"),
            "CUDA": torch.get("cuda_build"),
            "cuDNN": torch.get("cudnn"),
            "GPUs": ", ".join(map(str, gpus)) or "none",
            "driver": reading.part(record, "machine").get("driver") if gpus else None,
            "processor": reading.part(record, "host").get("cpu"),
            "threads": reading.part(record, "determinism").get("threads"),
        }

    now = facts(new)
    return [
        f"{name}: {value} when it was recorded, {now[name]} now"
        for name, value in facts(old).items()
        if value != now[name]
    ]
