"""A transfer overwrites nothing that was made meanwhile, and leaves no part of a file."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.datasets.manifest import DatasetError
from lab.ground import files
from lab.ground.errors import LabError
from lab.transfer import copying, datasets, fetch, fetch_plan, report, staging

RUN = "20260101-101010-worker-00000001"


@pytest.fixture
def folders(monkeypatch, project):
    """The folder of a project."""
    monkeypatch.setattr(datasets, "_show_progress", list)  # tqdm need not be installed
    return project


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with the contents `remote`, by path; `meanwhile` runs while they are copied."""
    one = SimpleNamespace(name="gpu", remote={}, meanwhile=lambda: None, socket=tmp_path / "s")

    def pull(connection, base, names, stage, **options):
        for name in names:
            path = stage / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(one.remote[name])
        one.meanwhile()

    monkeypatch.setattr(copying, "pull", pull)
    return one


def listing(kind: str, contents: dict[str, bytes]) -> fetch_plan.Listing:
    found = {name: (len(content), 1) for name, content in contents.items()}
    other = {"runs": {}, "data": {}, "jobs": {}}
    return fetch_plan.Listing(
        {"runs": "R", "data": "D", "jobs": "J"}, {**other, kind: found}, [], [], True
    )


def test_a_record_that_appears_while_it_is_fetched_is_kept_and_named_each_time(
    monkeypatch, folders, machine
):
    machine.remote = {f"{RUN}/notes.txt": b"theirs", f"{RUN}/cout.txt": b"hello"}
    mine = folders / "runs" / RUN / "notes.txt"

    def meanwhile():
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")

    machine.meanwhile = meanwhile
    hashes = {name: hashlib.sha256(text).hexdigest() for name, text in machine.remote.items()}
    monkeypatch.setattr(fetch, "list_remote", lambda *_: listing("runs", machine.remote))
    monkeypatch.setattr(fetch, "remote_hashes", lambda *_: hashes)
    for files_brought in (1, 0):
        report = fetch.fetch(machine)
        assert report.conflicts == [f"runs/{RUN}/notes.txt"]
        assert report.files == files_brought
        assert mine.read_text() == "mine"
        assert (mine.parent / "cout.txt").read_text() == "hello"


@pytest.mark.parametrize("kind", ["runs", "data"])
def test_nothing_new_enters_a_folder_that_no_fetch_made(monkeypatch, folders, machine, kind):
    base = RUN if kind == "runs" else f"pets/models/{RUN}"
    mine = folders / kind / base
    mine.mkdir(parents=True)
    (mine / "run.json").write_bytes(b"mine")
    (mine / "cout.txt").touch()  # what anybody could guess
    machine.remote = {f"{base}/{name}": b"" for name in ("cout.txt", "new/notes.txt")}
    hashes = {name: hashlib.sha256(text).hexdigest() for name, text in machine.remote.items()}
    monkeypatch.setattr(fetch, "list_remote", lambda *_: listing(kind, machine.remote))
    monkeypatch.setattr(fetch, "remote_hashes", lambda *_: hashes)
    for _ in range(2):
        report = fetch.fetch(machine)
        assert (report.files, report.conflicts) == (0, [f"{kind}/{base}"])
        assert sorted(path.name for path in mine.rglob("*")) == ["cout.txt", "run.json"]
    # of a machine that has this very record, what is new comes
    machine.remote[f"{base}/run.json"] = b"mine"
    hashes[f"{base}/run.json"] = hashlib.sha256(b"mine").hexdigest()
    report = fetch.fetch(machine)
    assert report.conflicts == []
    assert (mine / "new/notes.txt").exists()


def test_a_source_for_all_runs_has_the_content_that_its_name_says(monkeypatch, folders, machine):
    named = {hashlib.sha256(b"good").hexdigest()[:32], hashlib.md5(b"good").hexdigest()}
    good = {f"_sources/a_{digest}.py" for digest in named}
    machine.remote = dict.fromkeys(good, b"good") | {f"_sources/b_{'0' * 32}.py": b"evil"}
    monkeypatch.setattr(fetch, "list_remote", lambda *_: listing("runs", machine.remote))
    report = fetch.fetch(machine)
    assert report.damaged == [f"runs/_sources/b_{'0' * 32}.py"]
    assert {f"_sources/{path.name}" for path in (folders / "runs/_sources").iterdir()} == good


def test_a_dataset_that_somebody_prepares_locally_gets_no_files(monkeypatch, folders, machine):
    machine.remote = {"train/a": b"theirs"}
    text = json.dumps({"files": {"train/a": hashlib.sha256(b"theirs").hexdigest()}})
    remote = datasets.RemoteDataset("D", "", True, text, {"train/a": (6, 1)}, {})
    monkeypatch.setattr(datasets, "inspect_remote", lambda *_: remote)
    mine = folders / "data/pets/train/mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(DatasetError, match="train/mine"):
        datasets.fetch(machine, "pets")
    assert [path.name for path in mine.parent.iterdir()] == ["mine"]


def test_a_file_of_a_dataset_that_appears_while_it_is_fetched_is_kept(
    monkeypatch, folders, machine
):
    machine.remote = {"train/a": b"theirs"}
    text = json.dumps({"files": {"train/a": hashlib.sha256(b"theirs").hexdigest()}})
    remote = datasets.RemoteDataset("D", "", True, text, {"train/a": (6, 1)}, {})
    monkeypatch.setattr(datasets, "inspect_remote", lambda *_: remote)
    mine = folders / "data/pets/train/a"

    def meanwhile():
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")

    machine.meanwhile = meanwhile
    with pytest.raises(DatasetError, match="data/pets/train/a was created meanwhile"):
        datasets.fetch(machine, "pets")
    assert mine.read_text() == "mine"
    assert not (folders / "data/pets/manifest.json").exists()


@pytest.fixture
def two_disks(monkeypatch, tmp_path):
    """A source and a target folder that no rename crosses."""
    source, target = tmp_path / "one", tmp_path / "two"
    source.mkdir()
    target.mkdir()

    def crosses(old, new) -> bool:
        return Path(old).is_relative_to(source) != Path(new).is_relative_to(source)

    def guard(rename):
        def guarded(old, new, *rest):
            if crosses(old, new):
                raise OSError(errno.EXDEV, "Invalid cross-device link")
            return rename(old, new, *rest)

        return guarded

    monkeypatch.setattr(Path, "replace", guard(Path.replace))
    for name in ("rename", "replace"):
        monkeypatch.setattr(f"os.{name}", guard(getattr(__import__("os"), name)))
    return source, target


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_across_disks_the_target_is_the_old_one_or_the_new_one_at_every_moment(
    monkeypatch, two_disks, kind
):
    source, target = (folder / "best" for folder in two_disks)
    fill(source, kind)
    if kind == "file":
        target.write_text("old")
    seen = []

    def watch(name):
        plain = getattr(shutil, name)

        def watched(*arguments, **options):
            seen.append(read(target))
            result = plain(*arguments, **options)
            seen.append(read(target))
            return result

        monkeypatch.setattr(shutil, name, watched)

    for name in ("copy2", "copystat", "copyfile"):
        watch(name)
    before = read(target)
    after = read(source)
    files.move(source, target)
    assert seen and all(one == before for one in seen)
    assert read(target) == after and not source.exists()
    assert [path.name for path in target.parent.iterdir()] == ["best"]


def fill(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("new")
    else:
        path.mkdir()
        for name in ("a", "b"):
            (path / name).write_text("new")


def read(path: Path) -> object:
    if path.is_dir():
        return {one.name: one.read_text() for one in path.iterdir()}
    return path.read_text() if path.exists() else None


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failed_move_across_disks_changes_neither_side_and_says_why(monkeypatch, two_disks, kind):
    source, target = (folder / "best" for folder in two_disks)
    fill(source, kind)
    before = read(source)
    if kind == "file":
        target.write_text("old")

    def full(old, new, **options):
        Path(new).write_text("n")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(OSError, match="No space") as raised:
        files.move(source, target)
    assert raised.value.errno == errno.ENOSPC
    assert read(source) == before and read(target) == ("old" if kind == "file" else None)
    assert [path.name for path in target.parent.iterdir()] == ["best"][: kind == "file"]


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("error", [PermissionError(errno.EPERM, "no"), KeyboardInterrupt()])
def test_a_move_across_disks_that_ends_before_the_last_rename_leaves_the_source(
    monkeypatch, two_disks, kind, error
):
    source, target = (folder / "best" for folder in two_disks)
    fill(source, kind)
    before = read(source)
    rename = Path.replace

    def end(old, new):
        if old.parent == target.parent:
            raise error
        return rename(old, new)

    monkeypatch.setattr(Path, "replace", end)
    with pytest.raises(type(error)):
        files.move(source, target)
    assert read(source) == before and not list(target.parent.iterdir())


def test_a_name_of_any_length_is_replaced(tmp_path):
    long = tmp_path / ("ü" * 127)
    assert files.write(long, "text") and long.read_text() == "text"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_what_was_staged_whole_stays_and_on_a_full_disk_nothing_incomplete(tmp_path, number):
    stage = tmp_path / "stage"
    for name in ("files/whole", f"files/{staging.PARTIAL}/half", "tmp/.x"):
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).touch()
    with pytest.raises(LabError), staging.staging(stage):
        raise OSError(number, "why", "x")
    left = [str(path.relative_to(stage)) for path in stage.rglob("*") if path.is_file()]
    assert "files/whole" in left and (len(left) == 1) == (number == errno.ENOSPC)


# --- what does not fit ----------------------------------------------------------------------------


def models(machine, monkeypatch, sizes: dict[str, int]) -> None:
    """The machine has models of these sizes, a folder of two files among them."""
    machine.remote = {f"digits/models/{RUN}/{name}": b"x" * n for name, n in sizes.items()}
    hashes = {name: hashlib.sha256(text).hexdigest() for name, text in machine.remote.items()}
    found = listing("data", machine.remote)
    monkeypatch.setattr(fetch, "list_remote", lambda *_: found)
    monkeypatch.setattr(fetch, "remote_hashes", lambda _, __, names: hashes)
    pull = copying.pull

    def pull_with_times(connection, base, names, stage, **options):
        pull(connection, base, names, stage, **options)
        for name in names:
            os.utime(stage / "files" / name, ns=(1, 1))

    monkeypatch.setattr(copying, "pull", pull_with_times)


MB = 1_000_000
SIZES = {"small": 10, "epoch/a": MB, "epoch/b": 3 * MB, "large": 6 * MB, "middle": 2 * MB}


def test_what_does_not_fit_is_left_out_and_the_rest_comes(monkeypatch, folders, machine, capsys):
    models(machine, monkeypatch, SIZES)
    room = 7 * MB
    monkeypatch.setattr(fetch, "free_bytes", lambda _: room)
    monkeypatch.setattr(report, "free_bytes", lambda _: MB)
    found = fetch.fetch(machine)
    place = folders / "data/digits/models" / RUN
    assert {path.name for path in place.iterdir()} == {"small", "epoch", "middle"}
    assert {path.name for path in (place / "epoch").iterdir()} == {"a", "b"}
    (name,) = found.unfit
    assert name.endswith("/large") and found.missing == []
    assert report.print_report(machine, found) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "data/ needs 5.0 MB more" in said
    room = 100 * MB
    assert fetch.fetch(machine).files == 1
    assert (place / "large").stat().st_size == 6 * MB


def test_a_quota_that_ends_the_copy_keeps_only_the_largest_from_coming(
    monkeypatch, folders, machine
):
    models(machine, monkeypatch, SIZES)
    pull, asked = copying.pull, []

    def pull_within_quota(connection, base, names, stage, **options):
        asked.append(len(names))
        for name in sorted(names):
            if name.endswith("/large"):
                (stage / "tmp").mkdir()
                (stage / "tmp/half").touch()
                raise staging.DiskFull(staging.LOCAL)
            pull(connection, base, [name], stage, **options)

    monkeypatch.setattr(copying, "pull", pull_within_quota)
    found = fetch.fetch(machine)
    place = folders / "data/digits/models" / RUN
    assert {path.name for path in place.iterdir()} == {"small", "epoch", "middle"}
    assert [name.rpartition("/")[2] for name in found.unfit] == ["large"]
    assert asked == [5, 2], "what had arrived was not asked for again"
    assert not list((folders / "data").glob(".fetching*"))


def test_a_name_that_is_impossible_locally_is_named_and_the_rest_comes(
    monkeypatch, folders, machine, capsys
):
    long = "x" * 300
    models(machine, monkeypatch, {"good": 1, long: 1, "epoch/a": 1, f"epoch/{long}": 1})
    found = fetch.fetch(machine)
    place = folders / "data/digits/models" / RUN
    assert [path.name for path in place.iterdir()] == ["good"]
    assert {name.count(long) for name in found.impossible} == {1} and len(found.impossible) == 2
    assert report.print_report(machine, found) == 1
    assert os.strerror(errno.ENAMETOOLONG) in capsys.readouterr().err


def test_what_cannot_be_moved_to_its_place_is_named_and_the_rest_comes(
    monkeypatch, folders, machine
):
    models(machine, monkeypatch, {"good": 1, "bad": 5})
    move = files.move

    def move_or_fail(source, target):
        if target.name == "bad":
            raise OSError(errno.EDQUOT, "why", str(target))
        move(source, target)

    monkeypatch.setattr(files, "move", move_or_fail)
    found = fetch.fetch(machine)
    assert list(found.unfit.values()) == [5] and found.files == 1
    monkeypatch.setattr(files, "move", move)
    assert fetch.fetch(machine).files == 1


def test_a_folder_jobs_of_the_project_is_left_alone(monkeypatch, folders, machine):
    machine.remote = {"20260101-000000-aaaaaa/code/left.txt": b"left"}
    found = fetch_plan.Listing({}, {"runs": {}, "data": {}, "jobs": {}}, [], [], True)
    found.files["jobs"] |= dict.fromkeys(machine.remote, (4, 1))
    found.base.update({"runs": "R", "data": "D", "jobs": "J"})
    monkeypatch.setattr(fetch, "list_remote", lambda *_: found)
    (folders / "jobs").mkdir()
    (folders / "jobs/mine.slurm").write_text("mine")
    assert fetch.fetch(machine).conflicts == ["jobs"]
    assert [path.name for path in (folders / "jobs").iterdir()] == ["mine.slurm"]
    (folders / "jobs").rename(folders / "slurm")
    for files_brought in (1, 0):
        report = fetch.fetch(machine)
        assert (report.files, report.conflicts) == (files_brought, [])
    assert (folders / "jobs/.gitignore").read_text() == "*\n"
