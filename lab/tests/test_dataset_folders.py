"""`lab data add` makes a dataset of any folder; `lab data verify` finds what has changed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_machine import until

import lab
from lab.cli import main
from lab.datasets import folders
from lab.datasets.manifest import DatasetError, is_file_of_dataset, parse_manifest
from lab.ground.errors import LabError
from lab.runs import reproduce
from lab.transfer import datasets as transfer


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "tables"
    for name, text in {"a.csv": "1,2", "deep/b c.bin": "\0", "train/x": "x", ".git/x": ""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    names = (path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    linked = (folder / name for name in ("deep/b c.bin", "train/x"))
    found = {*names, *(path for path in linked if path.is_file())}
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


@pytest.mark.parametrize("way", [[], ["--copy"]])
def test_files_are_a_dataset_as_they_are_and_the_same_files_are_the_same_one(
    project, source, way, capsys
):
    assert main.main(["data", "add", "table", str(source), *way]) == 0
    folder = project / "data/table"
    files = {"a.csv": "1,2", "deep/b c.bin": "\0", "train/x": "x"}
    assert content(folder) == files
    assert (folder / "a.csv").is_symlink() is not bool(way)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["files"]) == sorted(files) and manifest["size"] == 5
    assert main.main(["data", "verify", "table"]) == 0
    before = (folder / "manifest.json").read_bytes()
    assert main.main(["data", "add", "table", str(source), *way]) == 0, "again it changes nothing"
    shutil.copytree(source, project / "elsewhere")
    folders.add("other", project / "elsewhere")
    assert (project / "data/other/manifest.json").read_bytes() == before


def test_what_changed_is_named_and_the_exit_code_is_1(project, source, capsys):
    folders.add("table", source, copy=True)
    folder = project / "data/table"
    (folder / "a.csv").write_text("1,3")
    (folder / "train/x").unlink()
    (folder / "deep/new").touch()
    (folder / "new").touch()
    (folder / "models/run").mkdir(parents=True)
    (folder / "models/run/weights").touch()
    capsys.readouterr()
    assert main.main(["data", "verify", "table"]) == 1
    said = [line.split(None, 1) for line in capsys.readouterr().out.splitlines()]
    foreign = [["foreign", "deep/new"], ["foreign", "new"]]
    assert sorted(said) == [["changed", "a.csv"], *foreign, ["missing", "train/x"]]
    with pytest.raises(DatasetError):
        folders.verify("nothing")


def test_files_that_lie_in_the_data_folder_already_stay_there(project, source):
    folder = project / "data/table"
    folder.parent.mkdir()
    source.rename(folder)
    (folder / "models").mkdir()
    (folder / "models/weights").touch()
    folders.add("table", folder)
    assert not (folder / "a.csv").is_symlink() and folders.verify("table") == []


def test_the_placeholders_of_a_project_are_no_obstacle(project, source):
    for split in ("train", "val", "models"):
        (project / "data/digits" / split).mkdir(parents=True)
        (project / "data/digits" / split / ".gitkeep").touch()
    folders.add("digits", source)
    assert (project / "data/digits/train/x").read_text() == "x"
    assert (project / "data/digits/train/.gitkeep").exists() and folders.verify("digits") == []


def test_nothing_is_overwritten_and_another_dataset_is_refused(project, source):
    folders.add("table", source, copy=True)
    (source / "a.csv").write_text("another")
    before = content(project / "data/table")
    for copy in (True, False):
        with pytest.raises(DatasetError):
            folders.add("table", source, copy)
    (project / "data/table/manifest.json").unlink()
    with pytest.raises(DatasetError, match=r"a\.csv"):
        folders.add("table", source)
    (project / "data/table/mine").touch()
    with pytest.raises(DatasetError, match="mine"):
        folders.add("table", source)
    assert content(project / "data/table").items() >= before.items()


def test_what_no_dataset_can_have_is_refused_by_name(project, source, tmp_path):
    def refused(folder: Path = source) -> str:
        with pytest.raises(DatasetError) as caught:
            folders.add("table", folder)
        assert not (project / "data/table").exists()
        return str(caught.value)

    assert "nowhere" in refused(tmp_path / "nowhere")
    for name in ("models/x", "-x", "manifest.json"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).touch()
        assert name in refused()
        (source / name).unlink()
    (source / "models").rmdir()
    os.mkfifo(source / "pipe")
    assert "pipe" in refused()
    (source / "pipe").unlink()
    (source / "up").symlink_to(source)
    assert "up" in refused()
    (source / "up").unlink()
    assert "data" in refused(project), "the data folder lies in it"


def test_ctrl_c_in_a_file_without_end_ends_it_at_once_and_leaves_no_manifest(project, tmp_path):
    big = tmp_path / "big"
    big.mkdir()
    for number in range(3):
        with (big / f"{number}").open("wb") as file:
            file.truncate(1 << 40)
    command = [sys.executable, "-m", "lab.cli", "data", "add", "big", str(big)]
    source = {"PYTHONPATH": str(Path(lab.__file__).parents[1])}
    process = subprocess.Popen(command, env={**os.environ, **source}, stderr=subprocess.DEVNULL)
    files = Path(f"/proc/{process.pid}/fd")
    until(lambda: any(f"{big}/" in os.path.realpath(one) for one in files.iterdir()))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    assert not (project / "data").exists()


def test_progress_moves_inside_of_a_file_and_what_cannot_be_listed_is_refused(
    project, source, monkeypatch, capsys
):
    with (source / "big").open("wb") as file:
        file.truncate(3 << 20)
    moved: list[tuple[str, int]] = []

    @contextmanager
    def show(total: int, action: str):
        yield lambda size: moved.append((action, size))

    monkeypatch.setattr(folders, "show_progress", show)
    folders.add("table", source, copy=True)
    for action in ("reading", "copying"):
        pieces = [size for one, size in moved if one == action]
        assert sum(pieces) == (3 << 20) + 5 and max(pieces) <= 1 << 20
    monkeypatch.setattr(folders.files, "MAX_BYTES", 100)
    with pytest.raises(DatasetError):
        folders.add("other", source)
    assert not (project / "data/other").exists()


def test_a_file_that_changes_while_it_is_copied_is_named_and_not_kept(project, source, monkeypatch):
    hash_files = folders.hash_files

    def hash_and_edit(*arguments):
        found = hash_files(*arguments)
        (source / "a.csv").write_text("later")
        return found

    monkeypatch.setattr(folders, "hash_files", hash_and_edit)
    with pytest.raises(DatasetError, match=r"a\.csv"):
        folders.add("table", source, copy=True)
    assert content(project / "data/table") == {}


@pytest.mark.parametrize("name", ["../x", "/x", "-x", "models/x", "Models/x", "a/.x", "", "x/HEAD"])
def test_a_foreign_manifest_names_no_file_that_programs_would_misread(name):
    assert not is_file_of_dataset(name)
    text = json.dumps({"files": {name: "0" * 64}})
    with pytest.raises(DatasetError):
        parse_manifest(text, "x")


def test_where_there_is_no_dataset_the_command_that_makes_one_is_named(machine):
    for action in (folders.verify, lambda name: transfer.push(machine.connection, name)):
        with pytest.raises(DatasetError, match="lab data add none FOLDER"):
            action("none")
    assert not machine.count_calls()


@pytest.mark.slow
@pytest.mark.parametrize("has_rsync", [True, False])
def test_a_dataset_without_splits_arrives_on_a_machine_and_comes_home(
    machine, project, source, has_rsync, monkeypatch
):
    monkeypatch.setattr(transfer, "_show_progress", list)
    bars = SimpleNamespace(tqdm=lambda **_: nullcontext(SimpleNamespace(update=abs)))
    monkeypatch.setitem(sys.modules, "tqdm", bars)
    if not has_rsync:
        machine.program("rsync", "exit 127")
    folders.add("table", source)
    manifest = (project / "data/table/manifest.json").read_bytes()
    transfer.push(machine.connection, "table")
    there = machine.folder / "data/table"
    files = {"a.csv": "1,2", "deep/b c.bin": "\0", "train/x": "x"}
    assert content(there) == files and (there / "manifest.json").read_bytes() == manifest
    assert not any(path.is_symlink() for path in there.rglob("*"))
    (there / "a.csv").unlink()
    transfer.push(machine.connection, "table")
    assert content(there) == files, "what was lost there comes again"
    shutil.rmtree(project / "data/table")
    transfer.fetch(machine.connection, "table")
    assert content(project / "data/table") == files and folders.verify("table") == []
    (project / "data/table/mine.csv").touch()
    shutil.move(project / "data/table/manifest.json", project / "kept")
    with pytest.raises(DatasetError, match=r"a\.csv|mine"):
        transfer.fetch(machine.connection, "table")


def test_a_repetition_checks_every_file_without_code_of_the_projects(project, source):
    folders.add("table", source, copy=True)
    images = project / "src/my_experiment/data.py"  # which would take the files for images
    images.parent.mkdir(parents=True)
    images.write_text("raise SystemExit(1)")
    record = {"data": {"dataset": "table", "manifest_sha256": "0" * 64}}
    reproduce.verify_data(sys.executable, project, "my_experiment.experiment", record, {})
    (project / "data/table/train/x").write_text("y")
    with pytest.raises(LabError):
        reproduce.verify_data(sys.executable, project, "", record, {})


def test_what_the_projects_own_check_prints_need_not_be_utf_8(project, capsys):
    check = project / "src/my_experiment/data.py"
    check.parent.mkdir(parents=True)
    check.write_text("import sys; sys.stdout.buffer.write(b'missing \\xff.png'); sys.exit(1)")
    record = {"data": {"dataset": "images", "manifest_sha256": "0" * 64}}
    variables = {"PYTHONPATH": str(project / "src")}
    with pytest.raises(LabError, match="does not match its manifest"):
        reproduce.verify_data(sys.executable, project, "my_experiment.data", record, variables)
    assert "missing" in capsys.readouterr().out
