"""The record of a run ends and says what it lacks, whatever fails at its end."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.recording import capture, code_state, ranks
from lab.recording.record_files import now
from lab.recording.recorder import RunFolder


@pytest.fixture
def recorder(repository) -> RunFolder:
    """The record of a run that has started."""
    recorder = RunFolder(repository / "runs")
    recorder.started_event({"base_dir": ".", "sources": []}, "x", {}, now(), {}, {}, None)
    return recorder


def read_entry(recorder: RunFolder) -> dict:
    return json.loads((recorder.folder / "run.json").read_text())


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (code_state.Imports, "problem"),
        (capture.StreamCapture, "stop"),
        (ranks, "take_errors"),
    ],
)
def test_a_fault_while_the_end_is_judged_is_noted_and_the_record_ends(
    recorder, monkeypatch, owner, name
):
    original = getattr(owner, name)

    def fail(*arguments):
        original(*arguments)
        raise ValueError("a fault of ours")

    monkeypatch.setattr(owner, name, fail)
    recorder.completed_event(now(), None)
    assert "a fault of ours" in recorder.problem()
    assert read_entry(recorder)["status"] == "FAILED", "the record is incomplete, and says so"


def test_the_error_of_another_rank_may_name_any_file(recorder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, text in ((1, "ValueError: data/\udcff.png \ud800\n"), (2, "x")):
        monkeypatch.setenv("RANK", str(rank))
        ranks.report_error(recorder.folder.parent, text)
    folder = ranks.launch_folder(recorder.folder.parent)
    (folder / "rank-2.txt").write_bytes(b"KeyError: \xff\n")  # of another version of lab
    monkeypatch.setenv("RANK", "0")
    recorder.failed_event(now(), ["RuntimeError: Connection closed by peer\n"])
    entry = read_entry(recorder)
    assert entry["status"] == "FAILED" and not recorder.problem()
    assert entry["fail_trace"] == ["ValueError: data/\\udcff.png \\ud800\n"]
    assert "KeyError: \ufffd" in (recorder.folder / "cout.txt").read_text()


@pytest.mark.parametrize("world", ["", "two", "1"])
def test_an_empty_variable_of_a_launcher_is_unset(repository, monkeypatch, world):
    """As after export RANK=$SLURM_PROCID outside of Slurm."""
    monkeypatch.setenv("RANK", "")
    monkeypatch.setenv("WORLD_SIZE", world)
    assert ranks.is_main_process() and not ranks.is_distributed()
    recorder = RunFolder(repository / "runs")
    recorder.started_event({"base_dir": ".", "sources": []}, "x", {}, now(), {}, {}, None)
    recorder.completed_event(now(), None)
    assert read_entry(recorder)["job"]["processes"] == 1


@pytest.fixture
def mongo(recorder, monkeypatch):
    """The observer for MongoDB, without Sacred, with a server that takes everything."""
    name = "lab.recording.sacred_import"
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(RunObserver=object))
    spec = importlib.util.spec_from_file_location("mongo", Path(ranks.__file__).parent / "mongo.py")
    mongo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mongo)
    mongo.OUTPUT = 5
    observer = mongo.Mongo("mongodb://server", recorder)
    beats = []
    observer.inner = SimpleNamespace(
        run_entry={"captured_out": "before"},
        heartbeat_event=lambda **facts: beats.append(facts["captured_out"]),
        completed_event=lambda: beats.append("end"),
    )
    observer.beats = beats
    return observer


def test_mongodb_gets_the_end_of_the_output(mongo, recorder):
    (recorder.folder / "cout.txt").write_text("12345678")
    mongo.heartbeat_event(captured_out="")
    assert mongo.beats == ["45678"]


def test_output_that_cannot_be_read_is_reported_once_and_not_raised(mongo, recorder, capsys):
    """Sacred would drop an observer that raises."""
    (recorder.folder / "cout.txt").unlink()
    for _ in range(2):
        mongo.heartbeat_event(captured_out="")
    mongo.completed_event()
    assert mongo.beats == ["before", "before", "end"]
    assert capsys.readouterr().err.count("MongoDB does not record this run") == 1
    mongo.inner = None
    mongo.heartbeat_event(captured_out="")  # no server, no reading
