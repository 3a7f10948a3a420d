"""The package is in the project as a wheel, and the project is thin."""

import csv
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from helpers.laptop import EXPERIMENT
from helpers.projects import (
    FEW,
    LAB,
    LEFT_OUT,
    RECORDED,
    TEMPLATE,
    TREE,
    VERSION,
    build_fork,
    shorten,
)
from wheel import build_wheel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GENERATED = TEMPLATE / "{{cookiecutter.project_slug}}"


def committed_wheel() -> Path:
    (found,) = GENERATED.glob("vendor/*.whl")
    return found


def test_the_wheel_in_the_template_is_what_its_source_builds_to(tmp_path):
    built = build_wheel(tmp_path)
    assert built.name == committed_wheel().name
    assert built.read_bytes() == committed_wheel().read_bytes(), "make wheel"


def test_the_lock_names_the_wheel_and_its_content():
    before = (GENERATED / "requirements.txt").read_bytes()
    line = subprocess.check_output(["sha256sum", committed_wheel()], text=True).split()[0]
    assert f"./vendor/{committed_wheel().name} # sha256 {line}\n".encode() in before


def test_the_wheel_holds_licence_types_and_every_script(tmp_path):
    shutil.unpack_archive(committed_wheel(), tmp_path, "zip")
    for name in ("lab/py.typed", "lab/jobs/runner.sh", "lab/browser/notebook_server.py"):
        assert (tmp_path / name).exists(), name
    (licence,) = tmp_path.glob("*.dist-info/licenses/LICENSE")
    assert licence.read_bytes() == (TEMPLATE / "LICENSE").read_bytes()
    scripts = {path.name for path in LAB.rglob("*.sh")}
    assert {path.name for path in tmp_path.rglob("*.sh")} == scripts


def test_a_project_is_thin(project):
    names = project.git("ls-files").splitlines()
    assert len(names) <= 36
    lines = [
        (project.path / name).read_bytes().count(b"\n") for name in names if name[-4:] != ".whl"
    ]
    assert sum(lines) <= 2800
    assert project.git("check-attr", "diff", names[-1]).endswith("diff: unset")  # the wheel


def test_bootstrap_is_short_and_src_has_only_the_users_package(project):
    assert len((GENERATED / "bootstrap.py").read_text().splitlines()) <= 300
    assert [path.name for path in (project.path / "src").iterdir()] == ["my_experiment"]
    assert sorted(name for name in TREE if "lab" in name.split("/")) == []


def make_index(project, names: set[str], folder: Path) -> None:
    """Make a package index of what a project has installed; PyPI takes a second per package."""
    (site,) = project.path.glob(".venv/lib/python3*/site-packages")
    for about in site.glob("*.dist-info"):
        name = re.sub("[-_.]+", "-", about.name.partition("-")[0]).lower()
        if name not in names:
            continue
        tags = re.findall("(?m)^Tag: (.*)$", (about / "WHEEL").read_text("utf-8"))
        parts = zip(*(tag.split("-") for tag in tags), strict=True)
        tag = "-".join(".".join(dict.fromkeys(part)) for part in parts)
        (folder / name).mkdir()
        with (
            zipfile.ZipFile(folder / name / f"{about.stem}-{tag}.whl", "w") as archive,
            (about / "RECORD").open(newline="", encoding="utf-8") as record,
        ):
            for path, *_ in csv.reader(record):
                # a third of all files are tests, and what jedi knows of other packages
                if not re.search("^[.][.]|/tests/|/third_party/", path):
                    archive.write(site / path, path)
    for page in folder.iterdir():
        (wheel,) = page.iterdir()
        (page / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')


@pytest.mark.environment
def test_plain_venv_and_pip_are_all_a_colleague_needs(bake, project, tmp_path):
    installed, project, index = project, bake(skip="venv,kernel"), tmp_path / "index"
    shorten(project, (*RECORDED, "ipython", "matplotlib", "pandas", "tensorboard"))
    project.run(sys.executable, "-m", "venv", "env")
    settings = tomllib.loads((project.path / "pyproject.toml").read_text("utf-8"))
    download = ["env/bin/pip", "download", "--quiet", "--no-deps", "--dest", index / "uv-build"]
    project.run(*download, *settings["build-system"]["requires"])
    lock = (project.path / "requirements.txt").read_text("utf-8")
    make_index(installed, {*re.findall("(?m)^([a-z0-9-]+)==", lock), *LEFT_OUT}, index)
    # it would compile every file, most of which nothing here imports
    env = {"PIP_NO_COMPILE": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index.as_uri()}
    env |= {"PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    project.run("env/bin/pip", "install", "--quiet", "-r", "requirements.txt", env=env)
    project.run("env/bin/pip", "check")
    project.run("env/bin/python", "-c", "import lab.tracking, my_experiment")
    assert "no runs yet" in project.run("env/bin/lab", "runs").stdout
    assert "env/" not in project.git("status", "--porcelain")


@pytest.mark.environment
def test_a_run_says_and_records_what_is_not_installed_as_locked_and_if_lab_was_changed(small_run):
    project, run = small_run
    software = run()["software"]
    digest = subprocess.check_output(["sha256sum", committed_wheel()], text=True).split()[0]
    lab = software["lab"]
    assert (lab["version"], lab["wheel_sha256"], lab["problem"]) == (VERSION, digest, "")
    assert software["not_as_locked"] == []

    project.run("uv", "pip", "install", "--quiet", "-p", ".venv", "tqdm==4.67.0", "six")
    done = project.run("python", "-m", "my_experiment.experiment", "with", "quick")
    assert "this environment does not match requirements.txt" in done.stdout
    (extra, changed) = run()["software"]["not_as_locked"]
    assert changed.startswith("tqdm 4.67.0, locked ") and extra.startswith("six ")
    check = project.check(check=False)
    assert check.returncode == 1 and "tqdm 4.67.0, locked" in check.stdout
    project.bootstrap("--no-kernel")
    assert run()["software"]["not_as_locked"] == []

    (packages,) = project.path.glob(".venv/lib/python*/site-packages")
    edited = packages / "lab/runs/selection.py"
    text = edited.read_text()
    edited.unlink()  # it is a hard link into uv's cache
    edited.write_text(text + "# edited\n")
    record = run()
    assert "lab/runs/selection.py" in record["code"]["problem"]
    project.run("uv", "pip", "install", "--quiet", "--no-deps", "-p", ".venv", "-e", LAB.parent)
    assert "editable" in run()["code"]["problem"]


def test_uv_leaves_the_environment_alone_and_pip_is_its_own(project, home):
    before = sorted((project.path / ".venv/lib").glob("python*/site-packages/*.dist-info"))
    project.run("uv", "run", "--offline", "true", check=False)
    for command in (["sync"], ["add", "six"]):
        done = project.run("uv", *command, "--offline", check=False)
        assert done.returncode != 0
    after = sorted((project.path / ".venv/lib").glob("python*/site-packages/*.dist-info"))
    assert before == after and project.git("status", "--porcelain") == ""
    assert str(project.path / ".venv") in project.run("pip", "--version").stdout


@pytest.fixture
def small_run(bake, home):
    """A project with the experiment of the remote tests, and a function that runs it."""
    project = bake(skip="venv,kernel")
    shorten(project, RECORDED)
    shutil.copy(EXPERIMENT, project.path / "src/my_experiment/experiment.py")
    project.bootstrap("--no-kernel")

    def run() -> dict:
        before = set(project.path.glob("runs/2*"))
        project.run("python", "-m", "my_experiment.experiment", "with", "quick")
        (folder,) = set(project.path.glob("runs/2*")) - before
        return json.loads((folder / "run.json").read_text())

    return project, run


def test_the_lock_has_all_that_lab_and_the_project_ask_for(project):
    project.run("uv", "pip", "check", "--quiet", "-p", project.path / ".venv")


@pytest.mark.environment
def test_a_wheel_that_is_not_the_one_of_the_lock_is_not_installed(bake):
    project = bake(skip="venv,kernel")
    shorten(project, FEW)
    (wheel,) = project.path.glob("vendor/*.whl")
    wheel.write_bytes(wheel.read_bytes() + b"x")
    done = project.bootstrap("--no-kernel", "--no-git", check=False)
    assert done.returncode == 1 and f"{wheel.name} is not the file" in done.stdout
    assert not (project.path / ".venv").exists()


# --- lab update -------------------------------------------------------------------------------


@pytest.mark.environment
def test_a_fork_of_lab_is_built_put_in_place_used_and_updated_again(bake, tmp_path, home):
    project = bake(skip="venv,kernel")
    for number in (1, 2):
        version = f"{VERSION}+team.{number}"
        (tmp_path / str(number)).mkdir()
        output = project.run_lab("update", build_fork(tmp_path / str(number), version)).stdout
        assert f"## {version}\n\n- ours" in output and f"## {VERSION}\n" not in output
        assert f"-> {version}" in output
        changed = project.git("status", "--porcelain", "-uall").splitlines()
        assert sorted(line.split("/")[-1].split()[-1] for line in changed) == sorted(
            [
                f"dl_remote_lab-{version}-py3-none-any.whl",
                f"dl_remote_lab-{VERSION}-py3-none-any.whl"
                if number == 1
                else f"dl_remote_lab-{VERSION}+team.1-py3-none-any.whl",
                "pyproject.toml",
                "requirements.txt",
            ]
        )
        project.git("add", "--all")
        project.git("commit", "--quiet", "--message", version)
    shorten(project, FEW)
    project.bootstrap("--no-kernel")
    assert project.run("lab", "--version").stdout == f"lab {VERSION}+team.2\n"


@pytest.mark.slow
def test_lab_update_with_edits_in_the_way_changes_nothing(bake, tmp_path):
    project = bake(skip="venv,kernel")
    with (project.path / "requirements.txt").open("a") as file:
        file.write("# mine\n")
    before = {name: (project.path / name).read_bytes() for name in project.files()}
    done = project.run_lab("update", build_fork(tmp_path, f"{VERSION}+team.1"), check=False)
    assert done.returncode == 1 and "requirements.txt has changes" in done.stdout
    assert {name: (project.path / name).read_bytes() for name in project.files()} == before


@pytest.mark.environment
def test_lab_update_that_finds_no_lock_puts_everything_back(bake, tmp_path):
    project = bake(skip="venv,kernel")
    settings = project.path / "pyproject.toml"
    settings.write_text(settings.read_text().replace('"numpy>=2.0"', '"numpy>=2000"'))
    project.git("commit", "--quiet", "--all", "--message", "an impossible wish")
    done = project.run_lab("update", build_fork(tmp_path, f"{VERSION}+team.1"), check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert project.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_the_same_wheel_again_changes_nothing(bake):
    project = bake(skip="venv,kernel")
    assert f"lab is already {VERSION}" in project.run_lab("update", committed_wheel()).stdout
    assert project.git("status", "--porcelain") == ""


@pytest.mark.environment
def test_a_wheel_at_an_address_is_downloaded_for_lab_update(bake):
    project, wheel = bake(skip="venv,kernel"), committed_wheel()
    files = functools.partial(http.server.SimpleHTTPRequestHandler, directory=wheel.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{wheel.name}"
        done = project.run_lab("update", address)
        server.shutdown()
    assert f"lab is already {VERSION}" in done.stdout
