"""A job on the remote machine runs what was sent, once, to an end that is known."""

import json
import os
import re
import shutil

import pytest

from helpers.jobs import GO, ended, job, log, logged, start, until
from helpers.terminal import in_terminal, read_until, type_in

# --- what runs -----------------------------------------------------------------------------------


def test_arguments_arrive_unchanged(laptop):
    words = [
        "a b",
        "it's",
        '"',
        "$HOME",
        "`id`",
        ";",
        "ü λ",
        "\\",
        "*",
        "line\nbreak",
        "",
        "-x",
        "!",
    ]
    show = "import sys; print(sys.argv[1:])"
    id = start(laptop, "--", "python", "-c", show, *words)
    assert ended(laptop, id) == "finished(0)"
    assert log(laptop, id) == f"{words}\n"
    assert laptop.lab("logs", id) == f"{words}\n"


def test_a_command_that_is_too_long_is_named(laptop):
    words = [os.urandom(50_000).hex() for _ in range(4)]
    done = laptop.lab("run", "--", "echo", *words, check=False)
    assert done.stderr.endswith("\nlab: ssh cannot be started (Argument list too long).\n")


def test_a_run_is_recorded_with_its_job_and_the_commit_that_ran(laptop):
    done = laptop.lab("run", "--follow", "with", "text=it's $5; ü", check=False)
    assert done.returncode == 0, done
    id = done.stdout.split()[0]
    assert 'started with "it\'s $5; ü" on worker' in done.stdout
    (record,) = laptop.there("runs").glob("2*")
    run = json.loads((record / "run.json").read_text())
    assert run["status"] == "COMPLETED"
    assert run["job"]["lab"] == id
    assert run["code"]["commit"] == job(laptop, id)["spec"]["commit"]
    assert not run["code"]["dirty"] and not run["code"].get("problem")
    assert list(laptop.there("data/digits/models").glob("*/epoch-0003/state.json"))


def test_a_job_runs_the_working_tree_as_it_was_and_no_later_edit_reaches_it(laptop):
    code = laptop.path / "src/my_experiment/chosen.py"
    code.write_text("WORD = 'before'\n")  # untracked
    command = "import time, pathlib\nwhile not pathlib.Path('/tmp/go').exists(): time.sleep(0.05)\n"
    command += "from my_experiment.chosen import WORD; print(WORD)"
    first = start(laptop, "--", "python", "-c", command)
    code.write_text("WORD = 'after'\n")
    second = start(laptop, "--", "python", "-c", command)
    laptop.lab("sync")
    laptop.hosts.worker.path("/tmp/go").touch()
    assert [ended(laptop, id) for id in (first, second)] == ["finished(0)"] * 2
    assert (log(laptop, first), log(laptop, second)) == ("before\n", "after\n")
    assert laptop.git("status", "--porcelain").split() == ["??", "src/my_experiment/chosen.py"]


def test_what_the_machine_has_is_not_sent_again_whether_it_is_committed_or_not(laptop):
    (laptop.path / "weights.bin").write_bytes(os.urandom(5_000_000))
    start(laptop, "--", "true")
    (laptop.path / "README.md").write_text("edited\n")
    laptop.hosts.traffic()
    id = start(laptop, "--", "sha256sum", "weights.bin")
    assert laptop.hosts.traffic().up < 100_000
    assert ended(laptop, id) == "finished(0)"
    # a repository there that has lost what it was sent is given all of it
    script = f"""git init -q --bare new
        git -C repo.git push -q ../new {laptop.git("rev-parse", "HEAD")}:refs/heads/kept
        rm -rf repo.git; mv new repo.git"""
    laptop.hosts.worker.run("sh", "-ec", script, cwd="/home/ada/lab/my-experiment")
    (laptop.path / "README.md").write_text("edited again\n")
    again = start(laptop, "--", "sha256sum", "weights.bin")
    assert ended(laptop, again) == "finished(0)"
    assert log(laptop, again) == log(laptop, id)


def test_a_changed_lock_gets_an_environment_of_its_own_and_running_jobs_keep_theirs(laptop):
    first = start(laptop, "--", "sh", "-c", GO.format("/tmp/go") + "; python -c 'import munch'")
    lock = laptop.path / "requirements.txt"
    lines = lock.read_text().splitlines(keepends=True)
    lock.write_text("".join(line for line in lines if not line.startswith("ipykernel")))
    done = laptop.lab("run", "--follow", "--", "python", "-c", "import ipykernel", check=False)
    assert done.returncode == 1
    assert "No module named 'ipykernel'" in done.stdout
    laptop.hosts.worker.path("/tmp/go").touch()
    assert ended(laptop, first) == "finished(0)"
    assert len(list(laptop.there("envs").glob("3.11-*"))) == 2


def test_ended_jobs_and_environments_that_nothing_uses_may_be_removed_by_hand(laptop):
    laptop.lab("run", "--follow", "with", "quick")
    id = job(laptop, start(laptop, "--", "true"))["id"]
    assert ended(laptop, id) == "finished(0)"
    for folder in ("jobs", "envs"):
        shutil.rmtree(laptop.there(folder))
    assert laptop.lab("jobs") == "no jobs yet\n"
    laptop.lab("fetch")
    assert "COMPLETED" in laptop.lab("runs")
    assert ended(laptop, start(laptop, "--", "python", "-c", "import lab")) == "finished(0)"
    laptop.lab("setup")
    laptop.hosts.worker.run("lab/my-experiment/work/.venv/bin/python", "-c", "import lab")


def test_an_environment_whose_python_was_removed_is_made_again_before_a_job_runs_in_it(laptop):
    (environment,) = laptop.there("envs").glob("3.11-*")
    (environment / "bin/python").unlink()
    (environment / "bin/python").symlink_to("/usr/bin/python-before-the-upgrade")
    checks = json.loads(laptop.lab("doctor", "--json"))
    assert next(c["verdict"] for c in checks if c["check"] == "environment") == "warning"
    shown = laptop.lab("run", "--follow", "--", "python", "-c", "import sys; print(sys.prefix)")
    assert shown.endswith(f"envs/{environment.name}\n")


def test_stop_while_an_environment_is_created_leaves_nothing_incomplete_and_others_alone(laptop):
    worker, envs = laptop.hosts.worker, laptop.there("envs")
    forever = f"echo begun >>/tmp/installs; {GO.format('/tmp/never')}"
    (worker.home / ".local/bin/uv").unlink()
    text = f'case "$*" in *"pip install"*) {forever} ;; esac\nexec /usr/lib/bed/uv "$@"\n'
    worker.write(".local/bin/uv", "#!/bin/sh\n" + text, 0o755)
    before = set(envs.iterdir())
    with (laptop.path / "requirements.txt").open("a") as lock:
        lock.write("# another one\n")
    first, second = start(laptop, "--", "true"), start(laptop, "--", "true")
    until(lambda: worker.path("/tmp/installs").exists())
    assert laptop.lab("stop", second) == f"{second} stopped\n"
    assert worker.path("/tmp/installs").read_text() == "begun\n", "the second had to wait"
    assert job(laptop, first)["state"] == "queued"
    assert laptop.lab("stop", first) == f"{first} stopped\n"
    assert set(envs.iterdir()) - before <= {envs / ".lock"}


def test_setup_leaves_the_environment_of_a_running_job_alone_in_a_bigger_repository(laptop):
    laptop.run("git", "rm", "-rq", "--cached", ".")
    laptop.run("sh", "-c", "mkdir ../big && mv .git ../big && cp -a . ../big/part")
    inside = {"cwd": "/home/ada/big/part", "env": {"PYTHONPATH": "/home/ada/big/part/src"}}
    lab = ["python", "-m", "lab.cli"]
    with (laptop.path.parent / "big/part/requirements.txt").open("a") as lock:
        lock.write("# another one\n")
    begun = laptop.run(*lab, "run", "--", "sh", "-c", GO.format("/tmp/go"), **inside)
    id = begun.stdout.split()[0]
    until(lambda: job(laptop, id)["state"] == "running")
    assert "is up to date with its lock" in laptop.run(*lab, "setup", **inside).stdout
    laptop.hosts.worker.path("/tmp/go").touch()
    assert ended(laptop, id) == "finished(0)"


def test_a_job_whose_environment_cannot_be_made_does_not_start(laptop):
    (laptop.path / "requirements.txt").write_text("no-such-package-at-all==1.0\n")
    done = laptop.lab("run", "--follow", "--", "echo", "it ran", check=False)
    assert done.returncode == 1
    assert "it ran" not in done.stdout and "did not start" in done.stdout
    assert "finished(1)" in done.stderr


def test_the_exit_code_of_follow_is_that_of_a_job_that_failed(laptop):
    done = laptop.lab("run", "--follow", "--", "sh", "-c", "exit 7", check=False)
    assert (done.returncode, done.stderr.split()[-1]) == (7, "finished(7)")


# --- states --------------------------------------------------------------------------------------


def test_every_state_is_told_apart(laptop):
    wait = ["--", "sh", "-c", "echo up; exec sleep 1000"]
    running, stopped, killed, orphan = (start(laptop, *wait) for _ in range(4))
    for id in (running, stopped, killed, orphan):
        logged(laptop, id, "up")
    finished = start(laptop, "--name", "three", "--", "sh", "-c", "exit 3")
    ended(laptop, finished)
    assert job(laptop, finished)["state"] == "finished(3)"
    assert laptop.lab("stop", stopped) == f"{stopped} stopped\n"
    worker = laptop.hosts.worker
    for id, who in ((killed, "sleep 1000"), (orphan, "runner.sh")):
        pids = [pid for pid, _, line in worker.processes() if who in line]
        look = [("readlink", f"/proc/{pid}/cwd") for pid in pids]
        inside = [
            p for p, w in zip(pids, look, strict=True) if id in worker.run(*w, check=False).stdout
        ]
        worker.run("kill", "-9", *map(str, inside))
    assert ended(laptop, killed) == "killed(SIGKILL)"
    assert job(laptop, orphan)["state"] == "lost"
    assert job(laptop, orphan)["detail"].startswith("its runner was killed; lab fetch")
    assert job(laptop, running)["state"] == "running"
    table = laptop.lab("jobs")
    assert re.search(rf"{finished}  finished\(3\) .*ada@laptop  three", table), table
    assert table.index(finished) < table.index(running), "the newest comes first"


def test_after_a_reboot_running_jobs_are_lost_and_finished_ones_finished(laptop):
    done = start(laptop, "--", "true")
    assert ended(laptop, done) == "finished(0)"
    lost = start(laptop, "--", "sh", "-c", "echo up; exec sleep 1000")
    logged(laptop, lost, "up")
    laptop.hosts.worker.reboot()
    assert job(laptop, lost)["state"] == "lost"
    assert job(laptop, lost)["detail"].startswith("the machine was restarted; lab fetch")
    assert job(laptop, done)["state"] == "finished(0)"
    assert laptop.lab("logs", lost) == "up\n"
    done = laptop.lab("logs", "-f", lost, check=False)
    assert (done.stdout, done.returncode) == ("up\n", 1)


def test_any_laptop_and_any_part_of_the_id_finds_a_job(laptop):
    id = start(laptop, "--name", "baseline", "--", "echo", "hello")
    ended(laptop, id)
    laptop.run("git", "clone", "-q", ".", "../other")
    (laptop.path.parent / "other/machines.local.toml").write_text(
        '[machines.gpu]\nuser = "ada"\ngateway_user = "ada"\n'
    )
    other = {"cwd": "/home/ada/other", "env": {"PYTHONPATH": "/home/ada/other/src"}}
    for name in (id, id[:12], id[-4:], "baseline"):
        done = laptop.run("python", "-m", "lab.cli", "logs", name, **other)
        assert done.stdout == "hello\n"
    done = laptop.lab("logs", "zzzz", check=False)
    assert done.returncode == 1
    assert f"there is no job zzzz on gpu; the newest are: {id}." in done.stderr


def test_what_is_advised_for_a_second_machine_is_for_that_machine(laptop):
    machines = laptop.path / "machines.toml"
    first = machines.read_text()
    machines.write_text(
        f"{first}\n[machines.second]\nssh = 'worker'\nuser = 'ada'\ngateway = 'gateway'\n"
        "gateway_user = 'ada'\nfolder = 'lab/second'\n"
    )
    done = laptop.lab("-m", "second", "sync", "--back", check=False)
    assert done.stderr.endswith("yet: lab -m second setup creates it.\n")
    done = laptop.lab("doctor", "-m", "second", check=False)
    assert "lab -m second setup" in done.stdout and "lab setup" not in done.stdout
    done = laptop.run("lab", "-m", "second", "run", "--", "true")
    assert "its output: lab -m second logs -f" in done.stderr
    done = laptop.run("lab", "run", "--", "true")
    assert "its output: lab logs -f" in done.stderr


def test_a_name_is_a_name_even_if_it_looks_like_an_id_or_the_end_of_another(laptop):
    one = start(laptop, "--name", "resnet50-lr0.01-bs12", "--", "echo", "hello")
    assert ended(laptop, one) == "finished(0)"
    assert laptop.lab("logs", "resnet50-lr0.01-bs12") == "hello\n"
    other = start(laptop, "--name", one[-2:], "--", "sleep", "1000")
    assert laptop.lab("stop", one[-2:]) == f"{other} stopped\n", "the name counts"


def test_jobs_are_listed_in_the_order_of_their_start_whatever_the_time_zone(laptop):
    zones = ("LAB-9", "LAB+8", "LAB0", "LAB+3")  # several within one second
    ids = [start(laptop, "--", "true", env={"TZ": zone}) for zone in zones]
    assert [job["id"] for job in json.loads(laptop.lab("jobs", "--json"))] == ids
    assert laptop.lab("jobs").splitlines()[1].startswith(ids[-1])


# --- output --------------------------------------------------------------------------------------


def test_logs_show_all_of_it_or_the_last_lines(laptop):
    id = start(laptop, "--", "seq", "1", "2000")
    ended(laptop, id)
    everything = "".join(f"{n}\n" for n in range(1, 2001))
    assert laptop.lab("logs", id) == everything
    assert laptop.lab("logs", "-n", "2") == "1999\n2000\n"
    assert laptop.lab("logs", "-f") == everything
    assert laptop.lab("logs", "-f", "-n", "2") == "1999\n2000\n"


@pytest.mark.parametrize(("fault", "more"), [("reset", []), ("cut", ["-n", "1"]), ("drop", [])])
def test_followed_logs_go_on_at_the_right_byte_after_a_lost_connection(laptop, fault, more):
    script = "for i in 1 2 3; do printf 'part %s\\n' $i; " + GO.format("/tmp/go$i") + "; done"
    # by what opens the connection, ssh finds a silent line dead after 12 seconds and not after 60
    id = start(laptop, "--", "sh", "-c", script, env={"LAB_PATIENCE": "4"})
    hosts = laptop.hosts
    words = ["lab", "logs", "-f", *more, id]
    with laptop.popen(*words, env={"LAB_PATIENCE": "4"}) as following:
        assert following.stdout.readline() == "part 1\n"
        getattr(hosts, fault)()
        hosts.worker.path("/tmp/go1").touch()
        logged(laptop, id, "part 2")
        assert "again" in following.stderr.readline()
        hosts.heal()
        assert following.stdout.readline() == "part 2\n"
        hosts.worker.path("/tmp/go2").touch()
        assert following.stdout.readline() == "part 3\n"
        hosts.worker.path("/tmp/go3").touch()
        rest, said = following.communicate(timeout=120)
    assert (rest, following.returncode) == ("", 0)
    assert f"{id} finished(0)" in said


def test_leaving_followed_logs_leaves_the_job(laptop):
    id = start(laptop, "--", "sh", "-c", "echo up; " + GO.format("/tmp/go"))
    with laptop.popen("lab", "logs", "-f", id) as following:
        assert following.stdout.readline() == "up\n"
        following.interrupt()
        _, said = following.communicate(timeout=120)
    assert following.returncode == 130 and "the job is still running" in said
    assert job(laptop, id)["state"] == "running"


# --- the terminal --------------------------------------------------------------------------------


@pytest.mark.parametrize("term", ["xterm-256color", "xterm-of-tomorrow"])
def test_attach_shows_the_live_job_and_ctrl_c_reaches_it(laptop, term):
    script = "import time\ntry:\n    print('up', flush=True); time.sleep(1000)\n"
    script += "except KeyboardInterrupt:\n    print('interrupted'); raise SystemExit(5)"
    id = start(laptop, "--", "python", "-c", script)
    logged(laptop, id, "up")
    with in_terminal(laptop, f"lab attach {id}", env={"TERM": term}) as attached:
        read_until(attached, "up")
        type_in(attached, "\x03")
        assert ended(laptop, id) == "finished(5)"
        attached.communicate(timeout=120)
    assert log(laptop, id) == "up\ninterrupted\n"
    with in_terminal(laptop, f"lab attach {id}", env={"TERM": term}) as again:
        shown, _ = again.communicate(timeout=120)
    assert "interrupted" in shown and "[ended with 5]" in shown


def test_an_interactive_job_has_the_terminal_itself_with_log_and_exit_code(laptop):
    (laptop.path / "debug.py").write_text("word = 'secret'\nbreakpoint()\nraise SystemExit(4)\n")
    with in_terminal(laptop, "lab run --interactive -- python debug.py") as session:
        read_until(session, "(Pdb)")
        type_in(session, "p word.upper()\n")
        read_until(session, "'SECRET'")
        type_in(session, "c\n")
        session.communicate(timeout=120)
    assert session.returncode == 4
    (listed,) = json.loads(laptop.lab("jobs", "--json"))
    assert ended(laptop, listed["id"]) == "finished(4)"
    shown = laptop.lab("logs")
    assert "'SECRET'" in shown and "Script" not in shown, shown
    laptop.lab("fetch")
    (folder,) = laptop.path.glob("runs/2*")
    entry = json.loads((folder / "run.json").read_text())
    assert entry["status"] == "FAILED" and entry["meta"]["words"] == ["python", "debug.py"]
    assert "'SECRET'" in (folder / "cout.txt").read_text(), "recorded like any other command"


def test_a_shell_opens_in_the_working_copy_with_the_environment_and_stays(laptop):
    place = "/home/ada/lab/my-experiment/work"
    for seen in ("", "yes"):
        with in_terminal(laptop, "lab shell") as shell:
            read_until(shell, "$ ")
            shell.stdin.write("printf '<%s>' $PWD $(which python) $seen; seen=yes; echo; ")
            type_in(shell, "tmux detach\n")
            shown, _ = shell.communicate(timeout=120)
        wanted = f"<{place}><{place}/.venv/bin/python>" + (f"<{seen}>" if seen else "")
        assert f"{wanted}\n" in re.sub(r"\x1b[^a-zA-Z]*[a-zA-Z]|\r", "", shown)
    with in_terminal(laptop, "lab shell") as shell:
        read_until(shell, "$ ")
        type_in(shell, "clear; tmux new-window\n")
        read_until(shell, "1:")  # tmux's line names the new window
        type_in(shell, "echo $LAB_RUNS $(which python) >~/window; tmux detach\n")
        shell.communicate(timeout=120)
    wanted = f"{place.removesuffix('/work')}/runs {place}/.venv/bin/python\n"
    assert laptop.hosts.worker.read("window") == wanted


def test_each_project_of_an_account_has_a_shell_of_its_own_whatever_its_folder_is_called(laptop):
    machine = (laptop.path / "machines.local.toml").read_text()
    for folder, name in {
        "lab/my-experiment": "my-experiment-",
        "other/my-experiment": "my-experiment-",  # and a number of its own
        "other/x#(touch pwned)é.y": "x__touch_pwned____y-",
    }.items():
        (laptop.hosts.worker.home / folder / "work").mkdir(parents=True, exist_ok=True)
        (laptop.path / "machines.local.toml").write_text(f'{machine}folder = "{folder}"\n')
        with in_terminal(laptop, "lab shell") as shell:
            read_until(shell, "$ ")
            type_in(shell, 'echo "<$PWD>"; tmux detach\n')
            shown, _ = shell.communicate(timeout=120)
        assert f"<{laptop.hosts.worker.home_inside}/{folder}/work>" in shown
        assert f"from session shell-{name}" in shown


def test_attach_without_a_terminal_says_what_to_do(laptop):
    done = laptop.lab("attach", check=False)
    assert done.returncode == 1
    assert "needs a terminal; lab logs -f" in done.stderr
