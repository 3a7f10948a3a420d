"""lab clean removes what can be made again or is at home, and nothing that is in use."""

import fcntl
import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_machine import until

from lab.cli import main, transfer
from lab.jobs import control, launch
from lab.transfer import clean, fetch

pytestmark = pytest.mark.slow
RUN, OTHER = "20260101-101010-worker-00000001", "20260101-101011-worker-00000002"
USED = "3.11-e3b0c44298fc"  # the environment of an empty lock
ID = "20260101-000000-aaaaaa"
BOOTSTRAP = """
import pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--venv") + 1])
(folder / "bin").mkdir(parents=True)
(folder / "bin/python").symlink_to("/bin/true")
(folder / "lab-environment.json").touch()
"""


@pytest.fixture
def project(repository) -> Path:
    (repository / "bootstrap.py").write_text(BOOTSTRAP)
    (repository / ".gitignore").write_text("runs\ndata\nignored\n__pycache__\n")
    return repository


def finish(machine, command: str) -> str:
    """The id of a job that has run this shell command."""
    job = launch.start(machine.connection, ["sh", "-c", command], gpus="0")
    return machine.wait_for(job.id).id


def environment(machine, name: str) -> Path:
    folder = machine.folder / "envs" / name
    shutil.copytree(machine.folder / "envs" / USED, folder, symlinks=True)
    return folder


def record(folder: Path, run: str = RUN, job: str = "", **files: str) -> Path:
    """A record in this folder of records."""
    about = {"job": {"lab": job}, "status": "COMPLETED"}
    files = {"run.json": json.dumps(about, indent=1), "cout.txt": "hello", **files}
    for name, text in files.items():
        (folder / run).mkdir(parents=True, exist_ok=True)
        (folder / run / name).write_text(text)
    return folder / run


def names(items, kind: str) -> set[str]:
    return {item.name.split(" ")[0] for item in items if item.kind == kind}


def clean_all(machine, models=False) -> list[clean.Item]:
    return clean.remove(machine.connection, clean.find(machine.connection, models), models)


def tree(folder: Path) -> set[str]:
    """What is in a folder, but for git's and our own locks."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in found if not name.endswith((".lock", "index"))}


def test_checkouts_of_ended_jobs_go_and_what_a_job_wrote_into_its_own_stays(machine, project):
    done = finish(machine, "mkdir __pycache__; touch __pycache__/a.pyc")
    wrote = finish(machine, "echo new >ignored; echo edited >>bootstrap.py; touch result")
    live = launch.start(machine.connection, ["sh", "-c", "exec sleep 1000"], gpus="0").id
    before = tree(machine.folder)
    found = clean.find(machine.connection)
    assert tree(machine.folder) == before, "only asked"
    assert names(found, "checkout") == {done}
    assert [(item.name, item.bytes) for item in found if item.kind == "kept"] == [(wrote, 3)]
    (item,) = [item for item in found if item.kind == "checkout"]
    code = machine.folder / "jobs" / done / "code"
    assert item.inodes == len(list(code.rglob("*"))) + 1 and item.bytes > 0
    clean.remove(machine.connection, found)
    jobs = machine.folder / "jobs"
    assert not code.exists() and not list(jobs.glob("*/.removed*"))
    assert (jobs / wrote / "code/result").exists() and (jobs / live / "code/.git").exists()
    assert (jobs / done / "output.log").exists()
    assert {job.id for job in control.list_jobs(machine.connection)} == {done, wrote, live}
    assert machine.get(finish(machine, "true")).state == "finished(0)"


def test_what_a_job_left_goes_once_it_is_at_home_by_its_hash(machine, project):
    job = finish(machine, "echo new >result; echo x >ignored; rm bootstrap.py")
    hidden = finish(machine, "echo new >result; touch .hidden")
    fetch.fetch(machine.connection)
    here = project / "jobs" / job / "code/result"
    here.write_text("old\n")
    assert names(clean.find(machine.connection), "kept") == {job, hidden}
    here.write_text("new\n")
    found = clean.find(machine.connection)
    assert names(found, "written") == {job}
    result = machine.folder / "jobs" / job / "code/result"
    result.write_text("newer\n")
    assert names(clean.remove(machine.connection, found), "written") == set() and result.exists()
    here.unlink()  # edited, it would stay
    fetch.fetch(machine.connection)
    assert names(clean_all(machine), "written") == {job}
    assert not result.parent.exists() and here.read_text() == "newer\n"
    assert (machine.folder / "jobs" / hidden / "code/.hidden").exists()


def test_a_job_that_ended_but_left_a_process_or_is_of_a_newer_lab_is_not_touched(machine, project):
    left = finish(machine, "setsid -f sleep 1000 >/dev/null 2>&1; echo $! ")
    newer = finish(machine, "true")
    file = machine.folder / "jobs" / newer / "job.json"
    file.write_text(file.read_text().replace('"format": 1', '"format": 99'))
    try:
        assert names(clean.find(machine.connection), "checkout") == set()
    finally:
        control.stop(machine.connection, left, grace=0)
    assert names(clean.find(machine.connection), "checkout") == {left}


def test_environments_go_that_neither_job_nor_working_copy_nor_process_uses(machine, project):
    unused, linked, open_ = (environment(machine, f"3.11-{n}") for n in ("a", "b", "c"))
    os.link(unused / "lab-environment.json", machine.home / "cache")  # as uv's cache has it
    (machine.folder / "work").mkdir()
    (machine.folder / "work/.venv").symlink_to(linked)
    live = launch.start(machine.connection, ["sh", "-c", "exec sleep 1000"], gpus="0").id
    env = {"VIRTUAL_ENV": f"{open_}/x", "PATH": os.environ["PATH"]}
    with subprocess.Popen(["sleep", "1000"], env=env) as process:
        try:
            found = clean.find(machine.connection)
            clean.remove(machine.connection, found)
        finally:
            process.kill()
    assert names(found, "environment") == {unused.name}
    (item,) = [item for item in found if item.kind == "environment"]
    assert item.inodes == len(list(unused.rglob("*"))) or not unused.exists()
    assert {path.name for path in (machine.folder / "envs").glob("3*")} == {
        "3.11-b",
        "3.11-c",
        USED,
    }
    control.stop(machine.connection, live, grace=0)
    assert names(clean.find(machine.connection), "environment") == {USED, "3.11-c"}


def test_snapshots_go_that_this_repository_has_and_a_job_still_starts(machine, project):
    first = machine.get(finish(machine, "true")).spec["commit"]
    (project / "new.py").touch()
    second = machine.get(finish(machine, "true")).spec["commit"]
    (project / "newer.py").touch()
    last = machine.get(finish(machine, "touch result")).spec["commit"]
    subprocess.run(
        ["git", "update-ref", "-d", f"refs/lab/snapshots/{first}"], cwd=project, check=True
    )
    removed = clean_all(machine)
    assert names(removed, "snapshot") == {second}
    repo = machine.folder / "repo.git"
    refs = ["git", "-C", repo, "for-each-ref", "--format=%(objectname)", "refs/lab/snapshots"]
    assert set(subprocess.check_output(refs, text=True).split()) == {first, last}
    assert machine.get(finish(machine, "cat newer.py")).state == "finished(0)"


@pytest.mark.parametrize(
    ("case", "goes"),
    [
        ("same", True),
        ("differs", False),
        ("incomplete", False),
        ("more there", False),
        ("running", False),
        ("of a live job", False),
        ("resumed", False),
    ],
)
def test_a_record_goes_only_if_every_file_is_at_home_by_its_hash(machine, project, case, goes):
    word = f"exec sleep 1000 # {RUN}" if case == "resumed" else "exec sleep 1000"
    live = launch.start(machine.connection, ["sh", "-c", word], gpus="0").id
    options = {"job": live if case == "of a live job" else ID}
    if case == "running":
        options["run.json"] = json.dumps({"status": "RUNNING", "job": {"lab": ID}})
    there = record(machine.folder / "runs", **options)
    here = record(project / "runs", **options)
    record(machine.folder / "runs", OTHER)
    if case == "differs":
        (here / "cout.txt").write_text("hallo")
    elif case == "incomplete":
        (here / "cout.txt").unlink()
    elif case == "more there":
        (there / ".hidden").touch()
    removed = clean_all(machine)
    assert names(removed, "record") == ({RUN} if goes else set())
    assert there.exists() != goes
    assert (machine.folder / "runs" / OTHER).exists() and here.exists()


def test_what_neither_side_can_read_is_not_the_same(machine, project, monkeypatch):
    for folder in (machine.folder, project):
        record(folder / "runs")
    monkeypatch.setattr(clean, "remote_hashes", lambda *words: {})
    monkeypatch.setattr(clean.files, "sha256_or_none", lambda path: None)
    assert names(clean.find(machine.connection), "record") == set()


def test_models_go_with_their_record_and_only_if_that_is_asked_for(machine, project):
    for folder in (machine.folder, project):
        record(folder / "runs")
        model = folder / "data/digits/models" / RUN / "best"
        model.parent.mkdir(parents=True)
        model.write_text("weights")
    assert names(clean_all(machine), "record") == set()
    model = machine.folder / "data/digits/models" / RUN / "best"
    model.write_text("other w")
    assert names(clean_all(machine, models=True), "record") == set()
    model.write_text("weights")
    assert names(clean_all(machine, models=True), "record") == {RUN}
    assert not model.parent.exists() and not (machine.folder / "runs" / RUN).exists()


def test_a_model_that_was_brought_for_a_job_goes_while_no_job_goes_on(machine, project):
    record(project / "runs")
    for run in (RUN, OTHER):  # of OTHER this computer knows no run
        for folder in (machine.folder, project):
            model = folder / "data/digits/models" / run / "step-3/state.json"
            model.parent.mkdir(parents=True)
            model.write_text("state")
    there = machine.folder / "data/digits/models"

    def removed(models=True):
        for run in (RUN, OTHER):  # as if it had been brought long ago
            os.utime(there / run, (0, 0))
        return names(clean_all(machine, models), "model")

    assert names(clean_all(machine, models=True), "model") == set(), "its job may start now"
    live = launch.start(machine.connection, ["sh", "-c", "exec sleep 1000"], gpus="0").id
    assert removed() == set()
    control.stop(machine.connection, live, grace=0)
    assert removed(models=False) == set()
    (there / RUN / "more").touch()
    assert removed() == set()
    (there / RUN / "more").unlink()
    (there / RUN / "step-3/state.json").write_text("stat3")
    assert removed() == set()
    (there / RUN / "step-3/state.json").write_text("state")
    assert removed() == {RUN}
    assert os.listdir(there) == [OTHER]


def test_what_changes_between_the_question_and_the_removal_stays(machine, project):
    for folder in (machine.folder, project):
        record(folder / "runs")
    done = finish(machine, "true")
    found = clean.find(machine.connection)
    assert names(found, "record") == {RUN} and names(found, "environment") == {USED}
    live = launch.start(machine.connection, ["sh", "-c", "exec sleep 1000"], gpus="0").id
    (machine.folder / "runs" / RUN / "cout.txt").write_text("hello again")
    (machine.folder / "jobs" / done / "code/result").touch()
    assert names(clean.remove(machine.connection, found), "checkout") == set()
    assert (machine.folder / "envs" / USED).exists()
    assert (machine.folder / "runs" / RUN / "run.json").exists()
    assert machine.get(live).state == "running"


def is_locked(file: Path) -> bool:
    with file.open() as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_job_that_starts_during_the_removal_waits_and_has_a_whole_environment(machine, project):
    found = clean.find(machine.connection)
    assert names(found, "environment") == {USED}
    reached, waiting, go = (machine.home / name for name in ("reached", "waiting", "go"))
    pause = f"touch {reached}; until [ -e {go} ]; do sleep 0.02; done"
    machine.program("mv", f'case "$1" in */envs/*) {pause} ;; esac\nexec_real')
    with ThreadPoolExecutor() as pool:
        removal = pool.submit(clean.remove, machine.connection, found)
        until(reached.exists)
        # start.sh holds the first until its job is to be seen, and setup.sh the other one
        locked = [is_locked(machine.folder / name / ".lock") for name in ("jobs", "envs")]
        wait = f'[ "$*" = "-w 100 9" ] && touch {waiting}\nexec_real'
        machine.program("flock", wait)
        start = pool.submit(launch.start, machine.connection, ["true"], gpus="0")
        try:
            until(waiting.exists)
        finally:
            go.touch()
        assert names(removal.result(), "environment") == {USED}
        job = start.result()
    assert locked == [True, True]
    assert machine.wait_for(job.id).state == "finished(0)"
    assert (machine.folder / "envs" / USED / "lab-environment.json").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_belongs_to_another_user_in_part_stays(machine, project):
    os.chown(environment(machine, "3.11-a") / "lab-environment.json", 12345, -1)
    for folder in (machine.folder, project):
        os.chown(record(folder / "runs") / "cout.txt", 12345, -1)
    found = clean.find(machine.connection)
    assert names(found, "environment") == {USED} and names(found, "record") == set()


def test_a_dry_run_shows_the_same_and_removes_nothing(machine, project, monkeypatch, capsys):
    monkeypatch.setattr(transfer, "connect_and_announce", lambda _: machine.connection)
    finish(machine, "true")
    before = tree(machine.folder)
    assert main.main(["clean", "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert tree(machine.folder) == before
    assert "lab clean" in shown.err
    assert main.main(["clean"]) == 0
    assert capsys.readouterr().out == shown.out
    assert tree(machine.folder) < before
