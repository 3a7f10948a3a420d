"""The queue for GPUs: first come, first served; a gap is used if that delays nobody."""

import os
import subprocess
from contextlib import ExitStack

import pytest
from fake_machine import UNIQUE, FakeMachine, is_running, start_time, until

from lab.ssh import framing

CARDS = "\n".join(f"{index}, GPU-{index}, 4, 40960, NVIDIA A100" for index in range(4))


def ids():
    """Ids of jobs, in the order in which they are started."""
    return [f"20260101-00000{number}-{UNIQUE}" for number in range(1, 10)]


@pytest.fixture
def my_turn(tmp_path):
    """A function that asks the rule itself whether a job that comes now may start."""
    with ExitStack() as processes:

        def ask(have: int, holders: str, waiting: list[int], mine: int) -> bool:
            folder = tmp_path / "waits-here"
            folder.mkdir()
            for number, gpus in enumerate(waiting):
                process = processes.enter_context(subprocess.Popen(["sleep", "1000"]))
                processes.callback(process.kill)
                born = start_time(process.pid)
                (folder / f"job{number}").write_text(
                    f"{process.pid} {FakeMachine.boot} {born} job{number} {gpus}\n"
                )
            script = "\n".join(map(framing.read_script, ("jobs.sh", "gpus.sh", "queue.sh")))
            script += f"\nours={tmp_path} hostname=here id=mine gpus={mine} have={have}\n"
            script += f"holders='{holders}'\nborn=$(started $$)\nmy_turn"
            done = subprocess.run(["sh", "-uc", script], capture_output=True, check=False)
            assert done.stderr == b""
            return done.returncode == 0

        yield ask


@pytest.mark.parametrize(
    ("have", "holders", "waiting", "mine", "may_start"),
    [
        (8, "", [], 8, True),
        (8, "a", [8], 1, False),  # a stream of small ones would never let it in
        (4, "a a a", [2], 1, True),  # it needs a's end in any case, and then there are enough
        (4, "a a", [3], 1, True),
        (4, "a b c", [2], 1, False),  # one end would do, if this job did not come
        (4, "a a a", [2], 2, True),
        (4, "a a a", [2, 3], 1, True),
        (4, "a a a", [2, 4], 1, False),  # the second needs them all
        (4, "a a a", [2, 1], 1, False),
        (8, "a a a a b b", [3], 1, True),
        (8, "a a a a b b", [3], 2, False),
        (8, "a a a a b b", [4], 1, False),
        (4, "somebody.0 a a", [2], 1, False),
        (4, "somebody.0 somebody.1 somebody.2", [4], 1, False),
        (1, "", [1], 1, False),  # free, but not yet seen by the one who waits
        (2, "a", [3], 1, True),  # it can never start: two of its GPUs are gone
    ],
)
def test_a_job_passes_those_who_wait_only_if_that_delays_none(
    my_turn, have, holders, waiting, mine, may_start
):
    assert my_turn(have, holders, waiting, mine) == may_start


@pytest.fixture
def worker(machine):
    """A machine with four GPUs, where waiting jobs look again at once."""
    machine.program(
        "nvidia-smi",
        f"case $* in *query-gpu=index,*) echo '{CARDS}' ;; *query-gpu*) seq 0 3 ;; esac",
    )
    machine.program("sleep", '[ "$1" = 5 ] && set -- 0.02\nexec_real')
    return machine


def running(job) -> bool:
    return (job / "phase").exists() and (job / "phase").read_text().startswith("running")


def waiting(job, for_what: str = "") -> bool:
    phase = job / "phase"
    return (
        phase.exists() and phase.read_text().startswith("queued") and for_what in phase.read_text()
    )


def started(job):
    """Wait until the job runs or waits for GPUs."""
    until(lambda: running(job) or waiting(job))
    return job


def until_gone(name: str) -> str:
    return f"while [ -e $HOME/{name} ]; do sleep 0.02; done"


@pytest.mark.slow
def test_nobody_who_comes_later_passes_one_who_waits_queued_or_not(worker):
    small, big, queued, plain, last = ids()[:5]
    for name in ("small", "big"):
        (worker.home / name).touch()
    started(worker.run_job(small, until_gone("small"), gpus="1"))
    first = started(worker.run_job(big, until_gone("big"), gpus="4", queue="yes"))
    second = worker.run_job(queued, "exec true", gpus="1", queue="yes")
    until(lambda: waiting(second, big))
    third = worker.run_job(plain, "exec true", gpus="some")
    until((third / "exit_code").exists)
    assert big in (third / "refused").read_text(), "without --queue it passes nobody either"
    (worker.home / "small").unlink()
    until(lambda: running(first))
    assert not running(second)
    (worker.home / "big").unlink()
    until((second / "exit_code").exists)
    fourth = worker.run_job(last, "exec true", gpus="4")
    until((fourth / "exit_code").exists)
    assert not (fourth / "refused").exists(), "nobody waits any more"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18",
            "says: Failed to initialize NVML: Driver/library version mismatch\n",
        ),
        ("exit 9", "ended with 9\n"),
        ("true", ""),
    ],
)
def test_a_job_that_gets_no_gpu_because_the_driver_is_broken_says_so(machine, script, said):
    machine.program("nvidia-smi", script)
    job = machine.run_job(ids()[0], "echo ran", gpus="some")
    assert machine.wait_for(job.name).state == "finished(0)"
    why = f"lab: this job runs without a GPU: nvidia-smi on {machine.hostname} {said}"
    assert (job / "output.log").read_text() == (why if said else "") + "ran\n"


@pytest.mark.parametrize("unwritable", [0, 1])
def test_a_job_takes_all_of_its_gpus_or_none(worker, unwritable):
    marks = [worker.ours / f"gpu-{worker.hostname}-{index}" for index in range(4)]
    marks[unwritable].mkdir()  # as a full disk would refuse it
    job = worker.run_job(ids()[0], "exec true", gpus="2")
    until((job / "exit_code").exists)
    assert "cannot be written" in (job / "refused").read_text()
    assert not any(mark.is_file() for mark in marks)
    marks[unwritable].rmdir()
    queued = worker.run_job(ids()[1], "exec true", gpus="4", queue="yes")
    until((queued / "exit_code").exists)
    assert (queued / "gpus").read_text() == "0,1,2,3\n"


@pytest.mark.slow
def test_a_small_job_uses_a_gap_and_the_one_that_waits_still_starts_first_thing(worker):
    three, two, one, another = ids()[:4]
    for name in ("three", "one"):
        (worker.home / name).touch()
    started(worker.run_job(three, until_gone("three"), gpus="3"))
    first = started(worker.run_job(two, "exec true", gpus="2", queue="yes"))
    gap = started(worker.run_job(one, until_gone("one"), gpus="1"))
    refused = worker.run_job(another, "exec true", gpus="1")
    until((refused / "refused").exists)
    (worker.home / "three").unlink()
    until((first / "exit_code").exists)
    assert running(gap), "which goes on, and delayed nobody"


def test_a_job_that_died_while_it_waited_holds_nobody_up(worker):
    small, dead, later = ids()[:3]
    started(worker.run_job(small, "exec sleep 1000", gpus="1"))
    job = started(worker.run_job(dead, "exec true", gpus="4", queue="yes"))
    runner = int((job / "pid").read_text().split()[0])
    os.kill(runner, 9)
    until(lambda: not is_running(runner))
    after = worker.run_job(later, "exec true", gpus="1")
    until((after / "exit_code").exists)
    assert not (after / "refused").exists()


def test_the_queue_is_one_for_all_projects_of_an_account(worker):
    """Another project on the machine has another folder; the GPUs are the same."""
    small, big, other = ids()[:3]
    started(worker.run_job(small, "exec sleep 1000", gpus="1"))
    started(worker.run_job(big, "exec true", gpus="4", queue="yes"))
    (worker.folder.parent / "y/jobs").mkdir(parents=True)
    moved = worker.folder.parent / "y"
    (moved / "envs").symlink_to(worker.folder / "envs")
    job = worker.run_job(other, "exec true", gpus="1", folder=moved)
    until((job / "exit_code").exists)
    assert big in (job / "refused").read_text()
