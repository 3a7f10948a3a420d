"""Sacred's experiment with a dataclass as its configuration, and errors of one line."""

import difflib
import gc
import importlib
import importlib.util
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from docopt import DocoptExit, docopt

from lab.ground import attempts, interrupts, project
from lab.ground.errors import LabError
from lab.ground.interrupts import Interrupted, should_stop
from lab.ground.terminal import print_message
from lab.recording import continued_record, observers, ranks, slow_modules
from lab.recording.observers import find_recorder
from lab.recording.ranks import is_main_process
from lab.recording.record_files import RecordError
from lab.recording.recorder import RunFolder
from lab.recording.sacred_import import Run, sacred
from lab.recording.settings import named_files, nested
from lab.recording.settings.checking import (
    check,
    find_models,
    find_own_seed,
    to_builtin,
    to_plain,
    without_own_seed,
)
from lab.recording.settings.errors import (
    ConfigError,
    UnknownCommandError,
    UnknownNamedConfigError,
    UnknownSettingError,
)
from lab.recording.settings.options import OPTIONS, check_options

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class ConfigFunction(sacred.config.ConfigScope):  # type: ignore[misc] # Sacred has no types
    """A function with @ex.config or @ex.named_config; Sacred takes its docstring for a setting."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        values = super().__call__(*arguments, **options)
        values.pop("__doc__", None)
        return values


class Experiment(sacred.Experiment):  # type: ignore[misc] # Sacred has no types
    """A Sacred experiment whose configuration is a frozen dataclass.

    Unknown settings and values of the wrong type are refused in one line, before there is a record.
    `modules`, such as [".training"], are imported after that and before the code is recorded: for
    what is slow to import and not needed to show the configuration.
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
        del self.commands["save_config"]  # it would overwrite a config.json
        self.doc = main.__doc__  # Sacred would take that of this module
        self.mainfile, top = None, Path(sources).resolve()
        if file and Path(file).resolve().is_relative_to(top):
            self.mainfile = sacred.dependencies.Source.create(file, False)
            self.sources.add(self.mainfile)
        if not main.__package__ and file and Path(file).resolve().parent != top:
            main.__package__ = Path(file).parent.name  # python src/my_experiment/experiment.py
        self.modules = [(name, main.__package__) for name in modules]
        self.package = main.__package__
        self.exits = False  # whether an error ends the process with a line, instead of raising
        self.settings, self.inherit, self.named = settings, inherit, named
        if missing := nested.describe_missing_default(settings):
            raise SystemExit(f"error: {missing}")
        self.add_config(to_plain(settings()))
        for name, values in named.items():
            checked = to_plain(settings(**check(settings, values)))
            self.add_named_config(name, {setting: checked[setting] for setting in values})

        @self.config_hook  # type: ignore[untyped-decorator] # Sacred has no types
        def check_config(config: dict[str, Any], command_name: str, logger: Any) -> dict[str, Any]:
            self.files: list[str] = []
            given = self._ingredient_names() | self._find_seed(config)
            own = {name: one for name, one in config.items() if name not in given}
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
            print_message(f"ended by {interrupts.name_signal(number)}")
            code = 128 + number  # as a shell reports it
            raise SystemExit(
                attempts.report_interruption(code) if number in interrupts.ASKING else code
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
        if self._find_seed(updates) and type(updates["seed"]) is not int:  # Sacred only asserts it
            raise ConfigError(f"seed={updates['seed']!r} is not an integer.")
        defaults = to_plain(self.settings())
        self.words = [command_name, dict(updates), list(named_configs)]
        earlier = continued_record.read_config(self.words, project.runs_folder())
        if earlier:  # resume=last would now be this run itself
            known = defaults.keys() | self._find_seed(earlier)
            updates |= {name: value for name, value in earlier.items() if name in known}
        elif self.inherit:
            typed: dict[str, Any] = {}
            for name in named_configs:
                scope = self.named_configs.get(name)  # None for a file, and for an unknown name
                typed |= self.named.get(name) or (scope and scope(updates, typed, defaults)) or {}
            checked = check(self.settings, without_own_seed(self.settings, typed | updates))
            plain = to_plain(self.settings(**checked))
            typed = {name: plain[name] for name in checked}
            updates = {**updates, **self._inherit(typed, defaults)}
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
        hidden = ingredients if "seed" in updates else ingredients | self._find_seed(run.config)
        own = {name: value for name, value in run.config.items() if name not in hidden}
        run.meta_info["changed"] = {
            **nested.find_changed(own, defaults),
            **self._find_changed_in_ingredients(run),
        }
        return run

    def _inherit(self, typed: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
        """Call the function that `inherit` names; all ranks take the runs that rank 0 chooses."""
        module, _, name = self.inherit.partition(":")
        inherit = getattr(importlib.import_module(module, self.package), name)
        runs, models = project.runs_folder(), find_models(self.settings, typed)
        if models:
            typed = {**typed, **ranks.await_choice(runs)}
        found = {**{model: typed[model] for model in models}, **inherit(typed, defaults)}
        if models:
            ranks.share_choice(runs, {model: str(found[model]) for model in models})
        return found

    def _ingredient_names(self) -> set[str]:
        """The names in the configuration that are ingredients."""
        return {one.path for one in self.ingredients}

    def _find_seed(self, config: Mapping[str, Any]) -> set[str]:
        return find_own_seed(self.settings, config)

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
        gc.freeze()  # what is imported is never garbage, and the collector need not look at it
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
        self.current_run: Run | None = None  # do not judge this run by an earlier one
        if None in (sys.stdin, sys.stdout, sys.stderr):  # our files would get their descriptors
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
                        run._id = continued_record.choose_id(self.words, run._id)
                    named = [run.config[model] for model in find_models(self.settings, run.config)]
                    read = [] if run.unobserved else self.files + named_files.list_weights(named)
                    run.meta_info["files"] = named_files.identify(read)
                    slow_modules.load(self.modules)
                try:
                    run()
                except Exception as error:
                    attempts.check()  # a newer one removes the drafts of this one
                    if should_stop():  # the signal has ended another rank, or a worker, first
                        raise Interrupted from error
                    raise
        except BaseException as error:
            if isinstance(error, LabError):  # a DataLoader's worker puts a traceback before it
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
