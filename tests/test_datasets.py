"""A dataset is copied as its manifest says or not at all, and overwrites nothing on either side."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from helpers.files import MB, NASTY, SHORT, dataset, put, tree
from helpers.jobs import ended, log, start
from helpers.laptop import Laptop

HERE, THERE = "push-data", "fetch-data"


@pytest.fixture
def laptop(swept) -> Laptop:
    return swept


@pytest.fixture(params=[HERE, THERE])
def way(request, laptop):
    """A dataset on one side, to be brought to the other by the command of the same name."""
    here, there = laptop.path / "data", laptop.there("data")
    there.mkdir(parents=True, exist_ok=True)
    source, target = (here, there) if request.param == HERE else (there, here)
    return Way(laptop, request.param, source, target)


class Way:
    def __init__(self, laptop, command, source: Path, target: Path):
        self.laptop, self.command, self.source, self.target = laptop, command, source, target

    def __call__(self, name="pets", code=0, env=None):
        """The finished process."""
        env = {**SHORT, **(env or {})}
        done = self.laptop.lab(self.command, name, check=False, env=env)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == (code != 0)
        return done.stdout + done.stderr

    def arrived(self, name="pets"):
        """It is whole, and nothing else is left on either side."""
        for split in ("train", "val", "test", "manifest.json"):
            assert content(self.target / name, split) == content(self.source / name, split)
        assert not list(self.target.glob(".*"))

    def nothing(self, name="pets"):
        assert not (self.target / name).exists()


def content(folder: Path, part: str):
    path = folder / part
    return path.read_bytes() if path.is_file() else tree(path)


def test_a_dataset_arrives_whole_and_a_second_time_it_is_there_already(way):
    dataset(way.source, size=1000)
    put(way.source / "pets/models/run/best", "a model")
    put(way.target / "pets/models/other/best", "another model")
    assert "12 files, 0.0 MB copied" in way()
    way.arrived()
    assert tree(way.target / "pets/models") == {"other/best": b"another model"}
    said = way()
    assert "already" in said and ("size" in said) == (way.command == HERE), "as it was checked"
    (way.target / "pets/val/dog/1 ü.png").write_bytes(os.urandom(1000))
    if way.command == THERE:
        assert "the manifest of gpu differs: val/dog/1 ü.png" in way(code=1)


def test_another_dataset_of_the_same_name_stays_and_both_manifests_are_named(way):
    one, two = dataset(way.source), dataset(way.target)
    before = tree(two)
    said = way(code=1)
    for place in (one, two):
        assert hashlib.sha256((place / "manifest.json").read_bytes()).hexdigest()[:12] in said
    assert "rename one" in said
    assert tree(two) == before


def test_files_that_are_in_the_way_stay_and_are_named(way):
    dataset(way.source)
    put(way.target / "pets/train/cat/0 ü.png", os.urandom(10))  # of the same size
    before = tree(way.target)
    assert "train/cat/0" in way(code=1)
    assert {name: data for name, data in tree(way.target).items() if name in before} == before
    assert not (way.target / "pets/manifest.json").exists()
    assert not (way.target / "pets/test").exists()


def test_what_an_interrupted_transfer_put_in_place_is_completed(way):
    place = dataset(way.source)
    put(way.target / "pets/train/cat/0 ü.png", (place / "train/cat/0 ü.png").read_bytes())
    way()
    way.arrived()
    (way.target / "pets/val/dog/1 ü.png").unlink()  # and what somebody removed comes again
    way()
    way.arrived()


@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_broken_dataset_is_named_and_nothing_is_put_in_place(way, how):
    path = dataset(way.source) / "val/dog/1 ü.png"
    path.write_bytes(os.urandom(10)) if how == "changed" else path.unlink()
    said = way(code=1)
    assert "nothing was put in place" in said and "val/dog/1 ü.png" in said
    way.nothing()


def test_after_a_lost_connection_it_continues(way):
    big = os.urandom(12 * MB)
    dataset(way.source, **{"train/cat/big": big})
    hosts = way.laptop.hosts
    way.laptop.lab("jobs", env=SHORT)
    hosts.traffic()
    hosts.cut_after(7 * MB)
    assert "to continue where it stopped" in way(code=1)
    way.nothing()
    first = hosts.traffic()
    way()
    second = hosts.traffic()
    assert first.up + second.up + first.down + second.down < 15 * MB
    way.arrived()


@pytest.mark.parametrize("where", ["worker", "laptop"])
def test_a_dataset_is_copied_without_rsync(way, where):
    getattr(way.laptop.hosts, where).program("rsync", None)
    dataset(way.source, size=100_000, **{f"train/cat/{NASTY}": b"nasty"})
    way.laptop.lab("jobs", env=SHORT)
    way.laptop.hosts.cut_after(600_000)
    assert "to continue where it stopped" in way(code=1)
    way.nothing()
    way()
    way.arrived()


@pytest.mark.parametrize("rsync", [True, False])
def test_a_dataset_of_links_arrives_as_files(way, rsync):
    if not rsync:
        way.laptop.hosts.worker.program("rsync", None)
    names = [f"val/{name}" for name in ("link", "another", "hard")]
    pets = dataset(way.source, **dict.fromkeys(names, b"the same"))
    elsewhere = way.source.parent / "elsewhere"
    put(elsewhere / "one", b"the same")
    for name in names:
        (pets / name).unlink()
    (pets / "train/cat").rename(elsewhere / "cats")
    (pets / "train/cat").symlink_to("../../../elsewhere/cats")
    for name in names[:2]:
        (pets / name).symlink_to("../../../elsewhere/one")
    (pets / "val/hard").hardlink_to(elsewhere / "one")
    try:
        way()
        assert not [path for path in (way.target / "pets").rglob("*") if path.is_symlink()]
        assert {(way.target / "pets" / name).read_bytes() for name in names} == {b"the same"}
        assert "already" in way()
    finally:
        shutil.rmtree(elsewhere)


def test_any_name_of_an_image_and_any_login_shell_will_do(way):
    worker = way.laptop.hosts.worker
    worker.write(".config/fish/config.fish", "echo noise\n")
    worker.account(shell="/usr/bin/fish")
    names = [NASTY, "-e", "#x", "\\", "a\\nb", "tab\there", "\rx", ": FAILED", "~"]
    dataset(way.source, **{f"train/{name}/{name}": name.encode() for name in names})
    way()
    way.arrived()
    assert "already" in way()


@pytest.mark.parametrize(
    "path", ["../evil", "train/../../evil", "/tmp/evil", "models/x/best", "-x"]
)
def test_a_manifest_that_leads_elsewhere_is_refused(way, path):
    place = dataset(way.source)
    put(place / "manifest.json", json.dumps({"files": {path: "0" * 64}}))
    put(way.source / "evil", "evil")
    assert "manifest.json" in way(code=1)
    way.nothing()


def test_an_invalid_name_is_refused(laptop):
    for name in ("../x", "a/b", ".x", "", "1x", "a b", "x\n"):
        done = laptop.lab("push-data", name, check=False)
        assert done.returncode == 1 and "is not a valid name of a dataset" in done.stderr
    assert "lab data add none FOLDER" in laptop.lab("push-data", "none", check=False).stderr
    assert "there is no dataset in gpu:/" in laptop.lab("fetch-data", "none", check=False).stderr


def test_two_senders_of_the_same_files_at_once_both_succeed(laptop):
    dataset(laptop.path / "data", size=200_000)
    both = [laptop.popen("lab", "push-data", "pets", env=SHORT) for _ in range(3)]
    said = sorted(" ".join(process.communicate(timeout=120)) for process in both)
    assert ["already" in one for one in said] == [True, True, False], said
    Way(laptop, HERE, laptop.path / "data", laptop.there("data")).arrived()


def test_of_two_people_that_send_the_same_at_once_both_find_it_there(laptop):
    dataset(laptop.path / "data", size=200_000)
    worker = laptop.hosts.worker
    shared = worker.path("/home/shared")
    shared.mkdir(exist_ok=True)
    shared.chmod(0o777)
    machines = """
[machines.gpu]
data = "/home/shared"
shared = true
[machines.bobs]
ssh = "worker"
user = "bob"
key = "~/.ssh/id_bob"
gateway = "gateway"
gateway_user = "ada"
folder = "lab/my-experiment"
data = "/home/shared"
shared = true
"""
    personal = laptop.path / "machines.local.toml"
    before = personal.read_text() if personal.exists() else None
    personal.write_text(machines)
    config = "Host gateway\n    IdentityFile ~/.ssh/id_ed25519\n    IdentitiesOnly no\n"
    laptop.hosts.laptop.write(".ssh/config", config)
    try:
        both = [
            laptop.popen("lab", "push-data", "pets", "-m", name, env=SHORT)
            for name in ("gpu", "bobs")
        ]
        said = [" ".join(process.communicate(timeout=120)) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        Way(laptop, HERE, laptop.path / "data", shared).arrived()
        # and the other one's own dataset of that name is refused
        (laptop.path / "data/pets").rename(laptop.path / "data/old")
        dataset(laptop.path / "data")
        done = laptop.lab("push-data", "pets", "-m", "bobs", check=False)
        assert done.returncode == 1 and "bobs has a different dataset pets" in done.stderr
    finally:
        (laptop.hosts.laptop.home / ".ssh/config").unlink()
        personal.unlink() if before is None else personal.write_text(before)


def test_a_job_gets_the_model_of_a_run_of_this_computer(laptop):
    """It is sent before the job starts, and continues after a lost connection where it ended."""
    run = "20260101-101010-laptop-00000001"
    folder = laptop.path / "data/digits/models" / run
    put(folder / "best.safetensors", os.urandom(12 * MB))
    put(folder / "step-00000010/state.json", "{}")
    hosts = laptop.hosts
    laptop.lab("jobs", env=SHORT)
    hosts.cut_after(7 * MB)
    command = ["run", "--gpus", "0", "with", f"pretrained={run[:8]}"]
    done = laptop.lab(*command, check=False, env=SHORT)
    assert done.returncode == 1 and "to continue where it stopped" in done.stderr
    assert "no jobs" in laptop.lab("jobs", env=SHORT)
    assert not (laptop.there("data") / "digits/models" / run).exists()
    hosts.traffic()
    id = start(laptop, *command[1:], env=SHORT)
    assert hosts.traffic().up < 9 * MB
    assert ended(laptop, id) == "finished(0)"
    assert f"weights of {12 * MB} bytes\n" in log(laptop, id)
    hosts.traffic()
    assert ended(laptop, start(laptop, *command[1:])) == "finished(0)"
    assert hosts.traffic().up < MB
    # a run that was made there is known there alone, and its model is not missed
    made = start(laptop, "with", "steps=1")
    ended(laptop, made)
    put(laptop.there(f"data/digits/models/{made}/best.safetensors"), "x")
    assert ended(laptop, start(laptop, "with", f"pretrained={made}")) == "finished(0)"


# sha256sum there, which finds that a file arrived with another content
LIAR = """#!/bin/sh
[ "$1" = -c ] && echo "val/dog/x: FAILED"
exec /usr/bin/sha256sum "$@"
"""


def test_what_arrives_damaged_is_named_and_not_put_in_place(laptop):
    dataset(laptop.path / "data")
    laptop.hosts.worker.program("sha256sum", LIAR)
    done = laptop.lab("push-data", "pets", check=False)
    assert done.returncode == 1 and "arrived damaged on worker" in done.stderr
    assert "val/dog/x" in done.stderr
    assert not list(laptop.there("data").iterdir())


@pytest.mark.parametrize("rsync", [True, False])
def test_on_a_full_disk_it_says_whose_and_leaves_nothing_there(way, rsync):
    dataset(way.source, size=200_000)
    if not rsync:
        way.laptop.hosts.worker.program("rsync", None)
    host = way.laptop.hosts.laptop if way.command == THERE else way.laptop.hosts.worker
    inside = str(way.target).replace(str(host.folder), "", 1)
    host._sh(f"mount -t tmpfs -o size=1m,uid=ada,gid=ada tmpfs {inside}")
    whose = "this computer" if way.command == THERE else "gpu"
    assert f"the disk of {whose} is full" in way(code=1)
    assert host.run("find", inside, "-type", "f").stdout == ""
    host._sh(f"umount -l {inside}")  # rsync may be about to end
    way()
    way.arrived()
