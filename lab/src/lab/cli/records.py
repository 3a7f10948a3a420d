"""The commands that read, compare, repeat and pack recorded runs."""

import argparse
import sys
from pathlib import Path

from lab.ground import errors, project
from lab.ground.terminal import (
    escape,
    format_duration,
    format_number,
    format_table,
    print_json,
    shorten,
    terminal_width,
)


def add(commands) -> None:
    """Their options. RUN: an id, or its beginning."""
    runs = commands.add_parser("runs", help="the recorded runs, newest first")
    runs.set_defaults(command=list_runs)
    runs.add_argument("--where", type=condition, action="append", default=[], metavar="NAME=VALUE")
    runs.add_argument("--state", type=str.upper, help="only these, such as FAILED")
    runs.add_argument("--sort", metavar="METRIC", help="by this metric, lowest first")
    runs.add_argument("--reverse", action="store_true", help="the other way round")
    runs.add_argument("--csv", action="store_true", help="every column, for a spreadsheet")
    show = commands.add_parser("show", help="everything about one run")
    show.set_defaults(command=show_run)
    compare = commands.add_parser("compare", help="in what runs differ, and what came out")
    compare.set_defaults(command=compare_runs)
    compare.add_argument("--code", action="store_true", help="the changes since the first")
    plot = commands.add_parser("plot", help="a picture of one metric of some runs")
    plot.set_defaults(command=plot_runs)
    plot.add_argument("--metric", required=True, help="such as val/loss")
    plot.add_argument("--out", type=Path, metavar="FILE", help="[a png in the runs folder]")
    note = commands.add_parser("note", help="add a line to a run's notes")
    note.set_defaults(command=note_run)
    repeat = commands.add_parser("reproduce", help="run it again; 0: the same numbers")
    repeat.set_defaults(command=reproduce_run)
    repeat.add_argument("--tolerance", type=float, default=0.0, help="relative, above 1 [0]")
    repeat.add_argument("--keep", action="store_true", help="do not remove the checked-out code")
    export = commands.add_parser("export", help="record, code and lock in one file, to reproduce")
    export.set_defaults(command=export_run)
    for one in (runs, show, compare):
        one.add_argument("--json", action="store_true", help="for programs")
    for one in (compare, plot):
        one.add_argument("runs", nargs="+", metavar="RUN")
    for one in (show, note, repeat, export):
        one.add_argument("run", metavar="RUN")
    export.add_argument("file", type=Path, metavar="OUT.zip")
    note.add_argument("text", nargs="+", metavar="TEXT")


def condition(text: str) -> tuple[str, str]:
    """A NAME=VALUE that was typed."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text} is not of the form NAME=VALUE")
    return name, value


def list_runs(wanted: argparse.Namespace) -> None:
    from lab.runs import listing, selection

    everything = rows = listing.rows()
    conditions = [*wanted.where, *([("state", wanted.state)] if wanted.state else [])]
    for name, value in conditions:
        rows = selection.matching(rows, name, value)
    if wanted.sort:
        rows = selection.ordered(rows, wanted.sort, wanted.reverse)
    elif wanted.reverse:
        rows = rows[::-1]
    if wanted.json:
        print_json(rows)
    elif wanted.csv:
        print_csv(rows)
    elif rows:
        print(runs_table(rows, selection.short_names(everything), wanted.sort))
    else:
        print(f"none of {len(everything)} runs" if everything else "no runs yet")


def runs_table(rows: list[dict], short: dict[str, str], first: str | None) -> str:
    """The listing for people; results that do not fit beside the rest are left out, not cut."""
    from lab.runs import selection

    lines = []
    for row, changed in zip(rows, selection.differing([r["config"] for r in rows]), strict=True):
        changed.pop("dataset", None)
        line = {
            "run": short[row["run"]],
            "state": row["state"],
            "data": row["dataset"],
            "changed": " ".join(f"{name}={value}" for name, value in changed.items()),
            "time": format_duration(row["duration"]),
            "host": row["machine"],
            "commit": str(row["commit"] or "")[:7],
        }
        lines.append(
            line | {name or "result": format_number(value) for name, value in row["result"].items()}
        )
    results = sorted({name or "result" for row in rows for name in row["result"]})
    results.sort(key=lambda name: name != first)
    before, after = ["run", "state", "data", "changed"], ["time", "host", "commit"]
    whole = ["run", "state", *results, "time", "commit"]
    return format_table(lines, [*before, *results, *after], whole, spare=results)


def print_csv(rows: list[dict]) -> None:
    import csv

    settings = dict.fromkeys(f"config.{name}" for row in rows for name in row["config"])
    results = dict.fromkeys(f"result.{name}" for row in rows for name in row["result"])
    plain = ["run", "state", "start", "duration", "dataset", "machine", "commit"]
    file = csv.DictWriter(sys.stdout, [*plain, *results, *settings], lineterminator="\n")
    file.writeheader()
    for row in rows:
        line = {name: row[name] for name in plain}
        for kind in ("result", "config"):
            line |= {f"{kind}.{name}": value for name, value in row[kind].items()}
        file.writerow(line)


def show_run(wanted: argparse.Namespace) -> None:
    from lab.runs import reading, records

    folder = records.find(wanted.run)
    found = records.read(folder)
    if wanted.json:
        print_json(found)
        return
    row, record = found["row"], found["record"]
    facts = {name: row[name] for name in ("run", "state", "start", "dataset", "machine", "commit")}
    facts["record"] = project.relative(folder)
    facts["duration"] = format_duration(row["duration"])
    facts["comment"] = reading.part(record, "meta").get("comment")
    for key in ("software", "seeds", "job"):
        facts[key] = "  ".join(
            f"{name} {value}" for name, value in reading.part(record, key).items()
        )
    gpus = reading.part(record, "usage").get("gpus") or []
    facts["gpus"] = ", ".join(str(gpu.get("name")) for gpu in gpus if isinstance(gpu, dict))
    trace = record.get("fail_trace")
    facts["failure"] = str(trace[-1]).strip() if isinstance(trace, list) and trace else None
    blocks = {"": facts, "configuration": row["config"], "result": row["result"]}
    blocks |= {"metrics (last value)": found["metrics"]}
    space = terminal_width()
    for title, values in blocks.items():
        if values and title:
            print(f"\n{title}")
        for name, value in values.items():
            if value not in (None, ""):
                print(shorten(f"{name or 'result':<16} {escape(value)}", space))
    if found["notes"]:
        print("\nnotes", *map(escape, found["notes"]), sep="\n")


def compare_runs(wanted: argparse.Namespace) -> None:
    from lab.ground import git
    from lab.runs import reading, records, selection

    folders = [records.find(one) for one in wanted.runs]
    if wanted.code:
        commits = [reading.commit(reading.read_json(folder / "run.json")) for folder in folders]
        for name, commit in zip(wanted.runs, commits, strict=True):
            if not commit:
                raise errors.LabError(f"{name} has no recorded code.")
        for commit in commits[1:]:
            # unlike git diff, this takes none of the user's programs for showing differences
            print(git.run("diff-tree", "-r", "--patch", commits[0], commit), end="")
        return
    rows = records.comparison(folders)
    if wanted.json:
        print_json(rows)
        return
    short = selection.short_names([{"run": name} for name in {folder.name for folder in folders}])
    lines = [
        {"": row["what"], **{short[name]: format_number(row[name]) for name in short}}
        for row in rows
    ]
    columns = ["", *(short[folder.name] for folder in folders)]
    print(format_table(lines, columns) if lines else "they differ in nothing, and have no metrics")


def plot_runs(wanted: argparse.Namespace) -> None:
    from lab.runs import records

    folders = [records.find(one) for one in wanted.runs]
    print(records.plot(folders, wanted.metric, wanted.out))


def note_run(wanted: argparse.Namespace) -> None:
    from lab.runs import records

    records.note(records.find(wanted.run), " ".join(wanted.text))


def reproduce_run(wanted: argparse.Namespace) -> int:
    from lab.runs import reproduce

    outcome = reproduce.reproduce(wanted.run, wanted.tolerance, wanted.keep)
    rows = [{name: format_number(value) for name, value in row.items()} for row in outcome.rows]
    print(
        format_table(rows, ["metric", "recorded", "now", "verdict"], ["metric", "recorded", "now"])
    )
    for line in outcome.other:
        print(f"different    {line}")
    print(f"{'the same' if outcome.same else 'other'} numbers: {wanted.run}, {outcome.run}")
    return 0 if outcome.same else 1


def export_run(wanted: argparse.Namespace) -> None:
    from lab.runs import export

    print(export.export(wanted.run, wanted.file))
