"""A file that a setting names is found everywhere, or a warning says that it will not be."""

import subprocess

import pytest

from lab.ground import portable
from lab.project import LabError, find_file
from lab.recording.settings import named_files
from lab.runs import reproduce


@pytest.fixture
def folders(project, tmp_path, monkeypatch):
    """A project in git, with its data on another disk and its records where they usually are."""
    subprocess.run(["git", "init", "--quiet", project], check=True)
    (project / ".gitignore").write_text("/data\n/runs\n/env\n")
    data = tmp_path / "disk"
    monkeypatch.setenv("LAB_DATA", str(data))
    made = {"data": data / "digits/words.txt", "runs": project / "runs/1/report.json"}
    made |= {"": project / "src/labels.txt", "env": project / "env/own.txt"}
    for path in made.values():
        path.parent.mkdir(parents=True)
        path.write_text(f"in {path}")
    return made


def test_a_name_leads_to_the_same_file_whatever_the_folders_are_called(folders, project, tmp_path):
    names = {"data": "data/digits/words.txt", "runs": "runs/1/report.json", "": "src/labels.txt"}
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    for key, name in names.items():
        for typed in (name, f"./{name}", folders[key]):
            assert portable.to_portable(str(typed)) == name
        assert find_file(name) == folders[key]
    assert portable.to_portable(str(tmp_path / "link/digits/words.txt")) == names["data"]
    assert portable.to_portable("") == ""
    assert portable.locate("src/labels.txt", tmp_path) == tmp_path / "src/labels.txt"
    assert portable.locate(names["data"], tmp_path) == folders["data"]


def test_what_nobody_else_would_find_is_refused(folders):
    for typed in ("/etc/hostname", "../other/words.txt", "data/../../words.txt", "~/words.txt"):
        with pytest.raises(ValueError, match="outside"):
            portable.to_portable(typed)
    for name in ("data/digits/none.txt", "data", "runs/1", "src", "src/none.txt"):
        with pytest.raises(LabError):
            find_file(name)


def test_a_plain_path_that_a_checkout_lacks_is_warned_of(folders, project, capsys, monkeypatch):
    (project / "data").mkdir()
    (project / "data/best.pt").touch()
    (project.parent / "beside.txt").touch()
    settings = {
        "ignored": "data/best.pt",
        "part": {"several": ["src/labels.txt", "env/own.txt"]},
        "outside": "../beside.txt",
        "absolute": str(folders[""]),
        "tracked": "src/labels.txt",
        "shared": "/etc/hostname",
        "words": "data/digits/words.txt",
        "word": "digits",
        "long": "x" * 10_000,
        "odd": chr(0xD800),
        "number": 3,
    }
    named_files.warn_of_not_portable(settings, [{"path": "data/digits/words.txt"}])
    warned = [line.split()[1].partition("=")[0] for line in capsys.readouterr().err.splitlines()]
    assert warned == ["ignored", "part.several", "outside", "absolute"]
    monkeypatch.chdir(project / "src")
    named_files.warn_of_not_portable({"from_inside": "labels.txt"}, [])
    assert "from_inside=labels.txt" in capsys.readouterr().err


def test_a_named_file_is_identified_and_a_missing_one_refused(folders):
    (one,) = named_files.identify(["", "data/digits/words.txt", "data/digits/words.txt"])
    assert one["path"] == "data/digits/words.txt" and len(one["sha256"]) == 64
    with pytest.raises(LabError):
        named_files.identify(["data/digits/none.txt"])


def test_the_weights_of_a_run_that_a_setting_names_are_those_that_lab_reproduce_wants(project):
    run = "20260101-101010-abcdef"
    models = project / "data/digits/models"
    for name in ("best.safetensors", ".left-1", "last.new", "step-00000010/state.json"):
        (models / run / name).parent.mkdir(parents=True, exist_ok=True)
        (models / run / name).write_text(name)
    (models / "20260101-101010-another").mkdir()
    weights = f"data/digits/models/{run}/best.safetensors"
    assert named_files.list_weights([run, "none", "", "..", "a/../b"]) == [weights]
    record = {"meta": {"files": named_files.identify([weights])}}
    reproduce.check_files(record, project)
    for change in (lambda path: path.write_text("trained again"), lambda path: path.unlink()):
        change(project / weights)
        with pytest.raises(LabError, match="best.safetensors"):
            reproduce.check_files(record, project)
