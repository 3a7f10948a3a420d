"""Every command acts on the project of the current folder, whichever environment is active."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.hosts.nvidia import nvidia_smi
from helpers.projects import VERSION, Project, build_fork


def other(project, tmp_path, kind: str) -> Project:
    """Another folder of the same project, or another project, without an environment."""
    place = tmp_path / kind / "my-experiment"
    if kind == "worktree":
        project.git("worktree", "add", "--quiet", "--detach", place)
    else:  # not copied: another worker's worktree may come and go in .git
        subprocess.run(["git", "clone", "--quiet", project.path, place], check=True)
    if kind == "another project":
        edit = place / "pyproject.toml"
        edit.write_text(edit.read_text().replace('name = "my-experiment"', 'name = "another"'))
    return Project(place)


@pytest.fixture(params=["worktree", "clone", "another project"])
def elsewhere(request, project, tmp_path):
    place = other(project, tmp_path, request.param)
    yield place
    if request.param == "worktree":
        project.git("worktree", "remove", "--force", place.path)


def lab(project, place: Path, *arguments, **options):
    """Run lab of the project's environment in a folder."""
    return project.run("lab", *arguments, cwd=place, **options)


def test_commands_act_there_and_not_on_the_project_of_the_environment(project, elsewhere):
    (elsewhere.path / "runs/20260101-000000-here22").mkdir(parents=True)
    for place in (elsewhere.path, elsewhere.path / "src"):
        assert "20260101-000000" in lab(project, place, "runs").stdout
    assert not (project.path / "runs/20260101-000000-here22").exists()


def test_a_run_of_the_other_folder_s_code_is_refused_with_the_line_that_fixes_it(
    project, elsewhere
):
    command = ["python", "-m", "my_experiment.experiment", "with", "smoke"]
    before = sorted(project.path.glob("runs/*"))
    done = project.run(*command, cwd=elsewhere.path, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "python3 bootstrap.py" in done.stdout and str(elsewhere.path) in done.stdout
    assert sorted(project.path.glob("runs/*")) == before
    assert not list(elsewhere.path.glob("runs/*/run.json"))


def test_lab_project_names_the_project_from_anywhere(project, elsewhere, tmp_path):
    (elsewhere.path / "runs/20260101-000000-here22").mkdir(parents=True)
    env = {"LAB_PROJECT": str(elsewhere.path)}
    assert "20260101-000000" in lab(project, tmp_path, "runs", env=env).stdout


def test_outside_of_a_project_one_line_says_so(project, tmp_path):
    done = lab(project, tmp_path, "runs", check=False)
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert "is not in a project" in done.stdout


def test_a_linked_folder_and_jupyter_s_working_directory_are_the_project(project, tmp_path):
    (tmp_path / "link").symlink_to(project.path)
    code = "from lab import project; print(project.root())"
    for place in (tmp_path / "link", tmp_path / "link/notebooks", project.path / "notebooks"):
        assert project.run("python", "-c", code, cwd=place).stdout == f"{project.path}\n"


def test_run_sync_and_setup_say_first_which_project_goes_to_which_machine(laptop):
    first = "my-experiment in /home/ada/my-experiment, on gpu: worker:lab/my-experiment"
    for command in (["run", "--", "true"], ["sync"], ["setup"]):
        done = laptop.lab(*command, check=False)
        assert done.returncode == 0 and done.stderr.splitlines()[0] == first


def test_another_lab_brings_its_scripts_once_and_harms_no_job_that_runs(laptop):
    job = laptop.lab("run", "--gpus", "0", "with", "wait_for=/tmp/go").split()[0]
    (kept,) = laptop.there("lab").iterdir()
    (script,) = laptop.path.glob(".venv/lib/python*/site-packages/lab/jobs/view.sh")
    text = script.read_text()
    script.unlink()  # it may be a link into a cache
    script.write_text(text + "# of another version\n")
    for _ in range(2):
        laptop.lab("run", "--gpus", "0", "--follow", "--", "true")
    assert len(list(laptop.there("lab").iterdir())) == 2 and kept.is_dir()
    laptop.hosts.worker.path("/tmp/go").touch()
    laptop.lab("logs", "-f", job)
    assert f"{job}  finished(0)" in laptop.lab("jobs")


def test_an_update_of_lab_harms_no_job_and_an_old_commit_runs_with_its_own_lab(laptop, tmp_path):
    """A job that runs, one that waits for a GPU, and one of the commit before the update."""
    worker = laptop.hosts.worker
    worker.program("nvidia-smi", nvidia_smi(1))
    runs = laptop.lab("run", "with", "wait_for=/tmp/go").split()[0]
    waits = laptop.lab("run", "--queue", "with", "quick").split()[0]
    old = laptop.run("git", "rev-parse", "HEAD").stdout.strip()
    wheel = build_fork(tmp_path, f"{VERSION}+team.1")
    (before,) = laptop.path.glob("vendor/*.whl")
    before.unlink()
    shutil.copy(wheel, before.parent)
    lock = laptop.path / "requirements.txt"
    named = f"./vendor/{wheel.name} # sha256 {hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    lock.write_text(re.sub(r"^\./vendor/.*$", named, lock.read_text(), flags=re.M))
    laptop.bootstrap("--no-kernel", python="python3")
    assert laptop.lab("--version") == f"lab {VERSION}+team.1\n"
    new = laptop.lab("run", "--gpus", "0", "--follow", "with", "quick").split()[0]
    worker.path("/tmp/go").touch()
    for job in (runs, waits):
        laptop.lab("logs", "-f", job)
    laptop.run("git", "stash", "--quiet", "--include-untracked")
    assert laptop.run("git", "rev-parse", "HEAD").stdout.strip() == old
    back = laptop.lab("run", "--gpus", "0", "--follow", "with", "quick").split()[0]
    versions = {}
    for path in laptop.there("runs").glob("2*/run.json"):
        record = json.loads(path.read_text())
        assert record["status"] == "COMPLETED"
        versions[record["job"]["lab"]] = record["software"]["lab"]["version"]
    assert versions == {runs: VERSION, waits: VERSION, new: f"{VERSION}+team.1", back: VERSION}


def test_a_run_started_through_a_link_keeps_its_code_and_sources(project, tmp_path):
    (tmp_path / "link").symlink_to(project.path)
    code = "from my_experiment.experiment import ex; print(*[s.filename for s in ex.sources])"
    sources = project.run("python", "-c", code, cwd=tmp_path / "link").stdout
    assert "my_experiment/experiment.py" in sources
