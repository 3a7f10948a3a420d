"""Reading recorded runs: one by its id, several compared, tables and curves.

For notebooks; a change of what is listed here is a new major version.

    runs()                a table (pandas) of all runs
    metrics(ID, ...)      every point of these runs, or of all: run, metric, step, value, time
    curves(table, NAME)   a plot of one metric; `table` as metrics() returns it
    comparison(FOLDERS)   settings that differ, and the last metrics, side by side
    find(RUN)             the folder of a run, by its id or the beginning of its id
    read(FOLDER)          all of a record but its curves
    final(FOLDER)         the last value of each metric
    points(FILE)          the points of a metrics.jsonl
    notes(FOLDER)         the notes of a record; note(FOLDER, TEXT) adds one
    plot(FOLDERS, NAME, FILE)   curves() as an image file
"""

from lab.ground.errors import UsageError
from lab.runs.records import (
    comparison,
    curves,
    final,
    find,
    metrics,
    note,
    notes,
    plot,
    points,
    read,
    runs,
)

__all__ = [
    "UsageError",
    "comparison",
    "curves",
    "final",
    "find",
    "metrics",
    "note",
    "notes",
    "plot",
    "points",
    "read",
    "runs",
]
