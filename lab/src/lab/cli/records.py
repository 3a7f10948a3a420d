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
    print_message,
    shorten,
    terminal_width,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


RUN = "an id, the beginning of one, last or last~1"  # what records.find takes


def add_run_argument(parser: CommandParser) -> None:
    parser.add_argument("run", metavar="RUN", help=RUN)


def add_runs_argument(parser: CommandParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help=RUN)


def add_listing_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--where",
        type=parse_condition,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="only runs with this setting",
    )
    parser.add_argument("--state", type=str.upper, help="only runs in this state, such as FAILED")
    parser.add_argument(
        "-n", type=int, metavar="N", help="at most N runs, 0: all [20; with --json or --csv 0]"
    )
    parser.add_argument("--sort", metavar="METRIC", help="by this metric, best first")
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
    for name, value in args.where:
        rows = selection.select_rows(rows, name, value)
    if args.state:
        rows = [row for row in rows if row["state"] == args.state]
    if args.sort:
        rows = selection.sort_rows(rows, args.sort, args.reverse)
    elif args.reverse:
        rows = rows[::-1]
    number = args.n if args.n is not None else 0 if args.json or args.csv else 20
    found, rows = len(rows), rows[:number] if number > 0 else rows
    if args.json:
        print_json(rows)
    elif args.csv:
        print_csv(rows)
    elif rows:
        first = args.sort.removeprefix("-") if args.sort else None
        print(format_runs(rows, selection.shorten_ids(row["run"] for row in everything), first))
        if found > len(rows):
            print(f"and {found - len(rows)} more; -n 0 lists all")
    else:
        print(f"no match among {len(everything)} runs" if everything else "no runs yet")


def format_runs(rows: "list[dict[str, Any]]", short: dict[str, str], first: str | None) -> str:
    """Format the listing for people; if it is too wide, columns that all runs share go first."""
    from lab.runs import listing

    before = ["run", "name", "state", "command", "data", "changed"]
    after = ["time", "machine", "commit"]
    named = {
        name: listing.name_result(name, [*before, *after]) for row in rows for name in row["result"]
    }
    lines = []
    for row in rows:
        changed = {name: value for name, value in row["changed"].items() if name != "dataset"}
        line = {
            "run": short[row["run"]],
            "name": row["name"],
            "state": row["state"],
            "command": None if row["command"] in ("run", "main") else row["command"],
            "data": row["dataset"],
            "changed": " ".join(f"{name}={value}" for name, value in changed.items()),
            "time": format_duration(row["duration"]),
            "machine": row["machine"],
            "commit": str(row["commit"] or "")[:7],
        }
        lines.append(
            line | {named[name]: format_number(value) for name, value in row["result"].items()}
        )
    results = sorted(named, key=lambda name: (name != first, named[name]))
    results = list(dict.fromkeys(named[name] for name in results))
    columns = [*before, *results, *after]
    columns = [name for name in columns if name == "run" or any(line.get(name) for line in lines)]
    shared = ("commit", "machine", "data")
    common = [n for n in shared if n in columns and len({line[n] for line in lines}) == 1]
    whole = ["run", "state", "changed", *results, "time", "commit"]
    return format_table(lines, columns, whole, spare=[*results, *common])


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
        file.writerow({name: quote_formula(value) for name, value in line.items()})


def quote_formula(value: object) -> object:
    """Put ' before a text that a spreadsheet would take for a formula and run."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def add_show_arguments(parser: CommandParser) -> None:
    add_run_argument(parser)
    add_json(parser)


def show_run(args: argparse.Namespace) -> None:
    import shlex

    from lab.ground import project
    from lab.runs import reading, records

    folder = records.find(args.run)
    found = records.read(folder)
    if args.json:
        print_json(found)
        return
    row, record = found["row"], found["record"]
    software, job = reading.get_dict(record, "software"), reading.get_dict(record, "job")
    facts = {name: row[name] for name in ("run", "name", "command", "state")}
    facts["start"] = format_time(row["start"])
    facts["duration"] = format_duration(row["duration"])
    facts |= {name: row[name] for name in ("dataset", "machine", "commit")}
    meta = reading.get_dict(record, "meta")
    facts["typed"] = " ".join(shlex.quote(str(word)) for word in reading.get_list(meta, "words"))
    facts["from"] = reading.get_dict(meta, "options").get("--from")
    facts["record"] = project.relative(folder)
    facts["comment"] = meta.get("comment")
    versions = {name: software.get(name) for name in ("python", "torch")}
    versions["lab"] = reading.get_dict(software, "lab").get("version")
    facts["software"] = join_facts(versions)
    facts["packages"] = "; ".join(map(str, reading.get_list(software, "not_as_locked")))
    facts["seeds"] = join_facts(reading.get_dict(record, "seeds"))
    facts["job"] = join_facts({"": job.get("lab"), **reading.get_dict(job, "slurm")})
    attempts = filter(None, map(reading.describe_attempt, reading.get_list(record, "attempts")))
    facts["attempts"] = ", ".join(attempts)
    facts["processes"] = job.get("processes") if job.get("processes") != 1 else None
    gpus = reading.get_list(reading.get_dict(record, "usage"), "gpus")
    facts["gpus"] = ", ".join(str(gpu.get("name")) for gpu in gpus if isinstance(gpu, dict))
    facts["artifacts"] = ", ".join(map(str, reading.get_list(record, "artifacts")))
    trace = reading.get_list(record, "fail_trace")
    facts["failure"] = str(trace[-1]).strip() if trace else None
    blocks = {
        "": facts,
        "configuration": reading.flatten_settings(row["config"]),
        "result": row["result"],
    }
    blocks |= {"metrics (last value)": found["metrics"]}
    space = terminal_width()
    for title, values in blocks.items():
        if values and title:
            print(f"\n{title}")
        for name, value in values.items():
            if value not in (None, ""):
                text = format_number(value) if title else value
                print(shorten(f"{escape(name) or 'result':<16} {escape(text)}", space))
    if found["notes"]:
        print("\nnotes (UTC)", *map(escape, found["notes"]), sep="\n")


def join_facts(facts: "dict[str, Any]") -> str:
    """Join names and values; what is unknown is left out."""
    return "  ".join(
        f"{name} {value}".strip() for name, value in facts.items() if value is not None
    )


def format_time(start: str | None) -> str | None:
    """Format a time of a record (ISO 8601, UTC) as local time with its zone."""
    from datetime import datetime, timezone

    try:
        utc = datetime.fromisoformat(start or "").replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):
        return start
    return f"{utc.astimezone():%Y-%m-%d %H:%M:%S %z}"


def add_compare_arguments(parser: CommandParser) -> None:
    add_runs_argument(parser)
    parser.add_argument(
        "--code", action="store_true", help="show how the code differs from the first"
    )
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
                raise errors.LabError(f"{name} has no recorded code: its record names no commit.")
        for name, commit in zip(args.runs[1:], commits[1:], strict=True):
            # unlike git diff, this takes none of the user's programs for showing differences
            changes = git.run("diff-tree", "-r", "--patch", "--end-of-options", commits[0], commit)
            print(changes or f"{name} has the same code as {args.runs[0]}\n", end="")
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
    parser.add_argument("--metric", required=True, help="what to plot, such as val/loss")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the plot [a PNG in the runs folder]"
    )


def plot_runs(args: argparse.Namespace) -> None:
    from lab.runs import records

    folders = [records.find(one) for one in args.runs]
    print(records.plot(folders, args.metric, args.out))


def add_note_arguments(parser: CommandParser) -> None:
    add_run_argument(parser)
    # every word after RUN is text, even -- and what looks like an option
    parser.add_argument("text", nargs=argparse.REMAINDER, metavar="TEXT")


def note_run(args: argparse.Namespace) -> None:
    from lab.runs import records

    folder = records.find(args.run)
    records.note(folder, " ".join(args.text))
    print(f"noted in {folder.name}")


def add_reproduce_arguments(parser: CommandParser) -> None:
    parser.add_argument("run", metavar="RUN", help=f"{RUN}; or a file of lab export")
    parser.add_argument(
        "--tolerance",
        type=parse_tolerance,
        default=0.0,
        metavar="X",
        help="largest difference, relative for values above 1 [0]",
    )
    parser.add_argument("--keep", action="store_true", help="keep the checked-out code")
    parser.add_argument(
        "--yes", action="store_true", help="run a file or a recorded command without asking"
    )


def parse_tolerance(text: str) -> float:
    """Parse a number of at least 0; inf would make all numbers the same, nan none."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return number


def reproduce_run(args: argparse.Namespace) -> int:
    from lab.runs import reproduce

    def agree(text: str) -> bool:
        print_message(text)
        if args.yes or not sys.stdin.isatty():
            return bool(args.yes)
        print_message("Run it? [y/N]")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    outcome = reproduce.reproduce(args.run, args.tolerance, args.keep, agree)
    whole = ["metric", "recorded", "now"]
    columns = [*whole, "verdict"]
    rows = [{name: format_number(getattr(row, name)) for name in columns} for row in outcome.rows]
    print(format_table(rows, columns, whole))
    for line in outcome.differences:
        print(f"different    {line}")
    print(f"{'the same' if outcome.same else 'different'} numbers: {args.run}, {outcome.run}")
    return 0 if outcome.same else 1


def add_export_arguments(parser: CommandParser) -> None:
    from pathlib import Path

    add_run_argument(parser)
    parser.add_argument("file", type=Path, metavar="OUT.zip", help="the file to write")


def export_run(args: argparse.Namespace) -> None:
    from lab.runs import export

    print(export.export(args.run, args.file))


def add_record_arguments(parser: CommandParser) -> None:
    parser.runs_another_program = True
    parser.usage = "lab record [--name TEXT] [--from RUN] -- COMMAND ..."
    parser.add_argument("--name", default="", metavar="TEXT", help="shown by lab runs")
    parser.add_argument(
        "--from",
        dest="earlier",
        default="",
        metavar="RUN",
        help="restore the outputs of RUN before COMMAND starts",
    )
    for option in ("--id", "--comment", "--data"):  # of lab reproduce, and of a job with --from
        parser.add_argument(option, help=argparse.SUPPRESS)


def record_command(args: argparse.Namespace) -> int:
    from pathlib import Path

    from lab.ground import project
    from lab.recording.command import own_record

    words = args.after_dashes
    if not words:
        raise errors.UsageError("there is no command: lab record -- python train.py.")
    if own_record.records_itself(words, project.root(), Path.cwd()):
        if args.earlier:
            raise errors.UsageError("--from is for a command that does not record itself.")
        options = {"--name": args.name, "--id": args.id, "--comment": args.comment}
        return own_record.run(words, {name: text for name, text in options.items() if text})
    from lab.recording.command import record

    earlier = find_earlier(args.earlier, args.data) if args.earlier else ""
    return record.record(words, args.name, args.comment or "", args.id, earlier)


def find_earlier(wanted: str, expected: str | None) -> str:
    """Find the run whose outputs a command starts with; LabError if its dataset has changed.

    If the record is on another computer, that has sent the outputs, and `expected`: NAME=HASH, the
    dataset and the hash of its manifest.
    """
    from lab.runs import reading, records, reproduce

    if expected is None:
        folder = records.find(wanted)
        reproduce.check_manifest(reading.get_dict(reading.read_json(folder / "run.json"), "data"))
        return folder.name
    dataset, _, manifest = expected.partition("=")
    reproduce.check_manifest({"dataset": dataset, "manifest_sha256": manifest})
    return wanted


COMMANDS = (
    Command(
        "record",
        "record any command: lab record -- python train.py",
        record_command,
        add_record_arguments,
    ),
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
