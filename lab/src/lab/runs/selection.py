"""Rows of the listing: named in short, chosen, ordered, told apart by their settings."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from lab.ground import project
from lab.ground.errors import UsageError
from lab.runs.records import final


def short_names(rows: list[dict[str, Any]]) -> dict[str, str]:
    """What is enough to name each run among these: its time, unless another one has it too."""
    size = len("20261122-101530")
    taken = Counter(row["run"][:size] for row in rows)
    return {one: one[:size] if taken[one[:size]] == 1 else one for one in (r["run"] for r in rows)}


def differing(configs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each configuration the settings by which it can be told from the others.

    A setting that is the same nearly everywhere is shown only where it is not: what more than half
    of the configurations have is left out.
    """
    configs = list(configs)
    usual: dict[str, str | None] = {}
    for key in dict.fromkeys(key for config in configs for key in config):
        first = configs[0].get(key)
        if any(config.get(key) != first for config in configs):
            value, count = Counter(str(config.get(key)) for config in configs).most_common(1)[0]
            usual[key] = value if 2 * count > len(configs) else None
    return [
        {key: config[key] for key in usual if key in config and str(config[key]) != usual[key]}
        for config in configs
    ]


def value_of(row: dict[str, Any], key: str) -> Any:
    """A setting ("opt.lr" inside a dictionary), a column or a result of a row; None: not there."""
    value: Any = row["config"]
    for word in [key] if key in row["config"] else key.split("."):
        value = value.get(word) if isinstance(value, dict) else None
    if value is None and key not in ("config", "result"):
        value = row[key] if key in row else row["result"].get(key)
    return value


def matching(rows: list[dict[str, Any]], key: str, wanted: str) -> list[dict[str, Any]]:
    """The rows whose setting or column is as wanted: 0.01 and 1e-2 are the same, a commit may be
    cut short. UsageError if no run knows the name.
    """
    values = [value_of(row, key) for row in rows]
    if rows and all(value is None for value in values):
        known = sorted({name for row in rows for name in row["config"]})
        raise UsageError(f"no run has {key}; there are state, machine, {', '.join(known)}.")
    try:
        meant = json.loads(wanted)
    except ValueError:
        meant = {"True": True, "False": False, "None": None}.get(wanted, wanted)

    def fits(value: Any) -> bool:
        start = key == "commit" and isinstance(value, str) and value.startswith(wanted)
        return start or str(value) == wanted or (value == meant and value is not None)

    return [row for row, value in zip(rows, values, strict=True) if fits(value)]


def ordered(rows: list[dict[str, Any]], metric: str, down: bool) -> list[dict[str, Any]]:
    """The rows by a result or a metric's last value, runs without it last.

    UsageError if no run has it.
    """
    values = {}
    for row in rows:
        value = row["result"].get(metric)
        if value is None:
            value = final(project.runs_folder() / row["run"]).get(metric)
            if value is not None:
                row["result"][metric] = value
        try:
            values[row["run"]] = float(value)
        except (TypeError, ValueError):
            values[row["run"]] = float("nan")
    if rows and not any(metric in row["result"] for row in rows):
        known = sorted({name for row in rows for name in row["result"]})
        raise UsageError(f"no run has the metric {metric}; results are {', '.join(known)}.")
    there = [row for row in rows if values[row["run"]] == values[row["run"]]]
    missing = [row for row in rows if values[row["run"]] != values[row["run"]]]
    return sorted(there, key=lambda row: values[row["run"]], reverse=down) + missing
