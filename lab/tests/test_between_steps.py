"""Events between two steps of lab: a program forces them at that very moment."""

import hashlib
import json
import runpy
from pathlib import Path

import pytest
from test_offline_setup import BOOTSTRAP

from lab.ground.errors import LabError
from lab.transfer import datasets
from lab.workcopy import workspace


@pytest.mark.slow
def test_what_is_being_edited_during_a_sync_is_not_overwritten(machine, repository):
    (repository / "a.py").write_text("1\n")
    workspace.sync(machine.connection)
    there = machine.folder / "work/a.py"
    (repository / "a.py").write_text("2\n")
    edit = f"case $* in *read-tree*-u*) echo edited >{there} ;; esac; exec_real"
    machine.program("git", edit)
    with pytest.raises(LabError, match="being edited right now"):
        workspace.sync(machine.connection)
    assert there.read_text() == "edited\n"
    machine.program("git", "exec_real")
    assert len(workspace.sync(machine.connection).edits) == 1, "it is saved by the next one"
    assert there.read_text() == "2\n"


def test_a_dataset_is_put_in_place_by_one_at_a_time(machine, project, monkeypatch):
    monkeypatch.setattr(datasets, "_show_progress", list)
    pets = project / "data/pets"
    files = {f"{split}/cat/1.png": split.encode() for split in ("train", "val", "test")}
    for name, content in files.items():
        (pets / name).parent.mkdir(parents=True)
        (pets / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    (pets / "manifest.json").write_text(json.dumps({"files": hashes}))
    data = machine.folder / "data"
    # whoever puts something in place checks whether anybody else could do so now
    look = f"flock -n {data} true && touch {machine.home}/free; touch {machine.home}/moved"
    machine.program("mv", f"{look}; exec_real")
    datasets.push(machine.connection, "pets")
    assert (data / "pets/manifest.json").exists() and (machine.home / "moved").exists()
    assert not (machine.home / "free").exists()


@pytest.mark.parametrize("ours", [True, False])
def test_an_environment_that_cannot_be_swapped_in_leaves_the_old_one(tmp_path, monkeypatch, ours):
    put_in_place = runpy.run_path(str(BOOTSTRAP))["put_in_place"]  # leaves no bytecode beside it
    venv, building = tmp_path / ".venv", tmp_path / ".venv.building"
    for folder, name in ((venv, "old"), (building, "new")):
        folder.mkdir()
        (folder / name).touch()
    rename = Path.rename

    def fail_to_swap_in(path, target):
        if path == building:
            raise OSError(28, "No space left on device", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_to_swap_in)
    with pytest.raises(OSError, match="No space left"):
        put_in_place(building, venv, ours)
    assert [path.name for path in venv.iterdir()] == ["old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".venv", ".venv.building"]
