"""What a job leaves in its checkout is reported, and fetched with the records."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from fake_machine import UNIQUE, until

from lab.jobs import launch
from lab.jobs.control import get
from lab.ssh.connection import Connection
from lab.transfer import clean, fetch, fetch_plan, report


@pytest.fixture
def project(repository) -> Path:
    (repository / ".gitignore").write_text("/runs\nignored\n")
    (repository / "notes.txt").write_text("as sent\n")
    return repository


def finish(machine, command: str):
    job = launch.start(machine.connection, ["sh", "-c", command], gpus="0")
    return machine.wait_for(job.id)


@pytest.mark.slow
def test_what_a_job_leaves_in_its_checkout_is_said_and_brought(machine, project, capsys):
    quiet = finish(machine, "mkdir __pycache__; touch __pycache__/a.pyc .hidden; rm notes.txt")
    assert quiet.detail == ""
    script = (
        "echo new >'a result'; mkdir deep; echo x >deep/ignored; echo edited >>notes.txt; exit 3"
    )
    job = finish(machine, script)
    assert job.state == "finished(3)" and "3 files" in job.detail and "lab fetch" in job.detail
    found = fetch.fetch(machine.connection)
    here = project / "jobs" / job.id / "code"
    brought = {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()}
    assert brought == {"a result", "deep/ignored", "notes.txt"}
    assert (here / "notes.txt").read_text() == "as sent\nedited\n"
    assert report.print_report(machine.connection, found) == 0
    assert job.id in capsys.readouterr().out
    assert fetch.fetch(machine.connection).files == 0
    status = ["git", "status", "--porcelain", "jobs"]
    assert subprocess.check_output(status, cwd=project) == b"", "no snapshot has them"


@pytest.mark.slow
def test_what_a_job_left_whose_runner_was_killed_is_said_and_brought(machine, project):
    script = "echo new >result; touch $HOME/up; exec sleep 1000"
    job = launch.start(machine.connection, ["sh", "-c", script], gpus="0")
    until((machine.home / "up").exists)
    assert fetch.fetch(machine.connection).files == 0, "it may still be written"
    runner = int((machine.folder / "jobs" / job.id / "pid").read_text().split()[0])
    os.killpg(runner, signal.SIGKILL)
    until(lambda: machine.get(job.id).state == "lost")
    assert "lab fetch" in machine.get(job.id).detail
    assert [item.kind for item in clean.find(machine.connection)].count("kept") == 1
    fetch.fetch(machine.connection)
    assert (project / "jobs" / job.id / "code/result").read_text() == "new\n"
    clean.remove(machine.connection, clean.find(machine.connection))
    assert "lab fetch" not in machine.get(job.id).detail


def test_what_a_job_left_whose_step_slurm_has_killed_is_said_and_listed(machine, committed):
    slurm = Connection(machine.connection.machine._replace(scheduler="slurm"))
    (machine.folder / "runs").mkdir()
    expected = {}
    for number, counted in enumerate((False, True)):
        id = f"20260101-00000{number}-{UNIQUE}"
        about = {"submitted": "1000\n", "attempt": "1\n", "began.1": "1010 n 7\n"}
        about |= {"phase": "running 1010\n", "exit_code": "137 1100\n"}
        job = machine.job(id, **about, **({"ended.1": "137 1100\n"} if counted else {}))
        shutil.rmtree(job / "code")
        clone = ["git", "clone", "-q", f"--separate-git-dir={job}/git", committed, job / "code"]
        subprocess.run(clone, check=True)
        (job / "code/result").touch()
        expected[id] = counted
    for id, counted in expected.items():
        assert ("lab fetch" in get(slurm, id).detail) != counted
    found = fetch_plan.list_remote(slurm, [], models=False).files["jobs"]
    assert [path.split("/")[0] for path in found] == [
        id for id, counted in expected.items() if not counted
    ]


@pytest.mark.slow
def test_links_to_datasets_are_nothing_that_a_job_has_left(machine, project):
    dataset = machine.folder / "data/digits"
    (dataset / "train").mkdir(parents=True)
    (project / "data/digits").mkdir(parents=True)
    (project / "data/digits/.gitkeep").touch()
    # as lab record does for a command that opens data/...
    links = 'ln -s "$LAB_DATA/digits/train" data/digits/train; ln -s "$LAB_DATA/digits" data/more'
    assert finish(machine, links).detail == ""
    assert "checkout" in [item.kind for item in clean.find(machine.connection)]
    elsewhere = finish(machine, f"{links}; ln -s /etc/hostname strange")
    assert "1 file" in elsewhere.detail
    found = fetch.fetch(machine.connection)
    assert [Path(path).name for path in found.skipped] == ["strange"] and found.files == 0
    kinds = [item.kind for item in clean.find(machine.connection)]
    assert kinds.count("checkout") == kinds.count("kept") == 1, "what does not come home stays"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("git", 'case "$*" in *ls-files*) printf "part of a na"; exit 1 ;; esac\nexec_real'),
        ("find", 'case "$*" in *maxdepth*) exit 1 ;; esac\nexec_real'),
    ],
)
def test_a_checkout_of_which_it_is_not_known_what_was_left_stays(machine, project, name, script):
    job = finish(machine, "touch .hidden 'a name'")
    assert [item.kind for item in clean.find(machine.connection)].count("written") == 0
    kept = [item.name for item in clean.find(machine.connection) if item.kind == "kept"]
    assert kept == [job.id]
    machine.program(name, script)
    kinds = [item.kind for item in clean.find(machine.connection)]
    assert not {"kept", "written", "checkout"} & set(kinds)


@pytest.mark.slow
def test_what_lab_clean_has_removed_is_not_said_to_be_there(machine, project):
    job = finish(machine, "echo new >result")
    fetch.fetch(machine.connection)
    removed = clean.remove(machine.connection, clean.find(machine.connection))
    assert "written" in [item.kind for item in removed]
    assert job.detail and machine.get(job.id).detail == ""


@pytest.mark.slow
def test_only_what_the_named_job_left_comes_and_a_local_change_stays(machine, project):
    first, second = (finish(machine, f"echo {word} >result").id for word in ("one", "two"))
    fetch.fetch(machine.connection, [second])
    assert [path.name for path in (project / "jobs").glob("2*")] == [second]
    mine = project / "jobs" / first / "code/result"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    found = fetch.fetch(machine.connection)
    assert len(found.conflicts) == 1 and mine.read_text() == "mine"
