"""Selecting and sorting the rows of the listing, and telling them apart by their settings."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from lab.ground import project
from lab.ground.errors import UsageError
from lab.runs.listing import Row
from lab.runs.records import final

HIGHER_IS_BETTER = re.compile(
    r"(?!.*(loss|err))"  # accumulated_loss, f1_error
    r".*(acc|f1|auc|precision|recall|sensitivity|specificity|iou|dice|bleu|rouge|score|reward"
    r"|return|success|r2|(\b|_)map|ndcg|mrr|top-?\d|kappa|mcc|corr|psnr|ssim)",
    re.I,
)


def shorten_ids(ids: Iterable[str]) -> dict[str, str]:
    """Shorten each id to its time, unless another run has the same time."""
    ids = list(ids)
    size = len("20261122-101530")
    times = Counter(run_id[:size] for run_id in ids)
    return {run_id: run_id[:size] if times[run_id[:size]] == 1 else run_id for run_id in ids}


def get_value(row: Row, key: str) -> Any:
    """Get a setting ("opt.lr" inside a dictionary), a column or a result of a row, or None."""
    value: Any = row["config"]
    for word in [key] if key in row["config"] else key.split("."):
        value = value.get(word) if isinstance(value, dict) else None
    if value is None and key not in ("config", "result"):
        value = row[key] if key in row else row["result"].get(key)
    return value


def select_rows(rows: list[Row], key: str, wanted: str) -> list[Row]:
    """Select the rows with this value of a setting or column; UsageError if no run has such a key.

    0.01 and 1e-2 are the same value, and the beginning of a commit is enough.
    """
    values = [get_value(row, key) for row in rows]
    if rows and all(value is None for value in values):
        settings = sorted({name for row in rows for name in row["config"]})
        raise UsageError(f"no run has {key}; there are state, machine, {', '.join(settings)}.")
    try:
        parsed = json.loads(wanted)
    except ValueError:
        parsed = {"True": True, "False": False, "None": None}.get(wanted, wanted)

    def matches(value: Any) -> bool:
        if key == "commit" and isinstance(value, str) and value.startswith(wanted):
            return True
        return str(value) == wanted or (value == parsed and value is not None)

    return [row for row, value in zip(rows, values, strict=True) if matches(value)]


def sort_rows(rows: list[Row], metric: str, reverse: bool = False) -> list[Row]:
    """Sort the rows by a result or a metric's last value, best first, runs without it last.

    A higher value is better if the name says so (accuracy, f1, ...), otherwise a lower one. A minus
    before the name reverses that, as `reverse` does. UsageError if no run has the metric.
    """
    name = metric.removeprefix("-")
    descending = bool(HIGHER_IS_BETTER.match(name)) ^ (name != metric) ^ reverse
    values = {}
    for row in rows:
        value = row["result"].get(name)
        if value is None:
            value = final(project.runs_folder() / row["run"]).get(name)
            if value is not None:
                row["result"][name] = value
        try:
            values[row["run"]] = float(value)
        except (TypeError, ValueError, OverflowError):
            values[row["run"]] = math.nan
    if rows and not any(name in row["result"] for row in rows):
        results = sorted({name for row in rows for name in row["result"]})
        there = ", ".join(results) or "none"
        raise UsageError(f"no run has the metric {name}; results are {there}.")
    with_value = [row for row in rows if not math.isnan(values[row["run"]])]
    without = [row for row in rows if math.isnan(values[row["run"]])]
    return sorted(with_value, key=lambda row: values[row["run"]], reverse=descending) + without
