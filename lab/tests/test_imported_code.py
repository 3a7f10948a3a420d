"""The commit of a run holds every file of the project that the run imported, wherever it lies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from git_helper import run_git

import lab

SRC = Path(lab.__file__).resolve().parents[1]
RUN = """
import sys
from pathlib import Path
import first
from lab.recording import code_state
BEFORE
print(code_state.imports.take_snapshot()["commit"])
DURING
print(code_state.imports.problem())
"""
WRITE = "Path({!r}).write_text('WORD = 2  # edited')"


@pytest.fixture
def start(project):
    """A function that does what a run does in the project: the commit, the problem, the error."""
    run_git(project, "init", "--quiet")
    for folder in ("tools", "src/my_experiment"):
        (project / folder).mkdir(parents=True)
    (project / ".gitignore").write_text("/runs\n/data\n__pycache__/\nhidden.py\n")
    for name in ("first.py", "late.py", "tools/late.py", "src/my_experiment/late.py"):
        (project / name).write_text("WORD = 1\n")

    def run(before="", during="") -> tuple[str, str, str]:
        (project / "exp.py").write_text(RUN.replace("BEFORE", before).replace("DURING", during))
        done = subprocess.run(
            [sys.executable, "exp.py"],
            env={**os.environ, "PYTHONPATH": f"{SRC}:{project}/src"},
            capture_output=True,
            encoding="utf-8",
        )
        commit, problem, *_ = [*done.stdout.split("\n"), "", ""]
        return commit, problem, done.stderr

    return run


@pytest.mark.parametrize("name", ["late", "tools.late", "my_experiment.late"])
def test_a_helper_that_is_edited_before_it_is_imported_in_the_run_is_named(start, name):
    file = f"{'src/' * (name[0] == 'm')}{name.replace('.', '/')}.py"
    _, problem, _ = start(during=f"import {name}; {WRITE.format(file)}")
    assert problem == "", "an edit after the import harms nothing"
    _, problem, _ = start(during=f"{WRITE.format(file + '')}; import {name}")
    assert problem.startswith(f"imported after the snapshot and edited since: {file};")


@pytest.mark.parametrize("source", ["src", "lib", "."])
def test_a_package_that_is_replaced_by_an_older_version_is_named(start, project, source):
    settings = project / "pyproject.toml"
    settings.write_text(
        settings.read_text().replace("[tool.lab]", f"[tool.lab]\nsource={source!r}")
    )
    package = project / source / "package/inner"
    package.mkdir(parents=True)
    for name in ("__init__.py", "inner/late.py"):
        (project / source / "package" / name).write_text("WORD = 1\n")
    file = os.path.normpath(f"{source}/package/inner/late.py")
    older = f"{WRITE.format(file)}; import os; os.utime({file!r}, (1, 1))"  # as cp -p does
    take = f"sys.path.insert(0, {source!r}); import package.inner.late"
    _, problem, _ = start(during=f"{older}; {take}")
    assert problem.startswith(f"imported after the snapshot and edited since: {file}")


def test_a_helper_that_is_edited_after_its_import_and_before_the_snapshot_is_refused(start):
    commit, _, said = start(before=WRITE.format("first.py"))
    assert "edited while the run was starting" in said and "first.py" in said and commit == ""


def test_a_helper_that_is_edited_before_its_import_is_in_the_commit_as_it_ran(start, project):
    commit, problem, _ = start(before=f"{WRITE.format('late.py')}; import late")
    assert "edited" in run_git(project, "show", f"{commit}:late.py") and problem == ""


def test_after_an_edit_the_second_run_of_a_process_has_the_commit_of_what_it_imported(
    start, project
):
    again = f"{WRITE.format('first.py')}; print(code_state.imports.take_snapshot()['commit'])"
    first, second, said = start(during=again)
    assert first == second != "", said
    reloaded = f"{WRITE.format('first.py')}; import importlib; importlib.reload(first)"
    reloaded += "; print(code_state.imports.take_snapshot()['commit'])"
    (project / "first.py").write_text("WORD = 1\n")
    first, second, said = start(during=reloaded)
    assert first != second, said
    assert "edited" in run_git(project, "show", f"{second}:first.py")


SHELL = """
from types import ModuleType, SimpleNamespace
ipython = sys.modules["IPython"] = ModuleType("IPython")
shell = SimpleNamespace(execution_count=1)
ipython.get_ipython = lambda: shell
sys.modules[EXTENSION] = ModuleType("autoreload")
print(code_state.imports.take_snapshot()["commit"])
Path("first.py").write_text("WORD = 2  # edited")
shell.execution_count = 2
"""


@pytest.mark.parametrize("extension", ["IPython.extensions.autoreload", "another"])
def test_in_the_next_cell_autoreload_has_renewed_what_was_edited(start, project, extension):
    again = SHELL.replace("EXTENSION", repr(extension))
    first, second, said = start(before=again)
    assert first, said
    assert (second != first) is (extension != "another")
    if extension != "another":
        assert "edited" in run_git(project, "show", f"{second}:first.py")


def test_a_helper_that_git_ignores_is_named(start, project):
    (project / "hidden.py").write_text("WORD = 1\n")
    _, problem, _ = start(during="import hidden")
    assert problem.startswith("ran, but not in the commit: hidden.py (ignored by git")
    _, problem, _ = start(during="import late, tools.late")
    assert problem == "", "what the commit holds is not named"
