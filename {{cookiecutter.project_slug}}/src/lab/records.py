"""Reading recorded runs: one table of runs, one of metrics."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from lab import liveness, project


def folders() -> list[Path]:
    """The folders of all records, whole or not, newest first."""
    paths = project.runs_folder().glob("[!._]*/")  # _sources and _ranks are no runs
    return sorted((path for path in paths if path.is_dir()), reverse=True)


def read_json(path: Path) -> dict[str, Any]:
    """The content of a record's file; {} if it is missing, or half-written at this moment."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def state(record: dict[str, Any]) -> str:
    """Of a run, from its run.json: what it says itself, and LOST if it cannot be running any more.

    UNKNOWN: a run on another machine of which nothing was heard for some minutes. UNREADABLE: the
    record is broken.
    """
    said = record.get("status")
    if said != "RUNNING":
        return said if isinstance(said, str) else "UNREADABLE"
    process = record.get("process")
    return liveness.judge(process if isinstance(process, dict) else {}, record.get("heartbeat"))


def runs() -> pd.DataFrame:
    """One row per recorded run, newest first: state, start (UTC), result and configuration.

    The index is the run's id. A result that is a dictionary gives a column for each of its values.
    """
    rows = {}
    for folder in folders():
        record, config = read_json(folder / "run.json"), read_json(folder / "config.json")
        result = record.get("result")
        scores = result if isinstance(result, dict) else {"result": result}
        start = record.get("start_time")
        rows[folder.name] = {"state": state(record), "start": start, **scores, **config}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")
    if "start" in table:
        table["start"] = pd.to_datetime(table["start"], utc=True, format="ISO8601")
    return table


def metrics(*ids: str) -> pd.DataFrame:
    """Every recorded value of these runs, or of all: run, metric, step, value, time.

    `time` is in seconds since 1970. A line that is not whole is left out.
    """
    columns = ["run", "metric", "step", "value", "time"]
    tables = [
        pd.DataFrame(points(folder / "metrics.jsonl"), columns=columns[1:]).assign(run=folder.name)
        for folder in folders()
        if not ids or folder.name in ids
    ]
    tables = [table for table in tables if len(table)]
    if not tables:
        return pd.DataFrame(columns=columns)
    return pd.concat(tables, ignore_index=True)[columns]


def points(path: Path) -> list[tuple[str, int, float, float]]:
    """The points of a metrics.jsonl: metric, step, value, time; "NaN" is a float again."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            one = json.loads(line)
            found.append((one["metric"], one["step"], float(one["value"]), one["time"]))
        except (ValueError, LookupError, TypeError):
            continue  # being written at this moment, or cut off by a full disk
    return found
