"""Records are listed, found, compared and repeated, also broken ones, and nothing is guessed."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import termios
import zipfile
from datetime import datetime, timezone
from pathlib import Path

import pytest

from helpers.projects import Project

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"dataset": "digits", "lr": 0.003, "seed": 0, "width": 32, "opt": {"name": "adamw"}}
NEWEST = "20261103-120000-gpu1-00000003"
MIDDLE = "20261102-120000-gpu2-00000002"
OLDEST = "20261101-120000-gpu1-00000001"


class Lab:
    """The `lab` command on records that a test wrote, in a runs folder of its own."""

    def __init__(self, project: Project, runs: Path):
        self.project, self.runs = project, runs
        self.env = {"LAB_RUNS": str(runs)}

    def record(self, name, metrics=(), config=None, **changes) -> Path:
        """Write a record as lab.recorder does; `changes` go into run.json."""
        folder = self.runs / name
        folder.mkdir(parents=True)
        day = f"{name[:4]}-{name[4:6]}-{name[6:8]}"
        content = {
            "code": {"commit": COMMIT, "dirty": False},
            "data": {"dataset": "digits", "manifest_sha256": "aa"},
            "determinism": {"threads": 2},
            "experiment": {"sources": [["a.py", "b"]], "status": "nested"},
            "heartbeat": f"{day}T12:10:00",
            "host": {"cpu": "fast", "status": "nested"},
            "meta": {"result": {"accuracy": "nested"}, "comment": None},
            "process": {"host": "gpu1", "boot": "another", "pid": 1, "started": "1"},
            "result": {"accuracy": 0.9, "loss": 0.1},
            "seeds": {"sacred": 0},
            "software": {"python": "3.11.7", "torch": "2.13.0"},
            "start_time": f"{day}T12:00:00",
            "status": "COMPLETED",
            "usage": {"wall_time_s": 125.4},
            **changes,
        }
        for file, value in (("run.json", content), ("config.json", CONFIG | (config or {}))):
            (folder / file).write_text(json.dumps(value, sort_keys=True, indent=2) + "\n")
        lines = (
            json.dumps({"metric": metric, "step": step, "value": value, "time": 1.0})
            for metric, step, value in metrics
        )
        (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return folder

    def __call__(self, *arguments, code=0, **env) -> str:
        """What a lab command prints; it has to end with this exit code."""
        done = self.project.run("lab", *arguments, check=False, env=self.env | env)
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    def refused(self, *arguments, code=1) -> str:
        """The one line in which a command says why it cannot be done."""
        (line,) = self(*arguments, code=code).splitlines()
        assert line.startswith("lab: ")
        return line

    def rows(self, *arguments) -> list[dict]:
        return json.loads(self("runs", "--json", *arguments))

    def ids(self, *arguments) -> list[str]:
        return [row["run"] for row in self.rows(*arguments)]

    def python(self, code: str) -> str:
        return self.project.run("python", "-c", code, env=self.env).stdout


@pytest.fixture
def lab(project, tmp_path) -> Lab:
    return Lab(project, tmp_path / "runs")


@pytest.fixture
def three(lab) -> Lab:
    """Three runs: the newest failed, the middle one is of another machine and learning rate."""
    trace = {"status": "FAILED", "result": None, "fail_trace": ["Trace\n", "ValueError: nan\n"]}
    lab.record(NEWEST, **trace, config={"seed": 2})
    curve = [("val/loss", 10, 0.5), ("val/loss", 20, 0.25), ("val/accuracy", 20, "NaN")]
    process = {"host": "gpu2"}
    lab.record(MIDDLE, curve, config={"lr": 0.01}, process=process, result={"accuracy": 0.8})
    lab.record(OLDEST, [("val/loss", 10, 0.75)])
    return lab


# --- the listing ---------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_with_all_that_matters(three):
    assert three("runs").splitlines() == [
        "run              state      data    changed  accuracy  loss  time  host  commit",
        "20261103-120000  FAILED     digits  seed=2                   2m05  gpu1  0123456",
        "20261102-120000  COMPLETED  digits  lr=0.01  0.8             2m05  gpu2  0123456",
        "20261101-120000  COMPLETED  digits           0.9       0.1   2m05  gpu1  0123456",
    ]


def test_without_records_the_listing_says_so(lab):
    assert lab("runs") == "no runs yet\n"
    assert lab.rows() == []


def test_every_run_of_a_sweep_shows_its_value(lab):
    for number in range(4):
        lab.record(f"2026110{number}-120000-gpu1-0000000{number}", config={"lr": 10.0**-number})
    changed = [line.split()[3] for line in lab("runs").splitlines()[1:]]
    assert changed == ["lr=0.001", "lr=0.01", "lr=0.1", "lr=1.0"]


def test_two_runs_of_one_second_are_shown_by_their_whole_ids(lab):
    names = ["20261101-120000-gpu1-00000001", "20261101-120000-gpu1-00000002"]
    for name in names:
        lab.record(name)
    assert [line.split()[0] for line in lab("runs").splitlines()[1:]] == names[::-1]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--where", "lr=0.01"], [MIDDLE]),
        (["--where", "lr=1e-2"], [MIDDLE]),
        (["--where", "lr=0.003", "--where", "seed=2"], [NEWEST]),
        (["--where", "opt.name=adamw"], [NEWEST, MIDDLE, OLDEST]),
        (["--where", "opt.name=sgd"], []),
        (["--where", "machine=gpu1"], [NEWEST, OLDEST]),
        (["--where", "commit=0123"], [NEWEST, MIDDLE, OLDEST]),
        (["--where", "state=FAILED"], [NEWEST]),
        (["--state", "completed"], [MIDDLE, OLDEST]),
        (["--state", "completed", "--where", "seed=2"], []),
        (["--reverse"], [OLDEST, MIDDLE, NEWEST]),
        (["--sort", "accuracy"], [MIDDLE, OLDEST, NEWEST]),
        (["--sort", "accuracy", "--reverse"], [OLDEST, MIDDLE, NEWEST]),
        (["--sort", "val/loss"], [MIDDLE, OLDEST, NEWEST]),
        (["--sort", "val/loss", "--reverse"], [OLDEST, MIDDLE, NEWEST]),
    ],
)
def test_runs_are_chosen_and_sorted(three, options, found):
    assert three.ids(*options) == found


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "--where", "learning_rate=1"],
        ["runs", "--sort", "val/nothing"],
        ["plot", OLDEST, "--metric", "val/nothing"],
    ],
)
def test_a_name_that_no_run_knows_is_wrong_usage(three, words):
    said = three.refused(*words, code=2)
    assert "; there are" in said or "; results are accuracy, loss" in said
    assert "not of the form" in three("runs", "--where", "lr", code=2)


def test_json_and_csv_have_every_run_whole(three):
    (row,) = three.rows("--where", "lr=0.01")
    assert row == {
        "run": MIDDLE,
        "state": "COMPLETED",
        "start": "2026-11-02T12:00:00",
        "duration": 125.4,
        "dataset": "digits",
        "machine": "gpu2",
        "commit": COMMIT,
        "result": {"accuracy": 0.8},
        "config": CONFIG | {"lr": 0.01},
    }
    head, *lines = three("runs", "--csv").splitlines()
    assert head.startswith("run,state,start,duration,dataset,machine,commit,result.accuracy,")
    assert lines[1].startswith(f"{MIDDLE},COMPLETED,2026-11-02T12:00:00,125.4,digits,gpu2,{COMMIT}")
    assert len(lines) == 3


def in_terminal(lab, columns: int, *arguments) -> list[str]:
    """The lines that a lab command prints on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    path = f"{lab.project.path}/.venv/bin:{os.environ['PATH']}"
    environment = {**os.environ, **lab.env, "PATH": path}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen(
        ["lab", *arguments], stdout=theirs, env=environment, cwd=lab.project.path
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait() == 0
    return shown.decode().splitlines()


@pytest.mark.parametrize("columns", [80, 60, 40])
def test_tables_fit_the_terminal(lab, columns):
    scores = {f"score_{number}": 0.12345678 for number in range(6)}
    long = {"dataset": "a-dataset-with-a-long-name", "lr": 0.0123, "width": 1024}
    for name in (NEWEST, MIDDLE, OLDEST):
        process = {"host": "a-machine-with-a-long-name"}
        data = {"dataset": long["dataset"]}
        lab.record(name, result=scores, data=data, process=process, config=long | {"seed": name})
    runs = in_terminal(lab, columns, "runs")
    compared = in_terminal(lab, columns, "compare", NEWEST, MIDDLE, OLDEST)
    shown = in_terminal(lab, columns, "show", NEWEST)
    assert max(map(len, [*runs, *compared, *shown])) <= columns
    assert len(runs) == 4
    if columns == 80:
        assert "..." in runs[1]
        assert "score_0" in runs[0], "numbers are left out, or shown whole"
        assert "0.1235" in runs[1]
        assert runs[1].endswith("0123456")


def test_a_reader_that_has_seen_enough_causes_no_complaint(lab):
    for number in range(2000):  # more than a pipe holds
        (lab.runs / f"a-run-with-a-long-name-{number:04}").mkdir(parents=True)
    done = lab.project.run("sh", "-c", "lab runs | head -1", env=lab.env)
    assert done.stdout.count("\n") == 1


def test_the_listing_and_the_help_import_no_heavy_package(three):
    for arguments in (["--help"], ["runs"], ["show", OLDEST], ["compare", OLDEST, NEWEST]):
        command = ["python", "-X", "importtime", "-m", "lab.cli", *arguments]
        output = three.project.run(*command, env=three.env).stdout
        imported = {line.split("|")[-1].strip() for line in output.splitlines() if "|" in line}
        assert "argparse" in imported
        assert not {"pandas", "numpy", "torch", "sacred", "matplotlib"} & imported


# --- broken records ------------------------------------------------------------------------------

BROKEN = {
    "nothing": lambda folder: (folder / "run.json").unlink(),
    "empty": lambda folder: (folder / "run.json").write_text(""),
    "half": lambda folder: (folder / "run.json").write_text(
        (folder / "run.json").read_text()[:500]
    ),
    "list": lambda folder: (folder / "run.json").write_text("[1, 2]"),
    "bytes": lambda folder: (folder / "run.json").write_bytes(b"\xff\xfe\x00"),
    "deep": lambda folder: (folder / "run.json").write_text("[" * 100_000),
    "folder": lambda folder: ((folder / "run.json").unlink(), (folder / "run.json").mkdir()),
    "pipe": lambda folder: ((folder / "run.json").unlink(), os.mkfifo(folder / "run.json")),
}
WRONG = {"code": 1, "data": [], "process": "x", "result": [1], "usage": None, "start_time": 5}


def test_broken_and_half_written_records_are_listed_as_such(three):
    for name, harm in BROKEN.items():
        harm(three.record(f"20261104-120000-broken-{name}"))
    three.record("20261104-120000-wrong-types", **WRONG, meta=3, software="?", fail_trace="?")
    three.record(
        "20261104-120000-odd-numbers", usage={"wall_time_s": float("nan")}, result="\ud800"
    )
    folder = three.record("20261104-120000-no-config")
    (folder / "config.json").write_text("{")
    (folder / "metrics.jsonl").write_text(
        '{"metric": "val/loss", "step": 1, "value": 2, "time": 3}\n{"m'
    )
    states = {row["run"]: row["state"] for row in three.rows()}
    assert len(states) == 3 + len(BROKEN) + 3
    assert {states[f"20261104-120000-broken-{name}"] for name in BROKEN} == {"UNREADABLE"}
    assert states[OLDEST] == "COMPLETED"
    assert "UNREADABLE" in three("runs")
    assert three("runs", "--csv").count("\n") > len(states)
    assert len(three.ids("--sort", "accuracy")) == len(states)
    for run in states:
        assert run in three("show", run)
        three("show", run, "--json")
        three("compare", run, OLDEST)
    code = "from lab import records; print(len(records.runs()), len(records.metrics()))"
    assert three.python(code).split() == [str(len(states)), "5"]


def test_a_record_cannot_steer_the_terminal(lab):
    lab.record(OLDEST, process={"host": "\x1b[2Jgone"}, config={"name": "\x1b]0;title\x07"})
    for words in (["runs"], ["show", OLDEST], ["compare", OLDEST, OLDEST]):
        assert "\x1b" not in lab(*words)


def test_letters_that_the_terminal_does_not_know_are_no_error(lab):
    lab.record(OLDEST, data={"dataset": "größe"}, config={"name": "日本"})
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for words in (["runs"], ["runs", "--csv"], ["show", OLDEST]):
        assert r"gr\xf6\xdfe" in lab(*words, **plain)


def test_a_run_that_says_running_and_is_not_is_lost(lab):
    lab.record(OLDEST, status="RUNNING")
    assert lab.rows()[0]["state"] == "LOST"


# --- what is kept between listings ---------------------------------------------------------------

COUNT = """
import collections, json, sys
opened = collections.Counter()
def watch(event, arguments):
    if event == "open":
        opened[str(arguments[0]).rpartition("/")[2]] += 1
sys.addaudithook(watch)
from lab.runs import listing
rows = listing.list_rows()
print(json.dumps([opened["run.json"] + opened["config.json"], rows]))
"""


def opened(lab) -> tuple[int, list[dict]]:
    """How many files of records one listing reads, and what it lists."""
    count, rows = json.loads(lab.python(COUNT))
    return count, rows


def test_the_second_listing_reads_no_record_that_has_ended(three):
    three.record("20261104-120000-gpu1-00000004", status="RUNNING")
    first, rows = opened(three)
    second, again = opened(three)
    assert (first, second) == (8, 2)
    assert rows == again


@pytest.mark.parametrize("file", ["run.json", "config.json"])
def test_a_record_that_changed_is_read_again_even_with_the_same_size_and_time(three, file):
    opened(three)
    path = three.runs / MIDDLE / file
    times = path.stat()
    new = path.with_name("new")
    new.write_text(path.read_text().replace("COMPLETED", "COMPLATED").replace("0.01", "0.02"))
    new.replace(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    (row,) = [row for row in opened(three)[1] if row["run"] == MIDDLE]
    assert row["state"] == "COMPLATED" or row["config"]["lr"] == 0.02


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"format": 0, "rows": {"x": 1}}'])
def test_what_is_kept_may_be_deleted_or_broken(three, content):
    _, rows = opened(three)
    kept = three.runs / "_listing.json"
    kept.unlink() if content is None else kept.write_text(content)
    assert opened(three) == (6, rows)
    assert opened(three) == (0, rows)


def test_a_record_that_was_removed_is_not_listed(three):
    opened(three)
    shutil.rmtree(three.runs / MIDDLE)
    assert [row["run"] for row in opened(three)[1]] == [NEWEST, OLDEST]
    assert MIDDLE not in (three.runs / "_listing.json").read_text()


def test_where_nothing_can_be_kept_the_listing_works(three):
    (three.runs / "_listing.json").mkdir()
    assert opened(three) == opened(three)
    assert not list(three.runs.glob(".*"))


def test_a_run_json_in_another_form_gives_the_same_row(three):
    before = three.rows()
    for path in three.runs.glob("*/run.json"):
        path.write_text(json.dumps(json.loads(path.read_text())))
    assert three.rows() == before


# --- one run -------------------------------------------------------------------------------------


def test_a_run_is_found_by_the_beginning_of_its_id_or_by_its_folder(three):
    for wanted in (OLDEST, "20261101", f"{three.runs}/{OLDEST}/", f"runs/{OLDEST}"):
        assert three("show", wanted).startswith(f"run              {OLDEST}\n")
    said = three.refused("show", "202611")
    assert said == f"lab: 3 runs begin with 202611; there are: {NEWEST}, {MIDDLE}, {OLDEST}."
    assert "no run begins with 1999; there are: " + NEWEST in three.refused("show", "1999")
    three.record(OLDEST[:8])
    assert three("show", OLDEST[:8]).startswith(f"run              {OLDEST[:8]}\n")


def test_show_tells_settings_results_last_values_and_why_it_failed(three):
    shown = three("show", MIDDLE)
    for words in ("lr 0.01", "accuracy 0.8", "val/loss 0.25", f"commit {COMMIT}", "duration 2m05"):
        assert re.search("^" + words.replace(" ", " +") + "$", shown, re.M), words
    assert "ValueError: nan" in three("show", NEWEST)
    shown = json.loads(three("show", MIDDLE, "--json"), parse_constant=pytest.fail)
    assert shown["metrics"] == {"val/loss": 0.25, "val/accuracy": "NaN"}


def test_notes_are_appended_and_shown(three):
    three("note", OLDEST, "the baseline", "of the paper")
    three("note", OLDEST, "two\nlines")
    assert "needs some text" in three.refused("note", OLDEST, " ", code=2)
    lines = (three.runs / OLDEST / "notes.txt").read_text().splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == ["the baseline of the paper", "two lines"]
    shown = three("show", OLDEST).splitlines()
    assert shown[-2:] == lines
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d  ", line) for line in lines)


def test_compare_shows_only_what_differs_and_the_last_metrics_side_by_side(three):
    assert three("compare", MIDDLE, OLDEST).splitlines() == [
        "              20261102-120000  20261101-120000",
        "lr            0.01             0.003",
        "machine       gpu2             gpu1",
        "accuracy      0.8              0.9",
        "val/loss      0.25             0.75",
        "val/accuracy  nan",
        "loss                           0.1",
    ]
    rows = json.loads(three("compare", MIDDLE, OLDEST, "--json"))
    assert rows[0] == {"kind": "setting", "what": "lr", MIDDLE: 0.01, OLDEST: 0.003}


def test_plot_writes_a_picture_and_prints_its_path(three, tmp_path):
    path = Path(three("plot", MIDDLE, OLDEST, "--metric", "val/loss").strip())
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.parent == three.runs / "_plots"
    out = tmp_path / "figures" / "loss.pdf"
    assert three("plot", OLDEST, "--metric", "val/loss", "--out", out) == f"{out}\n"
    assert out.read_bytes().startswith(b"%PDF")
    bare = three("plot", OLDEST, "--metric", "val/loss", "--out", tmp_path / "loss")
    assert Path(bare.strip()).read_bytes().startswith(b"\x89PNG")
    assert "cannot be written" in three.refused("plot", OLDEST, "--metric", "val/loss", "--out", "")
    assert three.ids() == [NEWEST, MIDDLE, OLDEST], "the folder of pictures is no run"
    assert "cannot be written" in three.refused(
        "plot", OLDEST, "--metric", "val/loss", "--out", out / "x.png"
    )


def test_the_tables_for_notebooks_are_tidy(three):
    three.record("20261104-120000-gpu1-00000004", config={"loss": "mse", "state": "CA"})
    code = """
from lab import records
runs, metrics = records.runs(), records.metrics()
print(runs.index.name, *runs.index)
print(*runs.columns)
print(runs["start"].dt.tz, runs.iloc[0]["loss"], runs.iloc[0]["config.loss"])
print(*metrics.columns)
print(metrics["value"].tolist())
"""
    lines = three.python(code).splitlines()
    assert lines[0] == f"run 20261104-120000-gpu1-00000004 {NEWEST} {MIDDLE} {OLDEST}"
    assert lines[1].startswith(
        "state start duration machine commit accuracy loss dataset config.loss"
    )
    assert lines[2] == "UTC 0.1 mse"
    assert lines[3] == "run metric step value time"
    assert lines[4] == "[0.5, 0.25, nan, 0.75]"


# --- repeating a run, for real -------------------------------------------------------------------


class Colleague(Lab):
    """A clone of the project that borrows its environment, with records of its own."""

    def __init__(self, project: Project, path: Path, data: Path):
        super().__init__(Project(path), path.parent / "records")
        source = path / "src"
        self.path = f"{project.path}/.venv/bin:{os.environ['PATH']}"
        self.env |= {"LAB_DATA": str(data), "PYTHONPATH": str(source), "PATH": self.path}
        self.train = source / "my_experiment" / "training.py"

    def __call__(self, *arguments, code=0, **env) -> str:
        done = self.run("python", "-m", "lab.cli", *arguments, check=False, **env)
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    def run(self, *command, check=True, **env) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.project.path,
            env={**os.environ, **self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not check or done.returncode == 0, done.stdout
        return done

    def git(self, *arguments) -> str:
        return self.run("git", *arguments).stdout.strip()

    def edit(self, old: str, new: str) -> None:
        """Change the training, as a researcher does while a run is going on."""
        text = self.train.read_text()
        assert old in text
        self.train.write_text(text.replace(old, new))

    def recorded_run(self, *words, **env) -> str:
        """Train; the run's id."""
        self.run("python", "-m", "my_experiment.experiment", "with", "smoke", *words, **env)
        return self.ids()[0]

    def change(self, run: str, alter) -> None:
        """Alter a record's run.json."""
        path = self.runs / run / "run.json"
        record = json.loads(path.read_text())
        alter(record)
        path.write_text(json.dumps(record, sort_keys=True, indent=2) + "\n")

    def copy(self, run: str, name: str, alter) -> str:
        """Another record like this one, but for what `alter` does to its run.json."""
        shutil.copytree(self.runs / run, self.runs / name)
        self.change(name, alter)
        return name

    def last_line(self, *arguments) -> str:
        """Why a command failed."""
        line = self(*arguments, code=1).splitlines()[-1]
        assert line.startswith("lab: ")
        return line


def clone_of(project, path: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", project.path, path], check=True)
    return path


@pytest.fixture(scope="module")
def data(project, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    project.run("python", "-m", "my_experiment.data", "prepare", env={"LAB_DATA": str(folder)})
    return folder


@pytest.fixture(scope="module")
def desk(project, data, tmp_path_factory) -> Colleague:
    """A clone in which a run was made with uncommitted work, which then went on."""
    path = clone_of(project, tmp_path_factory.mktemp("desk") / "my-experiment")
    desk = Colleague(project, path, data)
    desk.edit("LOG_EVERY = 10", "from .extra import LOG_EVERY")
    (path / "src/my_experiment/extra.py").write_text("LOG_EVERY = 3\n")  # untracked
    desk.first = desk.recorded_run("lr=0.02", "seed=7", PYTHONHASHSEED="9", OMP_NUM_THREADS="2")
    (path / "src/my_experiment/extra.py").unlink()
    desk.edit("from .extra import LOG_EVERY", "LOG_EVERY = 5")
    desk.edit("config.lr,", "config.lr * 3,")
    return desk


def test_a_run_with_uncommitted_work_is_reproduced_after_it_was_edited(desk):
    before = desk.git("status", "--porcelain"), desk.git("stash", "list"), desk.git("log", "--all")
    places = sorted(path.name for path in desk.project.path.parent.iterdir())
    output = desk("reproduce", desk.first, OMP_NUM_THREADS="1", PYTHONHASHSEED="5")
    new = desk.ids()[0]
    assert output.splitlines()[-1] == f"the same numbers: {desk.first}, {new}"
    rows = re.findall(r"^(train/loss|val/\w+|test/\w+|result \w+) .* identical$", output, re.M)
    assert len(rows) == 7
    assert "of the same lock" in output
    recorded, record = (
        json.loads((desk.runs / r / "run.json").read_text()) for r in (desk.first, new)
    )
    assert record["determinism"] == recorded["determinism"]
    assert record["seeds"] == recorded["seeds"]
    assert record["meta"]["comment"] == f"reproduces {desk.first}"
    assert f"reproduces {desk.first}" in desk("show", new)
    assert json.loads((desk.runs / new / "config.json").read_text())["lr"] == 0.02
    after = desk.git("status", "--porcelain"), desk.git("stash", "list"), desk.git("log", "--all")
    assert after == before
    assert sorted(path.name for path in desk.project.path.parent.iterdir()) == places
    assert desk.git("worktree", "list").count("\n") == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_repetition_and_its_run_and_removes_the_checkout(desk, number):
    """Sent to lab alone, as kill and an editor's stop button do."""
    places = sorted(path.name for path in desk.project.path.parent.iterdir())
    lab = subprocess.Popen(
        ["python", "-m", "lab.cli", "reproduce", desk.first],
        cwd=desk.project.path,
        env={**os.environ, **desk.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started = any("Started run" in line for line in lab.stdout)
    lab.send_signal(number)
    output, _ = lab.communicate(timeout=120)  # until nobody has the pipe open any more
    assert started and lab.returncode == 128 + number
    assert output.endswith("lab: interrupted\n") and "Traceback" not in output
    assert desk.rows()[0]["state"] == "TERMINATED"
    assert sorted(path.name for path in desk.project.path.parent.iterdir()) == places
    assert desk.git("worktree", "list").count("\n") == 0


def test_other_code_gives_a_difference_and_exit_code_1(desk):
    """The record is made to name a snapshot in which the learning rate is three times as high."""
    take = "from lab.code import snapshot; print(snapshot.take().commit)"
    commit = desk.run("python", "-c", take).stdout.strip()
    other = desk.copy(desk.first, "x-other", lambda record: record["code"].update(commit=commit))
    output = desk("reproduce", other, "--keep", code=1)
    assert re.search(r"^val/loss .* differs from step 17 on, by [\d.e-]+ at most$", output, re.M)
    assert re.search(r"^train/loss .* differs: 5 points recorded, 3 now", output, re.M)
    assert output.splitlines()[-1].startswith(f"other numbers: {other}, ")
    kept, remove = re.search(r"^kept +(\S+); to remove it: (.*)", output, re.M).groups()
    kept = Path(kept)
    assert "config.lr * 3" in (kept / "code/src/my_experiment/training.py").read_text()
    desk.run("sh", "-c", remove)
    assert not kept.exists() and desk.git("worktree", "list").count("\n") == 0
    diff = desk("compare", desk.first, other, "--code")
    assert "\n-from .extra import LOG_EVERY" in diff
    assert "\n+LOG_EVERY = 5" in diff
    assert "deleted file mode" in diff


def test_a_run_from_before_its_project_was_renamed_is_reproduced_and_exported(desk, tmp_path):
    """As in a bigger repository: then it lay in the folder old/, now it is elsewhere."""
    commit = json.loads((desk.runs / desk.first / "run.json").read_text())["code"]["commit"]
    index = {"GIT_INDEX_FILE": str(tmp_path / "index")}
    desk.run("git", "read-tree", "--prefix=old/", commit, **index)
    tree = desk.run("git", "write-tree", **index).stdout.strip()
    code = {"commit": desk.git("commit-tree", "-m", "old", tree), "folder": "old"}
    run = desk.copy(desk.first, "x-renamed", lambda record: record["code"].update(code))
    assert f"the same numbers: {run}, " in desk("reproduce", run)
    desk("export", run, tmp_path / "renamed.zip")
    lock = zipfile.ZipFile(tmp_path / "renamed.zip").read("requirements.txt")
    assert lock == (desk.project.path / "requirements.txt").read_bytes()


def test_an_exported_run_is_reproduced_in_another_clone_elsewhere(desk, project, data, tmp_path):
    file = tmp_path / "out.zip"
    assert desk("export", desk.first, tmp_path / "out") == f"{file}\n"
    names = zipfile.ZipFile(file).namelist()
    record = [f"record/{desk.first}/{name}" for name in ("run.json", "config.json", "cout.txt")]
    assert {*record, "code.bundle", "requirements.txt"} <= set(names)
    assert "exists" in desk.last_line("export", desk.first, file)
    path = clone_of(project, tmp_path / "elsewhere" / "another name")
    there = Colleague(project, path, data)
    output = there("reproduce", file)
    assert f"the same numbers: {file}, {there.ids()[0]}" in output
    assert there.ids()[1] == desk.first
    there("note", desk.first, "noted there")
    desk("note", desk.first, "noted later")
    desk("export", desk.first, tmp_path / "later.zip")
    take = f"from pathlib import Path; export.unpack(Path({str(tmp_path / 'later.zip')!r}))"
    for _ in range(2):
        there.run("python", "-c", f"from lab.runs import export; {take}")
    notes = (there.runs / desk.first / "notes.txt").read_text().splitlines()
    assert [line.split("  ")[1] for line in notes] == ["noted there", "noted later"]
    there.change(desk.first, lambda record: record.update(result={"loss": 0}))
    assert "differs from the record in" in there.last_line("reproduce", file)


def test_a_clone_with_half_of_the_history_exports_nothing(desk, project, data, tmp_path):
    full = Colleague(project, clone_of(project, tmp_path / "full"), data)
    full.git("commit", "--quiet", "--allow-empty", "--message", "more")
    half = Colleague(project, tmp_path / "half", data)
    full.git("clone", "--quiet", "--depth=1", f"file://{full.project.path}", half.project.path)
    shutil.copytree(desk.runs / desk.first, half.runs / "x-half")
    commit = half.git("rev-parse", "HEAD")
    half.change("x-half", lambda record: record["code"].update(commit=commit))
    assert "git fetch --unshallow" in half.last_line("export", "x-half", tmp_path / "half.zip")
    assert not (tmp_path / "half.zip").exists()
    half.git("fetch", "--quiet", "--unshallow")
    half("export", "x-half", tmp_path / "half.zip")


def test_a_run_without_numbers_is_not_called_reproduced(desk):
    ended = {"status": "INTERRUPTED", "result": None}  # as after Ctrl-C in the first second
    run = desk.copy(desk.first, "x-empty", lambda record: record.update(ended))
    (desk.runs / run / "metrics.jsonl").write_text("")
    assert f"{run} recorded no number" in desk.last_line("reproduce", run)


def test_a_run_that_goes_on_is_not_exported(desk, tmp_path):
    beat = datetime.now(timezone.utc).replace(tzinfo=None).isoformat()
    going = {"status": "RUNNING", "heartbeat": beat, "process": {"host": "gpu9", "boot": "other"}}
    run = desk.copy(desk.first, "x-going", lambda record: record.update(going))
    said = desk.last_line("export", run, tmp_path / "going.zip")
    assert said == f"lab: {run} is RUNNING: export it when it has ended."
    assert not (tmp_path / "going.zip").exists()


@pytest.mark.parametrize("columns", ["1", "2", "-5"])
def test_the_narrowest_terminal_is_wide_enough(desk, columns):
    assert desk("runs", COLUMNS=columns)


def test_a_file_that_is_no_export_is_refused_in_one_line(desk, tmp_path):
    for name, content in (("a.zip", b"not a zip"), ("b.zip", b""), ("c.zip", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert "was not made by lab export, or is damaged" in desk.last_line(
            "reproduce", tmp_path / name
        )
    hostile = {"record/x/../../../../../outside": "{}", "record/x/run.json": "{}"}
    branch = {"record/x/run.json": '{"code": {"commit": "x:refs/heads/main"}}'}
    for name, files in (("d.zip", hostile), ("e.zip", branch)):
        with zipfile.ZipFile(tmp_path / name, "w") as pack:
            for path, content in files.items():
                pack.writestr(path, content)
        desk.last_line("reproduce", tmp_path / name)
    assert not list(tmp_path.rglob("outside")) + list(desk.runs.parent.rglob("outside"))
    assert not (desk.runs / "x").exists()
    assert not list(desk.runs.glob("_import*"))


def test_the_recorded_environment_is_built_when_the_lock_is_another_one(desk, project, tmp_path):
    lock = desk.project.path / "requirements.txt"
    text = lock.read_text()
    lock.write_text(text + "# another lock\n")
    try:
        run = desk.recorded_run()
    finally:
        lock.write_text(text)
    output = desk("reproduce", run)
    assert "is built from the recorded lock" in output
    assert output.splitlines()[-1].startswith("the same numbers")


# --- what cannot be restored is named ------------------------------------------------------------


def test_changed_data_is_named(desk, data, tmp_path):
    place = tmp_path / "data"
    shutil.copytree(data / "digits", place / "digits", ignore=shutil.ignore_patterns("models"))
    desk.env["LAB_DATA"], kept = str(place), desk.env["LAB_DATA"]
    try:
        picture = sorted((place / "digits/train/0").iterdir())[0]
        content = picture.read_bytes()
        picture.write_bytes(content + b"x")
        output = desk("reproduce", desk.first, code=1)
        assert f"changed   train/0/{picture.name}\n" in output
        assert "the dataset digits is not as its manifest says" in output.splitlines()[-1]
        manifest = place / "digits/manifest.json"
        manifest.write_text(manifest.read_text() + "\n")
        assert "manifest.json is a different one" in desk.last_line("reproduce", desk.first)
        manifest.unlink()
        assert "manifest.json is missing" in desk.last_line("reproduce", desk.first)
    finally:
        desk.env["LAB_DATA"] = kept
    assert desk.git("worktree", "list").count("\n") == 0


def test_code_that_is_not_here_is_named(desk):
    missing = desk.copy(desk.first, "x-gone", lambda one: one["code"].update(commit="f" * 40))
    assert f"fetch commit {'f' * 40}" in desk.last_line("reproduce", missing)
    assert "not in this repository" in desk.last_line("export", missing, "x.zip")

    def unsaved(record):
        record["code"] = {"commit": None, "problem": "big.bin is too big for a snapshot"}

    said = desk.last_line("reproduce", desk.copy(desk.first, "x-unsaved", unsaved))
    assert "cannot be restored: big.bin is too big" in said
    unknown = desk.copy(desk.first, "x-unknown", lambda one: one["code"].clear())
    assert "no commit is recorded" in desk.last_line("reproduce", unknown)


def test_a_lock_that_cannot_be_installed_is_named(desk):
    lock = desk.project.path / "requirements.txt"
    text = lock.read_text()
    lock.write_text(re.sub(r"^tqdm==.*$", "tqdm==4.0.999", text, flags=re.M))
    take = "from lab.code import snapshot; from lab.recording import provenance;"
    take += "print(snapshot.take().commit)"
    commit = desk.run("python", "-c", take).stdout.strip()
    lock.write_text(text)

    def withdrawn(record):
        record["code"]["commit"], record["software"]["lock_sha256"] = commit, None

    run = desk.copy(desk.first, "x-withdrawn", withdrawn)
    output = desk("reproduce", run, code=1)
    assert "tqdm==4.0.999" in output
    assert re.search(r"lab: the recorded lock \w+ cannot be installed: see above", output)


def test_a_record_that_is_not_whole_or_still_growing_is_not_repeated(desk):
    broken = desk.copy(desk.first, "x-broken", lambda one: one.pop("status"))
    assert "is UNREADABLE" in desk.last_line("reproduce", broken)
    (desk.runs / broken / "config.json").write_text("{")
    desk.change(broken, lambda one: one.update(status="COMPLETED"))
    assert "without a readable config.json" in desk.last_line("reproduce", broken)


COMPARE = """
import json, sys
from pathlib import Path
from lab.runs import comparison, reading
old, new, tolerance = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
rows = comparison.compare(old, new, tolerance)
print(json.dumps({row["metric"]: row["verdict"] for row in rows}))
"""


def verdicts(lab, old, new, tolerance=0.0) -> dict[str, str]:
    done = lab.project.run("python", "-c", COMPARE, old, new, str(tolerance), env=lab.env)
    return json.loads(done.stdout)


def test_numbers_are_compared_point_by_point(lab):
    curve = [("loss", 1, 0.5), ("loss", 2, 0.25), ("nan", 1, "NaN"), ("gone", 1, 1.0)]
    other = [("loss", 1, 0.5000001), ("loss", 2, 0.25), ("nan", 1, "NaN"), ("new", 1, 1.0)]
    old, new = lab.record(OLDEST, curve), lab.record(NEWEST, other)
    found = verdicts(lab, old, new)
    assert found["loss"] == "differs from step 1 on, by 1e-07 at most"
    assert found["nan"] == found["result accuracy"] == found["state"] == "identical"
    assert found["gone"].startswith("differs: 1 points recorded, 0 now")
    assert found["new"].startswith("differs: 0 points recorded, 1 now")
    assert verdicts(lab, old, new, 1e-6)["loss"] == "within the tolerance, by 1e-07 at most"
    assert verdicts(lab, old, new, 1e-8)["loss"].startswith("differs")


def test_of_a_run_that_was_ended_the_points_until_then_count(lab):
    long = [("loss", 1, 0.5), ("loss", 2, 0.25), ("test", 2, 0.1)]
    old = lab.record(OLDEST, long[:1], status="TERMINATED", result=None)
    assert verdicts(lab, old, lab.record(NEWEST, long)) == {"loss": "identical"}


def test_another_device_is_named(lab):
    gpu = {"usage": {"gpus": [{"name": "NVIDIA H200"}]}, "machine": {"driver": "550.1"}}
    lab.record(OLDEST, **gpu)
    lab.record(NEWEST)
    code = f"""
from lab import project, records
from lab.runs import comparison, reading
runs = (project.runs_folder() / run / "run.json" for run in {[OLDEST, NEWEST]})
old, new = map(reading.read_json, runs)
print(*comparison.describe_surroundings(old, new), sep="\\n")
"""
    assert lab.python(code).splitlines() == [
        "GPUs: NVIDIA H200 when it was recorded, none now",
        "driver: 550.1 when it was recorded, None now",
    ]
