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
    """Put stand-ins into sys.modules meanwhile, for modules that are not imported yet."""
    modules = cast(dict[str, Any], sys.modules)
    replaced = {name: module for name, module in replaced.items() if name not in modules}
    modules.update(replaced)
    try:
        yield
    finally:
        for name in replaced:
            del modules[name]


def make_cpuinfo() -> ModuleType:
    """Make a stand-in for cpuinfo, a tenth of Sacred's import: it imports cpuinfo when called."""
    module: Any = ModuleType("cpuinfo")
    module.get_cpu_info = lambda: importlib.import_module("cpuinfo").get_cpu_info()
    return cast(ModuleType, module)


def make_inspect() -> ModuleType:
    """Make a stand-in for inspect, whose stack() would look at the source of every module."""
    module: Any = ModuleType("inspect")
    module.stack = lambda: [(sys._getframe(1),), (sys._getframe(2),)]
    return cast(ModuleType, module)


# Sacred imports pandas, which takes half a second, only to know how to write its frames. None is
# Python's mark for "not installed"; flatten() registers pandas once something has imported it.
REPLACED = {"pandas": None, "pkg_resources": installed_packages.make_module()}
with garbage.pause_collection(), replace_modules(REPLACED | {"cpuinfo": make_cpuinfo()}):
    import sacred
    from sacred import serializer
    from sacred.config import config_files
    from sacred.observers import RunObserver
    from sacred.run import Run


def choose_discovery() -> str:
    """Choose how Sacred finds sources: all of src/, as it would miss what other modules import.

    It finds none if they lie in the project's top folder, beside the environment: the commit has
    them.
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
        return plain_json.restore(files.parse_json(file.read(files.MAX_BYTES)))
    except (ValueError, TypeError) as error:
        raise LabError(f"{file.name} is not plain data: {error}.") from None


config_files.HANDLER_BY_EXT[".json"].load = load_settings
del config_files.HANDLER_BY_EXT[".pickle"]  # loading one can run anything
