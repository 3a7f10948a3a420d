"""A job is found by its id, its name or a part of the id; what is not exactly one is an error."""

import pytest

from lab.ground import owner
from lab.jobs import control
from lab.jobs.control import Job, JobNotFound, NotYours
from lab.ssh.machines import Machine
from lab.transfer import report

IDS = ["20260101-101530-k7xq2a", "20260101-101530-bbbb2a", "20260102-000000-cccccc"]


class Gpu:
    name = "gpu"
    machine = Machine("gpu", ssh="worker", folder="lab/x")


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
        ("k7xq2a", IDS[2]),  # a name, though it is the end of another id
    ],
)
def test_exactly_one_job_is_found(jobs, wanted, id):
    assert control.find(Gpu(), wanted) == id


def test_more_than_one_job_is_an_error_that_names_them(jobs):
    with pytest.raises(JobNotFound) as caught:
        control.find(Gpu(), "20260101")
    assert all(id in str(caught.value) for id in IDS[:2]) and IDS[2] not in str(caught.value)


def test_of_several_jobs_with_one_name_the_newest_is_found(jobs):
    jobs += [job._replace(id=f"2026010{day}-000000-dddddd") for day, job in enumerate(jobs, 3)]
    assert control.find(Gpu(), "first") == "20260103-000000-dddddd"
    assert control.find(Gpu(), "second") == "20260104-000000-dddddd"


@pytest.fixture
def shared(jobs, monkeypatch):
    """The second job is of this person and computer; the others are not, or of another laptop."""
    monkeypatch.setattr(owner, "name_owner", lambda: "ada@laptop.home.example.org")
    for index, by in enumerate(("bob@laptop", "ada@laptop.office.example.org", "ada@desktop")):
        jobs[index] = jobs[index]._replace(spec={"name": "same", "by": by})
    return jobs


def test_of_ones_own_jobs_only_those_of_this_computer_are_found(shared):
    assert [job.own for job in shared] == [False, True, False]
    assert control.find(Gpu(), "same", own=True) == IDS[1]
    assert control.find(Gpu(), "20260101", own=True) == IDS[1]
    assert control.find(Gpu(), None) == IDS[1], "the newest of one's own"


@pytest.mark.parametrize("wanted", ["k7xq2a", "20260102"])
def test_the_job_of_a_colleague_is_found_only_by_its_whole_id(shared, wanted):
    with pytest.raises(NotYours):
        control.find(Gpu(), wanted, own=True)
    assert control.find(Gpu(), wanted) in (IDS[0], IDS[2]), "as its output may be looked at"
    assert control.find(Gpu(), IDS[0], own=True) == IDS[0]


def test_a_job_without_an_owner_is_nobodys(jobs):
    with pytest.raises(NotYours):
        control.find(Gpu(), "first", own=True)


def test_no_job_is_an_error_that_names_the_newest(jobs):
    with pytest.raises(JobNotFound) as caught:
        control.find(Gpu(), "third")
    newest = ", ".join(IDS)
    assert str(caught.value) == f"there is no job third on gpu; the newest are: {newest}."
    jobs.clear()
    for wanted in (None, "third"):
        with pytest.raises(JobNotFound, match="^there are no jobs on gpu yet"):
            control.find(Gpu(), wanted)


def test_what_is_no_job_may_be_a_run_to_fetch(jobs):
    assert report.find_job(Gpu(), "second") == IDS[1]
    assert report.find_job(Gpu(), "20260103-101530-aaaaaa") == "20260103-101530-aaaaaa"
    with pytest.raises(JobNotFound):
        report.find_job(Gpu(), "third")
