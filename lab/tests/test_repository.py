"""The project's repository: when it gets one of its own, and what is said when git fails."""

import os
import subprocess
import sys

import pytest

from lab.environment import repository


@pytest.fixture(autouse=True)
def identity(tmp_path, monkeypatch):
    """A git identity, and no setting of the developer."""
    (tmp_path / ".gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.org\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def outer(tmp_path):
    """A repository that ignores build/."""
    folder = tmp_path / "outer"
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    (folder / ".gitignore").write_text("/build/\n")
    return folder


def make_project(folder, monkeypatch):
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text('name = "x"\n')
    monkeypatch.chdir(folder)
    return folder


def test_a_project_inside_a_repository_is_part_of_it(outer, monkeypatch):
    project = make_project(outer / "projects/x", monkeypatch)
    for step in (repository.set_up, repository.check):
        with pytest.raises(repository.Skip, match="is part of the repository"):
            step(project)


def test_a_project_in_a_folder_that_the_repository_around_it_ignores_gets_its_own(
    outer, monkeypatch
):
    project = make_project(outer / "build/x", monkeypatch)
    with pytest.raises(repository.Problem, match="there is none yet"):
        repository.check(project)
    assert repository.set_up(project) == "created; first commit"
    assert repository.check(project) == repository.set_up(project)
    assert repository.git("log", "--format=%s") == "Start x from dl-remote-template"


def test_what_the_repository_around_it_tracks_in_spite_of_its_rule_is_part_of_it(
    outer, monkeypatch
):
    project = make_project(outer / "build/x", monkeypatch)
    repository.git("add", "--force", "pyproject.toml")
    with pytest.raises(repository.Skip):
        repository.set_up(project)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_git_that_distrusts_the_owner_is_explained_by_one_line(outer, monkeypatch):
    os.chown(outer, 65534, 65534)
    monkeypatch.chdir(outer)
    with pytest.raises(repository.Problem) as caught:
        repository.set_up(outer)
    assert str(caught.value).startswith("this folder belongs to another user")
    assert str(caught.value).endswith(f"git config --global --add safe.directory {outer}")


def test_the_leftovers_of_a_process_that_ended_are_removed_even_if_it_is_a_zombie(outer):
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as ended:
        ended.stdout.read()  # its output is closed when it ends
        while repository.is_alive(ended.pid):
            pass
        start = f"building-{os.uname().nodename}-"
        left, building = (outer / f".git.{start}{pid}" for pid in (ended.pid, os.getpid()))
        left.mkdir()
        building.mkdir()
        repository.remove_leftovers(outer)
        assert not left.exists() and building.exists()
