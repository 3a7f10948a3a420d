"""Records as tables and plots, and runs repeated for real: nothing is guessed."""

import json
import os
import re
import shutil
import signal
import subprocess
import zipfile
from datetime import datetime, timezone
from pathlib import Path

import pytest
from written_records import MIDDLE, NEWEST, OLDEST, write_record, write_three

from helpers.projects import Project


class Lab:
    """The `lab` command of a project, on records that a test wrote, in a runs folder of its own."""

    def __init__(self, project: Project, runs: Path):
        self.project, self.runs = project, runs
        self.env = {"LAB_RUNS": str(runs)}

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
def three(project, tmp_path) -> Lab:
    """Three runs: the newest failed, the middle one has another machine and learning rate."""
    lab = Lab(project, tmp_path / "runs")
    write_three(lab.runs)
    return lab


# --- what needs the project's packages -----------------------------------------------------------


def test_the_listing_and_the_help_import_no_heavy_package(three):
    for arguments in (["--help"], ["runs"], ["show", OLDEST], ["compare", OLDEST, NEWEST]):
        command = ["python", "-X", "importtime", "-m", "lab.cli", *arguments]
        output = three.project.run(*command, env=three.env).stdout
        imported = {line.split("|")[-1].strip() for line in output.splitlines() if "|" in line}
        assert "argparse" in imported
        assert not {"pandas", "numpy", "torch", "sacred", "matplotlib"} & imported


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


# Several plots of one run in one process, which imports matplotlib once; and how each one ends.
PLOTS = """
import sys
from lab.cli.main import main
for out in sys.argv[2:]:
    print(main(["plot", sys.argv[1], "--metric", "val/loss", "--out", out]))
"""


def test_plot_saves_an_image_and_prints_its_path(three, tmp_path):
    path = Path(three("plot", MIDDLE, OLDEST, "--metric", "val/loss").strip())
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.parent == three.runs / "_plots"
    assert three.ids() == [NEWEST, MIDDLE, OLDEST], "the folder of plots is not a run"
    out, bare = tmp_path / "figures" / "loss.pdf", tmp_path / "loss"
    command = ["python", "-u", "-c", PLOTS, OLDEST, out, bare, "", out / "x.png"]
    lines = three.project.run(*command, env=three.env).stdout.splitlines()
    assert lines[:3] == [str(out), "0", f"{bare}.png"] and lines[3::2] == ["0", "1", "1"]
    assert out.read_bytes().startswith(b"%PDF")
    assert Path(lines[2]).read_bytes().startswith(b"\x89PNG")
    for refused in lines[4::2]:
        assert refused.startswith("lab: ") and "cannot be written" in refused


def test_curves_have_a_point_for_one_value_one_colour_for_a_run_and_what_differs_as_legend(three):
    code = """
import matplotlib
matplotlib.use("Agg")
from lab import records
table = records.metrics()
colours = {}
for name in ("val/loss", "val/accuracy"):
    axis = records.curves(table, name).axes[0]
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    for line, label in zip(axis.lines, labels):
        colours.setdefault(label, set()).add(line.get_color())
        print(len(line.get_xdata()), line.get_marker(), label)
print([len(one) for one in colours.values()])
"""
    *lines, colours = three.python(code).splitlines()
    points = [line.split(" ", 2) for line in lines]
    assert sorted(number for number, _, _ in points) == ["1", "1", "2"]
    assert all((number == "1") == (marker == "o") for number, marker, _ in points)
    assert any("lr=0.01" in label for _, _, label in points)
    assert colours == "[1, 1]"


def test_a_plot_stops_at_no_name_and_no_number_of_a_record(three):
    name, odd = "$\\frac{$", "\x1b]0;x\x07"
    lines = [
        {"metric": name, "step": 1, "value": 1.0, "time": 1.0},
        {"metric": name, "step": 10**400, "value": "NaN", "time": 1e308},
        {"metric": [name], "step": "x", "value": 1, "time": None},
    ]
    (three.runs / OLDEST / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = {"dataset": "digits", "$\\frac{$": odd, "long": "x" * 100_000}
    (three.runs / OLDEST / "config.json").write_text(json.dumps(config))
    assert Path(three("plot", OLDEST, MIDDLE, "--metric", name).strip()).exists()


def test_damaged_and_incomplete_records_are_marked_in_the_tables(three):
    whole = (three.runs / OLDEST / "run.json").read_text()
    for name, content in {
        "20000101-empty": "",
        "20000102-half": whole[:300],
        "20000103-list": "[]",
        "20000104-odd": '{"status": 7, "process": 1, "result": []}',
    }.items():
        (three.runs / name).mkdir()
        (three.runs / name / "run.json").write_text(content)
        (three.runs / name / "metrics.jsonl").write_text('{"metric": "loss", "step": 1, "val')
    (three.runs / "20000105-nothing").mkdir()
    code = "from lab import records; print(*records.runs()['state'], len(records.metrics()))"
    states = ["FAILED", "COMPLETED", "COMPLETED", *["UNREADABLE"] * 5]
    assert three.python(code).split() == [*states, "4"]


def test_the_tables_for_notebooks_are_tidy(three):
    name = "20261104-120000-gpu1-00000004"
    write_record(three.runs, name, config={"loss": "mse", "state": "CA"})
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
    assert lines[0] == f"run {name} {NEWEST} {MIDDLE} {OLDEST}"
    assert lines[1].startswith(
        "name command state start duration machine commit accuracy loss dataset config.loss"
    )
    assert lines[2] == "UTC 0.1 mse"
    assert lines[3] == "run metric step value time"
    assert lines[4] == "[0.5, 0.25, nan, 0.75]"


def test_no_result_and_no_setting_takes_the_column_of_another(three):
    name = "20261104-120000-gpu1-00000004"
    mine = {"duration": 3.2, "state": "good", "start": "now", "run": 1, "name": "x"}
    write_record(three.runs, name, config={"state": "CA", "result": 5, "loss": 7}, result=mine)
    write_record(three.runs, "20261105-120000-gpu1-00000005", result=0.25)
    code = """
from lab import records
runs = records.runs()
row = runs.loc["20261104-120000-gpu1-00000004"]
print(row["state"], row["duration"], row["start"].year, row["config.state"], row["config.loss"])
print(*(row[f"result.{name}"] for name in ("state", "duration", "start", "run", "name")))
print(row["config.result"], runs.iloc[0]["result"], runs.reset_index().columns.is_unique)
"""
    lines = three.python(code).splitlines()
    assert lines == ["COMPLETED 125.4 2026 CA 7.0", "good 3.2 now 1.0 x", "5.0 0.25 True"]


def test_metrics_take_the_names_of_runs_that_every_command_takes_and_no_other(three):
    code = f"""
from lab import project, records
for names in (["{OLDEST[:10]}"], ["last~1"], ["{MIDDLE}", "{OLDEST}"], ["{OLDEST}", "2027"], []):
    try:
        print(len(records.metrics(*names)))
    except project.LabError as error:
        print(error)
"""
    lines = three.python(code).splitlines()
    assert lines[:3] == ["1", "3", "4"] and lines[4] == "4"
    assert lines[3].startswith("no run id begins with 2027; there are: ")


# --- repeating a run, for real -------------------------------------------------------------------


# Replaces the real training, whose imports take seconds: numbers from the settings alone. It
# waits while there is the file `wait` beside the models.
LIGHT = """
import time
from pathlib import Path
from typing import NamedTuple

LOG_EVERY = 10

class Result(NamedTuple):
    weights: Path
    test: dict

def lose(lr, step):
    return {"loss": lr / step, "accuracy": 1 - lr / step}

def train(config, splits, models, run_id, log):
    (models / run_id).mkdir(parents=True)
    weights = models / run_id / "best.safetensors"
    weights.write_bytes(b"weights")
    while (models / "wait").exists():
        time.sleep(0.05)
    for step in range(1, 18):
        scores = lose(config.lr, step)
        if step % LOG_EVERY == 0:
            log(step, {"train/loss": scores["loss"]})
    for split in ("val", "test"):
        log(17, {f"{split}/{name}": value for name, value in scores.items()})
    return Result(weights, scores)
"""


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
        """Change the training, as a researcher does during a run."""
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
        """Copy this record, with what `alter` does to its run.json."""
        shutil.copytree(self.runs / run, self.runs / name)
        self.change(name, alter)
        return name

    def last_line(self, *arguments) -> str:
        """The line in which a command says why it failed."""
        line = self(*arguments, code=1).splitlines()[-1]
        assert line.startswith("lab: ")
        return line


def clone_of(project, path: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", project.path, path], check=True)
    return path


@pytest.fixture(scope="module")
def data(digits, tmp_path_factory) -> Path:
    """Models come into it."""
    return shutil.copytree(digits, tmp_path_factory.mktemp("data"), dirs_exist_ok=True)


@pytest.fixture(scope="module")
def desk(project, data, tmp_path_factory) -> Colleague:
    """A clone with a run from uncommitted work, which was edited after that; it needs no torch."""
    path = clone_of(project, tmp_path_factory.mktemp("desk") / "my-experiment")
    desk = Colleague(project, path, data)
    desk.train.write_text(LIGHT)
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
    wait = Path(desk.env["LAB_DATA"], "digits/models/wait")
    wait.touch()
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
    wait.unlink()
    assert started and lab.returncode == 128 + number
    assert output.endswith("lab: interrupted\n") and "Traceback" not in output
    assert desk.rows()[0]["state"] == "TERMINATED"
    assert sorted(path.name for path in desk.project.path.parent.iterdir()) == places
    assert desk.git("worktree", "list").count("\n") == 0


def test_different_code_gives_a_difference_and_exit_code_1(desk):
    """The record is changed to name a snapshot with three times the learning rate."""
    take = "from lab.code import snapshot; print(snapshot.take().commit)"
    commit = desk.run("python", "-c", take).stdout.strip()
    other = desk.copy(desk.first, "x-other", lambda record: record["code"].update(commit=commit))
    output = desk("reproduce", other, "--keep", code=1)
    assert re.search(r"^val/loss .* differs from step 17 on, by [\d.e-]+ at most$", output, re.M)
    assert re.search(r"^train/loss .* differs: 5 points recorded, 3 now", output, re.M)
    assert output.splitlines()[-1].startswith(f"different numbers: {other}, ")
    kept, remove = re.search(r"^kept +(\S+); to remove it: (.*)", output, re.M).groups()
    kept = Path(kept)
    assert "config.lr * 3" in (kept / "code/src/my_experiment/training.py").read_text()
    desk.run("sh", "-c", remove)
    assert not kept.exists() and desk.git("worktree", "list").count("\n") == 0
    diff = desk("compare", desk.first, other, "--code")
    assert desk("compare", desk.first, desk.first, "--code").strip(), "it says that it is the same"
    assert "\n-from .extra import LOG_EVERY" in diff
    assert "\n+LOG_EVERY = 5" in diff
    assert "deleted file mode" in diff


def test_a_run_from_before_its_project_was_renamed_is_reproduced_and_exported(desk, tmp_path):
    """As in a bigger repository: the folder of the project was old/, and is another one now."""
    commit = json.loads((desk.runs / desk.first / "run.json").read_text())["code"]["commit"]
    index = {"GIT_INDEX_FILE": str(tmp_path / "index")}
    desk.run("git", "read-tree", "--prefix=old/", commit, **index)
    tree = desk.run("git", "write-tree", **index).stdout.strip()
    code = {"commit": desk.git("commit-tree", "-m", "old", tree), "folder": "old"}
    desk.git("branch", "renamed", code["commit"])
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
    other = Colleague(project, path, data)
    assert "--yes" in other.last_line("reproduce", file)
    assert not other.ids(), "code of somebody else runs only if somebody agrees"
    output = other("reproduce", file, "--yes")
    assert f"the same numbers: {file}, {other.ids()[0]}" in output
    assert other.ids()[1] == desk.first
    other("note", desk.first, "noted elsewhere")
    desk("note", desk.first, "noted later")
    desk("export", desk.first, tmp_path / "later.zip")
    take = f"from pathlib import Path; archive.unpack(Path({str(tmp_path / 'later.zip')!r}), None)"
    for _ in range(2):
        other.run("python", "-c", f"from lab.runs import archive; {take}")
    notes = (other.runs / desk.first / "notes.txt").read_text().splitlines()
    assert [line.split("  ")[1] for line in notes] == ["noted elsewhere", "noted later"]
    other.change(desk.first, lambda record: record.update(result={"loss": 0}))
    assert "differs from the record in" in other.last_line("reproduce", file)


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


def test_a_file_that_lab_export_did_not_make_is_refused_in_one_line(desk, tmp_path):
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
    assert "building it from the recorded lock" in output
    assert output.splitlines()[-1].startswith("the same numbers")


def test_a_file_that_a_setting_names_is_found_again_by_reproduce_and_by_a_colleague(
    project, data, tmp_path
):
    """By one name, wherever their data is; another file of that name is not mistaken for it."""
    path, disk = clone_of(project, tmp_path / "desk/my-experiment"), tmp_path / "disk"
    shutil.copytree(data, disk)
    desk = Colleague(project, path, disk)
    desk.train.write_text(LIGHT)
    words = disk / "digits/words.txt"
    words.write_text("from the disk")
    for name, old, new in (
        (
            "experiment.py",
            "resume: tracking.Model",
            'words: tracking.File = ""\n    plain: str = ""\n    resume: tracking.Model',
        ),
        (
            "experiment.py",
            "    with tracking.metrics",
            "    print(project.find_file(config.words).read_text())\n    with tracking.metrics",
        ),
    ):
        file = path / "src/my_experiment" / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new, 1))
    (path / "data/digits/models/own.txt").touch()
    run = desk.recorded_run(f"words={words}", "plain=data/digits/models/own.txt")
    record = json.loads((desk.runs / run / "run.json").read_text())
    assert [one["path"] for one in record["meta"]["files"]] == ["data/digits/words.txt"]
    config = json.loads((desk.runs / run / "config.json").read_text())
    assert config["words"] == "data/digits/words.txt"
    output = (desk.runs / run / "cout.txt").read_text()
    assert (
        "from the disk" in output
        and "warning: plain=data/digits/models/own.txt is ignored by git" in output
    )
    assert "warning: words" not in output
    desk.git("add", "--all")
    desk.git("commit", "--quiet", "--message", "words")
    desk("export", run, tmp_path / "run.zip")
    assert desk("reproduce", run).splitlines()[-1].startswith("the same numbers")

    theirs = tmp_path / "theirs"
    shutil.copytree(data, theirs)
    other = Colleague(project, clone_of(desk.project, tmp_path / "other/my-experiment"), theirs)
    command = [
        "python",
        "-m",
        "my_experiment.experiment",
        "with",
        "smoke",
        "words=data/digits/words.txt",
    ]
    missing = other.run(*command, check=False)
    assert missing.returncode == 1 and missing.stdout.startswith("error: there is no file data/")
    assert not other.runs.exists()
    again = ["reproduce", tmp_path / "run.zip", "--yes"]
    assert "is missing" in other.last_line(*again)
    (theirs / "digits/words.txt").write_text("another")
    assert "has another hash" in other.last_line(*again)
    assert re.search(
        r"file data/digits/words.txt",
        other("compare", run, other.recorded_run("words=data/digits/words.txt")),
    )
    shutil.copy(words, theirs / "digits/words.txt")
    assert other(*again).splitlines()[-1].startswith("the same numbers")


# --- what cannot be restored is named ------------------------------------------------------------


def test_changed_data_is_named(desk, data, tmp_path):
    place = tmp_path / "data"
    shutil.copytree(data / "digits", place / "digits", ignore=shutil.ignore_patterns("models"))
    desk.env["LAB_DATA"], kept = str(place), desk.env["LAB_DATA"]
    try:
        image = sorted((place / "digits/train/0").iterdir())[0]
        content = image.read_bytes()
        image.write_bytes(content + b"x")
        output = desk("reproduce", desk.first, code=1)
        assert f"changed   train/0/{image.name}\n" in output
        assert "the dataset digits does not match its manifest" in output.splitlines()[-1]
        manifest = place / "digits/manifest.json"
        manifest.write_text(manifest.read_text() + "\n")
        assert "manifest.json has another hash" in desk.last_line("reproduce", desk.first)
        manifest.unlink()
        assert "manifest.json is missing" in desk.last_line("reproduce", desk.first)
    finally:
        desk.env["LAB_DATA"] = kept
    assert desk.git("worktree", "list").count("\n") == 0


def test_code_that_is_not_in_the_repository_is_named(desk):
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


def test_an_incomplete_or_growing_record_is_not_repeated(desk):
    broken = desk.copy(desk.first, "x-broken", lambda one: one.pop("status"))
    assert "is UNREADABLE" in desk.last_line("reproduce", broken)
    (desk.runs / broken / "config.json").write_text("{")
    desk.change(broken, lambda one: one.update(status="COMPLETED"))
    assert "without a readable config.json" in desk.last_line("reproduce", broken)
