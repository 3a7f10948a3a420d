"""A job that is started again continues its record, and an older attempt writes no more."""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from any_text import quickly
from hypothesis import given
from hypothesis import strategies as st
from test_recorded_command import Recorder

from lab.cli.main import main
from lab.ground import attempts, files, interrupts
from lab.ground.errors import LabError
from lab.recording import continued_record, drafts, metrics_file
from lab.recording.command import points as command_points
from lab.recording.record_files import now
from lab.recording.recorder import RunFolder
from lab.runs import records


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A function that makes this process an attempt of a job; returns the job's folder."""
    folder = tmp_path / "job"
    folder.mkdir()
    monkeypatch.setenv("LAB_JOB_FOLDER", str(folder))

    def begin(number: int, newest: int = 0) -> Path:
        monkeypatch.setenv("LAB_ATTEMPT", str(number))
        (folder / "attempt").write_text(f"{newest or number}\n")
        return folder

    return begin


@pytest.fixture
def ended(monkeypatch):
    """The exit codes of check(), which does not end this process as it otherwise would."""

    class End(BaseException):
        pass

    def leave(code):
        raise End(code)

    monkeypatch.setattr(os, "_exit", leave)
    return End


FLOATS = st.floats(allow_nan=False) | st.just(math.nan)  # JSON has no -NaN


def points_of(folder: Path) -> list[tuple[str, int, float]]:
    return [point[:3] for point in records.points(folder / "metrics.jsonl")]


def events_of(folder: Path) -> list[bytes]:
    """The points in the event file of a record: every event that has a summary, field 5."""
    (file,) = (folder / "tensorboard").glob("events.out.*")
    content, events = file.read_bytes(), []
    while content:
        size = 12 + int.from_bytes(content[:8], "little")
        events.append(content[12:size])
        content = content[size + 4 :]
    return sorted(event for event in events if event[20] == 0x2A)


def test_without_an_attempt_nothing_is_looked_at(monkeypatch, tmp_path):
    monkeypatch.delenv("LAB_JOB_FOLDER", raising=False)
    attempts.check()
    assert (
        not continued_record.is_from_earlier("x")
        and continued_record.judge_end("TERMINATED") == "TERMINATED"
    )
    assert attempts.number() == 0 and attempts.report_interruption(143) == 143
    assert continued_record.choose_id(["x"]) is None and not interrupts.should_stop()


def test_only_an_attempt_that_a_newer_one_has_replaced_ends(job, ended):
    folder = job(2, newest=2)
    attempts.check()
    for text in ("1\n", "", "no number\n"):  # an older one, or what cannot be read, ends nobody
        (folder / "attempt").write_text(text)
        attempts.check()
    (folder / "attempt").unlink()
    attempts.check()
    (folder / "attempt").write_text("10\n")
    with pytest.raises(ended, match="75"):
        attempts.check()


def test_the_exit_code_says_whether_the_job_goes_on(job):
    folder = job(1)
    assert attempts.report_interruption(143) == attempts.GO_ON
    assert (folder / "interrupted.1").exists()
    (folder / "stop").touch()
    assert attempts.report_interruption(143) == 143


@pytest.mark.slow
@quickly
@given(
    logged=st.lists(st.tuples(st.sampled_from(["a", "b/ü"]), FLOATS), max_size=8),
    data=st.data(),
)
def test_points_are_dropped_wherever_the_file_was_cut_off(logged, data, tmp_path_factory):
    """The points before a checkpoint stay, and with the new ones they are as without the cut."""
    folder = tmp_path_factory.mktemp("record")
    saved = data.draw(st.integers(0, len(logged)), "points before the checkpoint")

    def log(metrics, first, last):
        for step in range(first, last):
            metrics.add(step, {logged[step][0]: logged[step][1]}, 1.0)

    earlier = metrics_file.Metrics(folder)
    log(earlier, 0, saved)
    size = earlier.save()
    log(earlier, saved, len(logged))
    earlier.flush()
    lines, whole = folder / "metrics.jsonl", (folder / "metrics.jsonl").read_bytes()
    os.truncate(lines, data.draw(st.integers(size, len(whole)), "bytes left by the kill"))
    for _ in range(data.draw(st.integers(1, 2), "attempts")):
        later = metrics_file.Metrics(folder)
        later.keep(size)
        assert lines.read_bytes() == whole[:size]
    log(later, saved, len(logged))
    later.flush()
    assert lines.read_bytes() == whole
    if logged:
        one_go = folder / "one-go"
        one_go.mkdir()
        reference = metrics_file.Metrics(one_go)
        for first, last in ((0, saved), (saved, len(logged))):
            log(reference, first, last)
            reference.flush()
        assert events_of(folder) == events_of(one_go)


def test_without_a_checkpoint_all_points_are_dropped_at_the_first_new_one(tmp_path):
    earlier = metrics_file.Metrics(tmp_path)
    earlier.add(1, {"loss": 0.5})
    earlier.flush()
    later = metrics_file.Metrics(tmp_path)
    later.flush()
    assert points_of(tmp_path) == [("loss", 1, 0.5)], "until there is something new"
    later.add(1, {"loss": 0.25})
    later.flush()
    assert points_of(tmp_path) == [("loss", 1, 0.25)]


def test_points_that_a_checkpoint_promises_and_the_file_lacks_are_reported(tmp_path):
    earlier = metrics_file.Metrics(tmp_path)
    earlier.add(1, {"loss": 0.5})
    earlier.flush()
    later = metrics_file.Metrics(tmp_path)
    with pytest.raises(ValueError, match="checkpoint"):
        later.keep(10_000)
    assert points_of(tmp_path) == [("loss", 1, 0.5)]


def test_what_an_older_attempt_writes_after_its_last_look_is_in_no_file(tmp_path, monkeypatch):
    """It stands still between looking at the claim and writing, until the newer one has begun."""
    older = metrics_file.Metrics(tmp_path)
    older.add(1, {"loss": 0.5})
    older.flush()
    older.add(2, {"loss": 0.25})

    def begin_newer():
        monkeypatch.setattr(attempts, "check", lambda: None)
        newer = metrics_file.Metrics(tmp_path)
        newer.keep((tmp_path / "metrics.jsonl").stat().st_size)
        newer.add(2, {"loss": 0.125})
        newer.flush()

    monkeypatch.setattr(attempts, "check", begin_newer)
    with pytest.raises(FileNotFoundError):  # its event file is gone
        older.flush()
    assert points_of(tmp_path) == [("loss", 1, 0.5), ("loss", 2, 0.125)]
    assert len(events_of(tmp_path)) == 2


def test_a_draft_is_removed_from_under_an_attempt_that_is_about_to_rename_it(tmp_path):
    (tmp_path / "step-1-1.new").mkdir()
    (tmp_path / "step-1-1.new/state.json").touch()
    (tmp_path / "best-1.new").touch()
    (tmp_path / "step-0").mkdir()
    drafts.remove_drafts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0"]
    with pytest.raises(FileNotFoundError):
        (tmp_path / "step-1-1.new").rename(tmp_path / "step-1")


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, is_folder):
    """The older one may be deleted now: after a power failure one of them has to be whole."""
    target, synced = tmp_path / "step-2", []

    def sync(file):
        synced.append((os.fstat(file).st_ino, target.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    with drafts.saving(target) as draft:
        written = [draft]
        if is_folder:
            (draft / "ranks").mkdir(parents=True)
            (draft / "latest").symlink_to("of another computer")
            written = [draft / "state.json", draft / "ranks/0.pt"]
        for path in written:
            path.write_text("1")
        inodes = [path.stat().st_ino for path in (draft, *written)]
    assert {(one, False) for one in inodes} <= set(synced)
    assert synced[-1] == (tmp_path.stat().st_ino, True), "and so is its name, after that"


def test_a_checkpoint_that_does_not_reach_the_disk_gets_no_name(tmp_path, monkeypatch):
    def fail(file):
        raise OSError(28, "No space left on device")  # some disks say so only now

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(LabError, match="No space left"), drafts.saving(tmp_path / "best") as draft:
        draft.write_text("1")
    assert not list(tmp_path.iterdir())


def test_a_command_that_records_several_runs_finds_each_again(job):
    job(1)
    first, second, same = (continued_record.choose_id(words) for words in (["a"], ["b"], ["a"]))
    assert len({first, second, same}) == 3
    job(2)
    assert continued_record.find_earlier(["a"]) == first
    assert continued_record.choose_id(["a"]) == first
    assert continued_record.choose_id(["a"]) == same
    new = continued_record.choose_id(["a"])
    assert new not in (first, second, same)
    job(3)
    assert [continued_record.choose_id(words) for words in (["b"], ["a"])] == [second, first]
    assert continued_record.is_from_earlier(new) and not continued_record.is_from_earlier("x")


def test_a_later_attempt_removes_the_drafts_of_lab_and_nothing_else(project, job):
    start = ({"base_dir": ".", "sources": []}, "x", {}, now(), {}, {})
    job(1)
    first = RunFolder(project / "runs")
    id = first.started_event(*start, continued_record.choose_id(["x"]))
    first.interrupted_event(now(), "INTERRUPTED")
    for folder in (first.folder, first.folder / "tensorboard"):
        (folder / ".ipynb_checkpoints").mkdir(parents=True)  # of Jupyter
        (folder / ".nfs00000000012345678").touch()  # of NFS: it may be busy
        with suppress(FileNotFoundError), files.replacing(folder / "run.json") as draft:
            draft.write_text("a part")
            draft.rename(folder / draft.name.replace(".run", ".killed"))
    job(2)
    later = RunFolder(project / "runs")
    assert later.started_event(*start, continued_record.choose_id(["x"])) == id
    later.completed_event(now(), None)
    for folder in (first.folder, first.folder / "tensorboard"):
        hidden = sorted(path.name for path in folder.glob(".*"))
        assert hidden == [".ipynb_checkpoints", ".nfs00000000012345678"]


def test_an_attempt_that_was_replaced_before_it_noted_its_run_makes_none(job, ended, monkeypatch):
    """It stands still before it writes the line, until the newer one has chosen an id."""
    folder, append = job(1), os.open

    def begin_newer(*arguments):
        (folder / "attempt").write_text("2\n")
        monkeypatch.setattr(os, "open", append)
        return append(*arguments)

    monkeypatch.setattr(os, "open", begin_newer)
    with pytest.raises(ended, match="75"):
        continued_record.choose_id(["a"])


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", interrupts.ASKING)
def test_a_signal_asks_a_run_that_looks_for_it_and_ends_another(job, number):
    folder = job(1)
    with interrupts.as_exceptions():
        assert (folder / "listens.1").exists()
        assert not interrupts.should_stop()
        os.kill(os.getpid(), number)
        assert interrupts.should_stop()
        assert interrupts.Interrupted().number == number
    with pytest.raises(interrupts.Terminated), interrupts.as_exceptions():
        os.kill(os.getpid(), number)


def test_workers_ignore_the_signals_until_the_run_has_ended(job):
    """Like the workers of torch's DataLoader: forked, and ended by SIGTERM."""
    job(1)
    fork = multiprocessing.get_context("fork")
    with interrupts.as_exceptions():
        interrupts.should_stop()
        ready, told, seen = fork.Event(), fork.Event(), fork.Event()

        def work():
            interrupts.ignore_in_worker(0)
            ready.set()
            told.wait()
            seen.set()
            while True:  # signal.pause() would miss a signal that arrives just before it
                time.sleep(0.05)

        worker = fork.Process(target=work)
        worker.start()
        assert ready.wait(60)
        for number in interrupts.ASKING:
            os.kill(worker.pid, number)
        told.set()
        assert seen.wait(60)
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == -signal.SIGTERM


# --- any command ---------------------------------------------------------------------------------

SCRIPT = """
import os, signal, sys, time, wandb
from pathlib import Path
told, state = [], Path(os.environ["LAB_OUTPUT"], "state")
if "listens" in sys.argv:
    signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
first = int(state.read_text()) if state.exists() else 0
for step in range(first, 6):
    wandb.log({"loss": 1 / (step + 1)}, step=step)
    if step == 2 and first == 0:  # the points of steps 1 and 2 come again
        state.write_text("1")
        print("cut", flush=True)
        while not told:
            time.sleep(0.01)
        raise SystemExit(4)
"""


@pytest.fixture
def record(project, capfd, monkeypatch) -> Recorder:
    recorder = Recorder(project, capfd, monkeypatch)
    recorder.write("goes_on.py", SCRIPT)
    return recorder


@pytest.mark.slow
@pytest.mark.parametrize("words", [("listens",), ()])
def test_a_recorded_command_goes_on_in_its_record_and_output(record, job, words):
    folder = job(1)
    command = ("--", "python", "goes_on.py", *words)
    process = record.start(*command, start_new_session=True)
    assert process.stdout.readline() == "cut\n"
    os.killpg(process.pid, signal.SIGUSR1)  # as Slurm does: to each process of the step
    said = process.communicate(timeout=60)
    assert process.returncode == attempts.GO_ON, said
    entry = record.entry(records.find("last"))
    assert entry["status"] == "INTERRUPTED" and (folder / "interrupted.1").exists()
    job(2)
    record(*command)
    (one,) = (record.project / "runs").glob("2*")
    entry = record.entry(one)
    assert entry["status"] == "COMPLETED"
    assert [a["state"] for a in entry["attempts"]] == ["INTERRUPTED", "COMPLETED"]
    assert points_of(one) == [("loss", step, 1 / (step + 1)) for step in range(6)]
    assert json.loads((one / "metrics.json").read_text())["loss"]["steps"] == list(range(6))
    assert (one / "cout.txt").read_text().count("cut") == 1


@pytest.mark.slow
def test_a_command_whose_recorder_was_killed_doubles_no_point(record, job):
    job(1)
    command = ("--", "python", "goes_on.py")
    for number in (1, 2):
        job(number)
        (record.project / "data/digits/models").mkdir(parents=True, exist_ok=True)
        process = record.start(*command, start_new_session=True)
        assert process.stdout.readline() == "cut\n"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        for state in (record.project / "data/digits/models").glob("*/state"):
            state.write_text("0")
    job(3)
    for state in (record.project / "data/digits/models").glob("*/state"):
        state.write_text("2")
    record(*command)
    folder = records.find("last")
    assert points_of(folder) == [("loss", step, 1 / (step + 1)) for step in range(6)]
    states = [one["state"] for one in record.entry(folder)["attempts"]]
    assert states == ["LOST", "LOST", "COMPLETED"]


@pytest.mark.parametrize("killed", [False, True])
def test_a_later_attempt_finds_its_own_outputs_and_not_those_it_began_from(
    record, job, monkeypatch, killed
):
    settings = record.project / "pyproject.toml"
    settings.write_text(settings.read_text().replace("[tool.lab]", "[tool.lab]\noutputs = ['out']"))
    first, _ = record("--", "sh", "-c", "mkdir out; echo of the first run >out/state")
    script = "cat out/state; echo $AT >out/state; exit $CODE"
    command = ("--from", first.name, "--", "sh", "-c", script)
    monkeypatch.setenv("AT", "half")
    monkeypatch.setenv("CODE", str(attempts.GO_ON))
    job(1)
    assert "of the first run" in record(*command, code=attempts.GO_ON)[1]
    if killed:  # it had written more, which no run has kept
        record.write("out/state", "half and more\n")
    job(2)
    monkeypatch.setenv("CODE", "0")
    _, printed = record(*command)
    assert printed == ("half and more\n" if killed else "half\n")


def test_the_stop_of_a_job_is_its_end(record, job):
    folder = job(1)
    process = record.start("--", "python", "goes_on.py")
    assert process.stdout.readline() == "cut\n"
    (folder / "stop").touch()
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert record.entry(records.find("last"))["status"] == "TERMINATED"


def test_an_older_attempt_of_a_command_ends_with_it_and_leaves_the_record(record, job, tmp_path):
    """The command's next point looks at the claim, as each point does."""
    record.write(
        "two.py",
        "import sys, wandb\nwandb.log({'loss': 1}, step=0)\nprint('cut', flush=True)\n"
        "sys.stdin.readline()\nwandb.log({'loss': 2}, step=1)\nprint('more', flush=True)\n",
    )
    folder = job(1)
    process = record.start("--", "python", "two.py", stdin=subprocess.PIPE)
    assert process.stdout.readline() == "cut\n"
    (folder / "attempt").write_text("2\n")
    out, _ = process.communicate("go on\n", timeout=60)
    assert process.returncode == attempts.GO_ON and "more" not in out
    one = records.find("last")
    assert points_of(one) == [("loss", 0, 1)]
    assert record.entry(one)["status"] == "RUNNING", "its state is the newer one's affair"


def test_points_that_come_again_replace_those_of_before(job, tmp_path):
    folder = tmp_path / "runs" / "x"
    folder.mkdir(parents=True)
    line = '{"metric": "%s", "step": %d, "value": %d, "time": 1}\n'
    old = [("a", step, 1) for step in range(4)] + [("b", 2, 1)]
    (folder / "metrics.jsonl").write_text("".join(line % one for one in old) + '{"metric": "a", ')
    job(2)
    later = command_points.LaterPoints(folder)
    assert points_of(folder) == old
    for step in (2, 3, 4):
        with later.path.open("a") as file:
            file.write(line % ("a", step, 2))
        later.merge()
    assert points_of(folder) == [*old[:2], old[4], ("a", 2, 2), ("a", 3, 2), ("a", 4, 2)]
    job(3)
    with later.path.open("a") as file:
        file.write(line % ("b", 2, 2))
    command_points.LaterPoints(folder)
    assert points_of(folder)[-1] == ("b", 2, 2) and ("b", 2, 1) not in points_of(folder)


POINT = '{"metric": "a", "step": %d, "value": %d, "time": 1}\n'


def test_later_points_are_appended_and_what_a_full_disk_cut_off_is_written_again(
    job, tmp_path, monkeypatch
):
    folder, command = tmp_path / "runs" / "x", [(step, 2) for step in range(1, 6)]
    folder.mkdir(parents=True)
    lines = folder / "metrics.jsonl"
    lines.write_text(POINT % (0, 1) + POINT % (1, 1))
    job(2)
    later = command_points.LaterPoints(folder)

    def log(number):
        with later.path.open("a") as file:
            file.write(POINT % command[number])

    log(0)
    later.merge()
    before = lines.stat().st_ino
    log(1)
    later.merge()
    log(2)
    with later.path.open("a") as file:
        file.write('{"metric": "a", ')  # it is being written
    later.merge()
    assert lines.stat().st_ino == before
    assert lines.read_text() == POINT % (0, 1) + "".join(POINT % one for one in command[:3])
    with later.path.open("r+") as file:
        file.truncate(later.merged)
    log(3)

    def fail(file):
        os.truncate(lines, lines.stat().st_size - 5)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            later.merge()
    log(4)
    later.merge()
    assert lines.read_text() == POINT % (0, 1) + "".join(POINT % one for one in command)


def test_points_of_two_killed_attempts_are_both_kept(job, tmp_path):
    folder = tmp_path / "runs" / "x"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").touch()
    for number, step in ((2, 1), (3, 2)):  # of one size
        (job(number) / f"points.x.{number}").write_text(POINT % (step, 1))
    job(4)
    command_points.LaterPoints(folder)
    assert points_of(folder) == [("a", 1, 1), ("a", 2, 1)]


@pytest.mark.slow
def test_show_and_runs_name_the_attempts(record, job, capfd):
    job(1)
    process = record.start("--", "python", "goes_on.py", start_new_session=True)
    assert process.stdout.readline() == "cut\n"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    job(2)
    record("--", "python", "goes_on.py")
    main(["show", "last"])
    shown = capfd.readouterr().out
    (line,) = [line for line in shown.splitlines() if line.startswith("attempts")]
    assert "LOST" in line and "COMPLETED" in line
    main(["runs", "--json"])
    assert [row["state"] for row in json.loads(capfd.readouterr().out)] == ["COMPLETED"]


def test_an_older_attempt_whose_draft_was_removed_ends_as_such(job, ended, tmp_path):
    """It was about to rename its last run.json when the newer one began: the record is complete."""
    job(1, newest=2)
    recorder = RunFolder(tmp_path / "runs")
    with pytest.raises(ended, match="75"):
        recorder.note_missing("its state", "No such file")
    assert not recorder.problem()
