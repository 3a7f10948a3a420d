"""Sacred for this project: typed configuration, unique ids, a folder in runs/ for every run."""

import difflib
import importlib
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, get_type_hints

from docopt import DocoptExit
from pydantic import TypeAdapter, ValidationError

from lab.ground import interrupts, project
from lab.ground.errors import LabError
from lab.ground.ids import new_id as new_id
from lab.recording import code_state, ranks
from lab.recording.ranks import is_main_process as is_main_process
from lab.recording.record_files import RecordError
from lab.recording.recorder import RunFolder
from lab.recording.sacred_import import sacred

# The rest of Sacred's options would add a record of another kind, or want its own git support.
OPTIONS = {"--beat-interval", "--comment", "--debug", "--force", "--help", "--id", "--loglevel"}
OPTIONS |= {"--name", "--pdb", "--print-config", "--unobserved"}


class ConfigError(LabError):
    """A setting or option that there is not, or a value that does not fit it."""

    exit_code = 2


class Log(Protocol):
    """Takes one value per metric name, at an optimizer step."""

    def __call__(self, step: int, values: Mapping[str, float]) -> None: ...


class Experiment(sacred.Experiment):
    """A Sacred experiment whose configuration is a frozen dataclass.

    Unknown names and values of the wrong type are refused in one line, before a record exists.
    `modules`, such as [".training"], are imported after that and before the code is recorded: what
    takes long to import, so that the configuration can be seen without it.
    `named` are the named configurations, such as smoke=dict(epochs=1) for `with smoke`.
    """

    def __init__(self, settings: type, modules: Iterable[str] = (), **named: dict[str, Any]):
        # Sacred's own git support crashes in a repository without a commit or of another user.
        main = sys.modules[settings.__module__]
        file = getattr(main, "__file__", None)
        self.root = project.root_of(file)
        sources = str(self.root / "src")
        super().__init__(project.name(), base_dir=sources, save_git_info=False, interactive=True)
        self.all_cli_options = [one for one in self.all_cli_options if one.get_flag() in OPTIONS]
        del self.commands["save_config"]  # it overwrites a config.json
        self.doc = main.__doc__  # Sacred takes this module here for the experiment
        self.mainfile = next((one for one in self.sources if one.filename == file), None)
        self.modules = [(name, main.__package__) for name in modules]
        self.add_config(plain(settings()))
        for name, values in named.items():
            checked = plain(settings(**check(settings, values)))
            self.add_named_config(name, {setting: checked[setting] for setting in values})

        @self.config_hook
        def refuse(config, command_name, logger):
            return plain(settings(**check(settings, config)))

        @self.option_hook
        def only_rank_0_records(options):
            check_options(options)
            if not is_main_process():
                options["--unobserved"] = True

        try:
            self.observers.append(RunFolder(project.runs_folder()))
        except LabError as error:
            raise SystemExit(f"error: {error}") from None
        if os.environ.get("SACRED_MONGO_URL"):
            from lab.recording.mongo import Mongo

            self.observers.append(Mongo(os.environ["SACRED_MONGO_URL"], self.observers[0]))

    def run(self, *arguments, **options) -> sacred.run.Run:
        """Sacred's run; RecordError at its end if its record is not whole."""
        if self.root.resolve() != project.root():
            raise LabError(project.describe_mismatch(self.root, project.root()))
        code_state.begin()
        self.current_run = None  # an earlier one says nothing about this one
        if None in (sys.stdin, sys.stdout, sys.stderr):  # their numbers would go to files of ours
            raise RecordError("standard input or an output is closed: say /dev/null, not >&-.")
        try:
            with interrupts.as_exceptions():
                try:
                    run = self._create_run(*arguments, **options)  # refuses wrong settings
                except (sacred.utils.SacredError, KeyError, ValueError) as error:
                    said = str(error.args[0] if isinstance(error, KeyError) else error)
                    raise ConfigError(" ".join(said.split())) from None
                if not run.main_function.unobserved:  # print_config does without
                    for module in self.modules:
                        importlib.import_module(*module)
                run()
        except BaseException as error:
            if isinstance(error, LabError):  # a DataLoader's worker puts its traceback before it
                error.args = (str(error).rpartition(f"{type(error).__name__}: ")[2].strip(),)
            self._failed(error)
            raise
        problem = recorder_of(run).problem() if recorder_of(run) else ""
        if problem:
            raise RecordError(problem)
        return run

    def _failed(self, error: BaseException) -> None:
        """Tell rank 0 of an error in another rank; say if a failed run's record is not whole."""
        recorder = self.current_run and recorder_of(self.current_run)
        if recorder and recorder.problem():
            print(f"error: {recorder.problem()}", file=sys.stderr)
        if not is_main_process() and not isinstance(error, (ConfigError, KeyboardInterrupt)):
            text = "".join(traceback.format_exception(error))
            for observer in self.observers:
                if isinstance(observer, RunFolder):
                    ranks.report_error(Path(observer.basedir), text)

    def run_commandline(self, argv: list[str] | None = None):
        """Sacred's command line; a LabError or a signal ends it with one line, no traceback."""
        run, self.run = self.run, self._run_or_exit
        try:
            return super().run_commandline(argv)
        except DocoptExit:
            print("error: there is no such option or order of words; see --help.", file=sys.stderr)
            raise SystemExit(2) from None
        finally:
            self.run = run

    def _run_or_exit(self, *arguments, **options):
        try:
            return type(self).run(self, *arguments, **options)
        except LabError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt as error:
            number = getattr(error, "number", signal.SIGINT)
            print(f"ended by {signal.Signals(number).name}", file=sys.stderr)
            raise SystemExit(128 + number) from None  # as a shell says it


def check_options(options: Mapping[str, Any]) -> None:
    """ConfigError for an id or a heartbeat with which a record could not be found or judged."""
    name, beat = options["--id"], options["--beat-interval"]
    if name is not None and not re.fullmatch(r"[^\W_][\w .-]*", name):
        raise ConfigError(f"--id {name!r} is no plain name of letters, digits, '-', '.' and '_'.")
    try:
        fits = beat is None or 0 < float(beat) <= 60
    except ValueError:
        fits = False
    if not fits:
        raise ConfigError(f"--beat-interval {beat} is no number of seconds, above 0 and up to 60.")


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
        try:  # as JSON, which has tuples, paths and enumerations in the form that Sacred knows
            text = json.dumps(value, default=str)
            checked[name] = TypeAdapter(types[name]).validate_json(text, strict=True)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ConfigError(f"{name}={value!r} does not fit: {reason}.") from None
    return checked


def plain(config: Any) -> dict[str, Any]:
    """The configuration as JSON has it, for Sacred: tuples are lists, paths are text."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def recorder_of(run: sacred.run.Run) -> RunFolder | None:
    """What writes a run's record; None for a run that is not recorded (rank > 0, `-u`)."""
    return next((o for o in run.observers if isinstance(o, RunFolder) and o.dir), None)


def record_folder(run: sacred.run.Run) -> Path | None:
    """The folder of a run's record; None for a run that is not recorded."""
    recorder = recorder_of(run)
    return Path(recorder.dir) if recorder else None


@contextmanager
def metrics(run: sacred.run.Run) -> Iterator[Log]:
    """Gives a function that writes metrics into the record, and as TensorBoard events beside it."""
    recorder = recorder_of(run)
    if not recorder:
        yield lambda step, values: None
    elif len(run.observers) == 1:
        yield recorder.log
    else:  # Sacred hands them to the other observers; a slow one must not hold up the record

        def log(step: int, values: Mapping[str, float]) -> None:
            recorder.log(step, values)
            recorder.logged_directly |= values.keys()
            for name, value in values.items():
                run.log_scalar(name, float(value), int(step))

        yield log
