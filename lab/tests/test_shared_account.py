"""One account on a machine for several people: what --mine shows, waits for and stops."""

import json
import os
import signal
import subprocess
import sys

import pytest
from fake_machine import UNIQUE, is_running, until

from lab.browser import notebook
from lab.cli import remote
from lab.cli.main import main
from lab.ground import owner
from lab.ground import project as current
from lab.ground.owner import name_owner
from lab.jobs import job_format

MINE, THEIRS, LATER = (f"2026010{day}-000000-{UNIQUE}" for day in (1, 2, 3))


@pytest.fixture
def there(machine, project):
    """The machine, which is in machines.toml."""
    (project / "machines.toml").write_text('[machines.gpu]\nssh = "worker"\nfolder = "lab/x"\n')
    subprocess.run(["git", "init", "-q"], check=True)
    current.reload()
    return machine


@pytest.fixture
def shared(there):
    """A machine with running jobs: two of this person, and one of somebody else between them."""
    for id, by in ((MINE, name_owner()), (THEIRS, "eve@elsewhere"), (LATER, name_owner())):
        job = there.run_job(id, "exec sleep 1000")
        (job / "job.json").write_text(json.dumps({"format": 1, "name": "same", "by": by}) + "\n")
        until(lambda job=job: (job / "phase").exists())
    return there


def listed(capsys, *options: str) -> list[str]:
    capsys.readouterr()
    assert main(["jobs", "--json", *options]) == 0
    return [job["id"] for job in json.loads(capsys.readouterr().out)]


def test_mine_selects_the_jobs_of_this_person_and_computer(shared, capsys):
    assert listed(capsys) == [MINE, THEIRS, LATER]
    assert listed(capsys, "--mine") == [MINE, LATER]


@pytest.mark.slow
def test_the_job_of_a_colleague_is_stopped_only_by_its_whole_id(shared, capsys):
    for part in (THEIRS[:9], "same"):
        main(["stop", part, "--grace", "0"])
        assert shared.get(THEIRS).state == "running"
    assert shared.get(LATER).state == "stopped", "the newest of that name that is one's own"
    assert main(["stop", THEIRS, "--grace", "0"]) == 0
    assert shared.get(THEIRS).state == "stopped"
    assert shared.get(MINE).state == "running"


@pytest.mark.slow
def test_stop_mine_ends_all_of_ones_own_and_no_other(shared, capsys):
    assert main(["stop", "--mine", "--grace", "0"]) == 0
    states = [shared.get(id).state for id in (MINE, THEIRS, LATER)]
    assert states == ["stopped", "running", "stopped"]


@pytest.mark.slow
def test_stop_mine_goes_on_after_a_job_that_it_cannot_stop(shared, capsys):
    newer = {"format": job_format.FORMAT + 1, "by": name_owner()}
    (shared.folder / "jobs" / MINE / "job.json").write_text(json.dumps(newer) + "\n")
    assert main(["stop", "--mine", "--grace", "0"]) == 1
    told = capsys.readouterr()
    assert MINE in told.err and told.out == f"{LATER} stopped\n"


def test_stopping_what_has_ended_says_so_changes_nothing_and_is_no_failure(there, capsys):
    there.run_job(MINE, "exec sleep 1000")
    ended = there.job(THEIRS, exit_code="3 5\n")
    until((there.folder / "jobs" / MINE / "phase").exists)
    for id, state, said in (
        (MINE, "stopped", False),
        (MINE, "stopped", True),
        (THEIRS, "finished(3)", True),
    ):
        assert main(["stop", id, "--grace", "0"]) == 0
        told = capsys.readouterr()
        assert told.out == f"{id} {state}\n" and (id in told.err) == said
    assert not (ended / "stop").exists()


BYSTANDER = """
import subprocess
child = subprocess.Popen(["sleep", "1000"])
open("/proc/self/comm", "wb").write({name!r})
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="where the kernel has /proc")
@pytest.mark.parametrize("name", [b"a\nb", b"a\n{parent}\n", b"a) S 1 2 3 (b", b"a\xc3"])
def test_stop_ends_no_process_whatever_the_names_of_others(there, name):
    name = name.replace(b"{parent}", str(os.getpid()).encode())
    command = [sys.executable, "-c", BYSTANDER.format(name=name)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        child = int(process.stdout.readline())
        job = there.run_job(MINE, "exec sleep 1000")
        until((job / "phase").exists)
        assert main(["stop", MINE, "--grace", "0"]) == 0
        assert main(["stop", MINE, "--grace", "0"]) == 0
        assert process.poll() is None and is_running(child)
        os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_a_job_whose_runner_is_still_ending_has_ended(there, capsys):
    last = 'case "$*" in *exit_code) exec env -u LAB_JOB /bin/sleep 1 ;; esac'
    there.program("mv", f'/bin/mv "$@" && {last}')
    job = there.run_job(MINE, "exit 3")
    until((job / "exit_code").exists)
    assert main(["stop", MINE, "--grace", "0"]) == 0
    told = capsys.readouterr()
    assert told.out == f"{MINE} finished(3)\n" and "already" in told.err


@pytest.mark.parametrize("words", [["stop"], ["stop", "--mine", "same"], ["fetch", "--mine", "x"]])
def test_jobs_are_chosen_either_by_name_or_by_mine(there, capsys, words):
    assert main(words) == 2


def as_each(monkeypatch, action) -> list[str]:
    """What an action says, done by Ada at home, by her elsewhere, on her desktop, and by Eve."""
    said = []
    for by in ("ada@laptop.home", "ada@laptop.office", "ada@desktop", "eve@laptop"):
        monkeypatch.setattr(owner, "name_owner", lambda by=by: by)
        said.append(action())
    return said


def test_each_has_a_jupyter_of_their_own_and_stops_no_other(shared, monkeypatch):
    python = shared.folder / "work/.venv/bin/python"
    python.parent.mkdir(parents=True)
    # instead of notebook_server.py, its arguments: - ACTION FOLDER ...
    python.write_text('#!/bin/sh\necho "$4" >>"$HOME/$3"\necho \'{"stopped": true}\'\n')
    python.chmod(0o755)
    python.with_name("jupyter-lab").symlink_to("/bin/false")  # it is there
    assert all(as_each(monkeypatch, lambda: notebook.stop(shared.connection)))
    home, office, desktop, eve = (shared.home / "stop").read_text().split()
    assert home == office and len({office, desktop, eve}) == 3


def test_each_has_a_shell_of_their_own(shared, monkeypatch, capfd):
    (shared.folder / "work").mkdir()
    shared.program("tmux", 'while [ "$1" != -s ]; do shift; done; echo "session $2"')
    monkeypatch.setattr(remote, "require_terminal", lambda *_: None)
    as_each(monkeypatch, lambda: main(["shell"]))
    words = capfd.readouterr().out.split()
    home, office, desktop, eve = words[1::2]
    assert home == office and len({office, desktop, eve}) == 3


def test_fetch_mine_brings_the_runs_of_ones_own_jobs_alone(shared):
    for number, job in enumerate((MINE, THEIRS, LATER), 1):
        record = shared.folder / f"runs/2026010{number}-000000-rrrrrr/run.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"status": "COMPLETED", "job": {"lab": job}}))
    assert main(["fetch", "--mine", "--no-models"]) == 0
    came = [path.name[:8] for path in current.runs_folder().glob("2*")]
    assert sorted(came) == ["20260101", "20260103"]
