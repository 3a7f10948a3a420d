"""The commands that read, compare, repeat and export recorded runs."""

import argparse
import sys

from lab.cli.command import Command, CommandParser, add_json
from lab.ground import errors
from lab.ground.terminal import (
    escape,
    format_duration,
    format_number,
    format_table,
    print_json,
    shorten,
    terminal_width,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def add_run_argument(parser: CommandParser) -> None:
    """Add the argument RUN: an id, or the beginning of one."""
    parser.add_argument("run", metavar="RUN")


def add_runs_argument(parser: CommandParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN")


def add_listing_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--where", type=parse_condition, action="append", default=[], metavar="NAME=VALUE"
    )
    parser.add_argument("--state", type=str.upper, help="only these, such as FAILED")
    parser.add_argument("--sort", metavar="METRIC", help="by this metric, lowest first")
    parser.add_argument("--reverse", action="store_true", help="in the opposite order")
    parser.add_argument("--csv", action="store_true", help="every column, for a spreadsheet")
    add_json(parser)


def parse_condition(text: str) -> tuple[str, str]:
    """Split NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text} is not of the form NAME=VALUE")
    return name, value


def list_runs(args: argparse.Namespace) -> None:
    from lab.runs import listing, selection

    everything = rows = listing.list_rows()
    conditions = [*args.where, *([("state", args.state)] if args.state else [])]
    for name, value in conditions:
        rows = selection.select_rows(rows, name, value)
    if args.sort:
        rows = selection.sort_rows(rows, args.sort, args.reverse)
    elif args.reverse:
        rows = rows[::-1]
    if args.json:
        print_json(rows)
    elif args.csv:
        print_csv(rows)
    elif rows:
        print(format_runs(rows, selection.shorten_ids(row["run"] for row in everything), args.sort))
    else:
        print(f"no match among {len(everything)} runs" if everything else "no runs yet")


def format_runs(rows: "list[dict[str, Any]]", short: dict[str, str], first: str | None) -> str:
    """Format the listing for people; results that do not fit are left out, not cut."""
    from lab.runs import selection

    lines = []
    for row, changed in zip(
        rows, selection.find_differing([r["config"] for r in rows]), strict=True
    ):
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


def print_csv(rows: "list[dict[str, Any]]") -> None:
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


def add_show_arguments(parser: CommandParser) -> None:
    add_run_argument(parser)
    add_json(parser)


def show_run(args: argparse.Namespace) -> None:
    from lab.ground import project
    from lab.runs import reading, records

    folder = records.find(args.run)
    found = records.read(folder)
    if args.json:
        print_json(found)
        return
    row, record = found["row"], found["record"]
    facts = {name: row[name] for name in ("run", "state", "start", "dataset", "machine", "commit")}
    facts["record"] = project.relative(folder)
    facts["duration"] = format_duration(row["duration"])
    facts["comment"] = reading.get_dict(record, "meta").get("comment")
    for key in ("software", "seeds", "job"):
        facts[key] = "  ".join(
            f"{name} {value}" for name, value in reading.get_dict(record, key).items()
        )
    gpus = reading.get_dict(record, "usage").get("gpus") or []
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


def add_compare_arguments(parser: CommandParser) -> None:
    add_runs_argument(parser)
    parser.add_argument("--code", action="store_true", help="the changes since the first")
    add_json(parser)


def compare_runs(args: argparse.Namespace) -> None:
    from lab.ground import git
    from lab.runs import reading, records, selection

    folders = [records.find(one) for one in args.runs]
    if args.code:
        commits = [
            reading.get_commit(reading.read_json(folder / "run.json")) or "" for folder in folders
        ]
        for name, commit in zip(args.runs, commits, strict=True):
            if not commit:
                raise errors.LabError(f"{name} has no recorded code.")
        for commit in commits[1:]:
            # unlike git diff, this takes none of the user's programs for showing differences
            print(git.run("diff-tree", "-r", "--patch", commits[0], commit), end="")
        return
    rows = records.comparison(folders)
    if args.json:
        print_json(rows)
        return
    short = selection.shorten_ids({folder.name for folder in folders})
    lines = [
        {"": row["what"], **{short[name]: format_number(row[name]) for name in short}}
        for row in rows
    ]
    columns = ["", *(short[folder.name] for folder in folders)]
    print(format_table(lines, columns) if lines else "no differences, and no metrics")


def add_plot_arguments(parser: CommandParser) -> None:
    from pathlib import Path

    add_runs_argument(parser)
    parser.add_argument("--metric", required=True, help="such as val/loss")
    parser.add_argument("--out", type=Path, metavar="FILE", help="[a png in the runs folder]")


def plot_runs(args: argparse.Namespace) -> None:
    from lab.runs import records

    folders = [records.find(one) for one in args.runs]
    print(records.plot(folders, args.metric, args.out))


def add_note_arguments(parser: CommandParser) -> None:
    add_run_argument(parser)
    # every word behind RUN is text, also -- and what looks like an option
    parser.add_argument("text", nargs=argparse.REMAINDER, metavar="TEXT")


def note_run(args: argparse.Namespace) -> None:
    from lab.runs import records

    records.note(records.find(args.run), " ".join(args.text))


def add_reproduce_arguments(parser: CommandParser) -> None:
    add_run_argument(parser)
    parser.add_argument("--tolerance", type=float, default=0.0, help="relative, above 1 [0]")
    parser.add_argument("--keep", action="store_true", help="do not remove the checked-out code")


def reproduce_run(args: argparse.Namespace) -> int:
    from lab.runs import reproduce

    outcome = reproduce.reproduce(args.run, args.tolerance, args.keep)
    whole = ["metric", "recorded", "now"]
    columns = [*whole, "verdict"]
    rows = [{name: format_number(getattr(row, name)) for name in columns} for row in outcome.rows]
    print(format_table(rows, columns, whole))
    for line in outcome.differences:
        print(f"different    {line}")
    print(f"{'the same' if outcome.same else 'other'} numbers: {args.run}, {outcome.run}")
    return 0 if outcome.same else 1


def add_export_arguments(parser: CommandParser) -> None:
    from pathlib import Path

    add_run_argument(parser)
    parser.add_argument("file", type=Path, metavar="OUT.zip")


def export_run(args: argparse.Namespace) -> None:
    from lab.runs import export

    print(export.export(args.run, args.file))


COMMANDS = (
    Command("runs", "list the recorded runs, newest first", list_runs, add_listing_arguments),
    Command("show", "show everything about a run", show_run, add_show_arguments),
    Command(
        "compare", "show how runs differ, and their results", compare_runs, add_compare_arguments
    ),
    Command("plot", "plot a metric of some runs", plot_runs, add_plot_arguments),
    Command("note", "add a line to a run's notes", note_run, add_note_arguments),
    Command(
        "reproduce",
        "repeat a run; exit code 0: the same numbers",
        reproduce_run,
        add_reproduce_arguments,
    ),
    Command("export", "pack a run and its code in one file", export_run, add_export_arguments),
)
