"""No point of a run is lost, whatever happens while it is written."""

import json
import math
import os
import threading

import pytest

from lab.recording import metrics_file


@pytest.fixture
def metrics(tmp_path):
    return metrics_file.Metrics(tmp_path)


def recorded(metrics):
    """The points in metrics.jsonl, as (metric, step, value)."""
    lines = metrics.lines.path.read_text().splitlines()
    return [(p["metric"], p["step"], p["value"]) for p in map(json.loads, lines)]


def test_a_point_that_another_thread_adds_during_a_flush_is_not_lost(metrics, monkeypatch):
    """The flush is held in its write until the other thread has added a point."""
    append = metrics.lines.append

    def append_after_another_point(data=b""):
        thread = threading.Thread(target=metrics.add, args=(2, {"loss": 0.25}))
        thread.start()
        thread.join()
        append(data)

    metrics.add(1, {"loss": 0.5})
    monkeypatch.setattr(metrics.lines, "append", append_after_another_point)
    metrics.flush()
    monkeypatch.undo()
    metrics.flush()
    assert recorded(metrics) == [("loss", 1, 0.5), ("loss", 2, 0.25)]


def test_what_cannot_be_written_waits_and_is_written_once(metrics, monkeypatch):
    """The disk takes seven bytes, then it is full; later there is room."""
    write, calls = os.write, []

    def write_little(file, data):
        calls.append(data)
        if len(calls) > 1:
            raise OSError("No space left on device")
        return write(file, data[:7])

    metrics.add(1, {"loss": 0.5})
    monkeypatch.setattr(os, "write", write_little)
    with pytest.raises(OSError, match="No space"):
        metrics.flush()
    monkeypatch.undo()
    metrics.add(2, {"loss": 0.25})
    metrics.flush()
    assert recorded(metrics) == [("loss", 1, 0.5), ("loss", 2, 0.25)]
    assert metrics.events.path.read_bytes().count(b"loss") == 2
    assert not metrics.events.waiting


def test_a_removed_file_is_an_error_and_not_made_again(metrics):
    metrics.lines.path.unlink()
    metrics.add(1, {"loss": 0.5})
    with pytest.raises(FileNotFoundError):
        metrics.flush()
    assert not metrics.lines.path.exists()


@pytest.mark.parametrize("value", [0.1, 1e-300, math.nan, math.inf, -math.inf, 7])
def test_a_value_is_valid_json_from_which_float_makes_the_same_value(metrics, value):
    metrics.add(1, {'odd "name"\n': value})
    metrics.flush()
    text = metrics.lines.path.read_text()
    point = json.loads(text, parse_constant=pytest.fail)
    assert text.count("\n") == 1
    assert repr(float(point["value"])) == repr(float(value))


@pytest.mark.parametrize(("step", "value"), [(2**63, 1), (-(2**63) - 1, 1), (1, "no number")])
def test_what_could_not_be_written_later_is_refused_at_once(metrics, step, value):
    with pytest.raises(ValueError, match=r"step|number"):
        metrics.add(step, {"loss": value})
    assert not metrics.points


def test_add_asks_for_a_flush_when_many_points_wait(metrics):
    assert not any(metrics.add(step, {"loss": 0}) for step in range(metrics_file.BATCH - 1))
    assert metrics.add(metrics_file.BATCH, {"loss": 0})


def test_sacreds_metrics_json_has_every_point_in_sacreds_form(metrics, tmp_path):
    odd = 'odd "name", "step": 7\n\u00df'
    metrics.add(1, {"loss": 0.5, odd: math.nan}, 1795342074.305)
    metrics.add(-2, {"loss": -math.inf}, 1795342074.0)
    metrics.flush()
    metrics.lines.append(b'{"metric": "loss", "step": 3, "val')  # cut off
    metrics_file.write_for_sacred(metrics.lines.path, tmp_path / "metrics.json")
    content = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert content == {
        "loss": {
            "steps": [1, -2],
            "timestamps": ["2026-11-22T10:07:54.305000", "2026-11-22T10:07:54.000000"],
            "values": [0.5, "-Infinity"],
        },
        odd: {"steps": [1], "timestamps": ["2026-11-22T10:07:54.305000"], "values": ["NaN"]},
    }


def test_without_points_sacreds_metrics_json_is_empty(metrics, tmp_path):
    metrics_file.write_for_sacred(metrics.lines.path, tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text()) == {}


def test_a_bad_name_or_value_does_not_lose_the_other_points(metrics):
    odd = "\ud800" + "x" * 10_000
    metrics.add(1, {"loss": 0.5, odd: 1.0})
    with pytest.raises(ValueError, match="huge is too large"):
        metrics.add(2, {"huge": 10**5000, "loss": 0.25})
    with pytest.raises(ValueError, match="one"):
        metrics.add(3, {"word": "one", "loss": 0.125})
    with pytest.raises(ValueError, match="64 bits"):
        metrics.add(10**5000, {"loss": 0.25})
    metrics.flush()
    assert recorded(metrics) == [
        ("loss", 1, 0.5),
        (odd, 1, 1.0),
        ("loss", 2, 0.25),
        ("loss", 3, 0.125),
    ]
    assert metrics.events.path.read_bytes().count(b"loss") == 3
