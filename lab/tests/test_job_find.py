"""A job is found by its id, a part of it, or its name; what is not exactly one job is an error."""

import pytest

from lab.jobs import control
from lab.jobs.control import Job, JobNotFound
from lab.transfer import report

IDS = ["20260101-101530-k7xq2a", "20260101-101530-bbbb2a", "20260102-000000-cccccc"]


class Gpu:
    name = "gpu"


@pytest.fixture
def jobs(monkeypatch):
    """Three jobs on the machine; the list of them can be changed."""
    names = ("first", "second", "k7xq2a")
    listed = [
        Job(id, "running", "", None, 1, "", {"name": name})
        for id, name in zip(IDS, names, strict=True)
    ]
    monkeypatch.setattr(control, "list_jobs", lambda *_: listed)
    return listed


@pytest.mark.parametrize(
    ("wanted", "id"),
    [
        (None, IDS[2]),
        (IDS[0], IDS[0]),
        ("20260101-101530-zzzzzz", "20260101-101530-zzzzzz"),  # whole ids are not looked up
        ("20260102", IDS[2]),
        ("b2a", IDS[1]),
        ("second", IDS[1]),
    ],
)
def test_exactly_one_job_is_found(jobs, wanted, id):
    assert control.find(Gpu(), wanted) == id


def test_more_than_one_job_is_an_error_that_names_them(jobs):
    with pytest.raises(JobNotFound) as caught:
        control.find(Gpu(), "k7xq2a")  # the end of one id, and a name
    assert str(caught.value) == f"2 jobs on gpu match k7xq2a: {IDS[0]}, {IDS[2]}."


def test_no_job_is_an_error_that_names_the_newest(jobs):
    with pytest.raises(JobNotFound) as caught:
        control.find(Gpu(), "third")
    newest = ", ".join(IDS)
    assert str(caught.value) == f"there is no job third on gpu; the newest are: {newest}."
    jobs.clear()
    for wanted in (None, "third"):
        with pytest.raises(JobNotFound, match=r"^there are no jobs on gpu yet\.$"):
            control.find(Gpu(), wanted)


def test_what_is_no_job_may_be_a_run_to_fetch(jobs):
    assert report.find_job(Gpu(), "second") == IDS[1]
    assert report.find_job(Gpu(), "20260103-101530-aaaaaa") == "20260103-101530-aaaaaa"
    with pytest.raises(JobNotFound):
        report.find_job(Gpu(), "third")
