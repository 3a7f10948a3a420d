"""A run's record, from its start to its end: complete, whatever happens to the run."""

import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lab.ground import attempts, files, interrupts
from lab.ground.errors import LabError
from lab.ground.terminal import print_message
from lab.recording import capture, code_state, continued_record, metrics_file, provenance, ranks
from lab.recording.record_files import RecordError, RecordFiles, flatten
from lab.recording.settings import named_files

POINT = ("steps", "values", "timestamps")


class RunFolder(RecordFiles):
    """Sacred's observer, with complete output, metrics of our own, and the true state.

    What cannot be written is reported at once and tried again at every beat. If the record is
    incomplete at the end, the run has failed: see `problem()`.
    """

    current: "RunFolder | None" = None  # the record of this process's run
    priority = math.inf  # before all others: it gives the run its id, and knows how it ended

    def __init__(self, folder: Path, *, prints_in_c: bool = True):
        super().__init__(folder)
        self.prints_in_c = prints_in_c  # whether code in C may print in this process
        self.lock = threading.RLock()  # the heartbeat comes from a thread
        self._reset()

    def _reset(self) -> None:
        self.dir = None
        self.running = False
        self.missing: list[str] = []  # what is not in the record and will not be
        self.reported = ""  # the last error that was printed
        self.info: dict[str, Any] = {}
        self.logged_directly: set[str] = set()  # metrics given to log() that Sacred passes on, too
        self.result: Any = None
        self.process = os.getpid()

    # --- Sacred's events -------------------------------------------------------------------------

    def started_event(
        self,
        ex_info: dict[str, Any],
        command: str,
        host_info: dict[str, Any],
        start_time: datetime,
        config: dict[str, Any],
        meta_info: dict[str, Any],
        _id: str | None,
    ) -> str:
        self._reset()
        try:
            with interrupts.deferred():
                run_id = self.make_folder(_id)
                self._begin(ex_info, command, host_info, start_time, config, meta_info)
        except (OSError, LabError) as error:
            attempts.check()  # what is there may be a newer one's
            if self.dir and not self.earlier:
                shutil.rmtree(self.dir, ignore_errors=True)  # we have just made it
            self.dir = None
            if isinstance(error, LabError):
                raise
            raise RecordError(f"no record can be written in {self.basedir}: {error}") from None
        RunFolder.current = self
        return run_id

    def heartbeat_event(
        self, info: dict[str, Any], captured_out: str, beat_time: datetime, result: Any
    ) -> None:
        if self.is_forked():
            return
        with self.lock:
            if self.running:  # a beat may come after the end
                self.info, self.result = info, result
                self.run_entry["heartbeat"] = beat_time.isoformat()
                self.try_to(self._save)

    def completed_event(self, stop_time: datetime, result: Any) -> None:
        self.result = result
        self._end("COMPLETED", stop_time)

    def interrupted_event(self, interrupt_time: datetime, status: str) -> None:
        self._end(status, interrupt_time)

    def failed_event(self, fail_time: datetime, fail_trace: list[str]) -> None:
        self._end("FAILED", fail_time, fail_trace)

    def join(self) -> None:
        """Wait for nothing: each event is handled when it comes."""

    # An exception in one of these would make Sacred drop this observer for the rest of the run.

    def resource_event(self, filename: str) -> None:
        self.refuse_fork("a resource")
        try:
            self.save_resource(filename)
        except Exception as error:  # noqa: BLE001
            self.note_missing(f"the resource {filename}", error)

    def artifact_event(
        self,
        name: str,
        filename: str,
        metadata: dict[str, Any] | None = None,
        content_type: str | None = None,
    ) -> None:
        self.refuse_fork("an artifact")
        try:
            self.save_artifact(name, filename)
        except Exception as error:  # noqa: BLE001
            self.note_missing(f"the artifact {name}", error)

    def log_metrics(self, metrics_by_name: dict[str, dict[str, Any]], info: dict[str, Any]) -> None:
        """Add the points of Sacred's own log_scalar, which it hands over at every beat."""
        for name in metrics_by_name.keys() - self.logged_directly:
            columns = metrics_by_name[name]
            for step, value, when in zip(*(columns[key] for key in POINT), strict=True):
                seconds = when.replace(tzinfo=timezone.utc).timestamp()
                try:
                    self.metrics.add(step, {name: value}, seconds)
                except Exception as error:  # noqa: BLE001
                    printable = not isinstance(step, int) or abs(step) < 1 << 64  # 5,000 digits
                    where = f" at step {step}" if printable else ""
                    self.note_missing(f"the metric {name}{where}", error)

    # --- metrics ---------------------------------------------------------------------------------

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record one value per metric name at a step; in microseconds, as it is written later."""
        if os.getpid() != self.process:
            self.refuse_fork("metrics")
        if self.metrics.add(step, values):
            self.try_to(self.metrics.flush)

    def is_forked(self) -> bool:
        """Whether this is a forked child of the run's process, with a copy of its points."""
        return os.getpid() != self.process

    def refuse_fork(self, what: str) -> None:
        """Raise RecordError in a forked child, where `what` would be lost, or recorded twice."""
        if self.is_forked():
            raise RecordError(
                f"{what} cannot be recorded in a forked process: return the values to the process"
                " of the run, and log them there."
            )

    def save_points(self) -> int:
        """Write all points to the disk; returns the size of metrics.jsonl, for keep_points()."""
        with self.lock:
            return self.metrics.save()

    def keep_points(self, size: int) -> None:
        """Keep of an earlier attempt only the points that were there when a checkpoint was made."""
        try:
            if self.earlier:
                self.try_to(lambda: self.metrics.keep(size), OSError)
        except ValueError as error:
            self.note_missing("points of an earlier attempt", error)

    # --- inside ----------------------------------------------------------------------------------

    def _begin(
        self,
        ex_info: dict[str, Any],
        command: str,
        host_info: dict[str, Any],
        start_time: datetime,
        config: dict[str, Any],
        meta_info: dict[str, Any],
    ) -> None:
        # also those of an older attempt that still runs, and is about to rename them
        drafts = [*files.list_drafts(self.folder), *files.list_drafts(self.folder / "tensorboard")]
        attempts.check()  # after the list was made: it has no draft of a newer attempt
        for draft in drafts:
            draft.unlink(missing_ok=True)
        output = self.folder / "cout.txt"
        output.touch()
        self.capture = capture.start(output, self.prints_in_c)
        try:
            self.start = time.monotonic()
            self.gpus, software = provenance.Gpus(), provenance.Software()
            self.metrics = metrics_file.Metrics(self.folder)
            # a copy, as other observers want Sacred's own
            ex_info = {**ex_info, "sources": self.save_sources(ex_info)}
            self.config: dict[str, Any] = config
            self.info = {}
            self.imports = code_state.imports
            code = self.imports.take_snapshot()
            diff = code.pop("diff")
            if diff and not self.earlier:
                files.write(self.folder / "uncommitted.diff", diff, before=attempts.check)
            if not self.earlier:
                self.save_json(self.config, "config.json")
            self.run_entry = {
                "experiment": ex_info,
                "command": command,
                "host": dict(host_info),
                "meta": meta_info,
                "status": "RUNNING",
                "start_time": start_time.isoformat(),
                "heartbeat": start_time.isoformat(),
                "resources": [],
                "artifacts": [],
                "code": code,
                **provenance.collect_at_start(config, software),
            }
            if attempts.number():
                self.run_entry = continued_record.begin(self.run_entry, self.earlier, start_time)
                used = self.earlier.get("usage", {}).get("wall_time_s", 0.0)
                self.start -= used  # count the time of all attempts
            if "files" in meta_info:  # an experiment; other commands have no typed settings
                named_files.warn_of_not_portable(config, meta_info["files"])
            self._save()
        except BaseException:
            self.capture.stop()
            raise
        self.running = True

    def _save(self) -> None:
        """Write what is known by now; OSError if that fails."""
        self.metrics.flush()
        self.run_entry["result"], _ = to_recordable(self.result, "result")
        info, _ = to_recordable(self.info, "info")
        self.save_json(info, "info.json")
        entry = self.run_entry | provenance.collect_so_far(self.config.get("seed"))
        entry["machine"] = entry["machine"] | self.gpus.facts()
        entry["usage"]["wall_time_s"] = round(time.monotonic() - self.start, 3)
        self.run_entry = entry
        self.save_json(entry, "run.json")

    def _end(self, status: str, when: datetime, trace: Sequence[str] = ()) -> None:
        """Finish the record; signals are handled after that."""
        if self.is_forked():
            return
        with interrupts.deferred(), self.lock:
            if not self.running:
                return
            attempts.check()
            self.running, RunFolder.current = False, None
            if trace:
                self.run_entry["fail_trace"] = list(trace)
            self.complete("what its commit lacks", self._note_code_problems)
            self.complete("its output", self._stop_capture)
            others: list[ranks.Failure] = []
            own = ranks.Failure("rank-0", 0, "".join(trace))
            wait = status == "FAILED" and own.is_consequence
            self.complete(
                "the errors of other ranks",
                lambda: others.extend(ranks.take_errors(Path(self.basedir), wait)),
            )
            status = self._judge_end(status, when, own, others)
            self.run_entry |= {"stop_time": when.isoformat(), "heartbeat": when.isoformat()}
            self.gpus.join(provenance.TIMEOUT + 1)
            texts = (f"--- {failure.rank}\n{failure.text}" for failure in others)
            self.complete("its output", lambda: self._append_output(own.text + "".join(texts)))
            self.complete("its metrics", self.metrics.flush)
            for name, value in (("info", self.info), ("result", self.result)):
                for what, reason in to_recordable(value, name)[1].items():
                    self.note_missing(what, reason)
            if self.missing and status == "COMPLETED":
                status = "FAILED"
                self.run_entry["fail_trace"] = [self.problem()]
            self.run_entry["status"] = status
            continued_record.end(self.run_entry)
            if not self.complete("its state", self._save):
                return
            try:
                lines = self.folder / "metrics.jsonl"
                metrics_file.write_for_sacred(lines, self.folder / "metrics.json")
            except Exception as error:  # noqa: BLE001 # metrics.jsonl has all of it
                print_message(f"warning: metrics.json cannot be written: {error}")

    def _note_code_problems(self) -> None:
        problems = [self.imports.problem(), self.run_entry["software"]["lab"]["problem"]]
        code_state.note_problem(self.run_entry["code"], " ".join(filter(None, problems)))

    def _stop_capture(self) -> None:
        if failure := self.capture.stop():
            self.note_missing("its output", failure)

    def _judge_end(
        self, status: str, when: datetime, own: ranks.Failure, others: list[ranks.Failure]
    ) -> str:
        """Return the state of a run that has ended; its failure may be that of another rank."""
        if others and status != "COMPLETED":
            status = "FAILED"  # the launcher ended this rank because another one had failed
        elif status == "FAILED" and interrupts.received_signal():
            # DataLoader workers that got the same signal turn it into an error
            number = interrupts.received_signal()
            status = "INTERRUPTED" if number == signal.SIGINT else "TERMINATED"
        status = continued_record.judge_end(status)
        if others and status == "FAILED":
            first = ranks.find_first(own.text, when, others)
            if first.rank != "rank-0":
                self.run_entry["fail_trace"] = first.text.splitlines(keepends=True)
        return status

    def _append_output(self, text: str) -> None:
        """Append to cout.txt what is printed only after the run; OSError if the file is gone."""
        with (self.folder / "cout.txt").open("r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(text.encode("utf-8", "replace"))

    def try_to(self, action: Callable[[], None], expected: type[Exception] = Exception) -> None:
        """Call an action that the next beat repeats; a failure is reported once, and not raised."""
        try:
            action()
            self.reported = ""
        except expected as error:  # Sacred's thread would end
            if str(error) != self.reported:
                self.reported = str(error)
                print_message(f"warning: {self.dir} cannot be written: {error}")

    def complete(self, what: str, action: Callable[[], object]) -> bool:
        """Call an action that completes the record, whose end goes on if this fails.

        Whatever it raises is noted as the reason why `what` is missing; returns whether nothing is.
        """
        try:
            action()
        except Exception as error:  # noqa: BLE001 # whatever it is, the state has to be saved
            self.note_missing(what, error)
            return False
        return True

    def note_missing(self, what: str, why: Any) -> None:
        """Note that something is not in the record and will not be."""
        attempts.check()  # a newer one removes the drafts of this one
        missing = f"{what[:200]} ({' '.join(str(why).split())[:500]})"
        if missing not in self.missing:
            self.missing.append(missing)

    def problem(self) -> str:
        """Why the record is incomplete, or ""."""
        if not self.missing:
            return ""
        return f"the record in {self.dir} is incomplete: {', '.join(self.missing)}"


def to_recordable(value: Any, name: str) -> tuple[Any, dict[str, str]]:
    """Return a copy of what can be saved as JSON, and the reason for each part that cannot.

    If one entry of a dictionary cannot be saved, the others are.
    """
    try:
        plain = to_plain_numbers(value)
        json.dumps(flatten(plain))  # raises for an integer with more digits than Python prints
    except Exception as error:  # noqa: BLE001 # objects of the user's may raise anything
        reason = type(error).__name__ if isinstance(error, RecursionError) else str(error)
        if not isinstance(value, dict) or name.count("[") > 2:
            return f"not recorded: {reason}", {name: reason}
        plain = {}
        problems: dict[str, str] = {}
        for key, one in list(value.items()):
            if isinstance(key, str):
                plain[key], found = to_recordable(one, f"{name}[{key!r}]")
            else:
                found = {f"a key of {name}": "it is not a string"}
            problems |= found
        return plain, problems
    return plain, {}


def to_plain_numbers(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """Convert the numbers of numpy and torch to Python's, also inside dictionaries and lists."""
    if isinstance(value, (dict, list, tuple)):
        if id(value) in inside:
            return value  # it contains itself
        inside = (*inside, id(value))
        if isinstance(value, dict):
            return {name: to_plain_numbers(one, inside) for name, one in list(value.items())}
        return [to_plain_numbers(one, inside) for one in value]
    try:
        return value.item()
    except (AttributeError, TypeError, ValueError, RuntimeError):  # no number, or several
        return value
