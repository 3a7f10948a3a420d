"""A run's record, from its first moment to its last: whole whatever happens to the run."""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lab.ground import files, interrupts
from lab.ground.errors import LabError
from lab.recording import capture, code_state, metrics_file, provenance, ranks
from lab.recording.record_files import RecordError, RecordFiles

POINT = ("steps", "values", "timestamps")


class RunFolder(RecordFiles):
    """Sacred's observer, with complete output, metrics of ours, and a state that is true.

    What cannot be written is said at once, tried again at every beat, and at the end the run has
    failed if its record is not whole: see `problem()`.
    """

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.lock = threading.RLock()  # the heartbeat comes from a thread
        self.missing: list[str] = []  # what is not in the record and will not be
        self.said = ""  # the last trouble that was printed
        self.running = False
        self.logged_here: set[str] = set()  # metrics that come by `log` and by Sacred as well

    # --- Sacred's events -------------------------------------------------------------------------

    def started_event(self, ex_info, command, host_info, start_time, config, meta_info, _id):
        self.running, self.dir, self.missing, self.said = False, None, [], ""
        self.logged_here = set()
        try:
            with interrupts.deferred():
                _id = self.make_folder(_id)
                self._begin(ex_info, command, host_info, start_time, config, meta_info)
        except (OSError, LabError) as error:
            if self.dir:
                shutil.rmtree(self.dir, ignore_errors=True)  # our own, of a moment ago
                self.dir = None
            if isinstance(error, LabError):
                raise
            raise RecordError(f"no record can be written in {self.basedir}: {error}") from None
        return _id

    def heartbeat_event(self, info, captured_out, beat_time, result):
        with self.lock:
            if self.running:  # else it is a beat that comes too late
                self.info = info
                self.run_entry |= {"heartbeat": beat_time.isoformat(), "result": numbers(result)}
                self._attempt(self._save)

    def completed_event(self, stop_time, result):
        self.run_entry["result"] = numbers(result)
        self._end("COMPLETED", stop_time)

    def interrupted_event(self, interrupt_time, status):
        self._end(status, interrupt_time)

    def failed_event(self, fail_time, fail_trace):
        self._end("FAILED", fail_time, fail_trace)

    # An exception in one of these would make Sacred drop this observer for the rest of the run.

    def resource_event(self, filename):
        try:
            super().resource_event(filename)
        except Exception as error:
            self._miss(f"the resource {filename}", error)

    def artifact_event(self, name, filename, metadata=None, content_type=None):
        try:
            super().artifact_event(name, filename, metadata, content_type)
        except Exception as error:
            self._miss(f"the artifact {name}", error)

    def log_metrics(self, metrics_by_name, info):
        """Points of Sacred's own log_scalar, which Sacred hands over at every beat."""
        for name in metrics_by_name.keys() - self.logged_here:
            one = metrics_by_name[name]
            for step, value, when in zip(*(one[key] for key in POINT), strict=True):
                moment = when.replace(tzinfo=timezone.utc).timestamp()
                try:
                    self.metrics.add(step, {name: value}, moment)
                except Exception as error:
                    self._miss(f"the metric {name} at step {step}", error)

    # --- metrics ---------------------------------------------------------------------------------

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record one value per metric name at a step; microseconds, as it is written later."""
        if self.metrics.add(step, values):
            self._attempt(self.metrics.flush)

    # --- inside ----------------------------------------------------------------------------------

    def _begin(self, ex_info, command, host_info, start_time, config, meta_info) -> None:
        output = Path(self.dir, "cout.txt")
        output.touch()
        self.capture = capture.start(output)
        try:
            self.began = time.monotonic()
            self.gpus = provenance.Gpus()
            self.metrics = metrics_file.Metrics(Path(self.dir))
            ex_info["sources"] = self.save_sources(ex_info)
            self.config, self.info = config, {}
            self.imports = code_state.imports
            code = self.imports.snapshot()
            diff = code.pop("diff")
            if diff:
                files.write(Path(self.dir, "uncommitted.diff"), diff)
            self.save_json(self.config, "config.json")
            self.run_entry = {
                "experiment": dict(ex_info),
                "command": command,
                "host": dict(host_info),
                "meta": meta_info,
                "status": "RUNNING",
                "start_time": start_time.isoformat(),
                "heartbeat": start_time.isoformat(),
                "resources": [],
                "artifacts": [],
                "code": code,
                **provenance.at_start(config),
            }
            self._save()
        except BaseException:
            self.capture.stop()
            raise
        self.running = True

    def _save(self) -> None:
        """Write out what is known by now; OSError if that fails."""
        self.metrics.flush()
        if self.info:
            self.save_json(self.info, "info.json")
        entry = self.run_entry | provenance.so_far(self.config.get("seed"))
        entry["machine"] = entry["machine"] | self.gpus.facts()
        entry["usage"]["wall_time_s"] = round(time.monotonic() - self.began, 3)
        self.run_entry = entry
        self.save_json(entry, "run.json")

    def _end(self, status: str, when: datetime, trace: list[str] = ()) -> None:
        """Finish the record; a signal that comes meanwhile waits."""
        with interrupts.deferred(), self.lock:
            if not self.running:
                return
            self.running = False
            doubts = [self.imports.doubt(), self.run_entry["software"]["lab"]["problem"]]
            doubt = " ".join(filter(None, doubts))
            if doubt and not self.run_entry["code"].get("problem"):
                self.run_entry["code"]["problem"] = doubt
                print(f"warning: {doubt}", file=sys.stderr)
            lost = self.capture.stop()
            if lost:
                self._miss("its output", lost)
            others = ranks.collect(Path(self.basedir))
            if others and status != "COMPLETED":
                status = "FAILED"  # the launcher ended this rank because another one had failed
            elif status == "FAILED" and interrupts.received_signal():
                # DataLoader workers that got the same signal make an error of it
                number = interrupts.received_signal()
                status = "INTERRUPTED" if number == signal.SIGINT else "TERMINATED"
            if trace:
                self.run_entry["fail_trace"] = trace
            self.run_entry |= {"stop_time": when.isoformat(), "heartbeat": when.isoformat()}
            self.gpus.join(provenance.TIMEOUT + 1)
            for what, action in (
                ("its output", lambda: self._append_output("".join(trace) + others)),
                ("its metrics", self.metrics.flush),
            ):
                try:
                    action()
                except Exception as error:
                    self._miss(what, error)
            if self.missing and status == "COMPLETED":
                status = "FAILED"
                self.run_entry["fail_trace"] = [self.problem()]
            self.run_entry["status"] = status
            try:
                self._save()
            except OSError as error:
                self._miss("its state", error)

    def _append_output(self, text: str) -> None:
        """Add to cout.txt what is only printed after the run, and see that the file is there."""
        with open(Path(self.dir, "cout.txt"), "r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(text.encode("utf-8", "replace"))

    def _attempt(self, action: Callable[[], None]) -> None:
        """Do what will be tried again at the next beat; a failure is said once."""
        try:
            action()
            self.said = ""
        except Exception as error:
            if str(error) != self.said:
                self.said = str(error)
                print(f"warning: {self.dir} cannot be written: {error}", file=sys.stderr)

    def _miss(self, what: str, why: Any) -> None:
        """Something is not in the record and will not be."""
        self.missing.append(f"{what} ({why})")

    def problem(self) -> str:
        """Why the record is not whole, or ""."""
        if not self.missing:
            return ""
        return f"the record in {self.dir} is not whole: {', '.join(self.missing)}"


def numbers(value: Any) -> Any:
    """The value with Python's numbers for numpy's and torch's, also inside of dictionaries."""
    if isinstance(value, dict):
        return {name: numbers(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [numbers(one) for one in value]
    try:
        return value.item()
    except (AttributeError, TypeError, ValueError, RuntimeError):  # no number, or several
        return value
