"""Sacred for this project: a typed configuration, unique ids, a record in runs/ for every run.

What experiments may use; a change of what is listed here is a new major version.

    Experiment(Config, ...)      Sacred's experiment, with a frozen dataclass as its configuration
    make_config(Config, values)  that dataclass, from the dictionary that Sacred passes to a run
    metrics(_run)                a context manager: gives the function that logs metrics (Log)
    record_folder(_run)          the folder of the run's record; None if it is not recorded
    run_id(_run)                 the id of the run
    is_main_process()            whether this process records: the only one, or rank 0
    File                         the type of a setting that names a file: data/X in the data folder,
                                 runs/X in that of the records, or a file of the project
    Model                        the type of a setting that names a run, to use its weights or its
                                 checkpoint: lab run brings a machine what it lacks of it
    check(Config, values)        the values, checked and converted; ConfigError for a wrong one
    new_id()                     an id in the format of runs and jobs
    Run                          the type of Sacred's _run
    saving(path)                 a context manager: gives the path to write a checkpoint or weights
                                 to, a file or a folder, and renames it when it is complete

In a job that Slurm ends and starts anew (elsewhere they do nothing, and should_stop() is False):

    should_stop()                whether the job is about to end: save a checkpoint, then raise
    Interrupted                  the exception for that: the run goes on in the next attempt
    remove_drafts(folder)        remove there what earlier attempts left unfinished
    save_points()                write all points; returns a number that the checkpoint keeps
    keep_points(number)          after loading that checkpoint in the same run: drops later points
    ignore_in_worker             worker_init_fn of a DataLoader: its workers ignore the signals
"""

import ast
import difflib
import importlib
import importlib.util
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ParamSpec, Protocol, TypeVar, get_type_hints

from docopt import DocoptExit, docopt
from pydantic import AfterValidator, TypeAdapter, ValidationError, ValidationInfo

from lab.ground import attempts, interrupts, portable, project
from lab.ground.errors import LabError, UsageError
from lab.ground.ids import new_id
from lab.ground.interrupts import Interrupted, ignore_in_worker, should_stop
from lab.ground.terminal import print_message
from lab.recording import attempted, named_files, nested_settings, observers, ranks
from lab.recording.drafts import remove_drafts, saving
from lab.recording.observers import find_recorder
from lab.recording.ranks import is_main_process
from lab.recording.record_files import RecordError
from lab.recording.recorder import RunFolder
from lab.recording.sacred_import import Run, sacred

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

Config = TypeVar("Config")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# Sacred's other options would make records of another kind, or need its own git support.
OPTIONS = {"--beat-interval", "--comment", "--debug", "--force", "--help", "--id", "--loglevel"}
OPTIONS |= {"--name", "--pdb", "--print-config", "--unobserved"}


class ConfigError(UsageError, sacred.utils.ConfigError):  # type: ignore[misc] # Sacred: no types
    """An unknown setting or option, or a value of the wrong type or out of range.

    Also Sacred's exception of that name, with the message alone.
    """

    print_conflicting_configs = False
    __prefix_handled__ = True

    def __init__(self, message: str = ""):
        sacred.utils.SacredError.__init__(self, message)

    def __str__(self) -> str:
        return " ".join(map(str, self.args))


class UnknownSettingError(ConfigError, sacred.utils.ConfigAddedError):  # type: ignore[misc]
    """A setting that the configuration does not have: Sacred's ConfigAddedError."""


class UnknownNamedConfigError(ConfigError, sacred.utils.NamedConfigNotFoundError):  # type: ignore[misc]
    """A named configuration that does not exist: Sacred's NamedConfigNotFoundError."""


class UnknownCommandError(ConfigError, KeyError):
    """A command that the experiment does not have: for Sacred a KeyError."""


def check_file(text: str, info: ValidationInfo) -> str:
    """Make a file's name portable, and note it: see find_files()."""
    name = portable.to_portable(text)
    if isinstance(info.context, list):
        info.context.append(name)
    return name


# project.find_file() gives the path; "" names none. The record has the file's hash.
File = Annotated[str, AfterValidator(check_file)]

# The id of a run, or its beginning; "" names none. lab.jobs.settings knows the type by its name.
Model = Annotated[str, "model"]


class ConfigFunction(sacred.config.ConfigScope):  # type: ignore[misc] # Sacred has no types
    """A function with @ex.config or @ex.named_config; Sacred takes its docstring for a setting."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        values = super().__call__(*arguments, **options)
        values.pop("__doc__", None)
        return values


class Log(Protocol):
    """Logs one value for each metric name, at an optimizer step."""

    def __call__(self, step: int, values: Mapping[str, float]) -> None: ...


class Experiment(sacred.Experiment):  # type: ignore[misc] # Sacred has no types
    """A Sacred experiment whose configuration is a frozen dataclass.

    Unknown settings and values of the wrong type are refused in one line, before there is a record.
    `modules`, such as [".training"], are imported after that and before the code is recorded: what
    is slow to import, and not needed to show the configuration.
    `inherit`, such as ".past_runs:inherit", names a function that is called before there is a
    record, with the settings that were typed and with all defaults; what it returns replaces both.
    `ingredients` are Sacred's own, whose settings are named as in data.batch_size.
    `named` are the named configurations, such as smoke=dict(epochs=1) for `with smoke`.
    """

    def __init__(
        self,
        settings: type,
        modules: Iterable[str] = (),
        inherit: str = "",
        ingredients: Iterable[Any] = (),
        **named: dict[str, Any],
    ):
        # Sacred's own git support crashes in a repository without a commit or of another user.
        main = sys.modules[settings.__module__]
        file = getattr(main, "__file__", None)
        self.root = project.root_of(file)
        sources = str(project.source_folder(self.root))
        own = {"base_dir": sources, "save_git_info": False, "interactive": True}
        super().__init__(project.name(), tuple(ingredients), **own)
        self.all_cli_options: list[Any] = [
            option for option in self.all_cli_options if option.get_flag() in OPTIONS
        ]
        del self.commands["save_config"]  # it overwrites a config.json
        self.doc = main.__doc__  # Sacred takes this module for the experiment
        self.mainfile = next((one for one in self.sources if one.filename == file), None)
        if not main.__package__ and file:  # python src/my_experiment/experiment.py, from an editor
            main.__package__ = Path(file).parent.name
        self.modules = [(name, main.__package__) for name in modules]
        self.package = main.__package__
        self.exits = False  # whether an error ends the process with a line, instead of raising
        self.settings, self.inherit, self.named = settings, inherit, named
        if missing := nested_settings.describe_missing_default(settings):
            raise SystemExit(f"error: {missing}")
        self.add_config(to_plain(settings()))
        for name, values in named.items():
            checked = to_plain(settings(**check(settings, values)))
            self.add_named_config(name, {setting: checked[setting] for setting in values})

        @self.config_hook  # type: ignore[untyped-decorator] # Sacred has no types
        def check_config(config: dict[str, Any], command_name: str, logger: Any) -> dict[str, Any]:
            self.files: list[str] = []
            own = {
                name: one for name, one in config.items() if name not in self._ingredient_names()
            }
            self.checked = to_plain(settings(**check(settings, own, self.files)))
            return self.checked

        @self.option_hook  # type: ignore[untyped-decorator] # Sacred has no types
        def record_only_rank_0(options: dict[str, Any]) -> None:
            check_options(options)
            if not is_main_process():
                options["--unobserved"] = True

        try:
            self.observers.append(RunFolder(project.runs_folder()))
        except LabError as error:
            raise SystemExit(f"error: {error}") from None
        if os.environ.get("SACRED_MONGO_URL"):
            if not importlib.util.find_spec("pymongo"):
                advice = "add it to the dependencies in pyproject.toml, then: lab lock"
                raise SystemExit(f"error: SACRED_MONGO_URL needs pymongo: {advice}.")
            from lab.recording.mongo import Mongo

            self.observers.append(Mongo(os.environ["SACRED_MONGO_URL"], self.observers[0]))

    def main(self, function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        """Mark the function that is a run; Sacred fills in its arguments by name."""
        captured: Callable[Parameters, Result] = super().main(function)
        return captured

    def config(self, function: Callable[..., Any]) -> Any:
        """Mark a function whose local variables are settings, in place of the defaults."""
        self.configurations.append(ConfigFunction(function))
        return self.configurations[-1]

    def named_config(self, function: Callable[..., Any]) -> Any:
        """Mark a function whose local variables are a named configuration."""
        super().named_config(function)
        scope = self.named_configs[function.__name__] = ConfigFunction(function)
        return scope

    def run(self, *arguments: Any, **options: Any) -> Run:
        """Run as Sacred does; RecordError at the end if the record is incomplete."""
        if not self.exits:
            return self._run(*arguments, **options)
        try:
            return self._run(*arguments, **options)
        except LabError as error:
            print_message(f"error: {error}")
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt as error:
            number = getattr(error, "number", signal.SIGINT)
            print_message(f"ended by {signal.Signals(number).name}")
            code = 128 + number  # as a shell reports it
            raise SystemExit(
                attempts.exit_code(code) if number in interrupts.ASKING else code
            ) from None

    def _create_run(
        self,
        command_name: str | None = None,
        config_updates: dict[str, Any] | None = None,
        named_configs: Iterable[str] = (),
        *rest: Any,
        **options: Any,
    ) -> Run:
        """Create Sacred's run, with the settings that are inherited."""
        updates: dict[str, Any] = to_builtin(config_updates or {})
        defaults = to_plain(self.settings())
        self.words = [command_name, dict(updates), list(named_configs)]
        earlier = attempted.read_config(self.words, project.runs_folder())
        if earlier:  # resume=last would now be this run itself
            updates |= {name: value for name, value in earlier.items() if name in defaults}
        elif self.inherit:
            typed: dict[str, Any] = {}
            for name in named_configs:
                scope = self.named_configs.get(name)  # None: a file, or unknown
                typed |= self.named.get(name) or (scope and scope(updates, typed, defaults)) or {}
            checked = check(self.settings, typed | updates)
            plain = to_plain(self.settings(**checked))
            typed = {name: plain[name] for name in checked}
            module, _, name = self.inherit.partition(":")
            inherit = getattr(importlib.import_module(module, self.package), name)
            updates = {**updates, **inherit(typed, defaults)}
        run = super()._create_run(command_name, updates, named_configs, *rest, **options)
        observers.prepare(run)
        # Sacred keeps a value as it was typed: the path of a file on this computer, say
        with_files = {
            name: value
            for name, value in self.checked.items()
            if named_files.has_any(value, self.files)
        }
        run.config = {**run.config, **with_files}
        ingredients = self._ingredient_names()
        own = {name: value for name, value in run.config.items() if name not in ingredients}
        run.meta_info["changed"] = {
            **nested_settings.find_changed(own, defaults),
            **self._find_changed_in_ingredients(run),
        }
        return run

    def _ingredient_names(self) -> set[str]:
        """The names in the configuration that are ingredients."""
        return {one.path for one in self.ingredients}

    def _find_changed_in_ingredients(self, run: Run) -> dict[str, Any]:
        """The settings of ingredients that differ from their defaults, by their paths."""
        changed = {}
        for path in sorted(run.config_modifications.modified):
            if path.partition(".")[0] in self._ingredient_names():
                value: Any = run.config
                for name in path.split("."):
                    value = value[name]
                if not isinstance(value, Mapping):
                    changed[path] = value
        return changed

    def run_commandline(self, argv: list[str] | None = None) -> Run | None:
        """Run as the command line says; a LabError or a signal ends it with one line."""
        self.exits = True
        try:
            return super().run_commandline(argv)
        except DocoptExit:
            print_message("error: wrong usage: see --help.")
            raise SystemExit(2) from None
        finally:
            self.exits = False

    def _check_command(self, cmd_name: str | None) -> None:
        """End with one line and exit code 2 if there is no such command."""
        problem = self._explain_command(cmd_name)
        if problem:
            print_message(f"error: {problem}")
            raise SystemExit(2)

    def _explain_command(self, name: str | None) -> str:
        """Say that there is no such command; "" if there is."""
        commands = dict(self.gather_commands())
        if name in commands:
            return ""
        near = difflib.get_close_matches(str(name), commands, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(commands)}."
        return f"there is no command {name}: {advice}"

    def find_problem(self, words: list[str]) -> str:
        """Say why a command line would be refused; "" if it would not, or only the run can tell.

        Nothing runs. Nothing is inherited either: earlier runs may lie on another computer.
        """
        self.inherit = ""
        try:
            args = docopt(self.get_usage()[2], words, default_help=False)
            if args["help"] or args["--help"]:
                return ""
            command = args["COMMAND"] or self.default_command
            updates, named = sacred.arg_parser.get_config_updates(args["UPDATE"])
            if any(Path(name).suffix for name in named):  # a file, which may lie elsewhere
                return ""
            if problem := self._explain_command(command):
                return problem
            self._create_run(command, updates, named, options=args)
        except DocoptExit:
            return "wrong usage: see --help."
        except (ConfigError, sacred.utils.NamedConfigNotFoundError) as error:
            return str(error)
        return ""

    def _run(self, *arguments: Any, **options: Any) -> Run:
        if self.root.resolve() != project.root():
            raise LabError(project.describe_mismatch(self.root, project.root()))
        self.current_run: Run | None = None  # an earlier one says nothing about this one
        if None in (sys.stdin, sys.stdout, sys.stderr):  # files of ours would get their descriptors
            raise RecordError(
                "standard input, output or error is closed: use /dev/null instead of >&-."
            )
        try:
            with interrupts.as_exceptions():
                try:
                    run = self._create_run(*arguments, **options)  # refuses wrong settings
                except ConfigError:
                    raise
                except (sacred.utils.SacredError, KeyError, ValueError) as error:
                    message = str(error.args[0] if isinstance(error, KeyError) else error)
                    kind: type[ConfigError] = ConfigError
                    if isinstance(error, sacred.utils.ConfigAddedError):  # of an ingredient
                        names = ", ".join(error.__conflicting_configs__)
                        raise UnknownSettingError(f"there is no setting {names}.") from None
                    if isinstance(error, sacred.utils.NamedConfigNotFoundError):
                        kind = UnknownNamedConfigError
                    elif message.startswith("Command "):
                        kind = UnknownCommandError
                    raise kind(" ".join(message.split())) from None
                if not run.main_function.unobserved:  # print_config needs none
                    if not run.unobserved:
                        run._id = attempted.choose_id(self.words, run._id)
                    found = [] if run.unobserved else named_files.identify(self.files)
                    run.meta_info["files"] = found
                    for module in self.modules:
                        importlib.import_module(*module)
                try:
                    run()
                except Exception as error:
                    if should_stop():  # what the signal has ended first: another rank, a worker
                        raise Interrupted from error
                    raise
        except BaseException as error:
            if isinstance(error, LabError):  # a DataLoader's worker puts its traceback before it
                error.args = (str(error).rpartition(f"{type(error).__name__}: ")[2].strip(),)
            self._report_failure(error)
            raise
        recorder = find_recorder(run)
        if recorder and recorder.problem():
            raise RecordError(recorder.problem())
        return run

    def _report_failure(self, error: BaseException) -> None:
        """Leave another rank's error for rank 0; report an incomplete record of a failed run."""
        recorder = self.current_run and find_recorder(self.current_run)
        if recorder and recorder.problem():
            print_message(f"error: {recorder.problem()}")
        if not is_main_process() and not isinstance(error, (ConfigError, KeyboardInterrupt)):
            text = "".join(traceback.format_exception(error))
            for observer in self.observers:
                if isinstance(observer, RunFolder):
                    ranks.report_error(Path(observer.basedir), text)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ConfigError for an id or a heartbeat that would make a record unfit for use."""
    name, beat = options["--id"], options["--beat-interval"]
    if name is not None and not re.fullmatch(r"[^\W_][\w .-]*", name):
        raise ConfigError(
            f"--id {name!r} is not valid: use letters and digits, then also '-', '.' and '_'."
        )
    if name is not None and not survives_parsing(name):
        raise ConfigError(
            f"--id {name} is not valid: resume={name} would be a number; use run-{name}, say."
        )
    try:
        valid = beat is None or 0 < float(beat) <= 60
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(
            f"--beat-interval {beat} is not valid: use seconds, above 0 and up to 60."
        )


def survives_parsing(name: str) -> bool:
    """Whether Sacred leaves a setting with this value as it is: 2026_11_29 becomes 20261129."""
    try:
        value = ast.literal_eval(name)
    except (ValueError, SyntaxError):
        return True
    return type(value) is int and str(value) == name  # check() makes it text again


def make_config(config: type[Config], values: Mapping[str, Any]) -> Config:
    """Make the dataclass from the dictionary that Sacred passes to a run, or raise ConfigError."""
    return config(**check(config, values))


def check(
    config: type, values: Mapping[str, Any], files: list[str] | None = None
) -> dict[str, Any]:
    """Convert the values to the types of the dataclass (1 to 1.0, say), or raise ConfigError.

    The names of all settings of the type File are added to `files`.
    """
    types = get_type_hints(config, include_extras=True)
    if unknown := nested_settings.describe_unknown(config, values):
        raise UnknownSettingError(unknown)
    checked = {}
    for name, value in values.items():
        # Sacred takes resume=20261122 for a number
        is_text = getattr(types[name], "__origin__", types[name]) is str  # File and Model, too
        given = str(value) if is_text and type(value) is int else value
        try:  # as JSON, which has tuples, paths and enumerations in the form that Sacred knows
            text = json.dumps(to_builtin(given), default=str)
            checked[name] = TypeAdapter(types[name]).validate_json(text, strict=True, context=files)
        except ValidationError as error:
            first = error.errors()[0]
            reason = first["msg"].removeprefix("Value error, ")
            path = ".".join(map(str, (name, *first["loc"])))
            wrong = first["input"] if first["loc"] else given
            if given is None:
                reason += f"; to allow None, write {name}: {format_type(types[name])} | None = None"
            raise ConfigError(f"{path}={wrong!r} is not valid: {reason}.") from None
    return checked


def format_type(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))


def to_builtin(value: Any) -> Any:
    """Convert numbers and arrays of numpy to Python's, also inside dictionaries and lists."""
    if isinstance(value, dict):
        return {name: to_builtin(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_builtin(one) for one in value]
    numpy = sys.modules.get("numpy")
    return value.tolist() if numpy and isinstance(value, (numpy.generic, numpy.ndarray)) else value


def to_plain(config: Any) -> dict[str, Any]:
    """Convert a configuration to what JSON has, for Sacred: tuples to lists, paths to text."""
    values: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return values


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
    """Drop the points that earlier attempts of this run have logged since save_points() gave that.

    Without this call, a run that goes on in its record drops all of them at its first new point.
    """
    recorder = RunFolder.current
    if recorder:
        recorder.keep_points(number)


@contextmanager
def metrics(run: Run) -> Iterator[Log]:
    """Give a function that logs metrics into the record, and as TensorBoard events beside it."""
    recorder = find_recorder(run)
    if not recorder:
        yield lambda step, values: None
    elif len(run.observers) == 1:
        yield recorder.log
    else:  # Sacred passes them to other observers, of which a slow one must not delay the record

        def log(step: int, values: Mapping[str, float]) -> None:
            recorder.log(step, values)
            recorder.logged_directly |= values.keys()
            for name, value in values.items():
                run.log_scalar(name, float(value), int(step))

        yield log
