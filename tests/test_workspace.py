"""Setting a machine up, and bringing its working copy up to date: no edit made there is lost."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

WORK = "lab/my-experiment/work"


def work_git(laptop, *arguments) -> str:
    """Git in the working copy on the worker."""
    return laptop.hosts.worker.run("git", *arguments, cwd=f"/home/ada/{WORK}").stdout


def tree(laptop, place) -> dict[str, str]:
    """Every file that git does not ignore, with its content."""
    names = laptop.git("ls-files", "-co", "--exclude-standard").splitlines()
    return {n: (place / n).read_bytes() for n in names if (place / n).exists()}


def everything(folder) -> dict[str, tuple]:
    """Every file below a folder, with what would show a change."""
    found = {str(path): path.lstat() for path in folder.rglob("*") if path.is_file()}
    # git touches a pack when it writes an object that the pack has already
    return {
        p: (s.st_ino, s.st_size, p.endswith(".pack") or s.st_mtime_ns) for p, s in found.items()
    }


# --- setup ---------------------------------------------------------------------------------------


def edit(path) -> None:
    """Add a line to a file."""
    path.write_text(path.read_text() + "edited here\n")


def test_setup_makes_a_bare_account_ready(laptop):
    there = laptop.there("")
    assert {"envs", "jobs", "repo.git", "runs", "work"} <= {path.name for path in there.iterdir()}
    assert tree(laptop, laptop.there("work")) == tree(laptop, laptop.path)
    worker = laptop.hosts.worker
    show = "import lab, my_experiment as e; print(lab.__file__, e.__file__)"
    shown = worker.run(f"/home/ada/{WORK}/.venv/bin/python", "-c", show).stdout
    lab, experiment = shown.split()
    assert lab.endswith("/site-packages/lab/__init__.py")
    assert experiment == f"/home/ada/{WORK}/src/my_experiment/__init__.py"
    spec = json.loads(worker.read(".local/share/jupyter/kernels/my-experiment/kernel.json"))
    assert worker.run(spec["argv"][0], "-c", "import ipykernel").returncode == 0
    assert "set -g mouse on" in laptop.there("tmux.conf").read_text()
    assert work_git(laptop, "status", "--porcelain") == ""


def test_setup_again_changes_nothing(laptop):
    before = everything(laptop.there(""))
    said = laptop.lab("setup")
    after = everything(laptop.there(""))
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert {name for name in changed if not name.endswith(".lock")} == set()
    assert "unchanged" in said and "up to date with its lock" in said


def test_setup_brings_uv_along_where_there_is_none(laptop):
    hosts = laptop.hosts
    wheels = hosts.worker.home / "wheels"
    wheels.mkdir()
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels]
    subprocess.run([*fetch, "uv"], check=True)
    settings = "[global]\nno-index = true\nfind-links = /home/ada/wheels\n"
    hosts.worker.write(".config/pip/pip.conf", settings)
    hosts.worker.program("uv", None)
    shutil.rmtree(laptop.there("envs"))
    laptop.lab("setup")
    assert (hosts.worker.home / ".cache/dl-remote-template/uv").is_dir()
    assert laptop.lab("run", "--follow", "--", "python", "-c", "import sacred")


def test_without_any_python_uv_alone_sets_up(laptop):
    worker = laptop.hosts.worker
    for old in ("#!/bin/sh\nexit 1\n", None):  # too old, none
        worker.program("python3", old)
        shutil.rmtree(laptop.there("envs"))
        laptop.lab("setup")
        laptop.lab("run", "--follow", "--", "true")
    worker.program("uv", None)
    shutil.rmtree(laptop.there("envs"))
    done = laptop.lab("setup", check=False)
    assert done.returncode == 1
    assert "neither Python 3.8 nor uv" in done.stderr and "install one" in done.stderr


@pytest.mark.parametrize("bytes", [3_000, 60_000])  # more in test_lost_connections.py
def test_an_interrupted_setup_is_complete_after_the_next_one(laptop, bytes):
    worker = laptop.hosts.worker
    shutil.rmtree(laptop.there(""))
    laptop.hosts.cut_after(bytes)
    laptop.lab("setup", check=False)
    assert "is ready" in laptop.lab("setup")
    assert tree(laptop, laptop.there("work")) == tree(laptop, laptop.path)
    assert work_git(laptop, "for-each-ref", "refs/lab/edits") == "", "nothing was edited there"
    assert worker.run(f"/home/ada/{WORK}/.venv/bin/python", "-c", "import sacred").returncode == 0
    assert not list(laptop.there("repo.git").glob("incoming.*"))


# --- sync ----------------------------------------------------------------------------------------


def test_sync_brings_edits_new_and_deleted_files_there(laptop):
    (laptop.path / "src/my_experiment/new.py").write_text("NEW = 1\n")
    (laptop.path / "README.md").write_text("edited\n")
    (laptop.path / "machines.toml").rename(laptop.path / "machines2.toml")
    (laptop.path / "machines2.toml").rename(laptop.path / "machines.toml")
    (laptop.path / "LICENSE").unlink()
    assert "synced" in laptop.lab("sync")
    assert tree(laptop, laptop.there("work")) == tree(laptop, laptop.path)
    assert not laptop.there("work/LICENSE").exists()
    assert "unchanged" in laptop.lab("sync")


def test_remote_edits_are_saved_brought_home_and_named_before_anything_changes(laptop):
    work = laptop.there("work")
    (work / "README.md").write_text("edited there\n")
    (work / "notes.txt").write_text("untracked there\n")
    (work / "src/my_experiment/model.py").unlink()
    (work / "data/digits/train/image.png").write_text("ignored")
    (laptop.path / "README.md").write_text("edited here\n")
    said = laptop.lab("sync")
    assert tree(laptop, work) == tree(laptop, laptop.path)
    assert not (work / "notes.txt").exists()
    assert (work / "data/digits/train/image.png").read_text() == "ignored", "left alone"
    (ref,) = laptop.git("for-each-ref", "--format=%(refname)", "refs/lab/edits").split()
    assert f"git show {ref}" in said
    assert laptop.git("show", f"{ref}:README.md") == "edited there"
    assert laptop.git("show", f"{ref}:notes.txt") == "untracked there"
    assert "model.py" not in laptop.git("ls-tree", "-r", "--name-only", ref)
    assert "saved on this computer" not in laptop.lab("sync"), "once is enough"


def test_another_name_of_the_remote_kernel_is_no_edit_of_the_notebooks(laptop):
    spec = laptop.hosts.worker.home / ".local/share/jupyter/kernels/my-experiment/kernel.json"
    spec.write_text(spec.read_text().replace("/home/ada/lab/my-experiment/work", "/home/ada"))
    note = laptop.there("work/notebooks/explore_data.ipynb")
    for _ in range(2):
        laptop.lab("setup")
        assert '"name": "my-experiment-2"' in note.read_text(), "bound to the name that was free"
        edit(laptop.path / "README.md")
        assert laptop.lab("sync") == "work/ on gpu: synced\n"
    note.write_text(note.read_text().replace("plots.", "drawings."))
    assert "saved on this computer" in laptop.lab("sync"), "that is an edit"
    (ref,) = laptop.git("for-each-ref", "--format=%(refname)", "refs/lab/edits").split()
    assert "drawings." in laptop.git("show", f"{ref}:notebooks/explore_data.ipynb")


def test_remote_commits_are_saved_with_their_history(laptop):
    identity = ["-c", "user.name=Eve", "-c", "user.email=eve@example.org"]
    (laptop.there("work") / "README.md").write_text("committed there\n")
    work_git(laptop, *identity, "commit", "-qam", "Made on the worker")
    work_git(laptop, "checkout", "-qb", "theirs")
    (laptop.path / "LICENSE").write_text("edited here\n")
    laptop.lab("sync")
    (ref,) = laptop.git("for-each-ref", "--format=%(refname)", "refs/lab/edits").split()
    assert laptop.git("log", "-1", "--format=%s %an", ref) == "Made on the worker Eve"
    assert work_git(laptop, "log", "-1", "--format=%s", "theirs") == "Made on the worker\n"
    assert tree(laptop, laptop.there("work")) == tree(laptop, laptop.path)


def test_a_repository_inside_the_working_copy_is_left_alone_and_named(laptop):
    identity = ["-c", "user.name=Eve", "-c", "user.email=eve@example.org"]
    work_git(laptop, "init", "--quiet", "some library")
    work_git(laptop, "-C", "some library", *identity, "commit", "-qm", "first", "--allow-empty")
    (laptop.there("work") / "some library/code.py").write_text("theirs")
    for back in ([], ["--back"]):
        edit(laptop.path / "README.md")
        done = laptop.lab("sync", *back, check=False)
        assert "saved on this computer" not in done.stdout and done.returncode == 0
        said = done.stderr.splitlines()[1]
        assert said.startswith("some library in work/ on gpu is a git repository of its own")
    (laptop.there("work") / "notes.txt").write_text("edited there")
    laptop.lab("sync")
    (ref,) = laptop.git("for-each-ref", "--format=%(refname)", "refs/lab/edits").split()
    assert "library" not in laptop.git("ls-tree", "--name-only", ref)
    assert (laptop.there("work") / "some library/code.py").read_text() == "theirs"


def test_an_ignored_file_in_the_way_is_saved_before_it_is_replaced(laptop):
    (laptop.there("work") / ".DS_Store").write_text("theirs")
    (laptop.path / ".gitignore").write_text("/.venv*\n/machines.local.toml\n__pycache__/\n")
    (laptop.path / ".DS_Store").write_text("mine")
    laptop.lab("sync")
    (ref,) = laptop.git("for-each-ref", "--format=%(refname)", "refs/lab/edits").split()
    assert laptop.git("show", f"{ref}:.DS_Store") == "theirs"
    assert (laptop.there("work") / ".DS_Store").read_text() == "mine"


def test_nothing_ignored_is_lost_whatever_its_name_and_kind(laptop):
    with (laptop.path / ".gitignore").open("a") as ignored:
        ignored.write("*.csv\n/out\n/link\n")
    laptop.lab("sync")
    theirs = ["ü.csv", "tab\t.csv", "*.csv", "out/deep/x", "file.csv", "link"]
    ours = ["ü.csv", "tab\t.csv", "*.csv", "out", "file.csv/k", "link/k"]
    work = laptop.there("work")
    for place, names in ((work, theirs[:-1]), (laptop.path, ours)):
        for name in names:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text("theirs" if place == work else "ours")
    (work / "link").symlink_to("/nowhere")
    (work / "other.csv").write_text("stays")
    laptop.git("add", "--force", *ours)
    laptop.lab("sync")
    (ref,) = laptop.git("for-each-ref", "--format=%(refname)", "refs/lab/edits").split()
    saved = laptop.git("ls-tree", "-r", "-z", "--name-only", ref).split("\0")
    assert set(theirs) < set(saved)
    assert {laptop.git("show", f"{ref}:{name}") for name in theirs} == {"theirs", "/nowhere"}
    assert {(work / name).read_text() for name in ours} == {"ours"}
    assert (work / "other.csv").read_text() == "stays" and "other.csv" not in saved


def test_remote_edits_may_be_big(laptop):
    big = os.urandom(30_000_000)
    (laptop.there("work") / "big").write_bytes(big)
    lab = "import resource, sys; from lab.cli import main as cli; code = cli.main(['sync'])"
    lab += "; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    *said, kilobytes = laptop.run("python", "-c", lab).stdout.splitlines()
    assert "saved on this computer" in said[-1] and int(kilobytes) < 90_000
    (ref,) = laptop.git("for-each-ref", "--format=%(refname)", "refs/lab/edits").split()
    assert laptop.git("cat-file", "-s", f"{ref}:big") == str(len(big))


def test_what_keeps_git_from_saving_is_named(laptop):
    work_git(laptop, "init", "--quiet", "half")
    done = laptop.lab("sync", check=False)
    assert done.returncode == 1 and "'half/' does not have a commit" in done.stderr
    shutil.rmtree(laptop.there("work/half"))
    laptop.there("repo.git").rename(laptop.there("moved.git"))
    done = laptop.lab("sync", check=False)
    assert "/home/ada/lab/my-experiment/work on worker has lost its repository" in done.stderr
    laptop.there("work/.git").unlink()
    work_git(laptop, "clone", "--quiet", "--bare", "../moved.git", ".git")
    for command in ("sync", "setup"):
        done = laptop.lab(command, check=False)
        assert "is not empty and was not created by lab: move it away" in done.stderr


def test_a_moved_project_folder_is_repaired_and_no_edit_is_lost(laptop):
    laptop.lab("run", "--follow", "--", "true")
    (laptop.there("work") / "README.md").write_text("edited there\n")
    moved = laptop.there("").rename(laptop.there("").with_name("moved"))
    machines = laptop.path / "machines.toml"
    machines.write_text(machines.read_text().replace("lab/my-experiment", "lab/moved"))
    laptop.lab("run", "--follow", "--", "true")
    laptop.lab("setup")
    (ref,) = laptop.git("for-each-ref", "--format=%(refname)", "refs/lab/edits").split()
    assert laptop.git("show", f"{ref}:README.md") == "edited there"
    assert tree(laptop, moved / "work") == tree(laptop, laptop.path)
    for place in (moved / "work", *moved.glob("jobs/2*/code")):
        at = f"/home/ada/{place.relative_to(laptop.hosts.worker.home)}"
        assert laptop.hosts.worker.run("git", "status", "--porcelain", cwd=at).stdout == ""


def test_remote_notebooks_use_the_folders_of_machines_toml_also_after_a_change(laptop):
    there = laptop.there("work/machines.local.toml")
    assert 'data = "/home/ada/lab/my-experiment/data"' in there.read_text()
    machines = laptop.path / "machines.toml"
    text = machines.read_text()
    machines.write_text(re.sub("^(folder = .*)", r'\1\ndata = "big"', text, flags=re.M))
    laptop.lab("setup")
    where = "from lab import project; print(project.runs_folder(), project.data_folder())"
    run = laptop.hosts.worker.run
    python = run(f"/home/ada/{WORK}/.venv/bin/python", "-c", where, cwd=f"/home/ada/{WORK}")
    assert python.stdout == "/home/ada/lab/my-experiment/runs /home/ada/big\n"
    there.write_text(there.read_text().replace("big", "mine") + "# a line of the user's\n")
    laptop.lab("setup")
    assert "/home/ada/mine" in there.read_text()


def test_a_damaged_repository_is_named_with_what_to_do(laptop):
    worker = laptop.hosts.worker
    objects = laptop.there("repo.git/objects")
    (laptop.there("work") / "README.md").write_text("edited there\n")
    for pack in objects.glob("pack/*.pack"):
        pack.chmod(0o644)
        pack.write_bytes(pack.read_bytes()[:100] + b"x" * (pack.stat().st_size - 100))
    for command in (["setup"], ["sync"], ["run", "--", "true"]):
        edit(laptop.path / "README.md")
        done = laptop.lab(*command, check=False)
        place = "/home/ada/lab/my-experiment"
        advice = f"{place}/repo.git is damaged: move it and {place}/work away, then run lab setup"
        assert done.returncode == 1 and advice in done.stderr, done.stderr
        assert done.stderr.count("\n") == 2  # the first line names project and machine
    worker.run("sh", "-c", f"mkdir old; mv {place}/repo.git {place}/work old")
    laptop.lab("setup")
    assert tree(laptop, laptop.there("work")) == tree(laptop, laptop.path)
    laptop.lab("run", "--follow", "--", "true")


def test_a_folder_that_may_not_be_written_is_named(laptop):
    worker = laptop.hosts.worker
    settings = '[machines.gpu]\nuser = "bob"\nkey = "~/.ssh/id_bob"\ngateway_user = "bob"\n'
    (laptop.path / "machines.local.toml").write_text(settings)
    bobs = worker.path("/home/bob/lab/my-experiment")
    bobs.mkdir(parents=True)
    done = laptop.lab("sync", check=False)
    said = done.stderr.splitlines()[-1]
    assert said.startswith("lab: /home/bob/lab/my-experiment cannot be written on worker")
    worker._sh("chown -R bob /home/bob/lab")
    laptop.lab("run", "--", "true")
    worker._sh("chown root /home/bob/lab/my-experiment/repo.git")
    (laptop.path / "new.txt").write_text("something to send")
    done = laptop.lab("run", "--", "true", check=False)
    assert "repo.git on worker: check its free space and your permissions." in done.stderr


def test_a_sync_that_fails_halfway_says_so_and_the_next_one_completes_it(laptop):
    worker, stuck = laptop.hosts.worker, f"/home/ada/{WORK}/tests"
    worker._sh(f"mount --bind {stuck} {stuck}; mount -o remount,bind,ro {stuck}")
    for name in ("README.md", "tests/test_experiment.py"):
        (laptop.path / name).write_text("new\n")
    done = laptop.lab("sync", check=False)
    worker._sh(f"umount {stuck}")
    assert done.returncode == 1
    assert (
        "lab: only a part of /home/ada/lab/my-experiment/work on worker is up to date"
        in done.stderr
    )
    assert "Read-only file system" in done.stderr
    laptop.lab("sync")
    assert tree(laptop, laptop.there("work")) == tree(laptop, laptop.path)


def test_sync_back_makes_a_branch_of_the_edits_and_changes_nothing_on_the_machine(laptop):
    (laptop.there("work") / "README.md").write_text("edited there\n")
    before = everything(laptop.there("work"))
    (branch,) = laptop.lab("sync", "--back").split()
    after = everything(laptop.there("work"))
    assert {n for n in before if before[n] != after.get(n)} == set()
    assert branch.startswith("edits/gpu-")
    assert laptop.git("show", f"{branch}:README.md") == "edited there"
    assert laptop.git("status", "--porcelain") == ""
    assert "nothing was edited" in laptop.lab("sync", "--back"), "it has its branch"
    laptop.lab("sync")
    assert (laptop.there("work") / "README.md").read_text() != "edited there\n"
    assert len(laptop.git("for-each-ref", "refs/lab/edits").splitlines()) == 1


def test_sync_never_gets_stuck_whatever_state_git_there_is_in(laptop):
    identity = ["-c", "user.name=Eve", "-c", "user.email=eve@example.org"]
    work = laptop.there("work")
    work_git(laptop, "checkout", "-qb", "one")
    (work / "README.md").write_text("one\n")
    work_git(laptop, *identity, "commit", "-qam", "one")
    work_git(laptop, "checkout", "-q", "-")
    (work / "README.md").write_text("two\n")
    work_git(laptop, *identity, "commit", "-qam", "two")
    merge = laptop.hosts.worker.run(
        "git", *identity, "merge", "one", cwd=f"/home/ada/{WORK}", check=False
    )
    assert merge.returncode == 1, "a conflict"
    laptop.lab("sync")
    assert tree(laptop, work) == tree(laptop, laptop.path)
    (ref,) = laptop.git("for-each-ref", "--format=%(refname)", "refs/lab/edits").split()
    assert "<<<<<<<" in laptop.git("show", f"{ref}:README.md")
    (work / "README.md").write_text("again\n")
    index = laptop.there("repo.git/worktrees/work/index.lock")
    index.touch()  # a git that was killed
    laptop.lab("sync")
    assert tree(laptop, work) == tree(laptop, laptop.path)


def test_a_connection_lost_in_a_sync_loses_no_edit(laptop):
    for bytes in (2_000, 6_000, 10_000, 16_000, 24_000):
        text = f"edited there {bytes}\n" + "x" * 8000
        (laptop.there("work") / "README.md").write_text(text)
        laptop.lab("jobs")
        laptop.hosts.cut_after(bytes)
        laptop.lab("sync", check=False)
        laptop.lab("sync")
        refs = laptop.git("for-each-ref", "--format=%(refname)", "refs/lab/edits").split()
        assert text.strip() in [laptop.git("show", f"{ref}:README.md") for ref in refs]
        assert tree(laptop, laptop.there("work")) == tree(laptop, laptop.path)
