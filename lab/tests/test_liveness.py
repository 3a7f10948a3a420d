"""Which runs are still alive: judged by process, boot, host and heartbeat."""

import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.browser import notebook_server
from lab.ground import liveness
from lab.ground.ids import new_id
from lab.recording.command import running

NOW = datetime.now(timezone.utc)
ELSEWHERE = {"host": "elsewhere", "boot": "another"}


def judge(age=timedelta(), **changed) -> str:
    heartbeat = (NOW - age).replace(tzinfo=None).isoformat()
    return liveness.judge_state(liveness.identify_process() | changed, heartbeat, NOW)


@pytest.mark.parametrize(
    ("age", "process", "state"),
    [
        pytest.param(timedelta(days=1), {}, "RUNNING", id="alive, though its heartbeat is late"),
        pytest.param(timedelta(), {"pid": 2**22 + 1}, "LOST", id="its process is gone"),
        pytest.param(timedelta(), {"started": "1"}, "LOST", id="a later process has its pid"),
        pytest.param(timedelta(), {"started": ""}, "LOST", id="its start time is unknown"),
        pytest.param(timedelta(minutes=5), {"boot": "another"}, "LOST", id="restarted since"),
        pytest.param(timedelta(seconds=20), ELSEWHERE, "RUNNING", id="elsewhere, fresh"),
        pytest.param(timedelta(minutes=5), ELSEWHERE, "UNKNOWN", id="elsewhere, silent a while"),
        pytest.param(timedelta(days=1), ELSEWHERE, "LOST", id="elsewhere, silent for a day"),
        pytest.param(-timedelta(days=1), ELSEWHERE, "UNKNOWN", id="elsewhere, from the future"),
    ],
)
def test_a_run_is_judged_by_process_boot_host_and_heartbeat(age, process, state):
    assert judge(age, **process) == state


@pytest.mark.parametrize("heartbeat", [None, "", "broken", 5])
def test_a_run_on_another_machine_without_a_heartbeat_is_unknown(heartbeat):
    assert liveness.judge_state(ELSEWHERE, heartbeat) == "UNKNOWN"
    assert liveness.judge_state({}, heartbeat) == "UNKNOWN"


def test_a_run_that_was_killed_is_lost_before_anybody_has_waited_for_it():
    """Until its parent asks for the exit code it is a zombie: in the process table, but dead."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = liveness.identify_process(process.pid)
        assert liveness.judge_state(identity, None) == "RUNNING"
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and left a zombie
        assert liveness.judge_state(identity, None) == "LOST"


@pytest.fixture
def cut_name():
    """Gives this process a name that was cut inside a character, as the kernel does at 15 bytes."""
    name = Path("/proc/self/comm")
    before = name.read_bytes()
    name.write_bytes("Lernläufe".encode()[:6])
    yield
    name.write_bytes(before.removesuffix(b"\n"))


@pytest.mark.skipif(sys.platform != "linux", reason="where the kernel has /proc")
def test_a_process_may_have_any_name(cut_name):
    assert liveness.start_time(os.getpid()) == notebook_server.start_time(os.getpid()) != ""
    ended = []
    signal.signal(signal.SIGUSR1, lambda *_: None)
    running.tell_time_limit(SimpleNamespace(pid=os.getpid(), terminate=lambda: ended.append(1)))
    assert not ended, "this process handles SIGUSR1"


def test_ids_of_one_machine_sort_by_time_also_within_a_second():
    ids = []
    for _ in range(200):
        ids.append(new_id())
        until = time.time() + 0.0003
        while time.time() < until:
            pass
    assert ids == sorted(ids)
    assert len({one[:15] for one in ids}) < len(ids), "several were made within a second"
