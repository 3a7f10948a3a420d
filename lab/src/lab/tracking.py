"""Sacred for this project: a typed configuration, unique ids, a record in runs/ for every run.

What experiments may use; a change of what is listed here is a new major version.

    Experiment(Config, ...)      Sacred's experiment, with a frozen dataclass as its configuration
    make_config(Config, values)  that dataclass, from the dictionary that Sacred passes to a run
    metrics(_run)                a context manager: yields the function that logs metrics (Log)
    record_folder(_run)          the folder of the run's record; None if it is not recorded
    run_id(_run)                 the id of the run
    is_main_process()            whether this process records: the only one, or rank 0
    File                         the type of a setting that names a file: data/X in the data folder,
                                 runs/X in that of the records, or a file of the project
    Model                        the type of a setting that names a run, to use its weights or its
                                 checkpoint: lab run copies what a machine lacks of them
    check(Config, values)        the values, checked and converted; ConfigError for a wrong one
    ConfigError                  a wrong setting or option; its types are UnknownSettingError,
                                 UnknownNamedConfigError and UnknownCommandError
    RecordError                  the record cannot be written, or is incomplete
    new_id()                     an id in the format of runs and jobs
    Run                          the type of Sacred's _run
    RunFolder                    the type of its observer that writes the record
    Log                          the type of the function that metrics() yields
    saving(path)                 a context manager: yields the path to write a checkpoint or weights
                                 to, a file or a folder, and renames it when it is complete

For a job that Slurm ends and restarts (elsewhere they do nothing, and should_stop() is False):

    attempt()                    which attempt of the job this is, from 1; 0 elsewhere
    should_stop()                whether the job is about to end: save a checkpoint, then raise
    Interrupted                  the exception for that: the run goes on in the next attempt
    remove_drafts(folder)        remove from a folder what earlier attempts left unfinished
    save_points()                write all points; returns a number to save in the checkpoint
    keep_points(number)          drop later points, after loading that checkpoint in the same run
    ignore_in_worker             worker_init_fn of a DataLoader: its workers ignore the signals
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from lab.ground.attempts import number as attempt
from lab.ground.ids import new_id
from lab.ground.interrupts import Interrupted, ignore_in_worker, should_stop
from lab.recording.drafts import remove_drafts, saving
from lab.recording.experiment import Experiment
from lab.recording.observers import find_recorder
from lab.recording.ranks import is_main_process
from lab.recording.record_files import RecordError
from lab.recording.recorder import RunFolder
from lab.recording.sacred_import import Run
from lab.recording.settings.checking import File, Model, check, make_config
from lab.recording.settings.errors import (
    ConfigError,
    UnknownCommandError,
    UnknownNamedConfigError,
    UnknownSettingError,
)

__all__ = [
    "ConfigError",
    "Experiment",
    "File",
    "Interrupted",
    "Log",
    "Model",
    "RecordError",
    "Run",
    "RunFolder",
    "UnknownCommandError",
    "UnknownNamedConfigError",
    "UnknownSettingError",
    "attempt",
    "check",
    "ignore_in_worker",
    "is_main_process",
    "keep_points",
    "make_config",
    "metrics",
    "new_id",
    "record_folder",
    "remove_drafts",
    "run_id",
    "save_points",
    "saving",
    "should_stop",
]


class Log(Protocol):
    """Logs one value for each metric name, at an optimizer step."""

    def __call__(self, step: int, values: Mapping[str, float]) -> None: ...


def run_id(run: Run) -> str:
    """The id of a run; a new one for a run that is not recorded (rank > 0, `-u`)."""
    return run._id or new_id()


def record_folder(run: Run) -> Path | None:
    """The folder of a run's record; None for a run that is not recorded."""
    recorder = find_recorder(run)
    return recorder.folder if recorder else None


def save_points() -> int:
    """Write all points that were logged to the disk; returns a number for keep_points().

    OSError if that fails. 0 in a process that does not record.
    """
    recorder = RunFolder.current
    return recorder.save_points() if recorder else 0


def keep_points(number: int) -> None:
    """Drop what earlier attempts of this run have logged since save_points() returned `number`.

    Without this call, a run that goes on in its record drops all of them at its first new point.
    """
    recorder = RunFolder.current
    if recorder:
        recorder.keep_points(number)


@contextmanager
def metrics(run: Run) -> Iterator[Log]:
    """Yield a function that logs metrics into the record, and as TensorBoard events beside it."""
    recorder = find_recorder(run)
    if not recorder:
        yield lambda step, values: None
    elif len(run.observers) == 1:
        yield recorder.log
    else:  # Sacred passes points to the other observers; a slow one must not delay the record

        def log(step: int, values: Mapping[str, float]) -> None:
            recorder.log(step, values)
            recorder.logged_directly |= values.keys()
            for name, value in values.items():
                run.log_scalar(name, float(value), int(step))

        yield log
