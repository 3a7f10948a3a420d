"""Sacred for this project: typed configuration, unique ids, a folder in runs/ for every run."""

import difflib
import os
import secrets
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, get_type_hints

from pydantic import TypeAdapter, ValidationError

from lab import project
from lab.project import UserError

with warnings.catch_warnings():  # Sacred's use of pkg_resources, which setuptools<82 still has
    warnings.filterwarnings("ignore", "pkg_resources is deprecated")
    import sacred
    from sacred.observers import FileStorageObserver

sacred.SETTINGS.CAPTURE_MODE = "sys"  # "fd" loses lines of short runs and all of a notebook's
sacred.SETTINGS.DISCOVER_SOURCES = "dir"  # otherwise sources that other modules import are missed


class ConfigError(UserError):
    """A setting that the experiment does not have, or a value that does not fit it."""

    exit_code = 2


class Log(Protocol):
    """Takes one value per metric name, at an optimizer step."""

    def __call__(self, step: int, values: Mapping[str, float]) -> None: ...


class Experiment(sacred.Experiment):
    """A Sacred experiment whose configuration is a frozen dataclass.

    Unknown names and values of the wrong type are refused in one line, before a record exists.
    `named` are the named configurations, such as smoke=dict(epochs=1) for `with smoke`.
    """

    def __init__(self, settings: type, **named: dict[str, Any]):
        # Sacred's own git support crashes in a repository without a commit or of another user.
        sources = str(project.ROOT / "src")
        super().__init__(project.name(), base_dir=sources, save_git_info=False, interactive=True)
        self.add_config(asdict(settings()))
        for name, values in named.items():
            self.add_named_config(name, check(settings, values))

        @self.config_hook
        def refuse(config, command_name, logger):
            return check(settings, config)

        if is_main_process():
            self.observers.append(RunFolder(project.runs_folder()))

    def run_commandline(self, argv: list[str] | None = None):
        """Sacred's command line; a UserError ends it with one line instead of a traceback."""
        run, self.run = self.run, self._run_or_exit
        try:
            return super().run_commandline(argv)
        finally:
            self.run = run

    def _run_or_exit(self, *arguments, **options):
        try:
            return type(self).run(self, *arguments, **options)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None


def is_main_process() -> bool:
    """Whether this is the process that records: the only one, or rank 0 of several."""
    return os.environ.get("RANK", "0") == "0"


def check(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as the dataclass wants them (1 for a float becomes 1.0), or ConfigError."""
    types = get_type_hints(config, include_extras=True)
    checked = {}
    for name, value in values.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(types)}."
            raise ConfigError(f"there is no setting {name}: {advice}")
        if types[name] is str and type(value) is int:
            value = str(value)  # Sacred takes resume=20261122 for a number
        try:
            checked[name] = TypeAdapter(types[name]).validate_python(value, strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ConfigError(f"{name}={value!r} does not fit: {reason}.") from None
    return checked


def new_run_id() -> str:
    """An id that no other machine gives and that sorts by time: 20261122-101530-gpu1-3fa9c2."""
    now = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    host = "".join(letter for letter in socket.gethostname().split(".")[0] if letter.isalnum())
    return f"{now}-{host[:12].lower() or 'host'}-{secrets.token_hex(3)}"


class RunFolder(FileStorageObserver):
    """Sacred's file record under an id of ours; two machines would both give 1, 2, 3."""

    def started_event(self, *arguments, _id=None, **options):
        _id = _id or new_run_id()
        super().started_event(*arguments, _id=_id, **options)
        return _id


def record_folder(run: sacred.run.Run) -> Path | None:
    """The folder of a run's record; None for a run that is not recorded (rank > 0, `-u`)."""
    return next((Path(o.dir) for o in run.observers if isinstance(o, RunFolder) and o.dir), None)


@contextmanager
def metrics(run: sacred.run.Run) -> Iterator[Log]:
    """Gives a function that writes metrics into the record, and as TensorBoard events beside it."""
    folder = record_folder(run)
    if not folder:
        yield lambda step, values: None
        return
    from torch.utils.tensorboard import SummaryWriter  # slow to import: only where a run happens

    with SummaryWriter(str(folder / "tensorboard")) as events:

        def log(step: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                run.log_scalar(name, value, step)
                events.add_scalar(name, value, step)

        yield log
