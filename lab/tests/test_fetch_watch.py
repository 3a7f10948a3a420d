"""lab fetch --watch: it ends when the jobs and runs that it was asked for have ended."""

import json
import time

import pytest

from lab.cli import main, transfer
from lab.jobs import control
from lab.transfer import fetch

JOB, OTHER = "20260101-000000-aaaaaa", "20260101-000000-bbbbbb"
RUN = "20260101-000010-cccccc"


@pytest.fixture
def watched(machine, project, monkeypatch):
    """A function that watches a name, and returns how often it fetched.

    `states` are those of JOB each time that the machine is asked; OTHER never ends. `statuses` are
    those of RUN each time that it is fetched; `job` started it.
    """

    def watch(name, states, statuses, job):
        left, fetches = list(states), []

        def list_jobs(connection):
            state = left.pop(0)
            return [
                control.Job(id, one, "", None, None, "", {})
                for id, one in ((JOB, state), (OTHER, "running"))
            ]

        def bring(connection, names, models):
            fetches.append(names)
            folder = project / "runs" / RUN
            folder.mkdir(parents=True, exist_ok=True)
            content = {"status": statuses[len(fetches) - 1], "job": {"lab": job}}
            (folder / "run.json").write_text(json.dumps(content))
            return fetch.Report()

        monkeypatch.setattr(transfer, "connect", lambda args: machine.connection)
        monkeypatch.setattr(control, "list_jobs", list_jobs)
        monkeypatch.setattr(fetch, "fetch", bring)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        assert main.main(["fetch", "--watch", name]) == 0
        assert fetches == [[name]] * len(fetches)
        return len(fetches)

    return watch


@pytest.mark.parametrize("name", [JOB, RUN])
def test_a_job_or_its_run_is_watched_until_the_job_ends(watched, name):
    assert watched(name, ["queued", "running", "finished(0)"], ["RUNNING"] * 3, JOB) == 3


def test_a_run_that_no_job_started_is_watched_until_its_record_ends(watched):
    statuses = ["RUNNING", "RUNNING", "COMPLETED"]
    assert watched(RUN, ["running"] * 3, statuses, None) == 3
