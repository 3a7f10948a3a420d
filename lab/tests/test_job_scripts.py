"""Events between two steps of the job scripts: the test forces the moment."""

import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from fake_machine import UNIQUE, is_running, start_time, until

from lab.jobs import control, launch

ID, OTHER = f"20260101-000000-{UNIQUE}", f"20260101-000001-{UNIQUE}"
CARD = "0, GPU-a, 4, 40960, NVIDIA A100"


@pytest.fixture
def stranger():
    """A foreign process with a child, in a session of its own."""
    process = subprocess.Popen(
        ["sh", "-c", "sleep 1000 & echo $!; wait"],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    with process:
        yield process.pid, int(process.stdout.readline())
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def count(file: Path) -> int:
    """The lines in a file, which may not exist yet."""
    return file.read_text().count("\n") if file.exists() else 0


def pid_file(machine, pid: int, born: int) -> str:
    return f"{pid} {machine.boot} {born} 1 {machine.hostname}\n"


# --- whose process id it is -----------------------------------------------------------------------


def test_stop_leaves_a_foreign_process_with_the_process_id_of_the_runner_alone(machine, stranger):
    pid, child = stranger
    earlier = int(start_time(pid)) - 1
    machine.job(ID, pid=pid_file(machine, pid, earlier), phase="running\n")
    assert control.stop(machine.connection, ID, grace=0)[0].state == "stopped"
    assert is_running(pid) and is_running(child)


def test_stop_ends_what_the_runner_itself_has_started(machine, stranger):
    pid, child = stranger
    machine.job(ID, pid=pid_file(machine, pid, int(start_time(pid))), phase="running\n")
    control.stop(machine.connection, ID, grace=0)
    assert not is_running(child)


@pytest.mark.parametrize("difference", [0, -1])
def test_a_gpu_is_taken_only_while_the_process_that_took_it_lives(machine, stranger, difference):
    pid, _ = stranger
    born = int(start_time(pid)) + difference
    machine.program("nvidia-smi", f"case $* in *query-gpu*) echo '{CARD}' ;; esac")
    taken = machine.ours / f"gpu-{machine.hostname}-0"
    taken.write_text(f"{pid} {machine.boot} {born} {OTHER}\n")
    job = machine.run_job(ID, "true", gpus="1")
    until((job / "exit_code").exists)
    if difference:
        assert machine.get(ID).state == "finished(0)"
    else:
        assert f"GPU 0: job {OTHER}. lab run --queue waits" in (job / "refused").read_text()


# --- one at a time --------------------------------------------------------------------------------


def test_two_jobs_that_look_for_a_gpu_at_once_do_not_take_the_same(machine):
    waiting, choosing, go = (machine.home / name for name in ("waiting", "choosing", "go"))
    machine.program("nvidia-smi", f"case $* in *query-gpu*) echo '{CARD}' ;; esac")
    machine.program("flock", f"echo waits >>{waiting}\nexec_real")
    # runner.sh calls tr when it has chosen GPUs and not yet written whose they are
    pause = f"echo chose >>{choosing}; until [ -e {go} ]; do sleep 0.02; done"
    machine.program("tr", f"{pause}\nexec_real")
    jobs = [machine.run_job(id, "exec sleep 1000", gpus="1") for id in (ID, OTHER)]
    until(lambda: count(choosing) == 2 or (count(choosing) == 1 and count(waiting) == 2))
    go.touch()
    names = ("exit_code", "gpus")
    until(lambda: all(any((job / name).exists() for name in names) for job in jobs))
    assert sorted((job / "gpus").exists() for job in jobs) == [False, True]


def test_a_job_that_is_started_again_meanwhile_starts_once(machine, repository, monkeypatch):
    waiting, adding, go = (machine.home / name for name in ("waiting", "adding", "go"))
    machine.program("flock", f"[ $# = 1 ] || echo waits >>{waiting}\nexec_real")
    pause = f"echo adding >>{adding}; until [ -e {go} ]; do sleep 0.02; done"
    machine.program("git", f'case "$*" in *"worktree add"*) {pause} ;; esac\nexec_real')
    monkeypatch.setattr(launch, "new_id", lambda: ID)
    command = ["sh", "-c", "echo ran >>$HOME/ran"]
    with ThreadPoolExecutor() as pool:
        starts = [pool.submit(launch.start, machine.connection, command) for _ in range(2)]
        try:
            until(lambda: count(adding) == 2 or (count(adding) == 1 and count(waiting) == 2))
        finally:
            go.touch()
        jobs = [start.result() for start in starts]
    assert [job.id for job in jobs] == [ID, ID]
    assert machine.wait_for(ID).state == "finished(0)"
    assert (count(adding), count(machine.home / "ran")) == (1, 1)


@pytest.mark.slow
def test_a_job_starts_whatever_an_interrupted_start_has_left(machine, repository, monkeypatch):
    monkeypatch.setattr(launch, "new_id", lambda: ID)
    job = machine.folder / "jobs" / ID
    for lose in ((job / "job.json").unlink, partial(shutil.rmtree, job)):
        launch.start(machine.connection, ["sh", "-c", "true"])
        assert machine.wait_for(ID).state == "finished(0)"
        lose()  # git knows the checkout, whether it is there or not
    launch.start(machine.connection, ["sh", "-c", "true"])
    assert machine.wait_for(ID).state == "finished(0)"


# --- stopped at that moment -----------------------------------------------------------------------


def test_a_job_that_is_stopped_just_before_its_command_does_not_start_it(machine):
    stop = "if grep -q running phase.new; then touch stop; fi"
    machine.program("mv", f'case "$*" in "phase.new phase") {stop} ;; esac\nexec_real')
    machine.run_job(ID, "touch $HOME/ran")
    assert machine.wait_for(ID).state == "stopped"
    assert not (machine.home / "ran").exists()


# --- written, or not there ------------------------------------------------------------------------


def test_an_exit_code_is_never_read_half_written(machine):
    reached, go = machine.home / "reached", machine.home / "go"
    pause = f"touch {reached}; until [ -e {go} ]; do sleep 0.02; done"
    machine.program("mv", f'case "$*" in "exit_code.new exit_code") {pause} ;; esac\nexec_real')
    job = machine.run_job(ID, "exit 3")
    until(lambda: reached.exists() or (job / "exit_code").exists())
    assert not (job / "exit_code").exists()
    assert machine.get(ID).state == "running"
    go.touch()
    until((job / "exit_code").exists)
    assert machine.get(ID).state == "finished(3)"
