"""lab fetch brings home what is new, complete and checked, and never harms a local file."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.files import MB, NASTY, SHORT, put, tree
from helpers.jobs import BOB, until
from helpers.laptop import Laptop

RUN = "20260101-101010-worker-00000001"
OTHER = "20260101-101011-worker-00000002"


@pytest.fixture
def laptop(swept) -> Laptop:
    return swept


def record(laptop: Laptop, run: str = RUN, job: str = "", **files: str | bytes) -> Path:
    """A record on the worker, as a run leaves it; returns its folder."""
    place = laptop.there(f"runs/{run}")
    place.mkdir(parents=True, exist_ok=True)
    about = {"job": {"lab": job, "slurm": {}}, "status": "COMPLETED"}
    files = {
        "run.json": json.dumps(about, indent=2, sort_keys=True),
        "cout.txt": "hello\n",
        **files,
    }
    for name, content in files.items():
        put(place / name, content)
    return place


def models(laptop: Laptop, run: str = RUN, **files: str | bytes) -> Path:
    """Artifacts on the worker; `__` in a name is a slash."""
    place = laptop.there(f"data/digits/models/{run}")
    for name, content in files.items():
        put(place / name.replace("__", "/"), content)
    return place


def runs_here(laptop) -> Path:
    return laptop.path / "runs"


def models_here(laptop, run=RUN) -> Path:
    return laptop.path / "data/digits/models" / run


def fetch(laptop, *arguments, code=0, env=None, **options):
    """The finished process."""
    env = {**SHORT, **(env or {})}
    done = laptop.lab("fetch", *arguments, check=False, env=env, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def no_staging(laptop):
    left = [*runs_here(laptop).glob(".fetching*"), *laptop.path.glob("data/.fetching*")]
    assert not left


def test_records_and_models_of_a_real_job_come_home_once(laptop):
    laptop.lab("run", "--follow", "with", "steps=2")
    said = fetch(laptop).stdout
    assert tree(runs_here(laptop)) == tree(laptop.there("runs"))
    (run,) = [one.name for one in runs_here(laptop).iterdir() if one.name[0] not in "._"]
    assert tree(models_here(laptop, run)) == tree(laptop.there(f"data/digits/models/{run}"))
    assert re.search(rf"^\d+ \w+, \d+\.\d MB from gpu\n{run}  COMPLETED\n$", said)
    assert fetch(laptop).stdout == "nothing new\n"
    assert f"{run[:15]}  COMPLETED" in laptop.lab("runs")
    no_staging(laptop)
    record(laptop)
    said = fetch(laptop).stdout
    assert said.splitlines()[1:] == [f"{RUN}  COMPLETED"] and said.split()[0] == "2"


def test_only_runs_of_the_named_jobs_come_and_models_unless_refused(laptop):
    job = laptop.lab("run", "--name", "mine", "--follow").split()[0]
    record(laptop, job="20250101-101010-abcd")
    record(laptop, OTHER)
    fetch(laptop, "mine", "--no-models")
    here = {path.name for path in runs_here(laptop).iterdir() if path.name[0] not in "._"}
    assert len(here) == 1 and not here & {RUN, OTHER}
    (run,) = here
    assert json.loads((runs_here(laptop) / run / "run.json").read_text())["job"]["lab"] == job
    assert not models_here(laptop, run).exists()
    fetch(laptop, OTHER, job[-4:])
    assert (runs_here(laptop) / OTHER).exists() and models_here(laptop, run).exists()
    assert not (runs_here(laptop) / RUN).exists()
    assert "there is no job nonsense" in fetch(laptop, "nonsense", code=1).stderr
    gone = "20200101-101010-abcd"
    assert f"there is no job or run {gone}" in fetch(laptop, gone, code=1).stderr


def test_a_local_file_that_differs_stays_and_is_named_and_the_rest_comes(laptop):
    record(laptop)
    fetch(laptop)
    there = record(laptop, **{"notes.txt": "theirs", "new.txt": "comes"})
    put(runs_here(laptop) / RUN / "notes.txt", "mine")
    done = fetch(laptop, code=1)
    assert f"conflict, local file kept: runs/{RUN}/notes.txt" in done.stderr
    assert "lab: conflicts in 1" in done.stderr
    assert (runs_here(laptop) / RUN / "notes.txt").read_text() == "mine"
    assert (runs_here(laptop) / RUN / "new.txt").exists()
    put(runs_here(laptop) / RUN / "cout.txt", "edited here")
    (runs_here(laptop) / RUN / "notes.txt").unlink()
    fetch(laptop)
    assert (runs_here(laptop) / RUN / "notes.txt").read_text() == "theirs"
    put(there / "cout.txt", "changed there too")
    assert f"runs/{RUN}/cout.txt" in fetch(laptop, code=1).stderr
    assert (runs_here(laptop) / RUN / "cout.txt").read_text() == "edited here"


def test_a_local_file_in_place_of_a_folder_stays_and_is_named_and_the_rest_comes(laptop):
    record(laptop)
    record(laptop, OTHER)
    models(laptop, OTHER, best__a=b"a", best__b=b"b")
    ours = [laptop.path / "runs" / RUN, laptop.path / "data/digits/models" / OTHER]
    for path in ours:
        put(path, "mine")
    done = laptop.lab("fetch", check=False)
    assert done.returncode == 1
    for path in ours:
        assert (
            done.stderr.count(f"conflict, local file kept: {path.relative_to(laptop.path)}\n") == 1
        )
        assert path.read_text() == "mine"
    assert (laptop.path / "runs" / OTHER / "cout.txt").exists()


def test_files_that_are_the_same_already_are_adopted_and_updated(laptop):
    there = record(laptop, **{"metrics.jsonl": "{}\n"})
    for name in ("metrics.jsonl", "run.json"):  # as by an scp before
        put(runs_here(laptop) / RUN / name, (there / name).read_text())
    fetch(laptop)
    put(there / "metrics.jsonl", "{}\n{}\n")
    fetch(laptop)
    assert (runs_here(laptop) / RUN / "metrics.jsonl").read_text() == "{}\n{}\n"


def test_a_growing_record_is_brought_up_to_date_and_only_its_growth_is_sent(laptop):
    there = record(laptop, **{"metrics.jsonl": os.urandom(3 * MB)})
    fetch(laptop)
    with (there / "metrics.jsonl").open("ab") as file:
        file.write(os.urandom(1000))
    laptop.hosts.traffic()
    said = fetch(laptop).stdout
    assert said.split()[0] == "1"
    assert laptop.hosts.traffic().down < 0.2 * MB
    assert tree(runs_here(laptop)) == tree(laptop.there("runs"))


def test_nothing_local_is_deleted_when_the_machine_has_deleted_it(laptop):
    there = models(laptop, **{"epoch-0001__state": "1"})
    record(laptop)
    fetch(laptop)
    (there / "epoch-0001").rename(there / "epoch-0002")
    fetch(laptop)
    assert set(tree(models_here(laptop))) == {"epoch-0001/state", "epoch-0002/state"}


def test_temporary_files_and_links_are_skipped_and_links_are_named(laptop):
    there = record(laptop, **{".run.json.77": "{", "link": ""})
    (there / "link").unlink()
    (there / "link").symlink_to("/etc/passwd")
    models(laptop, **{"best.new": "half", "epoch-0002.new__state": "half", "best": "whole"})
    done = fetch(laptop)
    assert f"{RUN}/link" in done.stderr
    assert set(tree(runs_here(laptop) / RUN)) == {"run.json", "cout.txt"}
    assert set(tree(models_here(laptop))) == {"best"}


# rsync there, which waits for a sign each time before it begins
SLOW = """#!/bin/sh
case "$*" in *--server*)
    touch /tmp/rsync-began
    until rm /tmp/go 2>/dev/null; do sleep 0.02; done
esac
exec /usr/bin/rsync "$@"
"""


def test_a_folder_that_may_not_be_read_is_named(laptop):
    worker = laptop.hosts.worker
    personal = laptop.path / "machines.local.toml"
    before = personal.read_text()
    personal.write_text(BOB)
    try:
        for name in ("open", "shut"):
            put(worker.path(f"/home/bob/lab/my-experiment/runs/{name}/run.json"), "{}")
        worker.run("chmod", "700", "/home/bob/lab/my-experiment/runs/shut")
        done = fetch(laptop, code=1)
    finally:
        personal.write_text(before)
        shutil.rmtree(worker.path("/home/bob/lab"))
    assert set(tree(runs_here(laptop))) == {"open/run.json"}
    assert "missing: runs/shut" in done.stderr


@pytest.mark.parametrize("gone", ["all", "a part"])
def test_a_checkpoint_that_the_run_removes_meanwhile_does_not_come_incomplete(laptop, gone):
    record(laptop)
    there = models(laptop, **{"epoch-0001__a": "a", "epoch-0001__b": "b", "best": "best"})
    worker = laptop.hosts.worker
    worker.program("rsync", SLOW)
    process = laptop.popen("lab", "fetch", RUN, env=SHORT)
    began, go = worker.path("/tmp/rsync-began"), worker.path("/tmp/go")
    until(began.exists)
    began.unlink()
    go.touch()  # the records
    until(began.exists)
    # ... and now the models: what was listed is removed before it is read
    subprocess.run(["rm", "-r", there / "epoch-0001" / ("" if gone == "all" else "b")], check=True)
    go.touch()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert set(tree(models_here(laptop))) == {"best"}
    no_staging(laptop)


def test_after_a_lost_connection_it_continues_and_nothing_incomplete_is_in_place(laptop):
    record(laptop)
    content = os.urandom(20 * MB)
    models(laptop, best=content, **{"epoch-0001__state": b"state"})
    laptop.lab("jobs")
    laptop.hosts.traffic()
    laptop.hosts.cut_after(12 * MB)
    done = fetch(laptop, code=1)
    assert "connection lost; run the same command again to continue where it stopped" in done.stderr
    assert not models_here(laptop).exists()
    assert set(tree(runs_here(laptop) / RUN)) == {"run.json", "cout.txt"}
    first = laptop.hosts.traffic().down
    fetch(laptop)
    assert (models_here(laptop) / "best").read_bytes() == content
    assert first + laptop.hosts.traffic().down < 23 * MB
    no_staging(laptop)


def test_a_silent_connection_is_given_up(laptop):
    record(laptop)
    models(laptop, best=os.urandom(20 * MB))
    laptop.lab("jobs", env=SHORT)
    laptop.hosts.delay(0.2)
    process = laptop.popen("lab", "fetch", env=SHORT)
    staged = laptop.path / "data/.fetching-gpu/tmp"
    until(lambda: process.poll() is not None or list(staged.glob("*")))
    laptop.hosts.drop()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "run the same command again" in err
    assert not models_here(laptop).exists()


@pytest.mark.parametrize("shell", ["/bin/bash", "/usr/bin/fish", "/usr/bin/tcsh"])
def test_it_does_not_matter_what_the_login_shell_is_and_prints(laptop, shell):
    worker = laptop.hosts.worker
    worker.write(".bashrc", "echo; echo noise; printf 'more\\0noise'\n")
    worker.write(".config/fish/config.fish", "echo noise\n")
    worker.write(".tcshrc", "echo noise\n")
    worker.account(shell=shell)
    record(laptop)
    models(laptop, best="best")
    done = fetch(laptop)
    assert "tar" not in done.stderr
    assert tree(runs_here(laptop)) == tree(laptop.there("runs"))
    assert (models_here(laptop) / "best").read_text() == "best"


@pytest.mark.parametrize("where", ["worker", "laptop"])
def test_without_rsync_it_works_as_well(laptop, where):
    getattr(laptop.hosts, where).program("rsync", None)
    there = record(laptop, **{"metrics.jsonl": os.urandom(MB), NASTY: "nasty"})
    models(laptop, best=os.urandom(5 * MB), **{"epoch-0001__state": b"state"})
    laptop.lab("jobs")
    laptop.hosts.cut_after(3 * MB)
    assert "connection lost" in fetch(laptop, code=1).stderr
    assert not models_here(laptop).exists()
    assert "tar was used" in fetch(laptop).stderr
    assert tree(runs_here(laptop)) == tree(laptop.there("runs"))
    assert tree(models_here(laptop)) == tree(laptop.there(f"data/digits/models/{RUN}"))
    assert fetch(laptop).stdout == "nothing new\n"
    put(there / "metrics.jsonl", "new")
    fetch(laptop)
    assert (runs_here(laptop) / RUN / "metrics.jsonl").read_text() == "new"


def test_any_name_of_a_file_works(laptop):
    names = [NASTY, "-e", "#x", ";y", "~", " ", "%s", "a:b", "[!a]*", "tab\there", "\udcff\udcfe"]
    there = record(laptop, **{"sub dir\n/x": "deep"})
    for number, name in enumerate(names):
        (there / name).write_text(str(number))
    place = models(laptop, best="best")
    (place / NASTY).write_text("nasty")
    (place / "\\back").write_text("slash")
    fetch(laptop)
    assert tree(runs_here(laptop)) == tree(laptop.there("runs"))
    assert tree(models_here(laptop)) == tree(place)
    assert fetch(laptop).stdout == "nothing new\n"


# python3 there, which finds another content than the one that was sent
LIAR = """#!/bin/sh
/usr/bin/python3 "$@" | sed -z '/best/s/^......../00000000/'
"""


def test_a_model_whose_checksum_differs_is_named_and_not_put_in_place(laptop):
    record(laptop)
    models(laptop, best="best", **{"epoch-0001__state": b"state"})
    laptop.hosts.worker.program("python3", LIAR)
    done = fetch(laptop, code=1)
    assert f"damaged: data/digits/models/{RUN}/best" in done.stderr
    assert set(tree(models_here(laptop))) == {"epoch-0001/state"}
    laptop.hosts.worker.forget_programs()
    fetch(laptop)
    assert set(tree(models_here(laptop))) == {"epoch-0001/state", "best"}


def test_on_a_full_disk_it_says_so_and_nothing_incomplete_is_in_place(laptop):
    record(laptop)
    models(laptop, best=os.urandom(3 * MB))
    inside = f"{laptop.inside}/data"
    laptop.hosts.laptop._sh(f"mount -t tmpfs -o size=1m tmpfs {inside}")
    done = fetch(laptop, code=1)
    assert done.stderr.strip().splitlines()[-1].startswith("lab: the disk of this computer is full")
    assert laptop.hosts.laptop.run("find", inside, "-type", "f").stdout == ""
    laptop.hosts.laptop._sh(f"umount -l {inside}")
    fetch(laptop)
    assert (models_here(laptop) / "best").stat().st_size == 3 * MB


def test_watch_brings_all_until_the_job_ends_and_survives_a_lost_connection(laptop):
    go = laptop.there("go")
    job = laptop.lab("run", "with", "steps=3", f"wait_for={laptop.hosts.worker.home_inside}/go")
    go = laptop.hosts.worker.home / "go"
    job = job.split()[0]
    process = laptop.popen("lab", "fetch", "--watch", job, env={"LAB_PATIENCE": "1"})
    until(lambda: list(laptop.path.glob("data/digits/models/*/epoch-0001")))
    laptop.hosts.refuse()
    assert "Trying again" in process.stderr.readline()
    laptop.hosts.heal()
    go.touch()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert tree(runs_here(laptop)) == tree(laptop.there("runs"))
    assert out.splitlines()[-1].endswith("COMPLETED")
    assert len(list(laptop.path.glob("data/digits/models/*/epoch-*"))) == 3


def test_ctrl_c_ends_the_watching_and_leaves_nothing_behind(laptop):
    job = laptop.lab("run", "with", "wait_for=/nowhere").split()[0]
    process = laptop.popen("lab", "fetch", "--watch", env=SHORT)
    assert "from gpu" in process.stdout.readline()
    process.interrupt()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and err == "\nthe runs go on; lab fetch brings what is new\n"
    assert not [line for _, _, line in laptop.hosts.laptop.processes() if "rsync" in line]
    laptop.lab("stop", "--grace", "1", job)


def test_two_fetches_at_once_harm_nothing(laptop):
    record(laptop, **{"metrics.jsonl": os.urandom(MB)})
    models(laptop, best=os.urandom(MB))
    both = [laptop.popen("lab", "fetch", env=SHORT) for _ in range(2)]
    said = sorted(process.communicate(timeout=120)[0] for process in both)
    assert said[1] == "nothing new\n" and said[0].split()[0] == "4"
