"""Starting a job sends what the machine lacks and no more; in one call if it lacks nothing."""

import json
import shutil
import subprocess

import pytest

from lab.cli import main, remote
from lab.code import sending
from lab.ground.errors import LabError
from lab.jobs import control, launch
from lab.ssh.connection import Connection
from lab.ssh.ssh_errors import (
    ConnectionLost,
    HostKeyChanged,
    HostUnreachable,
    NoShell,
    RemoteError,
)

TRUE = ["sh", "-c", "true"]


def lose_scripts(machine) -> None:
    shutil.rmtree(machine.folder / "lab")


def lose_commits(machine) -> None:
    shutil.rmtree(machine.folder / "repo.git")


@pytest.mark.slow
def test_what_the_machine_lacks_is_sent_once_it_says_so(machine, repository):
    launch.start(machine.connection, TRUE)
    for losses, calls in (
        ([], 1),
        ([lose_scripts], 2),
        ([lose_commits], 2),
        ([lose_scripts, lose_commits], 3),
    ):
        (repository / "new.py").write_text(f"{losses}\n")
        for lose in losses:
            lose(machine)
        before = machine.count_calls()
        job = launch.start(machine.connection, TRUE)
        assert machine.count_calls() - before == calls
        assert machine.wait_for(job.id).state == "finished(0)"
        code = machine.folder / "jobs" / job.id / "code"
        assert (code / "new.py").read_text() == f"{losses}\n"
        assert json.loads((code.parent / "job.json").read_text())["format"] == 1


def test_what_fails_for_another_reason_is_not_tried_again(machine, repository):
    machine.program("flock", "exit 1")
    with pytest.raises(RemoteError, match="another job is still being started") as caught:
        launch.start(machine.connection, TRUE)
    assert caught.value.code == 1
    assert machine.count_calls() == 1


def test_a_machine_with_git_lfs_gets_the_content_all_the_same(machine, repository):
    for words in (["clean", "echo pointer"], ["smudge", "false"], ["required", "true"]):
        for place in (repository / ".git/config", machine.home / ".gitconfig"):
            name = f"filter.lfs.{words[0]}"
            subprocess.run(["git", "config", "--file", place, name, words[1]], check=True)
    (repository / ".gitattributes").write_text("*.pt filter=lfs\n")
    (repository / "a.pt").write_text("content\n")
    job = launch.start(machine.connection, TRUE)
    assert (machine.folder / "jobs" / job.id / "code/a.pt").read_text() == "content\n"
    machine.wait_for(job.id)


def test_a_command_runs_in_the_folder_that_it_was_typed_in(machine, repository, monkeypatch):
    inside = repository / "tools/a b"
    inside.mkdir(parents=True)
    assert launch.find_current_folder() == ""
    monkeypatch.chdir(inside)
    monkeypatch.setattr(remote, "connect_and_announce", lambda _: machine.connection)
    words = ["run", "--gpus", "0", "--no-record", "--", "pwd"]
    assert main.main(words) == 2, "nothing in that folder is sent"
    assert machine.count_calls() == 0
    (inside / "x").touch()
    assert main.main(words) == 0
    (job,) = control.list_jobs(machine.connection)
    machine.wait_for(job.id)
    folder = machine.folder / "jobs" / job.id
    assert (folder / "output.log").read_text() == f"{folder}/code/tools/a b\n"
    assert job.spec["inside"] == "tools/a b"
    monkeypatch.chdir(inside.parents[2])
    assert launch.find_current_folder() == "", "outside of the project"


def test_a_shallow_clone_is_named_where_git_cannot_take_its_commits(
    machine, repository, tmp_path, monkeypatch
):
    (repository / "a.py").touch()
    for words in (["add", "--all"], ["commit", "-qm", "second"]):
        subprocess.run(["git", *words], cwd=repository, check=True)
    clone = tmp_path / "clone"
    command = ["git", "clone", "-q", "--depth=1", f"file://{repository}", clone]
    subprocess.run(command, check=True)
    monkeypatch.setenv("LAB_PROJECT", str(clone))
    with pytest.raises(RemoteError, match="git fetch --unshallow brings") as caught:
        launch.start(machine.connection, TRUE)
    assert caught.value.code == sending.GIT_FAILED


@pytest.mark.parametrize("error", [ConnectionLost, HostKeyChanged])
def test_a_lost_connection_keeps_its_type_and_names_the_job(
    machine, repository, monkeypatch, error
):
    def run(*_, **__):
        raise error("gpu: why.")

    monkeypatch.setattr(Connection, "run", run)
    with pytest.raises(error, match=r"^gpu: why\. Job \S+ may have started: check lab jobs\.$"):
        launch.start(machine.connection, TRUE)


@pytest.mark.parametrize("error", [HostUnreachable, ConnectionLost, KeyboardInterrupt])
@pytest.mark.parametrize("lost", [False, True])
def test_a_job_may_have_started_only_if_its_script_was_sent(
    machine, repository, monkeypatch, error, lost
):
    def fail(_) -> None:
        raise error("gpu: why.")

    monkeypatch.setattr(Connection, "open", lambda _: None if lost else fail(_))
    monkeypatch.setattr(
        Connection, "close", lambda _: monkeypatch.setattr(Connection, "open", fail)
    )
    machine.next_call("exit 255")
    with pytest.raises((LabError, KeyboardInterrupt)) as caught:
        launch.start(machine.connection, TRUE)
    assert ("may have started" in str(caught.value)) == lost
    assert machine.count_calls() == lost


def test_a_login_shell_that_becomes_another_one_is_named_and_nothing_is_tried_again(
    machine, repository
):
    machine.next_call("echo Welcome; exec true")
    with pytest.raises(NoShell, match=r"~/\.bashrc") as caught:
        launch.start(machine.connection, TRUE)
    assert "may have started" not in str(caught.value)
    assert machine.count_calls() == 1


def test_ctrl_c_says_that_the_job_may_have_started(machine, repository, monkeypatch):
    def run(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "run", run)
    with pytest.raises(LabError, match=r"^interrupted\. Job \S+ may have started") as caught:
        launch.start(machine.connection, TRUE)
    assert caught.value.exit_code == 130
