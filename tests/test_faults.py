"""Whatever happens to line, machine or laptop, nothing is lost and every message is true."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from helpers.jobs import BOB, GO, ended, job, log, logged, start, until
from helpers.terminal import in_terminal, read_until, type_in

QUICK = {"LAB_PATIENCE": "4"}  # seconds; a dead line is given up soon


def jobs(laptop) -> list[dict]:
    return json.loads(laptop.lab("jobs", "--json", "--all"))


def refused(laptop, *arguments, env=None) -> str:
    """What a command that fails says: one line, no traceback."""
    done = laptop.lab(*arguments, check=False, env=env or QUICK)
    assert done.returncode == 1, done
    *first, said = done.stderr.splitlines()  # run, sync and setup name project and machine first
    assert said.startswith("lab: ") and len(first) <= 1, done.stderr
    assert not any(line.startswith(("lab: ", "Traceback")) for line in first), done.stderr
    return said


# --- the line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("warm", "bytes"),
    [(True, n) for n in (500, 2_000, 5_000, 9_000, 20_000)]
    + [(False, n) for n in (2_000, 3_500, 7_000, 12_000, 40_000)],
)
def test_a_line_cut_in_a_start_starts_the_job_exactly_once(laptop, bytes, warm):
    (laptop.path / "src/my_experiment/big.py").write_text(
        f"# {'x' * bytes}\n" + "import os\n" * 200
    )
    if warm:
        laptop.lab("jobs")
    laptop.hosts.cut_after(bytes)
    done = laptop.lab(
        "run", "--no-record", "--", "sh", "-c", "echo ran >>/tmp/ran", check=False, env=QUICK
    )
    known = jobs(laptop)
    assert len(known) == 1 or (done.returncode == 1 and not known)
    if known:
        assert ended(laptop, known[0]["id"]) == "finished(0)"
        assert laptop.hosts.worker.path("/tmp/ran").read_text() == "ran\n"
    if done.returncode:
        assert (
            "may have started: check lab jobs" in done.stderr
            or "run the same command" in done.stderr
        )
    else:
        assert done.stdout.split()[0] == known[0]["id"]


def test_an_interrupted_start_says_which_job_may_have_started(laptop):
    worker = laptop.hosts.worker
    worker.path("/tmp/wait").touch()
    wait = "while [ -e /tmp/wait ]; do sleep 0.05; done"
    worker.program("tmux", f'#!/bin/sh\n{wait}\nexec /usr/bin/tmux "$@"\n')
    laptop.lab("jobs")
    with laptop.popen("lab", "run", "--no-record", "--", "true") as starting:
        (place,) = until(lambda: list(laptop.there("jobs").glob("2*")))
        starting.interrupt()
        _, said = starting.communicate(timeout=120)
    worker.path("/tmp/wait").unlink()
    assert starting.returncode == 130
    said = said.splitlines()[-1]
    assert said == f"lab: interrupted. Job {place.name} may have started: check lab jobs."
    assert ended(laptop, place.name) == "finished(0)"


def test_a_silent_line_is_given_up_in_time_and_the_cause_is_named(laptop):
    laptop.lab("jobs")
    laptop.hosts.drop()
    said = refused(laptop, "jobs")
    assert "gpu: gateway cannot be reached" in said and "timed out" in said
    laptop.hosts.heal()
    assert laptop.lab("jobs") == "no jobs yet\n"


def test_a_half_dead_connection_is_dropped_and_the_command_works_on_a_new_one(laptop):
    laptop.lab("jobs")
    gateway = laptop.hosts.gateway
    found = gateway.processes()
    before = " ".join(str(pid) for pid, _, line in found if line.startswith("sshd: ada"))
    gateway._sh(f"kill -STOP {before}")  # answers no more, but holds the line
    assert laptop.lab("jobs", env=QUICK) == "no jobs yet\n"
    gateway._sh(f"kill -KILL {before}")


def test_a_gateway_that_is_down_is_named(laptop):
    laptop.hosts.refuse()
    assert "gateway cannot be reached" in refused(laptop, "jobs")


def test_a_worker_that_is_down_is_not_mistaken_for_the_gateway(laptop):
    laptop.hosts.worker.stop()
    said = refused(laptop, "jobs")
    assert "gateway answers, but cannot reach worker" in said


@pytest.mark.parametrize("name", ["worker", "[worker]:2200"])
def test_a_changed_host_key_is_refused_with_the_way_out(laptop, name):
    laptop.hosts.worker.change_host_key()
    if name != "worker":  # an alias, and another port
        laptop.hosts.worker.run("/usr/sbin/sshd", "-o", "ListenAddress=0.0.0.0:2200", user="root")
        ssh, local = laptop.hosts.laptop.home / ".ssh", laptop.path / "machines.local.toml"
        config = "Host my-gpu\n    HostName worker\n    Port 2200\nHost *\n    LogLevel QUIET\n"
        (ssh / "config").write_text(config)
        known = (ssh / "known_hosts").read_text()
        (ssh / "known_hosts").write_text(known + known.replace("worker ", f"{name} "))
        local.write_text(local.read_text() + 'ssh = "my-gpu"\n')
    said = refused(laptop, "jobs")
    assert f"the host key of {name} has changed" in said
    fix = re.search("ssh-keygen -R .*[^.\n]", said)[0]
    assert fix == f'ssh-keygen -R "{name}"'
    laptop.run("sh", "-c", fix)
    assert "is not known yet" in refused(laptop, "jobs")


def test_who_follows_is_told_each_cause_once_and_gives_up_on_one_that_stays(laptop):
    id, hosts = start(laptop, "--", "sh", "-c", "echo up; exec sleep 1000"), laptop.hosts
    hosts.laptop.program("ssh", '#!/bin/sh\necho >>/tmp/tries\nexec /usr/bin/ssh "$@"\n')
    following = laptop.popen("lab", "logs", "-f", id, env=QUICK)
    watching = laptop.popen("lab", "fetch", "--watch", id, env=QUICK)
    assert following.stdout.readline() == "up\n"
    hosts.refuse()
    tries = hosts.laptop.path("/tmp/tries")
    before = tries.stat().st_size
    until(lambda: tries.stat().st_size > before + 12, what="trying again")
    hosts.worker.change_host_key()
    hosts.heal()
    for one in (following, watching):
        said = one.communicate(timeout=120)[1].splitlines()
        assert one.returncode == 1
        assert "the host key of worker has changed" in said[-1]
        assert sum("cannot be reached" in line for line in said) <= 1, said


def test_an_unknown_host_key_is_not_accepted_without_asking(laptop):
    (laptop.hosts.laptop.home / ".ssh/known_hosts").unlink()
    said = refused(laptop, "jobs")
    assert "is not known yet" in said and "ssh " in said


def test_a_wrong_key_or_user_is_named(laptop):
    local = laptop.path / "machines.local.toml"
    local.write_text(local.read_text().replace('\nuser = "ada"', '\nuser = "eve"'))
    assert "does not accept your key or user name" in refused(laptop, "jobs")


def test_a_host_that_does_not_exist_is_named(laptop):
    shared = laptop.path / "machines.toml"
    shared.write_text(shared.read_text().replace('gateway = "gateway"', 'gateway = "no-such-host"'))
    assert "the host name no-such-host is not known: check machines.toml" in refused(laptop, "jobs")


# --- the machine ---------------------------------------------------------------------------------


# Scripts for the worker: they make a small disk for the folder $1, and leave $2 bytes free there,
# or all. A quota of btrfs needs no daemon and no table of users.
DISKS = {
    "full disk": (
        'mount -t tmpfs -o size=3m,uid=ada,gid=ada none "$1"',
        """rm -f "$1/filler"; [ "$2" ] || exit 0
        free=$(df --output=avail -B1 "$1" | tail -n 1)
        head -c $((free - $2)) /dev/zero >"$1/filler" """,
    ),
    "quota": (
        """truncate -s 200M /tmp/disk; mkfs.btrfs -q /tmp/disk; mkdir /tmp/all
        mount -o loop /tmp/disk /tmp/all; btrfs -q subvolume create /tmp/all/mine
        btrfs quota enable /tmp/all; chown ada:ada /tmp/all/mine
        mount --bind /tmp/all/mine "$1" """,
        """btrfs filesystem sync /tmp/all
        used=$(btrfs qgroup show --raw /tmp/all | awk '$1 == "0/256" { print $2 }')
        [ "$2" ] && most=$((used + $2)) || most=none
        btrfs -q qgroup limit $most 0/256 /tmp/all""",
    ),
}


@pytest.fixture(params=DISKS)
def small_disk(laptop, request):
    """The project's folder on a small disk; returns a function that fills or empties it."""
    if request.param == "quota" and "btrfs" not in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has no btrfs")
    worker, folder = laptop.hosts.worker, "/home/ada/lab/small"
    make, fill = DISKS[request.param]
    worker.run("mkdir", folder)
    worker.run("sh", "-ec", make, "sh", folder, user="root")
    local = laptop.path / "machines.local.toml"
    local.write_text(local.read_text() + f'folder = "{folder}"\n')
    worker.run("cp", "-r", "/home/ada/lab/my-experiment/repo.git", folder)
    worker.run("ln", "-s", "/home/ada/lab/my-experiment/envs", f"{folder}/envs")
    return lambda leave="": worker.run("sh", "-ec", fill, "sh", folder, str(leave), user="root")


def test_a_full_disk_refuses_a_start_and_leaves_nothing_incomplete(laptop, small_disk):
    assert (
        ended_there(laptop, laptop.lab("run", "--no-record", "--", "true").split()[0])
        == "finished(0)"
    )
    for leave in (0, 4096, 20_000, 60_000, 120_000):
        small_disk(leave)
        said = refused(laptop, "run", "--no-record", "--", "true", env={})
        assert "worker" in said
        assert len(jobs(laptop)) == 1
    small_disk(0)
    (laptop.path / "new.bin").write_bytes(os.urandom(100_000))
    for command in (["sync"], ["setup"]):
        assert "worker" in refused(laptop, *command, env={})
    seen = json.loads(laptop.lab("doctor", "--json", check=False).stdout)
    disk = next(row for row in seen if row["check"] == "disk")
    assert disk["verdict"] == "failed"
    assert "Disk quota exceeded" in disk["advice"] or "No space left on device" in disk["advice"]
    small_disk()
    assert (
        ended_there(laptop, laptop.lab("run", "--no-record", "--", "true").split()[0])
        == "finished(0)"
    )


def test_a_disk_that_fills_up_during_a_job_does_not_hide_how_it_ended(laptop, small_disk):
    id = laptop.lab(
        "run", "--no-record", "--", "sh", "-c", GO.format("/tmp/go") + "; exit 9"
    ).split()[0]
    small_disk(0)
    laptop.hosts.worker.path("/tmp/go").touch()
    command = ["grep", "-lzsxr", f"LAB_JOB={id}", "/proc", "--include=environ"]
    until(lambda: not laptop.hosts.worker.run(*command, check=False).stdout, what="its end")
    assert job(laptop, id)["state"] in ("running", "finished(9)")
    assert laptop.lab("stop", id, check=False).stdout.split()[1] in ("running", "finished(9)")
    small_disk()  # not every disk lets it write that, or anything, before
    assert ended_there(laptop, id) == "finished(9)"


def test_on_a_full_disk_a_job_can_be_stopped(laptop, small_disk):
    id = laptop.lab("run", "--no-record", "--", "sh", "-c", "echo up; sleep 1000").split()[0]
    until(lambda: "up" in laptop.lab("logs", id), what="its start")
    small_disk(0)
    laptop.lab("stop", id, check=False)
    small_disk()
    assert ended_there(laptop, id) in ("stopped", "killed(SIGTERM)")


def ended_there(laptop, id: str) -> str:
    until(lambda: job(laptop, id)["state"] != "running", what="the end")
    return job(laptop, id)["state"]


def test_a_clock_that_is_one_hour_off_confuses_no_state_and_no_duration(laptop):
    laptop.hosts.worker.clock("+1h")
    id = start(laptop, "--", "true")
    assert ended(laptop, id) == "finished(0)"
    assert job(laptop, id)["seconds"] < 1800
    laptop.hosts.worker.clock("-1h")
    assert job(laptop, id)["state"] == "finished(0)"
    running = start(laptop, "--", "sleep", "1000")
    assert job(laptop, running)["state"] == "running"
    assert job(laptop, running)["seconds"] < 1800


def test_a_repository_there_that_was_deleted_is_made_again(laptop):
    first = start(laptop, "--", "true")
    ended(laptop, first)
    laptop.hosts.worker.run("rm", "-rf", "lab/my-experiment/repo.git")
    second = start(laptop, "--", "echo", "ran")
    assert ended(laptop, second) == "finished(0)"
    assert {one["id"] for one in jobs(laptop)} == {first, second}


def test_a_damaged_job_does_not_hide_the_others(laptop):
    good, bad, worse = (start(laptop, "--", "true") for _ in range(3))
    for id in (good, bad, worse):
        ended(laptop, id)
    laptop.there(f"jobs/{bad}/job.json").write_text("\x00\x1b[31m{broken")
    laptop.there(f"jobs/{bad}/exit_code").write_text("")
    laptop.there(f"jobs/{worse}/exit_code").write_text("0? \x7f\n")
    laptop.there(f"jobs/{worse}/pid").write_text("\x7f is no number\n")
    laptop.there("jobs/not-a-job").mkdir()
    states = {one["id"]: one["state"] for one in jobs(laptop)}
    assert states == {good: "finished(0)", bad: "lost", worse: "lost"}
    assert "\x1b" not in laptop.lab("jobs")


def test_a_job_that_may_not_be_read_does_not_hide_the_others(laptop):
    worker = laptop.hosts.worker
    (laptop.path / "machines.local.toml").write_text(BOB)
    ids = [start(laptop, "--", "true") for _ in range(2)]
    place = f"/home/bob/lab/my-experiment/jobs/{ids[0]}/job.json"
    worker._sh(f"chown root {place}; chmod 600 {place}")
    assert [(one["id"], one["spec"] == {}) for one in jobs(laptop)] == [
        (ids[0], True),
        (ids[1], False),
    ]


def test_a_thousand_finished_jobs_do_not_hide_one_that_runs(laptop):
    running = start(laptop, "--", "sh", "-c", "echo up; exec sleep 1000")
    last = start(laptop, "--", "true")
    ended(laptop, last)
    place, ignored = laptop.there(f"jobs/{last}"), shutil.ignore_patterns("code")
    for number in range(1001, 2001):
        copy = place.with_name(f"20991231-235959-{number}")
        shutil.copytree(place, copy, ignore=ignored, copy_function=os.link)
    table = laptop.lab("jobs").splitlines()
    assert len(table) == 1 + 30 + 1
    assert table[-1].split()[:2] == [running, "running"]
    assert len(laptop.lab("jobs", "--all").splitlines()) == 1 + 1002


# --- several people and laptops ------------------------------------------------------------------


def test_two_laptops_start_jobs_at_once_and_each_gets_its_own_code(laptop):
    other = laptop.hosts.laptop.home / "second"
    laptop.run("git", "clone", "-q", ".", "../second")
    (other / "machines.local.toml").write_text((laptop.path / "machines.local.toml").read_text())
    there = {"cwd": "/home/ada/second", "env": {"PYTHONPATH": "/home/ada/second/src"}}
    for place in (laptop.path, other):
        (place / "who.txt").write_text(place.name)
    lab = ["python", "-m", "lab.cli", "run", "--no-record", "--", "cat", "who.txt"]
    starting = [laptop.popen(*lab), laptop.popen(*lab, **there)] * 1
    starting += [laptop.popen(*lab), laptop.popen(*lab, **there)]
    ids = [one.communicate(timeout=120)[0].split()[0] for one in starting]
    assert [ended(laptop, id) for id in ids] == ["finished(0)"] * 4
    assert [log(laptop, id) for id in ids] == ["my-experiment", "second"] * 2


def test_locks_that_a_killed_git_left_are_named_and_hide_no_job(laptop):
    laptop.lab("sync")
    head = laptop.there("repo.git/worktrees/work/HEAD.lock")
    for lock in (head, laptop.path / ".git/refs/lab/sent/gpu.lock"):
        lock.touch()
    (laptop.path / "new.txt").write_text("new")
    assert str(head.name) in refused(laptop, "sync", env={})
    head.unlink()
    assert laptop.lab("sync") == "work/ on gpu: synced\n", "nothing was taken for an edit"
    assert ended(laptop, start(laptop, "--", "true")) == "finished(0)"
    code = "from lab.code import snapshot; print(snapshot.take().commit)"
    (laptop.path / "new.txt").write_text("newer")
    commit = laptop.run("python", "-c", code).stdout.strip()
    laptop.there(f"repo.git/refs/lab/snapshots/{commit}.lock").touch()
    assert f"{commit}.lock': File exists" in refused(
        laptop, "run", "--no-record", "--", "true", env={}
    )


def test_a_shallow_clone_is_told_how_to_become_whole(laptop):
    laptop.git("commit", "--quiet", "--allow-empty", "--message", "not sent yet")
    (laptop.path / "new.txt").write_text("nor this")
    laptop.git("add", "new.txt")
    laptop.git("commit", "--quiet", "--message", "nor this")
    laptop.run("git", "clone", "-q", "--depth=1", "file:///home/ada/my-experiment", "../flat")
    flat = {"cwd": "/home/ada/flat", "env": {"PYTHONPATH": "/home/ada/flat/src"}}
    words = ["python", "-m", "lab.cli", "run", "--no-record", "--", "true"]
    said = laptop.run(*words, check=False, **flat).stderr
    assert "This clone is shallow: git fetch --unshallow" in said
    laptop.run("git", "fetch", "-q", "--unshallow", **flat)
    assert "its output: lab logs" in laptop.run(*words, **flat).stderr


def test_each_user_of_a_machine_has_their_own_jobs_and_gpus(laptop):
    local = laptop.path / "machines.local.toml"
    mine = start(laptop, "--", "sh", "-c", "echo up; exec sleep 1000")
    logged(laptop, mine, "up")
    local.write_text(BOB)
    assert laptop.lab("jobs") == "no jobs yet\n"
    done = laptop.lab("stop", mine, check=False)
    assert "there is no job" in done.stderr
    local.write_text('[machines.gpu]\nuser = "ada"\ngateway_user = "ada"\n')
    assert job(laptop, mine)["state"] == "running"


def test_an_ordinary_user_without_a_right_on_anything_else_gets_a_run_home(laptop):
    worker = laptop.hosts.worker
    home = worker.path("/home/bob")
    (environment,) = laptop.there("envs").glob("3.11-*")
    own = home / "lab/my-experiment/envs" / environment.name
    shutil.copytree(environment, own, symlinks=True)  # uv's cache here is ada's alone
    python = "/usr/lib/bed/python/bin/python3.11"
    (own / "bin/python").unlink()
    (own / "bin/python").symlink_to(python)
    settings, base = own / "pyvenv.cfg", f"home = {os.path.dirname(python)}"
    settings.write_text(re.sub("^home = .*", base, settings.read_text(), flags=re.M))
    (home / ".bashrc").write_text("umask 077\n")
    worker._sh("chown -R bob:bob /home/bob")
    (laptop.path / "machines.local.toml").write_text(BOB)
    laptop.lab("setup")
    laptop.lab("run", "--follow", "with", "quick")
    laptop.lab("fetch")
    (row,) = json.loads(laptop.lab("runs", "--json"))
    assert row["state"] == "COMPLETED"
    (laptop.path / "README.md").write_text("edited here\n")
    laptop.lab("sync")
    work = home / "lab/my-experiment/work"
    assert (work / "README.md").read_text() == "edited here\n"
    assert {path.lstat().st_uid for path in work.rglob("*")} == {home.stat().st_uid}


# --- hosts as they are ---------------------------------------------------------------------------


def test_a_git_there_that_would_change_line_ends_or_forbid_much_sends_the_same_files(laptop):
    settings = "[core]\n\tautocrlf = true\n[protocol]\n\tallow = never\n"
    settings += "[safe]\n\tbareRepository = explicit\n"
    laptop.hosts.worker.write(".gitconfig", settings)
    (laptop.path / "lines.txt").write_text("one\ntwo\n")
    id = start(laptop, "--", "cat", "lines.txt")
    assert ended(laptop, id) == "finished(0)"
    assert laptop.there(f"jobs/{id}/output.log").read_bytes() == b"one\ntwo\n"
    (laptop.there("work") / "LICENSE").write_text("edited there\n")
    assert "saved on this computer" in laptop.lab("sync")


@pytest.mark.parametrize("shell", ["/usr/bin/fish", "/usr/bin/tcsh", "/bin/sh"])
def test_any_login_shell_will_do(laptop, shell):
    laptop.hosts.worker.account(shell=shell)
    words = ["a b", "it's", "$HOME", "!", "ü", "\\", "`id`", "(x)", "{a,b}", "%self", "~"]
    id = start(laptop, "--", "python", "-c", "import sys; print(sys.argv[1:])", *words)
    assert ended(laptop, id) == "finished(0)"
    assert laptop.lab("logs", id) == f"{words}\n"
    assert "unchanged" in laptop.lab("sync")
    assert laptop.lab("stop", id) == f"{id} finished(0)\n"


def test_a_login_shell_that_prints_things_spoils_nothing(laptop):
    noise = "echo 'Welcome to the cluster'; echo quota exceeded >&2; printf '\\0\\1'\n"
    worker = laptop.hosts.worker
    worker.write(".bashrc", noise + worker.read(".bashrc"))
    (laptop.path / "README.md").write_text("edited\n")
    id = start(laptop, "--", "echo", "hello")
    assert ended(laptop, id) == "finished(0)"
    assert laptop.lab("logs", id) == "hello\n"
    (laptop.there("work") / "LICENSE").write_text("edited there\n")
    laptop.lab("sync")
    (ref,) = laptop.git("for-each-ref", "--format=%(refname)", "refs/lab/edits").split()
    assert laptop.git("show", f"{ref}:LICENSE") == "edited there"


def test_a_start_up_file_that_becomes_another_shell_is_named(laptop):
    laptop.hosts.worker.write(".bashrc", "exec sh\n")
    assert "~/.bashrc" in refused(laptop, "jobs")
    assert "may have started" not in refused(laptop, "run", "--no-record", "--", "true")
    laptop.hosts.worker.write(".bashrc", "case $- in *i*) exec sh ;; esac\n")
    assert laptop.lab("jobs") == "no jobs yet\n"


def test_a_home_with_spaces_and_foreign_letters_works(laptop):
    laptop.hosts.worker.account(home="/home/paths with spaces é")
    assert "is ready" in laptop.lab("setup")
    done = laptop.lab("run", "--follow", "with", "quick", check=False)
    assert done.returncode == 0, done
    folder = laptop.hosts.worker.home / "lab/my-experiment"
    (record,) = (folder / "runs").glob("2*")
    assert json.loads((record / "run.json").read_text())["status"] == "COMPLETED"


def test_a_home_here_with_spaces_and_foreign_letters_works(laptop):
    laptop.hosts.laptop.account(home="/home/paths with spaces é")
    assert laptop.lab("jobs") == "no jobs yet\n"
    folder = laptop.hosts.laptop.path("/tmp/lab-ssh-2000")
    assert list(folder.glob("*.config")) and folder.stat().st_mode & 0o777 == 0o700


def test_a_project_folder_with_spaces_quotes_and_foreign_letters_works(laptop):
    local = laptop.path / "machines.local.toml"
    local.write_text(local.read_text() + 'folder = "it\'s my home; ü/-x"\n')
    assert "is ready" in laptop.lab("setup")
    assert laptop.lab("run", "--follow", "with", "quick")
    assert (laptop.hosts.worker.home / "it's my home; ü/-x/runs").is_dir()


def test_without_tmux_jobs_run_and_attach_says_why_it_is_plain(laptop):
    laptop.hosts.worker.program("tmux", None)
    id = start(laptop, "--", "sh", "-c", "echo up; " + GO.format("/tmp/go"))
    logged(laptop, id, "up")
    with in_terminal(laptop, f"lab attach {id}") as attached:
        shown = read_until(attached, "up")
        laptop.hosts.worker.path("/tmp/go").touch()
        attached.communicate(timeout=120)
    assert "worker has no tmux" in shown
    done = laptop.run("script", "-qec", "lab run --interactive", "/dev/null", check=False)
    assert "worker has no tmux" in done.stdout
    laptop.hosts.worker.program("script", None)
    done = laptop.run("script", "-qec", "lab run --interactive", "/dev/null", check=False)
    assert "worker has no script" in done.stdout
    assert len(jobs(laptop)) == 1


def test_an_old_tmux_is_enough(laptop):
    # what tmux 2.2 does not know yet: variables for a new session
    refuse = 'for word; do case $word in -e*) echo "unknown option -- e" >&2; exit 1 ;; esac; done'
    laptop.hosts.worker.program("tmux", f'#!/bin/sh\n{refuse}\nexec /usr/bin/tmux "$@"\n')
    id = start(laptop, "--", "sh", "-c", "echo up; " + GO.format("/tmp/go"))
    socket = "/home/ada/.cache/dl-remote-template/tmux-worker"
    listed = laptop.hosts.worker.run("/usr/bin/tmux", "-S", socket, "list-sessions").stdout
    assert f"job-{id}" in listed
    with laptop.popen("script", "-qec", "lab shell", "/dev/null", stdin=-1, stderr=-2) as shell:
        type_in(shell, "tmux detach\n")
        shown, _ = shell.communicate(timeout=120)
    assert "detached (from session shell-my-experiment-" in shown


def test_a_machine_without_git_is_named(laptop):
    laptop.hosts.worker.program("git", None)
    assert "worker has no git" in refused(laptop, "run", "--no-record", "--", "true", env={})
    assert "worker has no git" in refused(laptop, "sync", env={})


def test_a_bare_alias_of_the_users_own_configuration_is_enough(laptop):
    config = "Host my-gpu\n  HostName worker\n  User ada\n  ProxyJump ada@gateway\n"
    config += "  LocalForward 8888 localhost:8888\n  RemoteCommand tmux\n  RequestTTY yes\n"
    laptop.hosts.laptop.write(".ssh/config", config, 0o600)
    machine = '[machines.other]\nssh = "my-gpu"\nfolder = "elsewhere/x"\n'
    (laptop.path / "machines.toml").write_text(machine)
    (laptop.path / "machines.local.toml").write_text("")
    assert laptop.lab("jobs") == "no jobs yet\n"
    id = start(laptop, "-m", "other", "--", "true")
    until(lambda: job(laptop, id)["state"] == "finished(0)", seconds=120)
    assert (laptop.hosts.worker.home / "elsewhere/x/jobs" / id).is_dir()
