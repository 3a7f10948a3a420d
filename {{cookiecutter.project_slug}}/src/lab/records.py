"""Reading recorded runs: one table of runs, one of metrics."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from lab import project


def folders() -> list[Path]:
    """The folders of all records, newest first."""
    return sorted((path.parent for path in project.runs_folder().glob("*/run.json")), reverse=True)


def read_json(path: Path) -> dict[str, Any]:
    """The content of a record's file; {} if it is missing, or half-written at this moment."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def runs() -> pd.DataFrame:
    """One row per recorded run, newest first: state, start (UTC), result and configuration.

    The index is the run's id. A result that is a dictionary gives a column for each of its values.
    """
    rows = {}
    for folder in folders():
        record, config = read_json(folder / "run.json"), read_json(folder / "config.json")
        result = record.get("result")
        scores = result if isinstance(result, dict) else {"result": result}
        state = record.get("status", "UNREADABLE")
        rows[folder.name] = {"state": state, "start": record.get("start_time"), **scores, **config}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")
    if "start" in table:
        table["start"] = pd.to_datetime(table["start"], utc=True, format="ISO8601")
    return table


def metrics(*ids: str) -> pd.DataFrame:
    """Every recorded value of these runs (of all, if none is named): run, metric, step, value."""
    wanted = [folder for folder in folders() if not ids or folder.name in ids]
    tables = [
        pd.DataFrame(
            {"run": folder.name, "metric": name, "step": one["steps"], "value": one["values"]}
        )
        for folder in wanted
        for name, one in read_json(folder / "metrics.json").items()
    ]
    if not tables:
        return pd.DataFrame(columns=["run", "metric", "step", "value"])
    return pd.concat(tables, ignore_index=True)
