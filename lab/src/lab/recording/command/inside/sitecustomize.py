"""Python imports this when it starts in a recorded command: it hooks into what logs scalars.

`lab record` puts this folder into PYTHONPATH, so nothing else may lie here: it would hide modules
of the command's. The command may run in any Python 3.8 or newer: standard library only, and of that
what Python has loaded by now, as every process of the command waits for this.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import site
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HERE = os.path.realpath(__file__).rpartition(os.sep)[0]
PROJECT = os.environ.get("LAB_PROJECT_FOLDER", "")
TAKEN = int(os.environ.get("LAB_SNAPSHOT_TIME") or 0)  # when the code was recorded, in ns


def load(name: str, path: str) -> Any:
    """Load a file as a module of this name."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Loader:
    """Loads a module as its own loader does, then hooks into it."""

    def __init__(self, loader: Any, hook: Any):
        self.loader, self.hook = loader, hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: Any) -> Any:
        return self.loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self.loader.exec_module(module)
        with suppress(Exception):  # another version has other names
            self.hook(module)


class Finder:
    """Finds the modules that are hooked into, and a stand-in for those that are not installed."""

    def __init__(self, hooks: Any):
        self.hooks = hooks

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        hook, stand_in = self.hooks.HOOKS.get(name), self.hooks.STAND_INS.get(name)
        if not hook and not stand_in:
            return None
        spec: Any = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and spec.loader and hook:
            spec.loader = Loader(spec.loader, hook)
        elif not spec and stand_in:
            return load_spec(name, stand_in)
        return spec


def load_spec(name: str, fill: Any) -> Any:
    """Return the spec of a module that a function fills."""
    loader: Any = Loader(EmptyLoader(), fill)
    return importlib.machinery.ModuleSpec(name, loader)


class EmptyLoader:
    """Loads an empty module."""

    def create_module(self, spec: Any) -> None:
        pass

    def exec_module(self, module: Any) -> None:
        pass


def report_imports(report: Any) -> None:
    """Report each file of the project that is imported, and those newer than the snapshot."""
    loader: Any = importlib.machinery.SourceFileLoader
    original = loader.get_code
    installed = (os.__file__.rpartition(os.sep)[0], *site.getsitepackages())

    def get_code(self: Any, fullname: str) -> Any:
        code = original(self, fullname)
        with suppress(Exception):
            path = self.path if self.path.startswith(installed) else os.path.realpath(self.path)
            if path.startswith(PROJECT + os.sep) and not path.startswith(installed):
                is_late = os.stat(path).st_mtime_ns > TAKEN
                report(**{"late" if is_late else "imported": os.path.relpath(path, PROJECT)})
        return code

    loader.get_code = get_code


def import_next() -> None:
    """Import the sitecustomize that Python would have found without this one."""
    others = [path for path in sys.path if os.path.realpath(path or ".") != HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec and spec.origin:
        load("sitecustomize", spec.origin)


if os.environ.get("LAB_METRICS") and os.environ.get("LAB_REPORT"):
    with suppress(Exception):
        hooks = load("_lab_scalar_hooks", f"{HERE.rpartition(os.sep)[0]}/scalar_hooks.py")
        finder: Any = Finder(hooks)
        sys.meta_path.insert(0, finder)
        for name in hooks.HOOKS.keys() & sys.modules.keys():
            hooks.HOOKS[name](sys.modules[name])
        if PROJECT and TAKEN:
            report_imports(hooks.report)
import_next()
