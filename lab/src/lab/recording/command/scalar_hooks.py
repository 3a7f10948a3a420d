"""In a recorded command: scalars given to writers, loggers and trackers become points.

Loaded by inside/sitecustomize.py, in any Python 3.8 or newer. No call of the command fails or
changes because of this: hooked functions still do all that they did. What is slow to import is
imported where it is needed, as every process of the command waits for this module.
"""

from __future__ import annotations

import os
import sys
import time
import types
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Tuple

METRICS = os.environ.get("LAB_METRICS", "")  # the record's metrics.jsonl
REPORT = os.environ.get("LAB_REPORT", "")  # for settings, and files that were edited too late
LINE = '{"metric": %s, "step": %d, "value": %s, "time": %.3f}\n'
# Modules that start the script in other processes: what they are told is no setting of it.
LAUNCHERS = (
    "torch.distributed.",
    "accelerate.commands.",
    "deepspeed.launcher.",
    "horovod.runner.",
    "composer.cli.",
)

last: Dict[str, Tuple[int, float]] = {}  # to drop a point that several loggers pass on
next_step: Dict[str, int] = {}  # for metrics that are logged without a step
check: Any = None  # the function of ground/attempts.py


def is_recording() -> bool:
    """Whether this process records its points: the only one, or rank 0, outside a run of lab.

    A run of lab.tracking, which a shell script may start, has a record of its own.
    """
    own: Any = sys.modules.get("lab.recording.recorder")
    if own and own.RunFolder.current:
        return False
    return (os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0") == "0"


def check_claim() -> None:
    """End this process if a newer attempt of its job has taken over: see ground/attempts.py."""
    global check  # noqa: PLW0603 # loaded once
    if "LAB_ATTEMPT" in os.environ:
        if not check:
            import runpy
            from pathlib import Path

            file = Path(__file__).parents[2] / "ground/attempts.py"
            check = runpy.run_path(str(file))["check"]
        check()


def append(path: str, text: str) -> None:
    """Append to a file in one piece, so that several processes may do so."""
    with suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            check_claim()
            os.write(file, text.encode("utf-8", "replace"))
        finally:
            os.close(file)


def report(**facts: Any) -> None:
    """Tell `lab record` something about this process."""
    import json

    append(REPORT, json.dumps(facts, default=str) + "\n")


def add_point(name: Any, value: Any, step: Any = None) -> None:
    """Add a point to the record, if the value is a number."""
    if isinstance(value, (str, bytes)) or not is_recording():
        return
    name = str(name)
    try:
        number = float(value)
        step = next_step.get(name, 0) if step is None else int(step)
    except Exception:  # noqa: BLE001 - an image, a table, a tensor with several elements
        return
    if not -(2**63) <= step < 2**63:  # lab and TensorBoard have only 64-bit steps
        return
    import json

    next_step[name] = step + 1
    if last.get(name) == (step, number):
        return
    last[name] = (step, number)
    text = json.dumps(number)
    text = text if abs(number) <= sys.float_info.max else f'"{text}"'
    append(METRICS, LINE % (json.dumps(name), step, text, time.time()))


def add_points(values: Any, step: Any = None, prefix: str = "") -> None:
    """Add the points of a dictionary; those of one inside it are named a/b, as loggers do."""
    for name, value in list(values.items()):
        if isinstance(value, dict):
            add_points(value, step, f"{prefix}{name}/")
        else:
            add_point(f"{prefix}{name}", value, step)


def call_before(owner: Any, name: str, hook: Any) -> None:
    """Call hook(*arguments) before each call of owner.name; errors of the hook are ignored."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        with suppress(Exception):  # another version takes other arguments
            hook(*arguments, **options)
        return original(*arguments, **options)

    wrapped.__name__, wrapped.__doc__ = name, original.__doc__
    setattr(owner, name, wrapped)


def hook_writer(module: Any) -> None:
    """SummaryWriter, of torch and of tensorboardX."""

    def add_scalar(_: Any, tag: Any, scalar_value: Any, global_step: Any = None, *__: Any) -> None:
        add_point(tag, scalar_value, global_step)

    def add_scalars(
        _: Any, main_tag: str, tag_scalar_dict: Any, global_step: Any = None, *__: Any
    ) -> None:
        add_points(tag_scalar_dict, global_step, f"{main_tag}/")

    call_before(module.SummaryWriter, "add_scalar", add_scalar)
    call_before(module.SummaryWriter, "add_scalars", add_scalars)


def hook_wandb(module: Any) -> None:
    """Weights & Biases, where each call is a step, unless it has a step or commit=False."""
    count = 0

    def log(_: Any, data: Any, step: Any = None, commit: Any = None, **__: Any) -> None:
        nonlocal count
        count = count if step is None else int(step)
        add_points(data, count)
        if commit or (commit is None and step is None):
            count += 1

    call_before(module.Run, "log", log)


def hook_lightning(module: Any) -> None:
    """Lightning, which passes all metrics to its loggers here."""

    def log_metrics(self: Any, metrics: Any, step: Any = None) -> None:
        stepped = self.trainer.fit_loop.epoch_loop._batches_that_stepped
        add_points(metrics, stepped if step is None else step)

    call_before(module._LoggerConnector, "log_metrics", log_metrics)


def hook_trainer(module: Any) -> None:
    """The Trainer of Hugging Face's transformers."""

    def on_log(_: Any, args: Any, state: Any, control: Any, logs: Any) -> None:
        add_points(logs, state.global_step)

    call_before(module.CallbackHandler, "on_log", on_log)


def hook_accelerate(module: Any) -> None:
    """Accelerate, which passes all metrics to its trackers here."""

    def log(_: Any, values: Any, step: Any = None, *__: Any, **___: Any) -> None:
        add_points(values, step)

    call_before(module.Accelerator, "log", log)


def hook_sacred(module: Any) -> None:
    """A run of Sacred: the scalars that it logs, and its whole configuration."""

    def log_scalar(_: Any, metric_name: Any, value: Any, step: Any = None) -> None:
        add_point(metric_name, value, step)

    def start(self: Any, *_: Any) -> None:
        own: Any = sys.modules.get("lab.recording.recorder")
        if is_recording() and not (
            own and any(isinstance(o, own.RunFolder) for o in self.observers)
        ):
            report(settings=self.config)

    call_before(module.Run, "log_scalar", log_scalar)
    call_before(module.Run, "__call__", start)


def hook_sources(module: Any) -> None:
    """Sacred's search for sources in a folder: it skips an environment that lies there."""
    original, installed = module.iterate_all_python_files, os.path.realpath(sys.prefix) + os.sep

    def find(base_path: Any) -> Any:
        if os.path.realpath(base_path).startswith(installed):
            return original(base_path)
        found = original(base_path)
        return (one for one in found if not os.path.realpath(one).startswith(installed))

    module.iterate_all_python_files = find


def hook_argparse(module: Any) -> None:
    """All settings of a script that reads its command line: those typed, and the defaults."""
    original = module.ArgumentParser.parse_args

    def parse_args(self: Any, args: Any = None, namespace: Any = None) -> Any:
        found = original(self, args, namespace)
        if args is None and is_recording() and "hydra" not in sys.modules:  # which has its own
            with suppress(Exception):
                caller: Any = sys._getframe(1).f_globals.get("__spec__")
                if not (caller and caller.name.startswith(LAUNCHERS)):
                    report(settings=vars(found))
        return found

    module.ArgumentParser.parse_args = parse_args


def hook_hydra(module: Any) -> None:
    """The whole configuration of a script with @hydra.main."""

    def run_job(*_: Any, config: Any, **__: Any) -> None:
        container = sys.modules["omegaconf"].OmegaConf.to_container
        settings = container(config, resolve=False)
        settings.pop("hydra", None)
        report(settings=settings)

    call_before(module, "run_job", run_job)


class Attributes(dict):  # type: ignore[type-arg] # of Python 3.8
    """A dictionary whose values are also attributes."""

    def __getattr__(self, name: str) -> Any:
        return self.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class Run(types.SimpleNamespace):
    """A run of the stand-in for wandb: it takes every call and does nothing."""

    def log(self, data: Any, step: Any = None, commit: Any = None, **_: Any) -> None:
        pass

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:  # watch, save, finish, define_metric, ...
        return lambda *_, **__: None


def fill_wandb(module: Any) -> None:
    """Make a stand-in for wandb, for scripts that log to it where it is not installed."""
    module.Run = Run
    hook_wandb(module)
    run = Run(config=Attributes(), summary=Attributes(), id="", name="", dir="", url="")

    def init(*_: Any, config: Any = None, **__: Any) -> Run:
        run.config.update(config if isinstance(config, dict) else {})
        report(settings=dict(run.config))
        return run

    module.run, module.init, module.config, module.summary = run, init, run.config, run.summary
    module.log = run.log
    module.__getattr__ = lambda name: getattr(run, name)
    with suppress(ImportError):  # in another environment than the project's
        from lab.ground.terminal import print_message

        print_message("lab: wandb is not installed: what it logs is in the record only.")
