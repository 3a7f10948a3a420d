"""What a new project consists of, and that its creation never harms what existed."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.projects import (
    EVERY_STEP,
    TEMPLATE,
    TREE,
    Project,
    ask_hook,
    cookiecutter,
    edit,
    isolate,
    run_uv,
    shorten,
    stub,
)


def test_a_project_has_exactly_these_files(bake):
    assert bake().files() == TREE


def test_the_first_commit_has_every_file_but_the_personal_one(project):
    committed = project.git("ls-files").splitlines()
    assert committed == [name for name in TREE if name != "machines.local.toml"]
    assert project.git("status", "--porcelain") == ""
    assert project.git("log", "--format=%s") == "Start my-experiment from dl-remote-template"


@pytest.mark.parametrize(
    ("licence", "first_line"),
    [
        ("MIT", "MIT License"),
        ("BSD-3-Clause", "BSD 3-Clause License"),
        ("Apache-2.0", "Apache License"),
    ],
)
def test_the_licence_file_is_the_chosen_one_and_names_the_author(bake, licence, first_line):
    project = bake(open_source_license=licence, author_name="Ana Muñoz")
    text = (project.path / "LICENSE").read_text("utf-8")
    assert text.split("\n\n")[0].split("\n")[0].strip() == first_line or first_line in text[:200]
    assert "Ana Muñoz" in text
    assert f'license = "{licence}"' in (project.path / "pyproject.toml").read_text()


def test_the_citation_names_title_author_and_licence_whatever_their_characters(bake):
    names = {"project_name": 'It\'s "quoted" \\ # : 日本 🚀', "author_name": "Ana: Muñoz #1"}
    project = bake(project_slug="x-1", open_source_license="none", **names)
    citation = yaml.safe_load((project.path / "CITATION.cff").read_text("utf-8"))
    assert citation["title"] == names["project_name"]
    assert citation["authors"] == [{"name": names["author_name"]}]
    assert "license" not in citation
    citation = yaml.safe_load((bake().path / "CITATION.cff").read_text("utf-8"))
    assert citation["license"] == "MIT"


def test_without_a_licence_there_is_no_file_and_no_word_of_one(bake):
    project = bake(open_source_license="none")
    assert project.files() == [name for name in TREE if name != "LICENSE"]
    assert "licen" not in (project.path / "README.md").read_text().lower()
    assert "licen" not in (project.path / "pyproject.toml").read_text().lower()


def test_no_template_tag_is_left_in_any_file(bake):
    project = bake()
    for name in project.texts():
        text = (project.path / name).read_text("utf-8")
        assert "cookiecutter." not in text, name
        assert "{%" not in text, name


def test_another_package_and_dataset_name_reach_every_file(bake):
    project = bake(project_slug="cell-count", dataset_name="cells")
    assert sorted(path.name for path in (project.path / "src").iterdir()) == ["cell_count"]
    assert sorted(p.name for p in (project.path / "data/cells").iterdir()) == [
        "models",
        "test",
        "train",
        "val",
    ]
    for name in project.texts():
        assert "my_experiment" not in (project.path / name).read_text("utf-8"), name


@pytest.mark.slow
def test_git_ignores_data_and_records_but_never_source_files(bake):
    project = bake(skip="venv,kernel")
    ignored = ["data/digits/train/1/a.png", "data/digits/manifest.json", "runs/x/run.json"]
    ignored += ["data/digits/models/r/best.safetensors", ".venv/bin/python", "machines.local.toml"]
    committed = ["src/my_experiment/data.py", "data/digits/train/.gitkeep", "vendor/x.whl"]
    committed += ["src/my_experiment/data/loader.py", "notebooks/new.ipynb", "data/README.md"]
    for name in ignored + committed:
        (project.path / name).parent.mkdir(parents=True, exist_ok=True)
        (project.path / name).touch()
    listed = project.run("git", "check-ignore", *ignored, *committed, check=False).stdout
    assert listed.splitlines() == ignored


def test_a_finished_creation_says_so_in_a_few_plain_lines(project):
    assert project.output.isascii()
    lines = project.output.strip().splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["done", "environment"],
        ["done", "kernel"],
        ["done", "repository"],
    ]
    assert len(lines) < 12


# --- steps that are switched off, or cannot be done ------------------------------------------


@pytest.fixture(scope="module")
def short(isolated_session, tmp_path_factory) -> Path:
    """What cookiecutter reads of the template, with a lock that installs in a moment."""
    folder = tmp_path_factory.mktemp("short")
    for name in ("hooks", "templates", "{{cookiecutter.project_slug}}"):
        shutil.copytree(TEMPLATE / name, folder / name)
    shutil.copy(TEMPLATE / "cookiecutter.json", folder)
    shorten(Project(folder / "{{cookiecutter.project_slug}}"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("skip", ["venv", "kernel,git", f"{EVERY_STEP},conda"])
def test_dl_template_skip_switches_steps_off_and_one_that_is_unknown_is_named(
    short, tmp_path, home, skip
):
    done = cookiecutter(tmp_path / "out", skip=skip, template=short)
    project = Project(tmp_path / "out" / "my-experiment")
    assert done.returncode == 0
    assert (project.path / ".venv").exists() == ("venv" not in skip)
    assert (project.path / ".git").exists() == ("git" not in skip)
    assert not (home / "jupyter" / "kernels").exists()
    unknown = "'conda' is unknown; the steps are venv, kernel, git"
    assert (unknown in done.stdout) == ("conda" in skip)


@pytest.mark.slow
def test_without_an_identity_or_if_git_fails_the_files_stay_and_the_summary_names_the_fix(
    tmp_path, home
):
    (home / ".gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
    done = cookiecutter(tmp_path / "out", skip="venv,kernel")
    project = Project(tmp_path / "out" / "my-experiment")
    assert done.returncode == 0
    assert "git config --global user.name" in done.stdout
    assert "python3 bootstrap.py" in done.stdout
    assert project.files() == TREE
    only_git = ("--no-venv", "--no-kernel")
    stub(tmp_path / "tools" / "git", "echo 'fatal: not a git repository' >&2; exit 128")
    path = f"{tmp_path}/tools:{os.environ['PATH']}"
    done = project.bootstrap(*only_git, check=False, env={"PATH": path})
    assert "failed   repository" in done.stdout and "not a git repository" in done.stdout
    assert project.files() == TREE
    isolate(home, lambda name, value: None)
    project.bootstrap(*only_git)
    assert project.git("log", "--format=%s") == "Start my-experiment from dl-remote-template"


@pytest.mark.slow
def test_a_machine_without_git_gets_everything_else(short, tmp_path, home):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("uv", "python3.11", "stat"):
        (tools / name).symlink_to(os.path.realpath(shutil.which(name)))
    done = cookiecutter(tmp_path / "out", env={"PATH": str(tools)}, template=short)
    assert "skipped  repository   git is not installed" in done.stdout
    assert "done     kernel" in done.stdout
    assert (tmp_path / "out" / "my-experiment" / ".venv").exists()


@pytest.mark.slow
def test_the_users_git_settings_do_not_spoil_the_first_commit(tmp_path, home):
    stub(tmp_path / "hooks" / "prepare-commit-msg", "echo 'no ticket number' >&2; exit 1")
    (home / "ignore").write_text(".idea/\nnotebooks/\n*.toml\n")
    with (home / ".gitconfig").open("a") as file:
        file.write(f"[core]\n\thooksPath = {tmp_path}/hooks\n\texcludesFile = ~/ignore\n")
        file.write("\tautocrlf = true\n[commit]\n\tgpgSign = true\n")
    done = cookiecutter(tmp_path / "out", skip="venv,kernel")
    assert (
        "done     repository   created; first commit; your own git settings ignore machines.toml,"
        " notebooks/, pyproject.toml: git add --force what belongs in it\n"
    ) in done.stdout
    project = Project(tmp_path / "out" / "my-experiment")
    project.git("worktree", "add", "../clone")  # sh reads no CRLF, and a job's code is one like it
    scripts = list((tmp_path / "out/clone").glob("*.py"))
    assert scripts
    assert not [script.name for script in scripts if b"\r" in script.read_bytes()]
    (wheel,) = project.path.glob("vendor/*.whl")
    assert (tmp_path / "out/clone/vendor" / wheel.name).read_bytes() == wheel.read_bytes()


@pytest.mark.slow
def test_it_works_with_stdin_closed_in_a_path_with_spaces_and_unusual_characters(
    short, tmp_path, home
):
    folder = tmp_path / "größer als 日本"
    kernel = home / "jupyter/kernels/my-experiment/kernel.json"  # the summary names whose it is
    for path in (folder, kernel.parent):
        path.mkdir(parents=True)
    belongs = {"dl-remote-template": {"project": str(folder)}}
    kernel.write_text(json.dumps({"argv": [sys.executable], "metadata": belongs}))
    command = [sys.executable, "-m", "cookiecutter", "--no-input", short, "-o", folder]
    shell = " ".join(f"'{word}'" for word in command) + " <&-"
    environment = {**os.environ, "LC_ALL": "C", "DL_TEMPLATE_SKIP": ""}
    done = subprocess.run(shell, shell=True, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"belongs to {folder}".encode("ascii", "backslashreplace").decode() in done.stdout
    assert done.stdout.isascii()
    project = Project(folder / "my-experiment")
    project.run("lab", "kernel", "list")
    assert "stale" not in project.check().stdout
    project.run("python", "-c", "import my_experiment")


@pytest.mark.slow
def test_a_project_stays_when_nobody_reads_what_its_creation_prints(tmp_path):
    command = [sys.executable, "-m", "cookiecutter", "--no-input", TEMPLATE, "-o", tmp_path]
    environment = {**os.environ, "DL_TEMPLATE_SKIP": "venv,kernel"}
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment)
    os.close(writing)
    assert b"Traceback" not in done.stderr
    assert Project(tmp_path / "my-experiment").files() == TREE


# --- another cookiecutter ---------------------------------------------------------------------


def old_cookiecutter(folder, version):
    """Install a version of cookiecutter from PyPI; return the command that runs it."""
    python = folder / "venv/bin/python"
    run_uv("venv", "--quiet", "-p", sys.executable, folder / "venv")
    run_uv("pip", "install", "--quiet", "--python", python, f"cookiecutter=={version}")
    return [python, "-m", "cookiecutter", "--no-input", TEMPLATE, "-o", folder / "out"]


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.7.3", "2.1.1"])
def test_an_old_cookiecutter_is_refused_and_leaves_nothing_behind(tmp_path, home, version):
    command = old_cookiecutter(tmp_path, version)
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    assert f"cookiecutter {version} is too old" in done.stderr
    assert f"uvx cookiecutter {TEMPLATE}\n" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_the_oldest_cookiecutter_that_the_readme_names_makes_the_same_project(tmp_path, home, bake):
    page = (TEMPLATE / "README.md").read_text("utf-8")
    oldest = re.search(r"cookiecutter ([0-9.]+[0-9]) or newer", page)[1]
    command = old_cookiecutter(tmp_path, oldest)
    environment = {**os.environ, "DL_TEMPLATE_SKIP": EVERY_STEP}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr
    newest, project = bake(), Project(tmp_path / "out/my-experiment")
    assert project.files() == newest.files()
    for name in newest.files():
        assert (project.path / name).read_bytes() == (newest.path / name).read_bytes(), name


# --- again, over a project that exists -----------------------------------------------------


@pytest.mark.slow
def test_a_second_bake_over_uncommitted_work_writes_nothing(bake, home):
    project = bake(skip="venv,kernel")
    readme = project.path / "README.md"
    readme.write_text("my work")
    done = cookiecutter(project.path.parent, "-f", skip="venv,kernel")
    assert done.returncode != 0
    assert "1 changes that are not committed" in done.stdout.split("Traceback")[0]
    assert readme.read_text() == "my work"
    project.git("rm", "--quiet", "--cached", "README.md")
    project.git("commit", "--quiet", "--message", "not in it")
    hidden = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "status.showUntrackedFiles"}
    hidden["GIT_CONFIG_VALUE_0"] = "no"
    asked = functools.partial(ask_hook, "describe_unsaved_work()", project.path)
    assert "1 changes that are not committed" in asked(**hidden)
    (home / "ignore").write_text("*.md\n")
    project.git("config", "--global", "core.excludesFile", "~/ignore")
    assert "1 changes that are not committed, such as 'README.md'" in asked()


@pytest.mark.slow
def test_a_second_bake_over_committed_work_keeps_its_history_and_commits_nothing(bake):
    project = bake(skip="venv,kernel")
    (project.path / "README.md").write_text("my work")
    (project.path / "mine.py").write_text("mine")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "my work")
    (project.path / "machines.local.toml").write_text("# mine")
    done = cookiecutter(project.path.parent, "-f", skip="venv,kernel")
    assert done.returncode == 0, done.stdout
    assert project.git("log", "--format=%s").splitlines()[0] == "my work"
    assert project.git("status", "--porcelain") == "M README.md"
    assert (project.path / "mine.py").read_text() == "mine"
    assert (project.path / "machines.local.toml").read_text() == "# mine"


@pytest.mark.slow
def test_a_bake_over_files_that_are_in_no_repository_writes_nothing(bake):
    project = bake()
    folder, readme = Project(project.path.parent), project.path / "README.md"
    readme.write_text("my work")
    done = cookiecutter(folder.path, "-f", skip=EVERY_STEP)
    assert "files that git does not track" in done.stdout.split("Traceback")[0]
    assert readme.read_text() == "my work"
    (folder.path / ".gitignore").write_text(f"/{project.path.name}/\n")
    folder.git("init", "--quiet")  # the repository around it ignores it
    assert "files that git does not track" in ask_hook("describe_unsaved_work()", project.path)
    shutil.rmtree(project.path)
    subprocess.run(["git", "init", "--quiet", project.path], check=True)
    assert cookiecutter(folder.path, "-f", skip="venv,kernel").returncode == 0
    assert project.git("log", "--format=%s") == "Start my-experiment from dl-remote-template"


# --- cruft, which renders into throw-away folders -------------------------------------------


@pytest.mark.slow
def test_cruft_makes_the_same_project_and_brings_an_update_and_its_renders_leave_no_trace(
    template_copy, tmp_path, home, bake
):
    description = "{{ 7 * 7 }} {# is text"
    options = ["--no-input", "--output-dir", str(tmp_path / "out")]
    options += ["--extra-context", json.dumps({"description": description})]
    template_copy.run(
        "cruft", "create", template_copy.path, *options, env={"DL_TEMPLATE_SKIP": "venv"}
    )
    project, same = Project(tmp_path / "out" / "my-experiment"), bake(description=description)
    assert project.git("log", "--format=%s") == "Start my-experiment from dl-remote-template"
    assert [name for name in project.files() if name != ".cruft.json"] == same.files()
    for name in same.files():
        assert (project.path / name).read_bytes() == (same.path / name).read_bytes(), name
    edit(project.path / "src/my_experiment/plots.py", "Figures", "My figures")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "cruft, and an edit")

    kernels = home / "jupyter" / "kernels"
    template = template_copy.path / "{{cookiecutter.project_slug}}"
    for name, old in (("model.py", "The network"), ("plots.py", "Figures")):
        edit(template / "src/{{cookiecutter.__package}}" / name, old, "Better")
    (wheel,) = (template / "vendor").iterdir()
    wheel.unlink()
    content, newer = os.urandom(100_000), "dl_remote_lab-1.0.1-py3-none-any.whl"
    (template / "vendor" / newer).write_bytes(content)
    template_copy.git("add", "--all", "--force")
    template_copy.git("commit", "--quiet", "--message", "better")
    project.run("cruft", "update", "--skip-apply-ask", env={"DL_TEMPLATE_SKIP": ""})

    assert (project.path / "src/my_experiment/model.py").read_text().startswith('"""Better.')
    (new,) = (project.path / "vendor").iterdir()
    assert (new.name, new.read_bytes()) == (newer, content)
    # where both changed a line, the page says what is found and how theirs is taken
    both = '<<<<<<< ours\n"""My figures .*=======\n"""Better .*>>>>>>> theirs\n'
    assert re.match(both, (project.path / "src/my_experiment/plots.py").read_text(), re.S)
    assert project.git("diff", "--name-only", "--diff-filter=U") == "src/my_experiment/plots.py"
    project.git("checkout", "--quiet", "--theirs", "src/my_experiment/plots.py")
    project.git("add", "--all")
    assert project.git("diff", "HEAD", "--no-renames", "--name-only").splitlines() == [
        ".cruft.json",
        "src/my_experiment/model.py",
        "src/my_experiment/plots.py",
        f"vendor/{wheel.name}",
        f"vendor/{newer}",
    ]
    project.git("commit", "--quiet", "--message", "update")
    assert project.run("cruft", "diff", env={"DL_TEMPLATE_SKIP": ""}).stdout.strip() == ""
    assert f'"{description}"' in (project.path / "pyproject.toml").read_text()
    assert not kernels.exists()


@pytest.mark.slow
def test_a_project_that_cookiecutter_made_is_linked_and_checked_as_the_page_says(
    template_copy, bake
):
    project = bake(skip="venv,kernel")
    page = (TEMPLATE / "docs" / "updating.md").read_text("utf-8")
    for block in re.findall(r"```sh\n(.*?)```", page, re.S):
        for line in block.splitlines():
            line = line.replace("cruft link URL", f"cruft link --no-input {template_copy.path}")
            line = line.replace("cruft update", "cruft update --skip-apply-ask")
            line = line.replace("bootstrap.py", "bootstrap.py --no-venv --no-kernel")
            project.run("sh", "-c", line, env={"DL_TEMPLATE_SKIP": ""})
    assert project.git("status", "--porcelain") == ""
