"""Keeps Sacred's promises to the observers that a user adds, although lab writes the record itself.

They get all output, at each heartbeat and before the end, and the state that the record has. Points
of forked children, which would be lost, are refused.
"""

import codecs
import os
import threading
from contextlib import suppress
from typing import Any

from lab.recording.mongo import Mongo
from lab.recording.record_files import now
from lab.recording.recorder import RunFolder, to_recordable
from lab.recording.sacred_import import Run


def find_recorder(run: Run) -> RunFolder | None:
    """Find the observer that writes a run's record; None for a run that is not recorded."""
    return next((o for o in run.observers if isinstance(o, RunFolder) and o.dir), None)


def prepare(run: Run) -> None:
    """Patch a run of Sacred before it starts, so that it does what this module says."""
    refuse_forked_points(run)
    run._get_captured_output = Output(run).update
    run.post_run_hooks = [*run.post_run_hooks, lambda: make_result_printable(run)]
    final_call = run._final_call

    def end(observer: Any, method: str, **arguments: Any) -> None:
        recorder = find_recorder(run)
        if observer is recorder or not recorder or recorder.running:
            final_call(observer, method, **arguments)
            return
        if not isinstance(observer, Mongo):
            run._get_captured_output()
            beat = {"info": run.info, "captured_out": run.captured_out, "result": run.result}
            run._safe_call(observer, "heartbeat_event", beat_time=now(), **beat)
        method, arguments = describe_end(run, recorder)
        final_call(observer, method, **arguments)

    run._final_call = end


def describe_end(run: Run, recorder: RunFolder) -> tuple[str, dict[str, Any]]:
    """Return Sacred's event for the state in the record, and its arguments."""
    when, entry = run.stop_time, recorder.run_entry
    status, trace = entry["status"], entry.get("fail_trace", [])
    if status == "COMPLETED" and recorder.missing:
        status, trace = "FAILED", [recorder.problem()]
    if status == "COMPLETED":
        return "completed_event", {"stop_time": when, "result": run.result}
    if status == "FAILED":
        return "failed_event", {"fail_time": when, "fail_trace": trace}
    return "interrupted_event", {"interrupt_time": when, "status": status}


class Output:
    """The output of a run, read from its record: Sacred itself captures none here."""

    def __init__(self, run: Run):
        self.run, self.position = run, 0
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.lock = threading.Lock()  # a heartbeat comes from a thread

    def update(self) -> None:
        """Add what is new to the run's `captured_out`, if an observer wants it."""
        recorder = find_recorder(self.run)
        others = [one for one in self.run.observers if not isinstance(one, RunFolder | Mongo)]
        if not recorder or not others or recorder.is_forked():
            return
        with self.lock, suppress(OSError), (recorder.folder / "cout.txt").open("rb") as file:
            file.seek(self.position)
            text = self.run.captured_out + self.decoder.decode(file.read())
            self.position = file.tell()
            change = self.run.captured_out_filter
            self.run.captured_out = change(text) if change else text


def make_result_printable(run: Run) -> None:
    """Replace a result that Sacred could not print, such as an integer of 5,000 digits."""
    try:
        str(run.result)
    except Exception:  # noqa: BLE001 # objects of the user's may raise anything
        run.result, problems = to_recordable(run.result, "result")
        recorder = find_recorder(run)
        for what, reason in problems.items():
            if recorder:
                recorder.note_missing(what, reason)


def refuse_forked_points(run: Run) -> None:
    """Make Sacred's log_scalar raise in a forked child, whose points nobody would write."""
    process, log_scalar = os.getpid(), run.log_scalar

    def log_or_refuse(metric_name: str, value: Any, step: int | None = None) -> None:
        recorder = find_recorder(run) if os.getpid() != process else None
        if recorder:
            recorder.refuse_fork("metrics")
        log_scalar(metric_name, value, step)

    run.log_scalar = log_or_refuse
