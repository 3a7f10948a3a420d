"""Repositories of strangers: what their files say is data, and nothing is written outside."""

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from any_text import outside, quickly
from git_helper import run_git
from hypothesis import given
from hypothesis import strategies as st
from written_records import write_three

from lab.adoption import adopt, survey, texts
from lab.datasets import folders
from lab.datasets.manifest import MANIFEST, DatasetError
from lab.environment import lock, update
from lab.example import removal
from lab.ground import files
from lab.ground import project as current
from lab.ground.errors import LabError
from lab.recording.command import own_record
from lab.runs import listing, reading, records
from lab.ssh import machines, ssh_config
from lab.transfer import fetch_plan, staging

ANSWERS = survey.Answers("sugar", "3.11", "ada@gpu1", "gate", ("out",))
WRITTEN = ("pyproject.toml", ".gitignore", ".gitattributes", "bootstrap.py", "machines.toml")


@pytest.fixture
def stranger(home, tmp_path, monkeypatch):
    """A folder for a repository, as the current folder, and a function that commits it."""
    folder = (tmp_path / "stranger").resolve()
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(adopt, "find_version", lambda wheel: "1.0.0")
    current.reload()
    yield folder
    current.reload()


def commit_all(folder: Path) -> None:
    run_git(folder, "init", "--quiet")
    run_git(folder, "add", "--all")
    run_git(folder, "commit", "--quiet", "--allow-empty", "-m", "x")


def commit(folder: Path) -> survey.Repository:
    commit_all(folder)
    return survey.find_repository(folder)


# --- lab init -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "there"),
    [("requirements.lock", False)]
    + [(name, there) for name in (*WRITTEN[:4], "vendor") for there in (True, False)],
)
def test_init_writes_through_no_link_that_a_repository_has(stranger, tmp_path, name, there):
    target = tmp_path / "of the user"
    if there:
        target.mkdir() if name == "vendor" else target.write_text("")
    (stranger / name).symlink_to(target)
    if not there:
        (stranger / "machines.toml").symlink_to(target)
    (stranger / "requirements.txt").write_text("")
    repository = commit(stranger)
    with pytest.raises(LabError):
        adopt.adopt(repository, ANSWERS)
    assert target.exists() == there
    assert not there or (
        list(target.iterdir()) == [] if target.is_dir() else not target.read_text()
    )
    assert run_git(stranger, "status", "--porcelain") == ""


@pytest.mark.parametrize("name", [*WRITTEN[:3], "setup.py", "setup.cfg", ".python-version"])
@pytest.mark.parametrize("kind", ["fifo", "endless", "binary", "deep"])
def test_init_reads_no_pipe_and_no_endless_file(stranger, name, kind):
    commit(stranger)
    path = stranger / name
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes({"binary": b"\xff\0[", "deep": b"x = " + b"[" * 10_000}[kind])
    with suppress(LabError, OSError):  # a line, both
        repository = survey.find_repository(stranger)
        repository.propose()
        texts.make(repository, ANSWERS, "1.0.0", repository.find_lock())


@pytest.mark.parametrize(
    "text",
    [
        "tool = 5",
        "tool = []",
        "[tool]\npoetry = 5\nuv = []",
        "project = 5",
        "[project]\nname = 5\nrequires-python = 3.11",
        f"[project]\nrequires-python = '>={'9' * 5000}'",
        "[project]\nrequires-python = '\\u001b[2J'",
        "build-system = 5\n[tool.poetry]\npackage-mode = []",
        "[tool.lab]\nx = 1",
        "[[tool.lab]]",
    ],
)
def test_settings_of_any_type_are_a_line_or_none(stranger, text):
    (stranger / "pyproject.toml").write_text(text)
    commit(stranger)
    with suppress(LabError):
        repository = survey.find_repository(stranger)
        assert survey.NAME.fullmatch(repository.propose().name)
        texts.make(repository, ANSWERS, "1.0.0", repository.find_lock())


CODE = {"minus": "-" * 100_000 + "1", "dots": "a" + ".b" * 100_000, "open": "(" * 5000, "nul": "\0"}


@pytest.mark.parametrize("kind", CODE)
def test_code_that_python_cannot_parse_is_code_of_which_nothing_is_known(stranger, kind):
    (stranger / "x.py").write_text(f"{CODE[kind]} # lab.tracking.Experiment")
    assert commit(stranger).imported == []
    assert not own_record.makes_experiment(stranger / "x.py")


def test_patterns_take_no_longer_than_the_text(stranger):
    """Each of these took minutes for a file of 200 kB."""
    (stranger / "setup.py").write_text("\n" * 200_000 + "x")
    (stranger / "requirements.txt").write_text("\n" * 200_000 + "-r more.txt\n" + " " * 200_000)
    began = time.process_time()
    assert commit(stranger).propose().name == "stranger"
    assert lock.find_sources(stranger / "requirements.txt") == []
    line = "[" + " " * 200_000
    assert machines._find_line(f'a = """\n{line}\n"""\n', "machines.gpu", "port") == 1
    assert time.process_time() < began + 30


def test_files_of_requirements_that_include_each_other_are_read_once(stranger):
    for number in range(25):
        both = "".join(f"-r {side}{number + 1}\n" for side in "ab")
        for side in "ab":
            (stranger / f"{side}{number}").write_text(f"{both}-f {side}\n")
    assert lock.find_sources(stranger / "a0") == ["--find-links a", "--find-links b"]
    for number in range(1100):
        (stranger / f"c{number}").write_text(f"-r c{number + 1}\n-f {number}\n")
    assert len(lock.find_sources(stranger / "c0")) == 1100


# --- what a project's own settings say ------------------------------------------------------------

SETTINGS = (
    '[project]\nname = "x"\n[tool.lab]\npython = "3.11"\ntitle = "X"\ndataset = "d"\n'
    'outputs = ["out"]\nlock = "a.lock"\nsource = "src"\n[tool.uv.build-backend]\n'
    'module-name = "x"\n[dependency-groups]\ndev = ["pytest"]\n'
)
ASKED = (
    current.name,
    current.python,
    current.package,
    current.title,
    current.default_dataset,
    current.lock_file,
    current.outputs,
    lambda: current.source_folder(current.root()),
    lock.list_inputs,
    lock.list_other_requirements,
    lock.is_package,
    lock.find_oldest_python,
)
MACHINES = '[machines.gpu]\nssh = "a"\nfolder = "lab/x"\nport = 22\n[machines.gpu.env]\nA = "1"\n'


@contextmanager
def project_that_says(text: str) -> Iterator[None]:
    """A project of which every file is this text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(current, "root", lambda: Path("/nowhere"))
        patch.setattr(files, "read_text", lambda path, *_, **__: text)
        current.reload()
        yield
    current.reload()


@quickly
@given(outside(SETTINGS))
def test_any_pyproject_gives_values_that_lead_nowhere_or_is_a_line(text):
    with project_that_says(text):
        for ask in ASKED:
            current.reload()
            with suppress(LabError):
                found = ask()
                if ask in ASKED[:3]:
                    assert found.isprintable() and not set(found) & set("/ *\"'$;\n")


@quickly
@given(outside(MACHINES))
def test_any_machines_toml_is_machines_or_a_line(text):
    with project_that_says(text), suppress(LabError):
        for one in machines.read_all().values():
            assert machines.HOST.fullmatch(one.ssh) and one.folder.isprintable()


@pytest.mark.parametrize("name", ["../../x", "x\nHost *\n ProxyCommand touch PWNED", "x *", "-x"])
def test_the_name_of_a_project_gets_into_no_path_and_no_configuration_of_ssh(project, name):
    for table in ("project", "tool.lab"):
        text = '[project]\nname = "x"\n[tool.lab]\n'
        line = f"[{table}]\n"
        text = text.replace('name = "x"\n', "").replace(line, f"{line}name = {json.dumps(name)}\n")
        (project / "pyproject.toml").write_text(text)
        current.reload()
        with pytest.raises(LabError):
            ssh_config.alias(machines.Machine("gpu", ssh="a", folder="b"))


def test_what_a_machine_fills_is_no_project(project):
    inside = [project / one for one in ("runs/a", "jobs/a/code/b", "data/d/models/a")]
    for folder in [*inside, project / "deep/er"]:
        folder.mkdir(parents=True)
        (folder / "pyproject.toml").write_text("[tool.lab]\n")
    assert all(current.find_project(folder) == project for folder in inside)
    assert current.find_project(project / "deep/er") == project / "deep/er"


# --- lab example remove ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "tests/conftest.py", "src/my_experiment/data.py"])
def test_the_example_is_removed_through_no_link(project, tmp_path, name):
    for one in (*removal.REMOVED, *removal.WRITTEN):
        path = project / one.replace("PACKAGE", "my_experiment")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    other = tmp_path / "other"
    other.write_text("## Train\nmine\n")
    (project / name).unlink(missing_ok=True)
    (project / name).symlink_to(other)
    commit_all(project)
    with pytest.raises(LabError):
        removal.remove()
    assert other.read_text() == "## Train\nmine\n" and (project / "tests/conftest.py").exists()


# --- files of the project that a command writes ---------------------------------------------------

OLD_WHEEL, NEW_WHEEL = (f"vendor/dl_remote_lab-{one}-py3-none-any.whl" for one in ("1.0", "1.1"))


def lead_away(project: Path, name: str, target: Path) -> Path:
    """Make a file or folder of the project a link to one of the user's, which is returned."""
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        path.rename(target)
    else:
        path.unlink(missing_ok=True)
        target.write_text("mine\n")
    path.symlink_to(target)
    return target


def contents(path: Path) -> dict[str, bytes]:
    return {str(one): one.read_bytes() for one in (path, *path.rglob("*")) if one.is_file()}


@pytest.mark.parametrize("there", [True, False])
def test_the_lock_is_written_through_no_link(project, tmp_path, monkeypatch, there):
    monkeypatch.setattr(lock, "check_uv", lambda *words: None)
    target = lead_away(project, "requirements.txt", tmp_path / "of the user")
    if not there:
        target.unlink()
    with pytest.raises(LabError):
        lock.compile_lock([])
    assert not there or target.read_text() == "mine\n"
    assert target.exists() == there and not list(project.glob("requirements.txt.*"))


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "requirements.txt", "vendor", OLD_WHEEL, NEW_WHEEL]
)
def test_an_update_is_written_through_no_link(project, tmp_path, monkeypatch, name):
    monkeypatch.setattr(lock, "compile_lock", lambda words: [])
    (project / "requirements.txt").write_text("x==1\n")
    settings = '[project]\nname = "x"\ndependencies = ["dl-remote-lab==1.0"]\n[tool.lab]\n'
    (project / "pyproject.toml").write_text(settings)
    current.reload()
    (project / "vendor").mkdir()
    (project / OLD_WHEEL).write_text("old\n")
    wheel = tmp_path / Path(NEW_WHEEL).name
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("dl_remote_lab-1.1.dist-info/METADATA", "Version: 1.1\n")
    target = lead_away(project, name, tmp_path / "of the user")
    if name == "pyproject.toml":
        target.write_text(settings)
    commit_all(project)
    before = contents(target)
    with pytest.raises(LabError):
        update.update(str(wheel))
    assert contents(target) == before
    assert run_git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize("name", ["_cache/listing.json", "_cache"])
def test_a_listing_is_kept_behind_no_link(project, tmp_path, name):
    write_three(project / "runs")
    (project / "runs/_cache").mkdir()
    target = lead_away(project, f"runs/{name}", tmp_path / "of the user")
    assert len(listing.list_rows()) == 3
    assert contents(target) in ({str(target): b"mine\n"}, {})


def test_a_plot_is_drawn_behind_no_link(project, tmp_path):
    path = records.name_plot([Path("a")], "val/loss")
    assert path.parent.parent == project / "runs"
    lead_away(project, str(path.relative_to(project)), tmp_path / "of the user")
    with pytest.raises(LabError):
        records.name_plot([Path("a")], "val/loss")


@pytest.mark.parametrize("name", ["notebooks/a.ipynb", "notebooks"])
def test_a_kernel_is_written_into_no_notebook_behind_a_link(project, tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "jupyter_core", SimpleNamespace())
    paths = SimpleNamespace(jupyter_data_dir=str)  # not a package of these tests
    monkeypatch.setitem(sys.modules, "jupyter_core.paths", paths)
    from lab.environment import kernel

    text = json.dumps({"metadata": {"kernelspec": {"name": "python3", "language": "python"}}})
    (project / ".gitattributes").write_text("*.ipynb filter=notebook-output\n")
    (project / "notebooks").mkdir()
    for one in ("a", "b"):
        (project / f"notebooks/{one}.ipynb").write_text(text)
    target = lead_away(project, name, tmp_path / "of the user")
    if target.is_file():
        target.write_text(text)
    before = contents(target)
    assert kernel.bind_notebooks("x", "X") == ([] if name == "notebooks" else ["b.ipynb"])
    assert contents(target) == before


def test_what_a_fetch_keeps_lies_behind_no_link(project, tmp_path):
    target = lead_away(project, "runs/.fetch-gpu.json", tmp_path / "of the user")
    state = fetch_plan.FetchState(project / "runs/.fetch-gpu.json")
    state.save()
    assert target.read_text() == "mine\n" and state.path.read_text() == "{}"
    (tmp_path / "folder").mkdir()
    (project / "runs/.incoming").symlink_to(tmp_path / "folder")
    with pytest.raises(LabError), staging.staging(project / "runs/.incoming"):
        pytest.fail("something would be gathered there")


# --- lab data -------------------------------------------------------------------------------------


def test_names_of_a_dataset_forge_no_line(project, tmp_path, desk_like):
    source = tmp_path / "files"
    source.mkdir()
    for name in ("a\nlab: all is well", "b\x1b[2J", "c\udcff"):
        (source / name).write_text(name[0])
    assert desk_like("data", "add", "table", source, "--copy")[0] == 0
    for path in (project / "data/table").iterdir():
        if path.name != MANIFEST and path.is_file():
            path.write_text("other")
    code, lines = desk_like("data", "verify", "table")
    assert code == 1 and len(lines) == 3
    (source / "e\nlab: all is well").symlink_to("/nowhere")
    code, lines = desk_like("data", "add", "other", source)
    assert code == 1 and len(lines) == 1


@pytest.fixture
def desk_like(project, capsys):
    """A function that runs a command of lab; its exit code, and the lines that it printed."""
    from lab.cli import main

    def call(*words: object) -> tuple[int, list[str]]:
        capsys.readouterr()
        code = main.main(list(map(str, words)))
        text = "".join(capsys.readouterr())
        assert text.replace("\n", "").isprintable()
        return code, text.splitlines()

    return call


def test_a_folder_that_is_no_dataset_is_refused_at_once(project, tmp_path, monkeypatch):
    source = tmp_path / "files"
    for kind in ("fifo", "device", "loop", "itself", "outside"):
        folder = source / kind
        folder.mkdir(parents=True)
        if kind == "fifo":
            os.mkfifo(folder / "x")
        else:
            targets = {"device": "/dev/zero", "loop": folder, "itself": "x"}
            (folder / "x").symlink_to(targets.get(kind, "/absent"))
        with pytest.raises(DatasetError):
            folders.add("table", folder)
    # 65,536 ways through 16 links. Linux allows 40 in a path, but counts twice those that it has
    # followed when a disk is mounted meanwhile: over 20 it may refuse any path.
    for number in range(16):
        (source / f"m{number}").mkdir()
        for side in "ab":
            (source / f"m{number}" / side).symlink_to(source / f"m{number + 1}")
    (source / "m16").mkdir()
    monkeypatch.setattr(folders, "MAX_FILES", 2_000)
    with pytest.raises(DatasetError):
        folders.add("table", source / "m0")
    assert not (project / "data/table").exists()


def test_a_link_to_itself_is_not_a_run_and_stops_no_listing(project):
    (project / "runs/20260101-000000-aaaaaa").mkdir(parents=True)
    (project / "runs/loop").symlink_to("loop")
    assert reading.run_ids() == ["20260101-000000-aaaaaa"]


@pytest.mark.slow
def test_folders_a_thousand_deep_are_a_dataset_and_too_many_files_are_none(
    project, tmp_path, monkeypatch
):
    deep = tmp_path / "deep"
    deep.mkdir()
    monkeypatch.chdir(deep)
    for _ in range(1100):
        Path("d").mkdir()
        os.chdir("d")
    Path("x").write_text("x")
    monkeypatch.chdir(project)
    try:
        assert folders.add("deep", deep)
        assert folders.verify("deep") == []
    finally:  # pytest cannot remove them
        subprocess.run(["rm", "-rf", deep, project / "data/deep"], check=True)
    (tmp_path / "many").mkdir()
    for number in range(20):
        (tmp_path / "many" / f"{number:0200}").write_text("")
    monkeypatch.setattr(files, "MAX_BYTES", 5000)
    with pytest.raises(DatasetError):
        folders.add("many", tmp_path / "many")


@quickly
@given(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=40))
def test_any_name_of_a_dataset_stays_in_the_data_folder_or_is_a_line(name):
    with suppress(LabError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(current, "data_folder", lambda: Path("/data"))
        assert current.dataset_folder(name).parent == Path("/data") and name not in (".", "..")
