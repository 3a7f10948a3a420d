"""Sacred, imported and set as this project wants it: quick, quiet, and with every source file."""

import sys
import warnings
from typing import Any

# It imports pandas, half a second at a first run, only to know how to write its frames. That can
# wait until there are some: see flatten.
later = "pandas" not in sys.modules
if later:
    sys.modules["pandas"] = None  # which is what Python calls not installed
try:
    with warnings.catch_warnings():  # its use of pkg_resources, which setuptools<82 still has
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")
        import sacred
        from sacred import serializer
        from sacred.observers import FileStorageObserver as FileStorageObserver
finally:
    if later:
        del sys.modules["pandas"]

sacred.SETTINGS.CAPTURE_MODE = "no"  # "fd" loses lines, "sys" subprocesses: see lab.capture
sacred.SETTINGS.DISCOVER_SOURCES = "dir"  # otherwise sources that other modules import are missed
sacred.SETTINGS.HOST_INFO.INCLUDE_GPU_INFO = False  # dies of "N/A", waits for ever: lab.provenance


def flatten(value: Any) -> Any:
    """The value as JSON has it, by Sacred's rules."""
    if sys.modules.get("pandas"):
        from jsonpickle.ext import pandas

        pandas.register_handlers()
    return serializer.flatten(value)
