"""`lab example remove` leaves a project that works, with nothing of the example in it."""

import re
import sys

import pytest
from lab.example import removal

from helpers.projects import LAB, TREE

MODULES = removal.MODULES.split()


def remove(project, *python) -> str:
    """Commit all of the project and remove its example, with the lab of this repository."""
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "x"]):
        project.git(*words)
    command = [sys.executable, "-m", "lab.cli", "example", "remove"]
    return project.run(*command, env={"PYTHONPATH": str(LAB)}).stdout


def test_nothing_of_the_example_is_left(bake):
    project = bake(project_name="Zebra Count", open_source_license="none", dataset_name="stripes")
    said = remove(project)
    assert not re.search(r"(?m)^left ", said), "every text that tells of it is known"
    gone = {name.replace("PACKAGE", "my_experiment") for name in removal.REMOVED}
    tree = {name.replace("my_experiment", "zebra_count") for name in set(TREE) - gone}
    tree = {name.replace("digits", "stripes") for name in tree} - {"LICENSE"}
    assert set(project.files()) == tree
    for name in sorted(tree):
        if name.endswith((".md", ".py", ".ipynb", ".toml", ".yml")):
            text = (project.path / name).read_text("utf-8")
            words = rf"zebra_count\.(?:{'|'.join(MODULES)})\b|`(?:{'|'.join(MODULES)})\.py`"
            found = re.findall(rf"{words}|explore_data|smallcnn|test accuracy", text, re.I)
            assert not found, name
    assert "## Train\n" in (project.path / "README.md").read_text("utf-8")


@pytest.mark.environment
def test_what_is_left_is_tested_linted_and_runs(clone, project, monkeypatch):
    monkeypatch.setenv("PATH", f"{project.path}/.venv/bin", prepend=":")
    clone.run("lab", "example", "remove")
    here = {"PYTHONPATH": f"{clone.path}/src"}  # the environment is that of another clone
    for command in ("ruff check .", "ruff format --check .", "pytest -q"):
        clone.run(*command.split(), env=here)
    text = (clone.path / "README.md").read_text("utf-8")
    (section,) = re.findall(r"(?ms)^## Train\n(.*?)^## ", text)
    lines = [
        line
        for block in re.findall(r"```sh\n(.*?)```", section, re.S)
        for line in block.splitlines()
    ]
    assert len(lines) == 5
    for line in lines:
        clone.run(*line.split(), env=here)
    assert len(list(clone.path.glob("runs/2*"))) == 4
    listed = clone.run("lab", "runs", "--state", "COMPLETED", "--sort", "loss").stdout
    assert listed.count("COMPLETED") == 4 and "loss" in listed
    clone.git("checkout", ".")
    assert (clone.path / "src/my_experiment/model.py").exists(), "git brings all of it back"
