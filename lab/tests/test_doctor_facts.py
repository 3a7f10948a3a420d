"""What lab doctor knows of this computer and of a machine, when much of it cannot be found out."""

import pytest

from lab.doctor import examination
from lab.ground.errors import LabError
from lab.ssh.connection import Connection
from lab.ssh.machines import Machine
from lab.ssh.ssh_errors import AnswerTimeout

GPU = Machine("gpu", ssh="worker", folder="x")


@pytest.fixture
def said(project, monkeypatch):
    """What a machine prints in answer to each script, before it hangs: pieces, and their times."""
    said: dict[str, list[tuple[bytes, float]]] = {}

    class Clock:
        now = 1000.0

        @classmethod
        def time(cls) -> float:
            return cls.now

    def run(self, script, *, receive, within, **variables):
        for piece, Clock.now in said[script]:
            receive(piece)
        raise AnswerTimeout(f"no answer to {script}")

    monkeypatch.setattr(examination, "time", Clock)
    monkeypatch.setattr(Connection, "run", run)
    return said


def test_what_a_machine_said_before_it_hung_is_kept(said):
    said["facts.sh"] = [(b"clock:\n 1000.1\n", 1000.2), (b"git:\n git version 2.39.5\n", 1000.3)]
    remote, milliseconds = examination.collect_remote_facts(Connection(GPU), {})
    assert remote["git"] == ["git version 2.39.5"] and round(milliseconds) == 200


def test_what_a_login_node_said_before_its_controller_hung_is_kept(said):
    said["facts.sh"] = [(b"clock:\n 1000.1\n", 1000.2)]
    said["cluster_facts.sh"] = [(b"slurm:\n slurm 22.05.8\npartitions:\n", 1001)]
    connection = Connection(GPU._replace(scheduler="slurm"))
    remote, _ = examination.collect_remote_facts(connection, {})
    assert remote["clock"] == ["1000.1"]
    assert remote["slurm"] == ["slurm 22.05.8"] and remote["partitions"] == []
    said["cluster_facts.sh"] = []
    assert "slurm" in examination.collect_remote_facts(connection, {})[0], "it is one all the same"


def test_an_answer_on_a_second_connection_is_not_taken_for_clocks_that_differ(said):
    """The first one was lost after it had begun; run() then asks everything once more."""
    said["facts.sh"] = [
        (b"clock:\n 1000.1\n", 1000.2),
        (b"git:\n git version 2.39.5\n", 1000.3),
        (b"clock:\n 1060.1\n", 1060.2),
    ]
    remote, _ = examination.collect_remote_facts(Connection(GPU), {})
    difference, accuracy = map(float, remote["difference"][0].split())
    assert abs(difference) <= accuracy


def test_without_a_lock_everything_else_is_examined_and_the_next_step_is_said(project):
    found = {check.check: check for check in examination.examine_locally(LabError("no machine."))}
    assert found["lock"].verdict == "failed" and found["lock"].local == "not usable"
    assert "lab lock" in found["lock"].advice and "requirements.txt" in found["lock"].advice
    assert "environment" not in found and found["git"].local


def test_a_lock_that_cannot_be_read_is_a_check_with_its_cause(project):
    (project / "requirements.txt").mkdir()
    found = {check.check: check for check in examination.examine_locally(LabError("no machine."))}
    assert found["lock"].verdict == "failed" and "not a regular file" in found["lock"].advice


def test_data_on_a_disk_that_is_not_mounted_is_a_check(repository):
    (repository / "data").symlink_to("/nowhere/data")
    found = {check.check: check for check in examination.examine_locally(LabError("no machine."))}
    assert found["data digits"].verdict == "failed" and "mounted?" in found["data digits"].advice


def test_files_of_a_dataset_that_cannot_be_seen_are_not_counted(project, monkeypatch):
    folder = project / "data/digits"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")

    def fail(path):
        raise PermissionError

    monkeypatch.setattr(examination.Path, "is_file", fail)
    (folder / "train").mkdir()
    (folder / "train/one").touch()
    assert len(examination.measure_dataset(folder)) == 1


def test_a_terminal_that_this_computer_does_not_know_is_not_called_fixed(program, project):
    program("infocmp", "exit 1")
    said = examination.try_fix("terminal", lambda: examination.send_terminal(Connection(GPU)))
    assert "could not be fixed" in said and "this computer" in said


def test_a_full_disk_under_the_sockets_is_a_check(repository, monkeypatch):
    def fail(machine):
        raise OSError(28, "No space left on device", "/home/ada/.cache")

    monkeypatch.setattr(examination, "Connection", fail)
    found = {check.check: check for check in examination.examine(GPU)}
    assert found["ssh sockets"].advice == "/home/ada/.cache: No space left on device"
