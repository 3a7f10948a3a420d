"""Imports the modules of an experiment as quickly as possible: torch takes seconds."""

import gc
import importlib
from collections.abc import Sequence

from lab.ground import garbage
from lab.recording import compiling
from lab.recording.ranks import is_main_process


def load(modules: Sequence[tuple[str, str | None]]) -> None:
    """Import modules, each named with the package that a relative name belongs to.

    The garbage collector is paused meanwhile, and later skips what was imported.
    """
    if not modules:
        return
    if is_main_process():
        compiling.start()
    with garbage.pause_collection():
        for name, package in modules:
            importlib.import_module(name, package)
        gc.freeze()
