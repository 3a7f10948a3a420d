"""What lab makes is private, local and remote; links of other users are not followed."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from fake_machine import until

from lab.browser import notebook
from lab.browser.tunnels import Tunnel
from lab.environment import lock, wheels
from lab.ground import project as current
from lab.ground.errors import LabError
from lab.jobs import control, job_cache, launch
from lab.ssh import sockets as connections
from lab.ssh.connection import Connection


@pytest.fixture
def wide_open():
    """Let others read and write all new files."""
    before = os.umask(0)
    yield
    os.umask(before)


def find_open(folder: Path) -> list[Path]:
    """What others could read or write in a folder, without what lies in a closed one."""
    found = []
    for path in folder.iterdir():
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o077 == 0:
            continue
        if status.st_mode & 0o077 and not path.is_symlink():
            found.append(path)
    return found


@pytest.mark.parametrize("shared", [False, True])
def test_what_a_job_leaves_on_a_machine_is_private_unless_it_is_shared(
    machine, repository, wide_open, shared
):
    about = machine.connection.machine._replace(shared=shared, folder="lab/new")
    connection = Connection(about)
    folder = machine.home / "lab/new"
    command = ["sh", "-c", "echo text >$LAB_RUNS/written"]
    environment = machine.folder / "envs"
    folder.mkdir(mode=0o777)
    (folder / "envs").symlink_to(environment)
    job = launch.start(connection, command, gpus="0")
    made = folder / "jobs" / job.id
    until((made / "exit_code").exists)
    assert control.get(connection, job.id).state == "finished(0)"
    modes = {path.name: path.stat().st_mode & 0o077 for path in (made, *made.iterdir())}
    modes |= {name: (folder / name).stat().st_mode & 0o077 for name in ("runs", "jobs", "repo.git")}
    private = {"output.log", "job.json", "job.sh", "runs", "jobs", "repo.git", job.id}
    assert all(bool(modes[name]) == shared for name in private), modes
    # what the user runs has the umask of the login
    assert (folder / "runs/written").stat().st_mode & 0o777 == 0o666


def test_what_is_kept_here_is_private_whatever_the_umask(machine, wide_open):
    control.list_jobs(machine.connection)
    kept = job_cache.cache_file(machine.connection.machine)
    assert kept.exists()
    for path in (kept, kept.parent, kept.parent.parent, machine.connection.config.parent):
        assert path.stat().st_mode & 0o077 == 0, path


def test_wheels_that_are_kept_for_machines_are_private(project, wide_open, monkeypatch):
    (project / "requirements.txt").touch()
    done = subprocess.CompletedProcess([], 1, "error: no index")
    monkeypatch.setattr(lock, "run_uv", lambda *words, **options: done)
    with pytest.raises(LabError):
        wheels.collect(wheels.Platform("3.11", "x86_64", 36))
    kept = current.cache_folder() / "wheels"
    assert kept.is_dir() and not find_open(kept) and not find_open(kept.parent)


@pytest.mark.parametrize("environment", [True, False])
def test_the_browser_is_started_without_the_token(project, wide_open, tmp_path, environment):
    if environment:
        (project / ".venv").mkdir()
    path = tmp_path / "1.json"
    tunnel = Tunnel("x", "notebook", "p", "gpu", 8888, "/s", 0, {}, path)
    url = f"http://127.0.0.1:8888/lab?token={'ab' * 24}"
    for _ in range(2):
        address = notebook.write_page(url, tunnel)
        page = Path(address.removeprefix("file://"))
        assert "abab" not in address and url in page.read_text()
        assert page.stat().st_mode & 0o777 == 0o600
        page.chmod(0o644)


@pytest.mark.parametrize(
    "kind", ["link to a private folder", "link to nothing", "open", "file", "of bob"]
)
def test_the_folder_of_sockets_is_our_own_or_none(home, tmp_path, monkeypatch, kind):
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (victim / "config.json").write_text("{}")
    monkeypatch.setattr(connections.project, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(connections, "MAX_PATH", 1000)
    folder = tmp_path / "cache/tunnels"
    folder.parent.mkdir()
    if kind == "file":
        folder.touch(0o600)
    elif kind == "open":
        folder.mkdir(mode=0o755)
    elif kind == "of bob":
        folder.mkdir(mode=0o700)
        monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    else:
        folder.symlink_to(victim if "private" in kind else tmp_path / "nowhere")
    with pytest.raises(LabError, match="tunnels"):
        connections.make_socket_folder("tunnels")
    assert (victim / "config.json").exists()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("what", ["free", "a file", "of another user"])
def test_where_the_home_is_long_another_short_folder_holds_the_sockets(
    home, tmp_path, monkeypatch, what
):
    taken = tmp_path / "taken"
    monkeypatch.setattr(connections, "MAX_PATH", len(str(taken)) + 20)
    monkeypatch.setattr(connections.project, "cache_folder", lambda: tmp_path / ("long" * 20))
    monkeypatch.setattr(connections, "TEMPORARY", str(taken))
    folder = Path(f"{taken}-ssh-{os.getuid()}")
    if what == "a file":
        folder.touch()
    elif what == "of another user":
        folder.mkdir(mode=0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    if what == "free":
        assert connections.make_socket_folder("ssh") == folder
        return
    with pytest.raises(LabError, match=f"{folder}.*XDG_RUNTIME_DIR"):
        connections.make_socket_folder("ssh")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert connections.make_socket_folder("ssh") == tmp_path / "lab-ssh"
    assert (tmp_path / "lab-ssh").stat().st_mode & 0o777 == 0o700
