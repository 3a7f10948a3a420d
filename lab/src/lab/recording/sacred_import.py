"""Sacred, imported and set up for this project: quickly, quietly, with every source file."""

import sys
import warnings
from typing import Any, TextIO, cast

from lab.ground import files, plain_json, project
from lab.ground.errors import LabError

# Sacred imports pandas, half a second at a first run, only to know how to write its frames. That
# can wait until there are some: see flatten.
without_pandas = "pandas" not in sys.modules
if without_pandas:
    cast(dict[str, Any], sys.modules)["pandas"] = None  # Python's mark for "not installed"
try:
    with warnings.catch_warnings():  # its use of pkg_resources, which setuptools<82 still has
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")
        import sacred
        from sacred import serializer
        from sacred.config import config_files
        from sacred.observers import RunObserver
        from sacred.run import Run
finally:
    if without_pandas:
        del sys.modules["pandas"]


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
