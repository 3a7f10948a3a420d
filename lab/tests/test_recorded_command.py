"""`lab record` makes a whole record of a command that knows nothing of lab."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_machine import until
from git_helper import run_git

import lab
from lab.cli.main import main
from lab.datasets import folders as datasets
from lab.ground import files, interrupts
from lab.ground import project as current
from lab.ground.errors import LabError
from lab.ground.files import sha256
from lab.recording.command import outputs, running, scratch
from lab.recording.command import record as record_module
from lab.recording.record_files import now
from lab.recording.recorder import RunFolder
from lab.runs import records, reproduce

SRC = Path(lab.__file__).resolve().parents[1]
SCALARS = """
import argparse, helper
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.5)
parser.add_argument("--depth", type=int, default=3)
args = parser.parse_args()
import wandb
with wandb.init(project="p", config={"width": 8}) as run:
    run.watch(None)
    for step in range(3):
        wandb.log({"loss": args.lr / (step + 1), "image": object(), "val": {"acc": step}})
    wandb.log({"loss": float("nan")}, step=9)
print("the loss is", helper.WORD)
"""


class Recorder:
    """`lab record` in a git repository of its own."""

    def __init__(self, project: Path, capfd, monkeypatch):
        self.project, self.capfd, self.monkeypatch = project, capfd, monkeypatch
        monkeypatch.setenv("PYTHONPATH", str(SRC))
        run_git(project, "init", "--quiet")
        self.write(".gitignore", "/runs\n/data\n__pycache__/\n")
        self.write("helper.py", "WORD = 'small'\n")
        self.write("train.py", SCALARS)
        run_git(project, "add", "--all")
        run_git(project, "commit", "--quiet", "-m", "A flat repository")

    def write(self, name: str, text: str) -> None:
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(self, *words: str, cwd: str = ".", **options) -> subprocess.Popen:
        """Start it in a process of its own, which a test may kill."""
        return subprocess.Popen(
            [sys.executable, "-m", "lab.cli", "record", *words],
            cwd=self.project / cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            **options,
        )

    def __call__(self, *words: str, code: int = 0, cwd: str = ".") -> tuple[Path, str]:
        """Record in this process; return the folder of the record, and what was printed."""
        self.capfd.readouterr()
        # pytest's own sys.stdout is not descriptor 1, and what children print would not be recorded
        options = {"mode": "w", "encoding": "utf-8", "closefd": False}
        with (
            self.monkeypatch.context() as patch,
            open(1, **options) as out,
            open(2, **options) as err,
        ):
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.chdir(self.project / cwd)
            current.reload()
            ended = main(["record", *words])
        out, err = self.capfd.readouterr()
        assert ended == code, out + err
        err = err.replace("warning: lab is not installed.\n", "")  # true of these tests
        return records.find("last"), out + err

    def entry(self, folder: Path) -> dict:
        return json.loads((folder / "run.json").read_text())


@pytest.fixture
def record(project, capfd, monkeypatch) -> Recorder:
    return Recorder(project, capfd, monkeypatch)


def test_an_unedited_script_leaves_a_whole_record(record):
    folder, printed = record("--name", "try", "--", "python", "train.py", "--lr", "0.25")
    entry = record.entry(folder)
    config = json.loads((folder / "config.json").read_text())
    assert entry["status"] == "COMPLETED" and entry["command"] == "train.py"
    assert entry["meta"]["words"] == ["python", "train.py", "--lr", "0.25"]
    assert entry["meta"]["changed"] == {"lr": 0.25}
    assert config == {"lr": 0.25, "depth": 3, "width": 8}, "the whole set, where it can be had"
    assert run_git(record.project, "rev-parse", "HEAD") == entry["code"]["commit"]
    assert "the loss is small" in (folder / "cout.txt").read_text() and "small" in printed
    points = records.points(folder / "metrics.jsonl")
    loss = [(step, value) for metric, step, value, _ in points if metric == "loss"]
    assert loss[:3] == [(0, 0.25), (1, 0.125), (2, 0.25 / 3)] and loss[3][0] == 9
    assert [value for metric, _, value, _ in points if metric == "val/acc"] == [0, 1, 2]
    assert {metric for metric, *_ in points} == {"loss", "val/acc"}, "an object is no number"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["loss"]["steps"] == [0, 1, 2, 9], "as Sacred's readers want it"
    assert not (record.project / "data/digits/models").exists(), "nothing was written there"


LAUNCHER = """
import argparse, subprocess, sys
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nnodes", default="1:1")
    parser.add_argument("script")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    return subprocess.call([sys.executable, args.script, *args.words])
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.mark.parametrize("words", [("torchrun",), ("-m", "torch.distributed.run", "--nnodes=1")])
def test_the_options_of_a_launcher_are_no_settings(record, words):
    record.write("torch/distributed/run.py", LAUNCHER)
    record.write("torchrun", "from torch.distributed.run import main\nmain()\n")
    folder, _ = record("--", "python", *words, "train.py", "--lr", "0.25")
    config = json.loads((folder / "config.json").read_text())
    assert config == {"lr": 0.25, "depth": 3, "width": 8}
    assert record.entry(folder)["command"] == "train.py"


def test_the_exit_code_is_the_commands_and_the_cause_is_recorded(record):
    folder, _ = record("--", "python", "-c", "raise ValueError('the loss is nan')", code=1)
    entry = record.entry(folder)
    assert entry["status"] == "FAILED" and "the loss is nan" in entry["fail_trace"][-1]
    folder, _ = record("--", "sh", "-c", "kill -9 $$", code=137)
    entry = record.entry(folder)
    assert entry["status"] == "FAILED" and "SIGKILL" in entry["fail_trace"][-1]


def test_a_signal_without_a_name_ends_a_record_as_any_other(record):
    number = signal.SIGRTMIN + 6
    folder, _ = record("--", "sh", "-c", f"kill -{number} $$", code=128 + number)
    entry = record.entry(folder)
    assert entry["status"] == "FAILED" and f"ended by signal {number}" in entry["fail_trace"][-1]


def test_whatever_fails_after_the_start_ends_the_record(record):
    (record.project / "data").symlink_to(record.project / "not-mounted")
    folder, printed = record("--", "true", code=1)
    assert record.entry(folder)["status"] == "FAILED" and "not-mounted" in printed


def test_settings_that_cannot_be_written_are_tried_again_and_named_at_the_end(
    record, monkeypatch, tmp_path
):
    recorder = RunFolder(record.project / "runs")
    recorder.started_event({"base_dir": ".", "sources": []}, "x", {}, now(), {}, {}, None)
    monkeypatch.setattr(record_module, "BEAT", 3600.0)
    report = tmp_path / "report"
    report.write_text('{"settings": {"lr": 1}}\n')
    beats, write = record_module.Beats(recorder, report), files.write

    def refuse(path, *arguments, **options):
        if path.name == "config.json":
            raise OSError(28, "No space left on device")
        return write(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", refuse)
        beats.save()
        heartbeat = json.loads((recorder.folder / "run.json").read_text())["heartbeat"]
        assert heartbeat > recorder.run_entry["start_time"], "the run is seen to live on"
    beats.save()
    assert json.loads((recorder.folder / "config.json").read_text()) == {"lr": 1}
    monkeypatch.setattr(files, "write", refuse)
    report.write_text('{"settings": {"lr": 1, "depth": 2}}\n')
    beats.stop()
    assert "No space left" in recorder.problem()
    recorder.completed_event(now(), None)
    assert json.loads((recorder.folder / "run.json").read_text())["status"] == "FAILED"


def test_a_command_that_cannot_be_started_is_one_line(record):
    folder, printed = record("--", "no-such-program", code=1)
    assert "Traceback" not in printed and "no-such-program" in printed
    assert record.entry(folder)["status"] == "FAILED"
    assert record("--", "python", "-c", "pass", "--id", "x")[0], "words behind -- are the command's"


@pytest.mark.parametrize(
    ("number", "state"), [(signal.SIGTERM, "TERMINATED"), (signal.SIGINT, "INTERRUPTED")]
)
def test_a_signal_reaches_the_command_and_is_the_state(record, number, state):
    script = "import time\ntry:\n    print('up', flush=True)\n    time.sleep(600)\n"
    script += "finally:\n    print('cleaned up')\n"
    if number == signal.SIGTERM:
        script = "import signal\nsignal.signal(15, lambda *_: exit(3))\n" + script
    record.write("wait.py", script)
    process = record.start("--", "python", "wait.py", stdin=subprocess.DEVNULL)
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    process.communicate(timeout=120)
    folder = records.find("last")
    assert record.entry(folder)["status"] == state
    assert "cleaned up" in (folder / "cout.txt").read_text()
    assert process.returncode in (3, 1, 130)


def test_a_signal_while_the_command_ends_loses_no_exit_code(record, monkeypatch):
    wait = os.waitpid

    def wait_and_signal(*arguments):
        ended = wait(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        return ended

    monkeypatch.setattr(os, "waitpid", wait_and_signal)
    with interrupts.as_exceptions():
        assert running.run(["sh", "-c", "exit 4"], dict(os.environ)) == 4
        assert interrupts.received_signal() == signal.SIGTERM


def test_a_signal_after_the_command_ended_is_the_state_of_its_record(record, monkeypatch):
    monkeypatch.setattr(outputs, "collect", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    folder, _ = record("--", "python", "-c", "pass", code=128 + signal.SIGTERM)
    assert record.entry(folder)["status"] == "TERMINATED"


def test_a_failure_is_seen_where_the_parent_ignored_sigchld(record):
    """Linux then keeps no exit codes, and Python returns 0 for each child."""
    process = record.start(
        "--",
        *("sh", "-c", "exit 4"),
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )
    said = process.communicate(timeout=120)
    assert process.returncode == 4, said
    assert record.entry(records.find("last"))["status"] == "FAILED"


def test_what_is_printed_after_lab_record_was_killed_is_recorded(record, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    script = "echo up; read line <go; echo $line; echo end"
    os.mkfifo(record.project / "go")
    process = record.start("--", "sh", "-c", script, stdin=subprocess.DEVNULL)
    assert process.stdout.readline() == "up\n"
    process.kill()
    process.wait()
    (record.project / "go").write_text("after\n")
    folder = records.find("last")
    until(lambda: "end" in (folder / "cout.txt").read_text(), 120)
    assert (folder / "cout.txt").read_text() == "up\nafter\nend\n"
    assert process.communicate()[0] == "after\nend\n", "and shown, by a process that has then ended"
    (left,) = (tmp_path / "temporary").glob("lab-record-*")
    monkeypatch.setattr(scratch, "NEW", -1.0)
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(left.parent))
    with scratch.make_report() as report:
        assert list(left.parent.iterdir()) == [report.parent], "that of the killed one is gone"
        (tmp_path / "report").touch()
        (left.parent / "lab-record-link").symlink_to(tmp_path)
        scratch.remove_abandoned(left.parent)
        assert report.exists(), "not that of one that runs"
        assert (tmp_path / "report").exists(), "nor what a link leads to"


def test_a_file_that_is_edited_between_start_and_import_is_said(record):
    record.write(
        "train.py",
        "import os, pathlib\npathlib.Path('helper.py').write_text('WORD = 2\\n')\n"
        "os.utime('helper.py', (1, 1))\nimport helper\n",  # as rsync -t would write it
    )
    folder, printed = record("--", "python", "train.py")
    assert "helper.py" in record.entry(folder)["code"]["problem"] and "helper.py" in printed
    record.write("train.py", "import helper, pathlib\npathlib.Path('helper.py').write_text('')\n")
    folder, _ = record("--", "python", "train.py")
    problem = record.entry(folder)["code"].get("problem", "")
    assert "helper.py" not in problem, "an edit after the import harms nothing"


def test_a_command_runs_where_it_was_typed(record):
    record.write("sub/run.sh", "pwd; echo $LAB_OUTPUT >$LAB_OUTPUT/file; echo $LAB_RUN\n")
    folder, printed = record("--", "bash", "run.sh", cwd="sub")
    assert printed.splitlines() == [str(record.project / "sub"), folder.name]
    assert record.entry(folder)["meta"]["folder"] == "sub"
    output = record.project / "data/digits/models" / folder.name
    assert (output / "file").read_text() == f"{output}\n"


@pytest.mark.slow
def test_a_new_folder_is_named_with_the_line_that_declares_it(record):
    record.write("make.sh", "mkdir -p out; echo $1 >out/file; echo b >out/big\n")
    run_git(record.project, "add", "make.sh")
    folder, printed = record("--", "bash", "make.sh", "1")
    assert 'outputs = ["out/"]' in printed
    settings = record.project / "pyproject.toml"
    settings.write_text(
        settings.read_text().replace("[tool.lab]\n", '[tool.lab]\noutputs = ["out/"]\n')
    )
    first, printed = record("--", "bash", "make.sh", "2")
    assert "outputs" not in printed
    second, _ = record("--", "bash", "make.sh", "3")
    commits = [record.entry(one)["code"]["commit"] for one in (first, second)]
    assert commits[0] == commits[1], "what a command writes there is in no snapshot"
    assert "out/" not in run_git(record.project, "ls-tree", "-r", "--name-only", commits[0])
    models = record.project / "data/digits/models"
    kept = [(models / one.name / "out/file").read_text() for one in (first, second)]
    assert kept == ["2\n", "3\n"], "each run keeps its own"
    record.write("see.sh", "cat out/file\n")
    for path in (record.project / "out").iterdir():
        path.unlink()
    record("--from", second.name, "--", "true")
    later, printed = record("--from", first.name, "--", "bash", "see.sh")
    assert printed == "2\n", "of that run, and not of the last one"
    record.write("out/mine", "")
    assert "mine" in record("--from", first.name, "--", "true")[1]
    record.write("out/file", "kept by no run")
    process = record.start("--from", first.name, "--", "true")
    assert "out/file" in process.communicate()[1] and process.returncode == 1
    assert record.entry(later)["meta"]["options"]["--from"] == first.name
    plan = reproduce.make_plan(later.name, "", record.entry(later), {})
    assert plan.earlier == first.name, "lab reproduce repeats it with the same outputs"


def test_two_loggers_of_one_point_make_one_point(record):
    record.write("tensorboardX/__init__.py", "from .writer import SummaryWriter\n")
    record.write(
        "tensorboardX/writer.py",
        "class SummaryWriter:\n    def add_scalar(self, tag, scalar_value, global_step=None):\n"
        "        print('written', tag)\n",
    )
    record.write(
        "train.py",
        "import wandb\nfrom tensorboardX import SummaryWriter\n"
        "SummaryWriter().add_scalar('loss', 1.5, 4)\nwandb.log({'loss': 1.5}, step=4)\n",
    )
    folder, printed = record("--", "python", "train.py")
    points = records.points(folder / "metrics.jsonl")
    assert [point[:3] for point in points] == [("loss", 4, 1.5)]
    assert "written loss" in printed, "their own calls go on"


def test_only_rank_0_makes_points_and_another_sitecustomize_is_imported(record):
    record.write("other/sitecustomize.py", "print('the other one')\n")
    record.write("train.py", "import wandb\nwandb.log({'loss': 1})\n")
    command = "RANK=1 python train.py; PYTHONPATH=$PYTHONPATH:other RANK= python train.py"
    folder, printed = record("--", "bash", "-c", command)
    assert len(records.points(folder / "metrics.jsonl")) == 1
    assert printed.count("the other one") == 1


@pytest.mark.slow
def test_the_record_has_the_dataset_that_a_command_was_told_and_a_later_one_wants_the_same(
    record, tmp_path
):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/a.csv").write_text("1,2")
    datasets.add("table", tmp_path / "tables")
    manifest = record.project / "data/table/manifest.json"
    data = {"dataset": "table", "manifest_sha256": sha256(manifest)}
    record.write("read.sh", "cat data/table/a.csv; echo >$LAB_OUTPUT/state\n")
    first, printed = record("--", "bash", "read.sh", "--data", "data/table/a.csv")
    assert "1,2" in printed and record.entry(first)["data"] == data
    record.write(
        "args.py",
        "import argparse\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--dataset', default='table')\nparser.parse_args()\n",
    )
    folder, _ = record("--", "python", "args.py")
    assert record.entry(folder)["data"] == data, "a default that only the script knows"
    assert record("--from", first.name, "--", "true")[0]
    manifest.write_text(manifest.read_text() + "\n")
    process = record.start("--from", first.name, "--", "true")
    _, said = process.communicate()
    assert process.returncode == 1 and "data/table" in said, "it would go on with other data"
    later, _ = record("--", "bash", "read.sh", "--data", "data/table/a.csv")
    whats = [row["what"] for row in records.comparison([first, later])]
    assert "data manifest" in whats


def test_data_leads_to_another_data_folder_and_changes_no_snapshot(record, tmp_path, monkeypatch):
    ignored = "/runs\n__pycache__/\n/data/*\n!/data/*.*\n!/data/*/\n/data/*/*\n!/data/*/*/\n"
    record.write(".gitignore", ignored + "/data/*/*/*\n!/data/*/*/.gitkeep\n")
    record.write("data/digits/train/.gitkeep", "")
    run_git(record.project, "add", "--all")
    run_git(record.project, "commit", "--quiet", "-m", "As the template has it")
    for name in ("v1.0/train/a.txt", "digits/train/b.txt"):
        (tmp_path / "big" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "big" / name).write_text(f"{name}\n")
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "big"))
    (record.project / "empty").mkdir()
    folder, printed = record("--", "cat", "data/v1.0/train/a.txt", "data/digits/train/b.txt")
    assert printed == "v1.0/train/a.txt\ndigits/train/b.txt\n"
    assert record.entry(folder)["code"]["commit"] == run_git(record.project, "rev-parse", "HEAD")


@pytest.mark.slow
def test_a_new_file_is_named_and_once_declared_each_run_keeps_its_own(record):
    record.write("make.sh", "echo $1 >weights.pt; echo >new.py\n")
    run_git(record.project, "add", "make.sh")
    _, printed = record("--", "bash", "make.sh", "1")
    assert 'outputs = ["weights.pt"]' in printed and "new.py" not in printed
    settings = record.project / "pyproject.toml"
    outputs = '[tool.lab]\noutputs = ["weights.pt"]\n'
    settings.write_text(settings.read_text().replace("[tool.lab]\n", outputs))
    first, printed = record("--", "bash", "make.sh", "2")
    assert "weights.pt" not in printed
    record("--", "bash", "make.sh", "3")
    models = record.project / "data/digits/models"
    assert (models / first.name / "weights.pt").read_text() == "2\n"
    (record.project / "weights.pt").unlink()
    assert record("--from", first.name, "--", "cat", "weights.pt")[1] == "2\n"


def test_a_file_that_keeps_the_time_of_its_source_is_output_as_well(record):
    """As cp -p, tar and wget make it."""
    settings = record.project / "pyproject.toml"
    settings.write_text(settings.read_text().replace("[tool.lab]", "[tool.lab]\noutputs = ['out']"))
    record.write("out/before", "")
    folder, _ = record("--", "sh", "-c", "echo 1 >out/copy; touch -t 200101010000 out/copy")
    kept = record.project / "data/digits/models" / folder.name / "out"
    assert [path.name for path in kept.iterdir()] == ["copy"]


def test_outputs_are_restored_whole_or_not_at_all(project, monkeypatch):
    """Else the next attempt of a job would find a part, which no run has kept, and stop there."""
    kept = project / "data/digits/models/first/out/state"
    kept.parent.mkdir(parents=True)
    kept.write_text("whole")

    def cut_off(source, target):
        Path(target).write_text("wh")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(outputs.shutil, "copy2", cut_off)
        with pytest.raises(OSError, match="No space left"):
            outputs.restore("first", ["out"])
    assert not list((project / "out").iterdir())
    outputs.restore("first", ["out"])
    assert (project / "out/state").read_text() == "whole"


OWN = """
import sys
if not sys.argv:
    from lab import tracking
    tracking.Experiment(int)
print(sys.argv[1:])
sys.exit(3)
"""


def test_what_records_itself_runs_as_it_is_with_the_options_of_its_record(record):
    record.write("src/my_experiment/own.py", OWN)
    command = ("python", "-m", "my_experiment.own", "with", "lr=1")
    process = record.start("--name", "a b", "--", *command, cwd="src")
    out, err = process.communicate()
    assert (process.returncode, out) == (3, "['--name', 'a b', 'with', 'lr=1']\n"), err
    assert len(err.splitlines()) == 1 and not (record.project / "runs").exists()
    process = record.start("--from", "last", "--", *command)
    assert process.communicate() and process.returncode == 2
    process = record.start("--name", "a", "--", "lab", "runs")
    assert process.communicate() and process.returncode == 2


NESTED = """
import wandb
from lab.ground import project
from lab.recording.record_files import now
from lab.recording.recorder import RunFolder

wandb.log({"loss": 1})
own = RunFolder(project.runs_folder())
facts = {"name": "own", "base_dir": ".", "sources": []}
own.started_event(facts, "own", {}, now(), {}, {}, "own")
wandb.log({"loss": 2})
own.completed_event(now(), None)
wandb.log({"loss": 3})
"""


def test_a_run_with_a_record_of_its_own_gives_no_points_to_the_one_around_it(record):
    record.write("train.py", NESTED)
    record("--", "bash", "-c", "python train.py")
    (folder,) = (path for path in (record.project / "runs").glob("2*"))
    assert [value for _, _, value, _ in records.points(folder / "metrics.jsonl")] == [1, 3]


def test_sacreds_sources_are_without_an_environment_in_the_project(record):
    record.write("sacred/__init__.py", "")
    record.write(
        "sacred/dependencies.py",
        "import os\ndef iterate_all_python_files(base_path):\n"
        "    for folder, _, names in os.walk(base_path):\n"
        "        yield from (f'{folder}/{one}' for one in names if one.endswith('.py'))\n",
    )
    record.write("env/pyvenv.cfg", f"home = {Path(sys.base_prefix, 'bin')}\n")
    record.write("env/lib/numpy.py", "")
    (record.project / "env/bin").mkdir()
    (record.project / "env/bin/python").symlink_to(Path(sys.executable).resolve())
    record.write(
        "train.py",
        "from sacred import dependencies\nimport os\n"
        "for one in dependencies.iterate_all_python_files(os.getcwd()): print('source', one)\n",
    )
    record.write(".gitignore", "/env\n__pycache__/\n/runs\n/data\n")
    _, printed = record("--", "env/bin/python", "train.py")
    found = {Path(line[7:]).name for line in printed.splitlines() if line.startswith("source")}
    assert {"train.py", "helper.py"} <= found and "numpy.py" not in found


def test_outputs_from_another_computer_come_without_their_record_and_for_the_same_data(
    record, tmp_path
):
    settings = record.project / "pyproject.toml"
    settings.write_text(settings.read_text().replace("[tool.lab]", "[tool.lab]\noutputs = ['out']"))
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/a.csv").write_text("1,2")
    datasets.add("table", tmp_path / "tables")
    record.write("data/table/models/20260101-x/out/state", "7")
    told = f"table={sha256(record.project / 'data/table/manifest.json')}"
    _, printed = record("--from", "20260101-x", "--data", told, "--", "cat", "out/state")
    assert printed == "7"
    process = record.start("--from", "20260101-x", "--data", "table=0", "--", "cat", "out/state")
    assert "data/table" in process.communicate()[1] and process.returncode == 1


def test_a_file_that_git_ignores_is_named_as_the_commit_has_it_not(record):
    record.write(".gitignore", "/runs\n/data\n__pycache__/\nhidden.py\nignored.sh\n")
    record.write("hidden.py", "")
    record.write("ignored.sh", "true\n")
    record.write("see.py", "import hidden\n")
    folder, printed = record("--", "python", "see.py")
    assert "hidden.py" in record.entry(folder)["code"]["problem"] and "hidden.py" in printed
    folder, _ = record("--", "bash", "ignored.sh")
    assert "ignored.sh" in record.entry(folder)["code"]["problem"]


@pytest.mark.parametrize("text", ['"out"', '["../x"]', '["/x"]', "[5]", '[""]'])
def test_outputs_are_folders_in_the_project_or_refused(project, text):
    settings = project / "pyproject.toml"
    settings.write_text(settings.read_text().replace("[tool.lab]", f"[tool.lab]\noutputs = {text}"))
    current.reload()
    with pytest.raises(LabError):
        current.outputs()
