"""The project of a command is that of the current folder, or what LAB_PROJECT names."""

import sys

import pytest

from lab.ground import project
from lab.ground.errors import LabError


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    """No variable, no project's script, and a working directory in no project."""
    monkeypatch.delenv("LAB_PROJECT", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(folder, settings="[project]\nname = 'x'\n\n[tool.lab]\ntitle = 'X'\n"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(settings)
    return folder


def test_it_is_the_nearest_folder_above_that_has_a_tool_lab_table(tmp_path, monkeypatch):
    outer = make(tmp_path / "outer")
    inner = make(outer / "library", "[project]\nname = 'library'\n")  # no project of ours
    (inner / "deep").mkdir()
    monkeypatch.chdir(inner / "deep")
    assert project.root() == outer
    make(inner)
    assert project.root() == inner


def test_a_link_leads_to_the_folder_itself(tmp_path, monkeypatch):
    real = make(tmp_path / "real")
    (tmp_path / "link").symlink_to(real)
    monkeypatch.chdir(tmp_path / "link")
    assert project.root() == real
    monkeypatch.setenv("LAB_PROJECT", str(tmp_path / "link"))
    assert project.root() == real


def test_what_moved_is_found_where_it_is_now(tmp_path, monkeypatch):
    make(tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    assert project.root() == tmp_path / "new"


def test_without_a_project_one_line_says_what_to_do(tmp_path):
    with pytest.raises(LabError, match="is not in a project .* LAB_PROJECT") as caught:
        project.root()
    assert "\n" not in str(caught.value)


def test_lab_project_goes_before_the_working_directory(tmp_path, monkeypatch):
    here, named = make(tmp_path / "here"), make(tmp_path / "named")
    monkeypatch.chdir(here)
    monkeypatch.setenv("LAB_PROJECT", str(named))
    assert project.root() == named


def test_a_lab_project_that_is_not_a_project_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(make(tmp_path / "here"))
    monkeypatch.setenv("LAB_PROJECT", str(tmp_path))
    with pytest.raises(LabError, match="LAB_PROJECT"):
        project.root()


def script_of(folder, monkeypatch):
    """Python was started with a file of that project."""
    file = folder / "src/x/experiment.py"
    file.parent.mkdir(parents=True)
    file.touch()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(file))


def test_a_script_acts_on_the_project_that_it_lies_in(tmp_path, monkeypatch):
    script_of(make(tmp_path / "mine"), monkeypatch)
    assert project.root() == tmp_path / "mine"


def test_a_script_of_another_project_than_the_one_you_stand_in_is_ended(tmp_path, monkeypatch):
    script_of(make(tmp_path / "mine"), monkeypatch)
    monkeypatch.chdir(make(tmp_path / "other"))
    with pytest.raises(SystemExit, match="python3 bootstrap.py"):
        project.root()


def test_a_program_of_an_environment_inside_a_project_is_no_script_of_it(tmp_path, monkeypatch):
    mine = make(tmp_path / "mine")
    program = mine / ".venv/bin/lab"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setattr(sys, "prefix", str(mine / ".venv"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(program))
    other = make(tmp_path / "other")
    monkeypatch.chdir(other)
    project._of_file.cache_clear()
    assert project.root() == other


def test_settings_are_those_of_the_project_that_one_stands_in(tmp_path, monkeypatch):
    for name in ("one", "two"):
        make(tmp_path / name, f"[project]\nname = '{name}'\n\n[tool.lab]\n")
        monkeypatch.chdir(tmp_path / name)
        assert project.name() == name
