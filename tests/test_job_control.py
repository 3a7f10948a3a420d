"""Stopping a job ends all of it and keeps its record; GPUs are taken only where they are free."""

import json

import pytest

from helpers import hosts as bed
from helpers.jobs import BOB, GO, ended, job, log, logged, start, until
from helpers.terminal import in_terminal


def members(laptop, id: str) -> list[str]:
    """The processes of a job on the worker, without its runner and viewers."""
    script = f"grep -lzsx LAB_JOB={id} /proc/[0-9]*/environ"
    found = laptop.hosts.worker.run("sh", "-c", script, check=False)
    return found.stdout.split()


def kill_runner(laptop, id: str) -> None:
    """Kill the runner of a job, and wait for its death."""
    pid = laptop.there(f"jobs/{id}/pid").read_text().split()[0]
    gone = f"kill -9 {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.01; done"
    laptop.hosts.worker.run("sh", "-c", gone)


def alive(laptop, text: str) -> list[int]:
    """The processes on the worker whose command line has this text."""
    return [pid for pid, _, line in laptop.hosts.worker.processes() if text in line]


# --- stopping ------------------------------------------------------------------------------------


def test_stop_ends_a_run_gently_so_that_its_record_says_so(laptop):
    id = start(laptop, "with", "wait_for=/tmp/never")
    logged(laptop, id, "step 1")
    assert laptop.lab("stop", id) == f"{id} stopped\n"
    (record,) = laptop.there("runs").glob("2*")
    assert json.loads((record / "run.json").read_text())["status"] == "TERMINATED"
    assert "ended by SIGTERM" in log(laptop, id)
    assert laptop.lab("stop", id) == f"{id} stopped\n", "the second time changes nothing"


def test_stop_ends_children_that_took_sessions_of_their_own(laptop):
    script = "setsid -f sleep 1234; (setsid sh -c 'trap : TERM; while :; do sleep 1235; done' &);"
    id = start(laptop, "--", "sh", "-c", script + " echo up; exec sleep 1236")
    logged(laptop, id, "up")
    assert len(alive(laptop, "sleep 123")) >= 3
    assert laptop.lab("stop", id, "--grace", "1") == f"{id} stopped\n"
    assert not alive(laptop, "sleep 123")


def test_stop_ends_a_command_that_dropped_its_environment(laptop):
    script = "sleep 1237 & env -i setsid sh -c 'sleep 1235 & sleep 1236' & echo up; exec sleep 1238"
    id = start(laptop, "--", "env", "-i", "sh", "-c", script)
    logged(laptop, id, "up")
    until(lambda: len(alive(laptop, "sleep 123")) >= 4)
    assert laptop.lab("stop", id) == f"{id} stopped\n"
    assert not alive(laptop, "sleep 123")


def test_a_paused_job_still_ends_cleanly(laptop):
    script = "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    id = start(laptop, "--", "sh", "-c", script)
    logged(laptop, id, "up")
    runner = laptop.there(f"jobs/{id}/pid").read_text().split()[0]
    laptop.hosts.worker.run("pkill", "-STOP", "-s", runner)  # the job with its runner
    assert laptop.lab("stop", id) == f"{id} stopped\n"
    assert log(laptop, id) == "up\nsaved\n"


def make_environment(laptop, folder: str) -> None:
    """Make an environment for a project of Bob's, of the system's Python."""
    (environment,) = laptop.there("envs").glob("3.11-*")
    place = laptop.hosts.worker.path(f"{folder}/envs") / environment.name
    (place / "bin").mkdir(parents=True)
    (place / "bin/python").symlink_to("/usr/bin/python3")
    (place / "lab-environment.json").touch()
    laptop.hosts.worker._sh("chown -R bob /home/bob/lab")


def test_stop_names_what_cannot_be_ended(laptop):
    worker = laptop.hosts.worker
    make_environment(laptop, "/home/bob/lab/my-experiment")
    worker.program("become-root", "")
    become_root = "/usr/local/bin/become-root"
    worker._sh(f"cp $(command -v setpriv) {become_root}; chmod 4755 {become_root}")
    (laptop.path / "machines.local.toml").write_text(BOB)
    id = start(laptop, "--", "become-root", "--reuid=0", "--clear-groups", "sleep", "1239")
    (pid,) = until(lambda: alive(laptop, "sleep 1239"))
    done = laptop.lab("stop", id, "--grace", "0", check=False)
    assert done.returncode == 1
    assert f"job {id} cannot be ended on worker: process {pid} is still running" in done.stderr
    worker._sh(f"kill {pid}")


def test_stop_waits_for_a_clean_end_and_uses_force_only_after_the_grace(laptop):
    patient = "trap 'sleep 1; echo saved; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    deaf = "trap '' TERM INT; echo up; while :; do sleep 0.1; done"
    for script, grace in ((patient, "60"), (deaf, "1")):
        id = start(laptop, "--", "sh", "-c", script)
        logged(laptop, id, "up")
        assert laptop.lab("stop", id, "--grace", grace) == f"{id} stopped\n"
        assert ("saved" in log(laptop, id)) == (script == patient)
        assert not members(laptop, id)


def test_a_job_that_ends_while_it_is_being_stopped_twice_is_stopped_once(laptop):
    id = start(laptop, "--", "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done")
    logged(laptop, id, "up")
    stops = [laptop.popen("lab", "stop", id) for _ in range(2)]
    assert [one.communicate(timeout=120)[0] for one in stops] == [f"{id} stopped\n"] * 2
    other = start(laptop, "--", "sh", "-c", "exit 3")
    ended(laptop, other)
    assert laptop.lab("stop", other) == f"{other} finished(3)\n", "an end is an end"


def test_stop_of_a_job_whose_runner_was_killed_ends_what_is_left_of_it(laptop):
    id = start(laptop, "--", "sh", "-c", "echo up; exec sleep 4321")
    logged(laptop, id, "up")
    kill_runner(laptop, id)
    assert job(laptop, id)["state"] == "lost"
    assert alive(laptop, "sleep 4321")
    assert laptop.lab("stop", id) == f"{id} stopped\n"
    assert not alive(laptop, "sleep 4321")


def test_a_job_that_a_newer_lab_has_started_is_neither_stopped_nor_attached_to(laptop):
    id = start(laptop, "--", "sh", "-c", "echo up; exec sleep 4321")
    logged(laptop, id, "up")
    file = laptop.there(f"jobs/{id}/job.json")
    file.write_text(file.read_text().replace('"format": 1', '"format": 2', 1))
    told = f"a newer lab has started job {id} on worker: run lab update first."
    done = laptop.lab("stop", id, check=False)
    assert (done.returncode, done.stderr) == (1, f"lab: {told}\n")
    with in_terminal(laptop, f"lab attach {id}") as attached:
        shown, _ = attached.communicate(timeout=120)
    assert f"lab: {told}" in shown and attached.returncode == 1
    assert alive(laptop, "sleep 4321") and not file.with_name("stop").exists()
    assert "lab update" in job(laptop, id)["detail"]


def test_a_job_of_another_host_that_shares_the_folder_is_not_called_stopped(laptop):
    id = start(laptop, "--", "sh", "-c", "echo up; exec sleep 4321")
    logged(laptop, id, "up")
    file = laptop.there(f"jobs/{id}/pid")
    before = file.read_text()
    pid, _, *rest, _ = before.split()
    file.write_text(" ".join([pid, "another-boot", *rest, "gpu2"]) + "\n")
    assert job(laptop, id)["state"] == "unknown"
    done = laptop.lab("stop", id, check=False)
    assert done.returncode == 1 and f"job {id} runs on gpu2" in done.stderr
    file.write_text(before)
    assert job(laptop, id)["detail"] == "", "and it is not being stopped"
    assert alive(laptop, "sleep 4321")


def test_a_job_outlives_tmux_the_connection_and_the_laptop(laptop):
    id = start(laptop, "--", "sh", "-c", GO.format("/tmp/go") + "; echo done")
    worker = laptop.hosts.worker
    sessions = ["tmux", "-S", "/home/ada/.cache/dl-remote-template/tmux-worker"]
    assert f"job-{id}" in worker.run(*sessions, "list-sessions").stdout
    worker.run(*sessions, "kill-server")
    for pid in alive(laptop, "sshd: ada"):
        worker.run("kill", "-9", str(pid), check=False)
    laptop.hosts.laptop.reboot()
    assert job(laptop, id)["state"] == "running"
    worker.path("/tmp/go").touch()
    assert ended(laptop, id) == "finished(0)"
    assert laptop.lab("logs", id) == "done\n"


# --- GPUs ----------------------------------------------------------------------------------------

SHOW = ["--no-record", "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES; " + GO.format("/tmp/go")]
UUID = "GPU-{:08d}-0000-0000-0000-000000000000"


@pytest.fixture
def gpus(laptop):
    """Puts GPUs into the worker."""

    def put(*arguments, **options):
        laptop.hosts.worker.program("nvidia-smi", bed.nvidia_smi(*arguments, **options))

    return put


def test_the_user_s_bashrc_changes_neither_python_nor_gpus_of_a_job(laptop, gpus):
    gpus(2)
    worker = laptop.hosts.worker
    mine = "export CUDA_VISIBLE_DEVICES=7 PATH=/opt/conda/bin:$PATH VIRTUAL_ENV=/opt/conda\n"
    worker.write(".bashrc", mine + worker.read(".bashrc"))
    show = 'echo "$CUDA_VISIBLE_DEVICES $VIRTUAL_ENV ${PATH%%:*}"'
    id = start(laptop, "--", "bash", "-c", show)
    assert ended(laptop, id) == "finished(0)"
    gpu, environment, first = log(laptop, id).split()
    assert gpu in ("0", "1") and "/envs/3.11-" in environment and first == f"{environment}/bin"


def test_without_gpus_a_job_needs_none_and_asking_for_one_says_so(laptop):
    id = start(laptop, "--", "sh", "-c", "echo ${CUDA_VISIBLE_DEVICES-unset}")
    assert ended(laptop, id) == "finished(0)" and log(laptop, id) == "unset\n"
    done = laptop.lab("run", "--gpus", "1", *SHOW, check=False)
    assert done.returncode == 1
    assert "has only 0 GPUs" in done.stderr
    assert len(json.loads(laptop.lab("jobs", "--json"))) == 1, "the refused one left nothing"
    assert len(list(laptop.there("jobs").glob("2*"))) == 1
    assert "jobs/" not in laptop.hosts.worker.run(
        "git", "-C", "lab/my-experiment/repo.git", "worktree", "list"
    ).stdout.replace(f"jobs/{id}", "")


def test_free_gpus_are_taken_and_named_and_no_two_jobs_get_the_same(laptop, gpus):
    gpus(4)
    first = laptop.lab("run", *SHOW)
    assert first.split()[1:] == ["running", "on", "GPU", "0"]
    starting = [laptop.popen("lab", "run", "--gpus", n, *SHOW) for n in ("1", "2")]
    said = [one.communicate(timeout=120)[0] for one in starting]
    ids = [line.split()[0] for line in (first, *said)]
    for id in ids:
        until(lambda id=id: log(laptop, id))
    shown = [log(laptop, id).strip() for id in ids]
    assert sorted(",".join(shown).split(",")) == ["0", "1", "2", "3"]
    assert {job(laptop, id)["gpus"] for id in ids} == set(shown)


def test_busy_gpus_are_left_alone_and_it_says_who_holds_them(laptop, gpus):
    worker = laptop.hosts.worker
    with worker.popen("sleep", "1000", user="bob") as theirs:
        pid = until(lambda: alive(laptop, "sleep 1000"))[0]
        memory = {"memory.used": 30000}
        gpus(
            [{}, memory, {"memory.used": "[N/A]"}], apps=[{"gpu_uuid": UUID.format(0), "pid": pid}]
        )
        mine = start(laptop, *SHOW)
        logged(laptop, mine, "2\n")
        done = laptop.lab("run", "--gpus", "1", *SHOW, check=False)
        theirs.kill()
    assert done.returncode == 1
    assert "worker has fewer free GPUs than 1" in done.stderr
    assert f"GPU 0: bob; GPU 1: somebody; GPU 2: job {mine}" in done.stderr
    assert "lab run --queue waits" in done.stderr


def test_a_queued_job_starts_when_the_gpu_is_free_and_can_be_stopped_before(laptop, gpus):
    gpus(1)
    first = start(laptop, "--", "sh", "-c", "echo up; " + GO.format("/tmp/go"))
    logged(laptop, first, "up")
    second, third = (start(laptop, "--queue", "--", "echo", "mine") for _ in range(2))
    assert job(laptop, second)["state"] == "queued"
    assert f"GPU 0: job {first}" in job(laptop, second)["detail"]
    assert laptop.lab("stop", third) == f"{third} stopped\n"
    laptop.hosts.worker.path("/tmp/go").touch()
    assert ended(laptop, second) == "finished(0)"
    assert job(laptop, second)["gpus"] == "0"
    assert log(laptop, third) == ""


def test_queued_jobs_get_gpus_in_the_order_in_which_they_came(laptop, gpus):
    gpus(2)
    start(laptop, "--", "sleep", "1000")
    second = start(laptop, "--queue", "--gpus", "2", "--", "true")
    said = laptop.lab("run", "--queue", "--no-record", "--", "echo", "mine")
    assert f"queued, job {second} came first" in said, "though one would be free for it"
    kill_runner(laptop, second)
    third = said.split()[0]
    assert ended(laptop, third) == "finished(0)", "a dead one holds nobody up"
    done = laptop.lab("run", "--queue", "--gpus", "3", *SHOW, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "lab: worker has only 2 GPUs."


def test_a_day_on_several_machines_that_several_people_share(laptop, gpus):
    gpus(2)
    table = '[machines.{}]\nssh = "{}"\ngateway = "gateway"\nfolder = "lab/{}"\n'
    table += BOB.partition("\n")[2]  # an ordinary user
    three = [("gpu", "worker", "experiment"), ("second", "worker", "second"), ("dark", "dark", "x")]
    (laptop.path / "machines.toml").write_text("\n".join(table.format(*one) for one in three))
    (laptop.path / "machines.local.toml").write_text("")
    for folder in ("experiment", "second"):
        make_environment(laptop, f"/home/bob/lab/{folder}")
    eve = {"env": {"LOGNAME": "eve"}}
    script = GO.format("/tmp/go") + "; exit 3"
    mine = laptop.lab("run", "-m", "any", "--name", "same", "--gpus", "2", "--", "sh", "-c", script)
    assert mine.split()[1:] == ["running", "on", "GPU", "0,1"]
    assert laptop.lab("run", "-m", "any", "--", "true", check=False).returncode == 1
    theirs = laptop.lab("run", "-m", "any", "--queue", "--name", "same", "--", "true", **eve)
    mine, theirs = mine.split()[0], theirs.split()[0]

    done = laptop.lab("jobs", "--all-machines", "--json", check=False)
    listed = [(row["machine"], row["id"], row["state"]) for row in json.loads(done.stdout)]
    assert done.returncode == 1
    assert listed == [
        ("gpu", mine, "running"),
        ("gpu", theirs, "queued"),
        ("dark", None, "unreachable"),
    ]
    assert "dark" in laptop.lab("doctor", "--all-machines", check=False).stdout.splitlines()[0]
    assert [one["id"] for one in json.loads(laptop.lab("jobs", "--mine", "--json"))] == [mine]

    assert laptop.lab("stop", theirs[-4:], check=False).returncode == 1
    assert laptop.lab("stop", "same", **eve) == f"{theirs} stopped\n", "one's own of that name"
    waiting = laptop.popen("lab", "wait", mine[-4:])
    laptop.hosts.worker.path("/tmp/go").touch()
    assert waiting.communicate(timeout=120)[0] == f"{mine} finished(3)\n"
    assert waiting.returncode == 3


def test_without_a_driver_that_works_a_job_needs_no_gpu(laptop, gpus):
    gpus(1, broken=True)
    id = start(laptop, "--", "echo", "ran")
    assert ended(laptop, id) == "finished(0)"


def test_a_home_that_cannot_be_written_is_named_though_the_project_is_elsewhere(laptop, gpus):
    gpus(1)
    worker, cache = laptop.hosts.worker, "/home/ada/.cache"
    worker._sh(f"mount -t tmpfs -o size=4k none {cache}")
    worker.run("sh", "-ec", "mkdir dl-remote-template; head -c 4k /dev/zero >full", cwd=cache)
    for cause, commands in (("No space left", [["run"]]), ("Read-only", [["run"], ["setup"]])):
        for command in commands:
            done = laptop.lab(*command, check=False)
            assert done.returncode == 1
            assert f"lab: {cache}/dl-remote-template " in done.stderr
            assert "cannot be written" in done.stderr
        doctor = json.loads(laptop.lab("doctor", "--json", check=False).stdout)
        disk = next(row for row in doctor if row["check"] == "disk")
        assert (disk["verdict"], cause in disk["advice"]) == ("failed", True), disk
        worker._sh(f"mount -o remount,ro {cache}")


@pytest.mark.parametrize("question", ["query-gpu", "query-compute-apps"])
def test_a_driver_that_hangs_neither_hangs_a_start_nor_counts_as_free_gpus(laptop, question):
    worker = laptop.hosts.worker
    hangs = f'#!/bin/sh\ncase "$*" in *{question}*) exec sleep 3600 ;; esac\n'
    worker.program("nvidia-smi", hangs + bed.nvidia_smi(1))
    # its 8 seconds, shortened
    worker.program("timeout", '#!/bin/sh\nshift 3; exec /usr/bin/timeout -k 1 1 "$@"\n')
    done = laptop.lab("run", *SHOW, check=False)
    why = "nvidia-smi on worker does not answer, so it is unknown which GPUs are free"
    fix = "lab run --queue waits for them, --gpus 0 runs without one"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"lab: {why}. {fix}.")
    doctor = json.loads(laptop.lab("doctor", "--json", check=False).stdout)
    assert next(row["remote"] for row in doctor if row["check"] == "GPUs") == "hung"
    id = start(laptop, "--gpus", "0", "--", "true")
    assert ended(laptop, id) == "finished(0)"


def test_a_gpu_that_does_not_tell_its_processes_is_free_if_its_memory_is(laptop):
    silent = (
        "case \"$*\" in *query-compute-apps*) echo 'not available on this device'; exit 3 ;; esac"
    )
    cards = [{"memory.used": 9000}, {}]
    laptop.hosts.worker.program("nvidia-smi", f"#!/bin/sh\n{silent}\n{bed.nvidia_smi(cards)}")
    id = start(laptop, "--", "true")
    assert ended(laptop, id) == "finished(0)" and job(laptop, id)["gpus"] == "1"
    doctor = json.loads(laptop.lab("doctor", "--json", check=False).stdout)
    assert any(row["check"] == "GPU 0" for row in doctor)


def test_several_gpus_run_one_process_each(laptop, gpus):
    gpus(2)
    id = start(laptop, "--gpus", "2", "with", "quick")
    ended(laptop, id)
    command = job(laptop, id)["spec"]["command"]
    assert command[:3] == ["torchrun", "--standalone", "--nproc-per-node=2"]
    assert command[-3:] == ["my_experiment.experiment", "with", "quick"]


def test_gpus_0_hides_them(laptop, gpus):
    gpus(1)
    id = start(laptop, "--gpus", "0", "--", "sh", "-c", 'echo "<${CUDA_VISIBLE_DEVICES-unset}>"')
    assert ended(laptop, id) == "finished(0)" and log(laptop, id) == "<>\n"
