"""Reading recorded runs: one by its id, several compared, tables and curves for notebooks."""

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.environment.installed import summarize
from lab.ground import files, project
from lab.ground.errors import LabError, UsageError
from lab.ground.terminal import escape, shorten
from lab.recording.command.settings import read_arguments
from lab.runs import listing
from lab.runs.reading import flatten_settings, get_dict, get_list, read_json, run_ids

if TYPE_CHECKING:  # pandas and matplotlib take a second to import; the listing does without
    import pandas as pd
    from matplotlib.figure import Figure


MAX_LABEL = 100  # characters of a run's label in a plot
MAX_BYTES = 8 << 30  # bytes of a metrics.jsonl that are read: 100 million points
MAX_LINE = 1 << 16  # bytes of a line of metrics.jsonl
MAX_STEP = 2**63 - 1  # the greatest step: pandas and matplotlib have no greater integers


# --- one record ----------------------------------------------------------------------------------


def find(wanted: str) -> Path:
    """The folder of the run with this id, or the only one whose id begins with it.

    `last` is the newest run, last~1 the one before it; a path to the folder will do as well.
    LabError with the candidates if there is no such run, or more than one.
    """
    if match := re.fullmatch(r"last(?:~(\d{1,9}))?", wanted):
        rows, back = listing.list_rows(), int(match[1] or 0)
        if back >= len(rows):
            raise LabError(f"there is no {wanted}: {len(rows)} runs are recorded.")
        return project.runs_folder() / str(rows[back]["run"])
    name, ids = Path(wanted).name, sorted(run_ids(), reverse=True)
    found = [name] if name in ids else [one for one in ids if name and one.startswith(name)]
    if len(found) == 1:
        return project.runs_folder() / found[0]
    candidates = found or ids
    more = f" and {len(candidates) - 10} more" if len(candidates) > 10 else ""
    number = f"{len(found)} run ids begin" if found else "no run id begins"
    raise LabError(
        f"{number} with {wanted}; there are: {', '.join(candidates[:10]) or 'none'}{more}."
    )


def read(folder: Path) -> dict[str, Any]:
    """All of a record but its curves: row, record, config, metrics (the last values), notes."""
    record, config = read_json(folder / "run.json"), read_json(folder / "config.json")
    return {
        "row": listing.make_row(folder.name, record, config),
        "record": record,
        "config": config,
        "metrics": final(folder),
        "notes": notes(folder),
    }


def points(path: Path) -> list[tuple[str, int, float, float]]:
    """The points of a metrics.jsonl: metric, step, value, time; "NaN" is a float again.

    A line that is not a point is left out: it is being written at this moment, was cut off by a
    full disk, or is not ours.
    """
    found = []
    with suppress(OSError), files.open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            return []
        while line := file.readline(MAX_LINE):
            try:
                one = json.loads(line)
                metric, step, value = one["metric"], one["step"], float(one["value"])
                seconds = float(one["time"])
            except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
                continue
            if isinstance(metric, str) and isinstance(step, int) and -MAX_STEP <= step <= MAX_STEP:
                found.append((metric, step, value, seconds))
    return found


def final(folder: Path) -> dict[str, float]:
    """The last value of each metric of a run."""
    return {metric: value for metric, _, value, _ in points(folder / "metrics.jsonl")}


def note(folder: Path, text: str) -> None:
    """Add a line to a record's notes; LabError if that fails, UsageError if it has no words."""
    if not text.split():
        raise UsageError("a note needs some text.")
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    add_notes(folder, [f"{when}  {' '.join(text.split())}"])


def add_notes(folder: Path, lines: list[str]) -> None:
    """Add the lines that a record's notes lack; LabError if that fails."""
    text = _read_notes(folder)
    present = text.splitlines()
    new = [f"{line}\n" for line in lines if line not in present]
    if new and text and not text.endswith("\n"):  # as some editors leave it
        new.insert(0, "\n")
    # follow no link that a machine made, and do not wait for a reader of a FIFO
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        with os.fdopen(os.open(folder / "notes.txt", flags, 0o666), "wb") as file:
            file.write("".join(new).encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise LabError(f"the note cannot be written: {error}.") from None


def notes(folder: Path) -> list[str]:
    """The lines of a record's notes, each with its time (UTC)."""
    return _read_notes(folder).splitlines()


def _read_notes(folder: Path) -> str:
    try:
        return files.read_text(folder / "notes.txt", "replace")
    except OSError:
        return ""


# --- several records -----------------------------------------------------------------------------


def comparison(folders: list[Path]) -> list[dict[str, Any]]:
    """How runs differ, then the last value of each metric: kind, what, and a value per run."""
    found = {folder.name: read(folder) for folder in folders}
    about = {}
    for name, one in found.items():
        row, record = one["row"], one["record"]
        about[name] = {key: row[key] for key in ("state", "dataset", "machine", "commit")}
        data, software = get_dict(record, "data"), get_dict(record, "software")
        facts = {"data manifest": data.get("manifest_sha256"), "lock": software.get("lock_sha256")}
        words = get_list(get_dict(record, "meta"), "words")  # of a command
        facts["arguments"] = " ".join(read_arguments(list(map(str, words)))) if words else None
        facts["attempts"] = len(get_list(record, "attempts")) or None
        facts["packages"] = describe_packages(software)
        named = get_dict(record, "meta").get("files")
        for file in named if isinstance(named, list) else []:
            if isinstance(file, dict):
                facts[f"file {file.get('path')}"] = file.get("sha256")
        about[name] |= facts | {key: software.get(key) for key in ("python", "torch")}
    results = {name: one["row"]["result"] | one["metrics"] for name, one in found.items()}
    configs = {name: flatten_settings(one["config"]) for name, one in found.items()}
    rows = []
    for kind, values in (("setting", configs), ("about", about), ("metric", results)):
        for key in dict.fromkeys(key for one in values.values() for key in one):
            row = {name: values[name].get(key) for name in found}
            if kind == "metric" or len(set(map(str, row.values()))) > 1:
                rows.append({"kind": kind, "what": key or "result", **row})
    return rows


def describe_packages(software: dict[str, Any]) -> str:
    """Say how the packages of a run, by its record, differed from its lock."""
    return summarize(list(map(str, get_list(software, "not_as_locked")))) or "as locked"


# --- for notebooks -------------------------------------------------------------------------------


# Entries of a row that runs() does not copy as they are.
NOT_PLAIN = {"run", "dataset", "result", "changed", "config"}


def runs() -> "pd.DataFrame":
    """One row per recorded run, newest first: the listing as a table.

    The index is the run's id, start is a time in UTC, duration in seconds. Each value of the result
    and each setting has a column. One with the name of another column is called result.NAME or
    config.NAME.
    """
    import pandas as pd

    rows = listing.list_rows()
    own = {"run", "name", "command", "state", "start", "duration", "machine", "commit"}
    taken = own | {listing.name_result(name, own) for row in rows for name in row["result"]}
    table = {}
    for row in rows:
        plain = {key: row[key] for key in row if key not in NOT_PLAIN}
        results = {listing.name_result(name, own): row["result"][name] for name in row["result"]}
        settings = {
            f"config.{name}" if name in taken else name: value
            for name, value in row["config"].items()
        }
        table[row["run"]] = {**plain, **results, **settings}
    frame: pd.DataFrame = pd.DataFrame.from_dict(table, orient="index").rename_axis("run")
    if "start" in frame:
        frame["start"] = pd.to_datetime(frame["start"], utc=True, format="ISO8601", errors="coerce")
    return frame


def metrics(*ids: str) -> "pd.DataFrame":
    """Every recorded value of these runs, or of all: run, metric, step, value, time.

    `time` is in seconds since 1970. Incomplete lines are left out. LabError as find() raises it.
    """
    import pandas as pd

    columns = ["run", "metric", "step", "value", "time"]
    tables = []
    known = set(run_ids())
    wanted = {one if one in known else find(one).name for one in ids} if ids else known
    for name in sorted(wanted, reverse=True):
        found = points(project.runs_folder() / name / "metrics.jsonl")
        tables.append(pd.DataFrame(found, columns=columns[1:]).assign(run=name))
    tables = [table for table in tables if len(table)]
    table: pd.DataFrame = pd.DataFrame(columns=columns)
    if tables:
        table = pd.concat(tables, ignore_index=True)[columns]
    return table


def plot(folders: list[Path], metric: str, file: Path | None) -> Path:
    """Save curves() of these runs as an image; returns its path. UsageError: no such metric."""
    import matplotlib

    matplotlib.use("Agg")  # without a screen
    table = metrics(*(folder.name for folder in folders))
    if metric not in set(table["metric"]):
        names = ", ".join(sorted(set(table["metric"]))) or "none"
        raise UsageError(f"these runs have no metric {metric}; there are: {names}.")
    file = file or name_plot(folders, metric)
    try:
        file = file if file.suffix else file.with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        curves(table, metric).savefig(file, dpi=150, bbox_inches="tight")
    except (OSError, ValueError) as error:  # a full disk; an unknown image format
        raise LabError(f"{file} cannot be written: {error}.") from None
    return file


def name_plot(folders: list[Path], metric: str) -> Path:
    """Name the file for curves() of these runs; LabError if it lies behind a link."""
    words = [metric, *(folder.name for folder in folders[:3])]
    name = "_plots/" + re.sub(r"[^\w.-]+", "-", "_".join(words)) + ".png"
    files.refuse_links(project.runs_folder(), [name])
    return project.runs_folder() / name


def curves(metrics: "pd.DataFrame", name: str) -> "Figure":
    """A plot of one metric of several runs over their steps; `metrics` as metrics() returns it."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4))
    runs = list(dict.fromkeys(metrics["run"]))  # the same colors in every plot of this table
    labels = label_runs(runs)
    for run, values in metrics[metrics["metric"] == name].groupby("run"):
        style = {"color": f"C{runs.index(run)}", "marker": "o" if len(values) == 1 else ""}
        axis.plot(values["step"], values["value"], label=labels[run], **style)
    axis.set(xlabel="step", ylabel=name)
    if axis.get_legend_handles_labels()[0]:
        legend = axis.legend(fontsize="small")
        for text in (axis.yaxis.label, *legend.get_texts()):
            text.set_parse_math(False)  # a name may have a $
    axis.grid(alpha=0.3)
    return figure


def label_runs(ids: list[str]) -> dict[str, str]:
    """Label runs by the settings in which they differ, or by their ids."""
    configs = [read_json(project.runs_folder() / one / "config.json") for one in ids]
    keys = dict.fromkeys(key for config in configs for key in config)
    differing = [key for key in keys if len({str(config.get(key)) for config in configs}) > 1]
    words = [
        shorten(escape(" ".join(f"{key}={config.get(key)}" for key in differing)), MAX_LABEL)
        for config in configs
    ]
    return {
        one: f"{one[:15]} {text}".strip()
        if len(ids) == len(set(words))
        else f"{one} {text}".strip()
        for one, text in zip(ids, words, strict=True)
    }
