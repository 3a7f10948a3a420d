"""Sacred, imported and set up for this project: quickly, quietly, with every source file."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TextIO, cast

from lab.ground import files, garbage, plain_json, project
from lab.ground.errors import LabError
from lab.recording import installed_packages


@contextmanager
def replace_modules(replaced: dict[str, ModuleType | None]) -> Iterator[None]:
    """Let what is imported meanwhile find these modules, where the real ones are not there yet."""
    modules = cast(dict[str, Any], sys.modules)
    replaced = {name: module for name, module in replaced.items() if name not in modules}
    modules.update(replaced)
    try:
        yield
    finally:
        for name in replaced:
            del modules[name]


def make_cpuinfo() -> ModuleType:
    """Make what has cpuinfo's function, for Windows, without a tenth of Sacred's import."""
    module: Any = ModuleType("cpuinfo")
    module.get_cpu_info = lambda: importlib.import_module("cpuinfo").get_cpu_info()
    return cast(ModuleType, module)


def make_inspect() -> ModuleType:
    """Make what finds the frame that makes an experiment, without looking at all imported files."""
    module: Any = ModuleType("inspect")
    module.stack = lambda: [(sys._getframe(1),), (sys._getframe(2),)]
    return cast(ModuleType, module)


# Sacred imports pandas, half a second at a first run, only to know how to write its frames: None is
# Python's mark for "not installed". That can wait until there are some: see flatten.
REPLACED = {"pandas": None, "pkg_resources": installed_packages.make_module()}
with garbage.pause_collection(), replace_modules(REPLACED | {"cpuinfo": make_cpuinfo()}):
    import sacred
    from sacred import serializer
    from sacred.config import config_files
    from sacred.observers import RunObserver
    from sacred.run import Run


def choose_discovery() -> str:
    """How Sacred finds sources: all of src/, as it would miss what other modules import.

    Where they lie in the project's top folder, beside the environment, the commit alone has them.
    """
    try:
        root = project.root()
        return "none" if project.source_folder(root) == root else "dir"
    except LabError:
        return "dir"


__all__ = ["Run", "RunObserver", "flatten", "sacred"]

sacred.experiment.inspect = make_inspect()
sacred.SETTINGS.CAPTURE_MODE = "no"  # "fd" loses lines, "sys" subprocesses: see capture.py
sacred.SETTINGS.DISCOVER_SOURCES = choose_discovery()
sacred.SETTINGS.HOST_INFO.INCLUDE_GPU_INFO = False  # fails at "N/A", may hang: see provenance.py


def flatten(value: Any) -> Any:
    """Convert a value to what JSON has, by Sacred's rules."""
    if sys.modules.get("pandas"):
        from jsonpickle.ext import pandas

        pandas.register_handlers()
    return serializer.flatten(value)


def load_settings(file: TextIO) -> Any:
    """Read a JSON file of settings, perhaps a record's config.json; LabError for other objects.

    Sacred would let jsonpickle make them, by importing and calling what the file names.
    """
    try:
        return plain_json.restore(files.parse_json(file.read(files.MOST)))
    except (ValueError, TypeError) as error:
        raise LabError(f"{file.name} is not plain data: {error}.") from None


config_files.HANDLER_BY_EXT[".json"].load = load_settings
del config_files.HANDLER_BY_EXT[".pickle"]  # loading one can run anything
