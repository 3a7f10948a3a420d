"""What of a notebook gets into a commit: neither output nor the number of a clone's kernel."""

import json
import subprocess

import pytest
from git_helper import run_git

from lab.environment import notebook_filter, repository


def write_notebook(name: str, title: str) -> bytes:
    spec = {"name": name, "display_name": title, "language": "python"}
    content = {"cells": [], "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    return (json.dumps(content, indent=1) + "\n").encode()


@pytest.mark.parametrize(
    ("name", "title", "committed"),
    [
        ("same-2", "Same-2", ("same", "Same")),
        ("same-17", "My own title", ("same", "My own title")),
        ("same", "Same", ("same", "Same")),
        ("same-two", "Same-two", ("same-two", "Same-two")),
        ("other-2", "Other-2", ("other-2", "Other-2")),
    ],
)
def test_the_number_of_a_second_clones_kernel_is_not_committed(name, title, committed):
    stripped = notebook_filter.strip(write_notebook(name, title), "same")
    assert stripped == write_notebook(*committed)
    assert notebook_filter.strip(stripped, "same") == stripped


@pytest.mark.parametrize("kernelspec", [None, {}, {"name": 3}, "text"])
def test_an_invalid_kernel_does_not_keep_output_in_the_commit(kernelspec):
    cell = {"cell_type": "code", "metadata": {}, "outputs": ["secret"], "execution_count": 1}
    text = json.dumps({"cells": [cell], "metadata": {"kernelspec": kernelspec}}).encode()
    assert b"secret" not in notebook_filter.strip(text, "same")


def test_a_project_whose_own_name_ends_in_a_number_keeps_it():
    content = write_notebook("same-2", "Same-2")
    assert notebook_filter.strip(content, "same-2") == content


def test_a_second_clone_on_one_computer_is_clean(project, tmp_path, monkeypatch):
    (project / "notebooks").mkdir()
    (project / "notebooks/a.ipynb").write_bytes(write_notebook("my-experiment", "My Experiment"))
    (project / ".gitattributes").write_text("*.ipynb filter=notebook-output\n")
    monkeypatch.setattr(repository, "NOTEBOOK_FILTER", filter_of_this_lab())
    repository.set_up(project)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", project, clone], check=True)
    monkeypatch.chdir(clone)
    notebook = clone / "notebooks/a.ipynb"
    bound = write_notebook("my-experiment-2", "My Experiment-2")
    notebook.write_bytes(bound)  # as kernel.install() does
    assert run_git(clone, "status", "--porcelain") == "M notebooks/a.ipynb"
    repository.set_up(clone)
    assert run_git(clone, "status", "--porcelain") == ""
    assert notebook.read_bytes() == bound
    notebook.write_bytes(bound.replace(b"[]", b'[{"cell_type": "raw", "metadata": {}}]'))
    repository.set_up(clone)
    assert run_git(clone, "status", "--porcelain") == "M notebooks/a.ipynb", "a real change"
    run_git(clone, "add", "--all")
    assert "-2" not in run_git(clone, "show", ":notebooks/a.ipynb")


def filter_of_this_lab() -> str:
    """The filter of the lab under test, not of a wheel."""
    source = repository.Path(repository.__file__).parents[2]
    program = f"import sys; sys.path[:0] = ['{source}']; "
    return f'python3 -c "{program}from lab.environment.notebook_filter import main; main()"'
