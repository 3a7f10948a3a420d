"""Of the errors of a distributed run, the one that came first is its failure."""

import os
import threading
from datetime import datetime, timezone

import pytest

from lab.recording import ranks

CAUSE = "Traceback (most recent call last):\n  x = data[7]\nValueError: rank 1 has no data\n"
CLOSED = (
    "Traceback (most recent call last):\nRuntimeError: Connection closed by peer [127.0.0.1]:9\n"
)
WHEN = datetime(2026, 11, 29, 10, 0, 5)
SECONDS = WHEN.replace(tzinfo=timezone.utc).timestamp()


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """A launch of three: a function that reports a rank's error, at so many seconds after WHEN."""
    monkeypatch.setenv("WORLD_SIZE", "3")

    def report(rank, text, after):
        monkeypatch.setenv("RANK", str(rank))
        ranks.report_error(tmp_path, text)
        path = ranks.launch_folder(tmp_path) / f"rank-{rank}.txt"
        os.utime(path, (SECONDS + after, SECONDS + after))

    report.runs = tmp_path
    return report


def find(launch, own):
    return ranks.find_first(own, WHEN, ranks.take_errors(launch.runs))


def test_the_rank_that_failed_first_is_named_not_the_one_that_lost_its_connection(launch):
    launch(1, CLOSED, -1)
    launch(2, CAUSE, 1)  # reported late: it was still unwinding
    assert find(launch, CLOSED) == ("rank-2", SECONDS + 1, CAUSE)
    assert not ranks.launch_folder(launch.runs).exists()


def test_of_several_causes_the_earliest_counts(launch):
    launch(1, CAUSE, 0.5)
    assert find(launch, "KeyError: 1").rank == "rank-0"
    launch(1, CAUSE, -0.5)
    assert find(launch, "KeyError: 1").rank == "rank-1"


def test_without_an_error_of_its_own_rank_0_was_ended_because_of_another(launch):
    launch(1, CLOSED, -2)
    assert find(launch, "").rank == "rank-1"


def test_an_error_that_is_still_on_its_way_is_waited_for(launch, monkeypatch):
    launch(1, CLOSED, 0)
    monkeypatch.setattr(ranks, "WAIT", 60)
    monkeypatch.setenv("RANK", "2")
    timer = threading.Timer(0.2, ranks.report_error, (launch.runs, CAUSE))
    timer.start()
    found = ranks.take_errors(launch.runs, wait=True)
    timer.join()
    assert [failure.rank for failure in found] == ["rank-1", "rank-2"]


def test_other_ranks_take_the_run_that_rank_0_has_chosen_and_wait_for_it(tmp_path, monkeypatch):
    choice = {"resume": "20261129-100000-abcdef"}
    ranks.share_choice(tmp_path, choice)
    assert not list(tmp_path.iterdir()), "a run of one process has nobody to tell"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ranks.await_choice(tmp_path) == {}, "rank 0 chooses"
    taken: list[dict[str, str]] = []
    monkeypatch.setenv("RANK", "1")
    ranks.share_choice(tmp_path, {"resume": "of another rank"})
    waiting = threading.Event()
    monkeypatch.setattr(ranks.time, "sleep", lambda _: waiting.set())
    slow = threading.Thread(target=lambda: taken.append(ranks.await_choice(tmp_path)))
    slow.start()
    assert waiting.wait(60), "rank 0 has not come so far"
    monkeypatch.setenv("RANK", "0")
    ranks.share_choice(tmp_path, choice)
    slow.join()
    assert taken == [choice]
    monkeypatch.setattr(ranks, "PATIENCE", 0.0)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert ranks.await_choice(tmp_path) == {}, "of another launch"


def test_what_a_killed_launch_has_left_is_nobodys_choice(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    ranks.share_choice(tmp_path, {"resume": "x"})
    path = ranks.launch_folder(tmp_path) / ranks.CHOICE
    before = path.stat().st_mtime - ranks.STALE - 1
    os.utime(path, (before, before))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(ranks, "PATIENCE", 0.1)
    assert ranks.await_choice(tmp_path) == {}
