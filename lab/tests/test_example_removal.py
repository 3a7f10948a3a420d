"""`lab example remove` refuses what git could not bring back, and changes nothing then."""

import pytest
from git_helper import run_git

from lab.cli import main
from lab.example import removal
from lab.ground.errors import LabError


@pytest.fixture
def fresh(project):
    """A project with the files of the example, in a commit."""
    for name in (*removal.REMOVED, *removal.WRITTEN, *removal.REPLACED):
        path = project / name.replace("PACKAGE", "my_experiment")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("## Train\nall of it\n## Keep\nthis\n## Make it yours\nx\n")
    run_git(project, "init", "--quiet")
    return project


def commit(folder):
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "-m", "x")


def test_files_that_differ_from_the_last_commit_are_refused_and_nothing_changes(fresh):
    def refused() -> str:
        before = {path: path.read_bytes() for path in fresh.rglob("*.*") if path.is_file()}
        with pytest.raises(LabError) as caught:
            removal.remove()
        assert all(path.read_bytes() == content for path, content in before.items())
        return str(caught.value)

    assert "src/my_experiment/accelerator.py" in refused(), "there is no commit"
    commit(fresh)
    for name in ("src/my_experiment/model.py", "README.md"):
        (fresh / name).write_text("mine")
        assert name in refused()
        run_git(fresh, "checkout", "--quiet", ".")


def test_it_says_what_it_did_and_all_of_it_can_be_taken_back(fresh, capsys):
    commit(fresh)
    assert main.main(["example", "remove"]) == 0
    said = capsys.readouterr().out
    assert "src/my_experiment/model.py" in said and "src/my_experiment/experiment.py" in said
    readme = (fresh / "README.md").read_text()
    assert "all of it" not in readme and "## Keep\nthis\n" in readme and "yours" not in readme
    assert not (fresh / "src/my_experiment/model.py").exists()
    assert main.main(["example", "remove"]) == 1, "it is gone already"
    run_git(fresh, "checkout", "--quiet", ".")
    assert (fresh / "src/my_experiment/model.py").exists()
