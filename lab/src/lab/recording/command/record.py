"""A record of any command, unedited: its words, settings, code, output, metrics and true end."""

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lab.ground import attempts, files, interrupts, portable, project
from lab.ground.errors import LabError
from lab.recording import code_state, continued_record, provenance
from lab.recording.command import outputs, own_record, points, running, scratch, settings
from lab.recording.record_files import now
from lab.recording.recorder import RunFolder
from lab.recording.settings import named_files

INSIDE = Path(__file__).with_name("inside")  # what Python imports in the command
BEAT = 10.0  # seconds between two states of the record
TAIL = 4096  # bytes at the end of the output that are searched for the cause of a failure


def record(
    words: list[str], name: str = "", comment: str = "", id: str | None = None, earlier: str = ""
) -> int:
    """Run a command in the working directory, record it as a run, and return its exit code.

    If a signal ended it, the code is 128 + the signal's number, as in a shell, or 75 in a job whose
    next attempt goes on. `earlier` is a run whose declared outputs the command finds in their
    folders. LabError if the record is incomplete.
    """
    root, recorder = project.root(), RunFolder(project.runs_folder(), prints_in_c=False)
    declared = project.outputs()
    where = os.path.relpath(Path.cwd().resolve(), root)
    outputs.link_data()
    # a later attempt goes on with its own outputs
    if earlier and not continued_record.find_earlier([words, where]):
        outputs.restore(earlier, declared)
    typed = settings.read_settings(words)
    options = {"--name": name or None, "--comment": comment or None, "--from": earlier or None}
    facts = {
        "words": words,
        "folder": where,
        "options": options,
        "comment": comment or None,
        "changed": typed,
    }
    with interrupts.as_exceptions(), scratch.make_report() as report:
        taken = time.time_ns()
        run_id = recorder.started_event(
            ex_info=describe_experiment(),
            command=settings.name_program(words),
            host_info=describe_host(),
            start_time=now(),
            config=dict(typed),
            meta_info=facts,
            _id=continued_record.choose_id([words, where], id),
        )
        beats = Beats(recorder, report)
        try:
            used = find_dataset(typed)
            recorder.run_entry["data"] = provenance.identify_data(used)
            output = outputs.locate_folder(run_id)
            output.mkdir(parents=True, exist_ok=True)
            lines = recorder.folder.resolve() / "metrics.jsonl"
            if recorder.earlier:
                beats.later = points.LaterPoints(recorder.folder)
                lines = beats.later.path
            code = running.run(words, make_variables(run_id, output, lines, report, taken))
            beats.stop()
            if used is None:  # the command may have reported more than was typed
                recorder.run_entry["data"] = provenance.identify_data(find_dataset(recorder.config))
            describe_imports(recorder, report, words)
            outputs.collect(declared, output, find_start(recorder, taken))
            number = interrupts.received_signal()
            goes_on = attempts.number() and (code == attempts.GO_ON or number in interrupts.ASKING)
            if code and (number or goes_on):
                end_interrupted(recorder, interrupts.to_exception(number or signal.SIGTERM))
            elif code:
                cause = describe_end(words, code, recorder.folder / "cout.txt")
                recorder.failed_event(now(), [f"{cause}\n"])
            else:
                recorder.completed_event(now(), None)
        except BaseException as error:
            beats.stop()
            end_interrupted(recorder, error)
            raise
    outputs.remove_if_empty(output)
    if not id:  # with one it is lab reproduce, in a checkout that it removes
        outputs.advise(recorder.run_entry["code"], declared)
    if recorder.problem():
        raise LabError(recorder.problem())
    code = code if code >= 0 else 128 - code
    return attempts.report_interruption(code) if code and goes_on else code


def find_start(recorder: RunFolder, taken: int) -> int:
    """Return when the first attempt began to write, in ns: `taken` if this is it."""
    if not recorder.earlier:
        return taken
    start = datetime.fromisoformat(recorder.run_entry["start_time"]).replace(tzinfo=timezone.utc)
    return int(start.timestamp() * 1e9)


class Beats(threading.Thread):
    """A thread that saves the record's state every few seconds while the command runs."""

    def __init__(self, recorder: RunFolder, report: Path):
        super().__init__(daemon=True)
        self.recorder, self.report = recorder, report
        self.later: points.LaterPoints | None = None  # of a later attempt
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(BEAT):
            self.save()

    def save(self) -> None:
        """Save what the command has reported, and a sign of life."""
        self.recorder.try_to(self.take_reported)
        self.recorder.heartbeat_event({}, "", now(), None)

    def take_reported(self) -> None:
        """Save the settings that the command has reported, and its points in a later attempt.

        OSError if that fails; the next call then tries it again.
        """
        for reported in read_report(self.report, "settings"):
            if not isinstance(reported, dict):
                continue
            whole = settings.join(reported, self.recorder.config)
            if whole != self.recorder.config:
                self.recorder.save_json(whole, "config.json")
                self.recorder.config = whole
        if self.later:
            self.later.merge()

    def stop(self) -> None:
        self.ended.set()
        self.join()
        self.recorder.complete("what the command reported", self.take_reported)


def find_dataset(config: Mapping[str, Any]) -> str | None:
    """Find the dataset that a command was told to use: `dataset`, or the first data/NAME/... ."""
    texts = [text for _, text in named_files.list_texts(config)]
    told = config.get("dataset")
    if isinstance(told, str) and project.DATASET.fullmatch(told):
        return told
    for text in texts:
        with suppress(ValueError):
            parts = Path(portable.to_portable(text)).parts
            if parts[:1] == ("data",) and project.DATASET.fullmatch(parts[1] if parts[1:] else ""):
                return parts[1]
    return None


def read_report(report: Path, kind: str) -> list[Any]:
    """Read what the command's Python processes have reported of one kind."""
    found = []
    for line in report.read_text("utf-8", "replace").splitlines():
        try:
            one = files.parse_json(line)
        except ValueError:
            continue
        if isinstance(one, dict) and kind in one:
            found.append(one[kind])
    return found


def describe_imports(recorder: RunFolder, report: Path, words: list[str]) -> None:
    """Note in the record which imported files its commit lacks or has in another version."""
    late = {str(name) for name in read_report(report, "late")}
    if late:
        names = ", ".join(sorted(late))
        problem = f"edited after the start and before the import: {names}; the commit holds"
        problem += " another version."
    else:
        program = Path(words[settings.find_program(words)]).resolve()
        own = [program] if program.is_file() and program.is_relative_to(project.root()) else []
        own = [path for path in own if not path.is_relative_to(Path(sys.prefix).resolve())]
        ran = {str(name) for name in read_report(report, "imported")}
        ran |= {str(path.relative_to(project.root())) for path in own}
        problem = code_state.describe_absent(recorder.run_entry["code"], ran)
    code_state.note_problem(recorder.run_entry["code"], problem)


def end_interrupted(recorder: RunFolder, error: BaseException) -> None:
    if isinstance(error, KeyboardInterrupt):
        recorder.interrupted_event(now(), getattr(error, "STATUS", "INTERRUPTED"))
    else:
        recorder.failed_event(now(), [f"{error}\n"])


def describe_end(words: list[str], code: int, output: Path) -> str:
    """Say how a command failed, with the last line that it printed."""
    how = f"was ended by {interrupts.name_signal(-code)}" if code < 0 else f"ended with {code}"
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - TAIL))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
    cause = f": {lines[-1].strip()[:300]}" if lines else ""
    return f"{shlex.join(words)[:200]} {how}{cause}"


def make_variables(id: str, output: Path, lines: Path, report: Path, taken: int) -> dict[str, str]:
    """Make the variables of the command: the project's environment, its run, our hooks."""
    variables = dict(os.environ)
    paths = [str(INSIDE), variables.get("PYTHONPATH", "")]
    return variables | {
        "PATH": own_record.add_programs(variables.get("PATH", os.defpath)),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",  # all that is printed is recorded, even if it is killed
        "LAB_RUN": id,
        "LAB_OUTPUT": str(output),
        "LAB_METRICS": str(lines),
        "LAB_REPORT": str(report),
        "LAB_PROJECT_FOLDER": str(project.root()),
        "LAB_SNAPSHOT_TIME": str(taken),
    }


def describe_experiment() -> dict[str, Any]:
    """Describe the experiment as Sacred does, but without sources: the commit has them."""
    root = project.root()
    facts: dict[str, Any] = {"name": project.name(), "base_dir": str(root), "sources": []}
    return facts | {"dependencies": [], "repositories": [], "mainfile": None}


def describe_host() -> dict[str, Any]:
    """Describe this computer as Sacred does, as far as that takes no time."""
    system = os.uname()
    return {
        "hostname": system.nodename,
        "os": [system.sysname, f"{system.sysname}-{system.release}-{system.machine}"],
        "python_version": sys.version.split()[0],
        "ENV": {},
    }
