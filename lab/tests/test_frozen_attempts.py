"""An attempt that freezes anywhere, and wakes after a newer one has begun, changes nothing.

Each attempt is a fork, so that what a run imports is imported once.
"""

import json
import os
import signal
import sys
import traceback
from itertools import count
from pathlib import Path

import pytest

from lab.ground import attempts
from lab.recording import continued_record, drafts, tensorboard_events
from lab.recording.record_files import now
from lab.recording.recorder import RunFolder

assert tensorboard_events  # imports numpy, which takes longer than an attempt
LAST = 6
WRITING = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}


class Job:
    """A job, whose attempts record one run: LAST steps, a checkpoint at every second one."""

    def __init__(self, folder: Path):
        self.folder, self.runs = folder / "job", folder / "runs"
        self.folder.mkdir(parents=True)
        (folder / "pyproject.toml").write_text("[tool.lab]\n")

    def start(self, number: int, ends_after: int = LAST, freezes_at: int = 0) -> int:
        """Start an attempt: it ends after that step, or stops itself before that operation."""
        (self.folder / "attempt").write_text(f"{number}\n")
        pid = os.fork()
        if pid:
            return pid
        code = 99
        try:
            os.environ |= {"LAB_JOB_FOLDER": str(self.folder), "LAB_ATTEMPT": str(number)}
            os.environ["LAB_PROJECT"] = str(self.folder.parent)
            sys.stdout = sys.stderr = (self.folder / "output").open("a")
            os.dup2(sys.stdout.fileno(), 1)
            os.dup2(sys.stdout.fileno(), 2)
            freeze_before(freezes_at, self.folder.parent)
            self.run(ends_after)
            code = 0 if ends_after == LAST else attempts.GO_ON
        except BaseException:  # noqa: BLE001 - a fork of pytest must not go on with it
            attempts.check()  # as Experiment does: a newer one removes what this one writes to
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def run(self, ends_after: int) -> None:
        recorder = RunFolder(self.runs)
        meta, id = {"comment": None}, continued_record.choose_id("words")
        recorder.started_event(EXPERIMENT, "run", {}, now(), {"seed": 0}, meta, id)
        checkpoint = self.folder / "checkpoint"
        drafts.remove_drafts(self.folder)
        done, size = json.loads(checkpoint.read_text()) if checkpoint.exists() else (0, 0)
        recorder.keep_points(size)
        for step in range(done + 1, ends_after + 1):
            recorder.log(step, {"loss": 1 / step})
            if step % 2 == 0:
                with drafts.saving(checkpoint) as draft:
                    draft.write_text(json.dumps([step, recorder.save_points()]))
        output = self.folder / f"output-{attempts.number()}"
        output.write_text(f"{attempts.number()}\n")
        recorder.save_artifact("by", str(output))
        if ends_after == LAST:
            recorder.completed_event(now(), {"loss": 1 / LAST})
        else:
            recorder.interrupted_event(now(), "TERMINATED")

    def read(self) -> dict:
        """What is in the record: points in each of its forms, result, how attempts ended."""
        (record,) = self.runs.glob("2*")
        entry = json.loads((record / "run.json").read_text())
        lines = map(json.loads, (record / "metrics.jsonl").read_text().splitlines())
        columns = json.loads((record / "metrics.json").read_text())["loss"]
        newest, by = int((self.folder / "attempt").read_text()), (record / "by").read_text()
        events = b"".join(path.read_bytes() for path in (record / "tensorboard").glob("events*"))
        return {
            "points": [(one["metric"], one["step"], one["value"]) for one in lines],
            "for Sacred": (columns["steps"], columns["values"]),
            "in TensorBoard": events.count(b"loss"),
            "ended": (entry["status"], entry["result"], entry["attempts"][-1]["state"]),
            "artifacts": entry["artifacts"],
            "by the newest": (entry["attempts"][-1]["attempt"] == newest, by == f"{newest}\n"),
            "left": sorted(one.name for one in record.rglob("*") if one.name.startswith(".")),
        }


EXPERIMENT = {"name": "x", "base_dir": "/", "sources": [], "dependencies": [], "repositories": []}


def freeze_before(number: int, folder: Path) -> None:
    """Stop this process before the operation of that number on files in a folder."""
    left = number

    def hook(event, arguments):
        nonlocal left
        opens = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if (opens or event in WRITING) and str(arguments[0]).startswith(str(folder)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)

    if number:
        sys.addaudithook(hook)


def wait(pid: int) -> int | None:
    """Wait for an attempt; its exit code, or None if it stands still."""
    _, status = os.waitpid(pid, os.WUNTRACED)
    return None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict:
    """The record of a job that nothing has cut."""
    job = Job(tmp_path_factory.mktemp("whole"))
    assert wait(job.start(1)) == 0, (job.folder / "output").read_text()
    return job.read()


# After which steps the attempts end: before the one that stands still, meanwhile, and afterwards.
SITUATIONS = {
    "the first": ([], [3], [LAST]),
    "the second": ([3], [5], [LAST]),
    "until the end": ([], [LAST], []),
}


def freeze(job: Job, point: int, before: list[int], meanwhile: list[int], after: list[int]) -> bool:
    """Let an attempt stand still before an operation; False if it has ended before that one."""
    numbers = count(1)

    def run(ends: list[int]) -> None:
        for end in ends:
            assert wait(job.start(next(numbers), end)) == (0 if end == LAST else attempts.GO_ON)

    run(before)
    frozen = job.start(next(numbers), freezes_at=point)
    if wait(frozen) is not None:
        return False
    run(meanwhile)
    os.kill(frozen, signal.SIGCONT)
    assert wait(frozen) in (0, attempts.GO_ON), (job.folder / "output").read_text()
    run(after)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("situation", SITUATIONS)
def test_an_attempt_that_wakes_after_a_newer_one_changes_nothing(situation, whole, tmp_path):
    """Whichever operation on a file it was about to do."""
    for point in count(1):
        job = Job(tmp_path / str(point))
        if not freeze(job, point, *SITUATIONS[situation]):
            break
        assert job.read() == whole, f"before operation {point}: {job.folder}"
    assert point > 20
