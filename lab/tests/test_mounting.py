"""lab mount: what one command has mounted, no other one undoes."""

from contextlib import contextmanager

from lab.ssh.connection import Connection
from lab.ssh.machines import Machine
from lab.workcopy import mount


def test_a_second_mount_waits_for_the_first_and_leaves_it_alone(project, tmp_path, monkeypatch):
    point, mounted = tmp_path / "point", []

    @contextmanager
    def wait_for_the_first(path):
        mounted.append(point)
        yield

    def fail(*arguments, **options):
        raise AssertionError("it is mounted already")

    monkeypatch.setattr(mount, "hold_lock", wait_for_the_first, raising=False)
    monkeypatch.setattr(mount, "list_mounts", lambda: mounted)
    monkeypatch.setattr(mount, "is_responsive", lambda point: True)
    monkeypatch.setattr(mount.shutil, "which", fail)
    said = mount.mount(Connection(Machine("gpu", ssh="worker", folder="x")), point)
    assert said.endswith("is already mounted")


def test_a_session_that_has_not_ended_yet_is_waited_for(machine, tmp_path, monkeypatch):
    point, mounted = tmp_path / "point", []
    answers = ["session request failed: Session open refused by peer", ""]

    def run_sshfs(command, patience):
        if refusal := answers.pop(0):
            return 1, refusal
        mounted.append(point)
        return 0, ""

    monkeypatch.setattr(mount, "run_in_background", run_sshfs)
    monkeypatch.setattr(mount, "list_mounts", lambda: mounted)
    monkeypatch.setattr(mount.shutil, "which", lambda name: name)
    (machine.folder / "work").mkdir()
    assert "shows" in mount.mount(machine.connection, point)
    assert mounted == [point] and not answers
