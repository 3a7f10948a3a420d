"""A home and a project of their own for tests in process."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_machine import SSH, FakeMachine

from lab.ground import project as current
from lab.ssh.connection import Connection
from lab.ssh.machines import Machine

MEMORY = Path("/dev/shm")
SETTINGS = """[project]
name = "my-experiment"
version = "0.1.0"

[tool.lab]
title = "My Experiment"
python = "3.11"
dataset = "digits"

[tool.uv.build-backend]
module-name = "my_experiment"
"""
FOREIGN = (
    "LAB_PROJECT",
    "LAB_RUNS",
    "LAB_DATA",
    "LAB_JOB",
    "LAB_JOB_FOLDER",
    "LAB_ATTEMPT",
    "LAB_PATIENCE",
    "XDG_CACHE_HOME",
    "COLUMNS",
)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Restore the handlers of signals after each test; children inherit the ignored ones."""
    before = {
        one: signal.getsignal(one)
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def memory(tmp_path_factory) -> Iterator[Path]:
    """Where the folders of the tests lie: in memory, if there is room and programs can run.

    On a disk, git, fsync and removing small files made the tests take half as long again.
    """
    for left in MEMORY.glob("lab-tests-*"):  # by a session that was killed
        if not Path("/proc", left.name.removeprefix("lab-tests-")).exists():
            shutil.rmtree(left, ignore_errors=True)
    room = os.statvfs(MEMORY) if MEMORY.is_dir() else None
    if not room or room.f_bavail * room.f_frsize < 4 << 30 or room.f_flag & os.ST_NOEXEC:
        yield tmp_path_factory.getbasetemp()
        return
    folder = MEMORY / f"lab-tests-{os.getpid()}"
    folder.mkdir(mode=0o700)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def tmp_path(memory, request) -> Iterator[Path]:
    """pytest's own, but in memory, and gone with the test."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    with tempfile.TemporaryDirectory(prefix=name, dir=memory, ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture
def home(memory, monkeypatch) -> Iterator[Path]:
    """A home in which no setting of the developer is read or changed."""
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    # short: with a longer path the sockets lie in a folder that all tests of all workers share
    short = MEMORY if memory.is_relative_to(MEMORY) else "/tmp"
    with tempfile.TemporaryDirectory(prefix="lab-", dir=short, ignore_cleanup_errors=True) as path:
        monkeypatch.setenv("HOME", path)
        Path(path, ".gitconfig").write_text("[user]\n\tname = Test\n\temail = t@example.org\n")
        yield Path(path)


@pytest.fixture
def project(home, tmp_path, monkeypatch) -> Path:
    """The folder of an empty project, which is the current one."""
    path = (tmp_path / "project").resolve()
    path.mkdir()
    (path / "pyproject.toml").write_text(SETTINGS)
    monkeypatch.setenv("LAB_PROJECT", str(path))
    monkeypatch.chdir(path)
    current.reload()
    yield path
    current.reload()


@pytest.fixture(scope="session")
def committed(tmp_path_factory) -> Path:
    """The .git of the empty project with one commit; copying it is faster than running git."""
    folder = tmp_path_factory.mktemp("committed")
    (folder / "pyproject.toml").write_text(SETTINGS)
    (folder / "requirements.txt").touch()
    own = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    user = ["-c", "user.name=Test", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "first"]):
        subprocess.run(["git", *user, *words], cwd=folder, check=True, env={**os.environ, **own})
    return folder / ".git"


@pytest.fixture
def repository(project, committed) -> Path:
    """The project as a repository with a commit and an empty lock."""
    (project / "requirements.txt").touch()
    shutil.copytree(committed, project / ".git")
    return project


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory) -> Path:
    """A cache of uv that is not the developer's; shared, as uv inspects each Python only once."""
    return tmp_path_factory.mktemp("uv-cache")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A function that puts a shell script first in PATH, under that name."""
    folder = tmp_path / "bin"

    def write(name: str, script: str) -> Path:
        if not folder.exists():
            folder.mkdir()
            monkeypatch.setenv("PATH", str(folder), prepend=":")
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
        return folder / name

    return write


@pytest.fixture
def machine(project, tmp_path, program, monkeypatch):
    """A machine that is this computer: see fake_machine.py."""
    (tmp_path / "remote").mkdir()
    fake = FakeMachine(
        Connection(Machine("gpu", ssh="worker", folder="lab/x")), tmp_path / "remote", tmp_path
    )
    program("ssh", SSH.format(home=fake.home, control=fake.control).partition("\n")[2])
    monkeypatch.setattr(Connection, "is_open", lambda self: True)
    fake.set_up()
    yield fake
    fake.end_all()
