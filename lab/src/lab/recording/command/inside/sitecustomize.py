"""Python imports this when it starts in a recorded command: it hooks into what logs scalars.

`lab record` puts this folder into PYTHONPATH, so nothing else may lie here: it would hide modules
of the command. The command may run in any Python 3.8 or newer, and each of its processes waits for
this module: it imports only what Python has loaded by now.
"""

import os
import site
import sys

# not from importlib.machinery and importlib.util, which import more modules
from _frozen_importlib import ModuleSpec, module_from_spec
from _frozen_importlib_external import PathFinder, SourceFileLoader, spec_from_file_location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HERE = os.path.realpath(__file__).rpartition(os.sep)[0]
PROJECT = os.environ.get("LAB_PROJECT_FOLDER", "")
TAKEN = int(os.environ.get("LAB_SNAPSHOT_TIME") or 0)  # when the code was recorded, in ns

# Modules that are hooked into, and the function of ../scalar_hooks.py that does it.
CONNECTOR = "trainer.connectors.logger_connector.logger_connector"
HOOKS = {
    "torch.utils.tensorboard.writer": "hook_writer",
    "tensorboardX.writer": "hook_writer",
    "wandb.sdk.wandb_run": "hook_wandb",
    "lightning.pytorch." + CONNECTOR: "hook_lightning",
    "pytorch_lightning." + CONNECTOR: "hook_lightning",
    "transformers.trainer_callback": "hook_trainer",
    "accelerate.accelerator": "hook_accelerate",
    "sacred.run": "hook_sacred",
    "sacred.dependencies": "hook_sources",
    "argparse": "hook_argparse",
    "hydra.core.utils": "hook_hydra",
}
STAND_INS = {"wandb": "fill_wandb"}  # for what is not installed


def load_hooks() -> "Any":
    """Load ../scalar_hooks.py, once there is something to hook into or to report."""
    import _lab_scalar_hooks as hooks  # type: ignore[import-not-found] # see Finder

    return hooks


def hook_into(module: "Any", function: str) -> None:
    """Call a function of scalar_hooks.py with a module; a failure changes nothing."""
    try:  # noqa: SIM105 - contextlib would have to be imported
        getattr(load_hooks(), function)(module)
    except Exception:  # noqa: BLE001, S110 - another version has other names
        pass


class Loader:
    """Loads a module as its own loader does, then hooks into it."""

    def __init__(self, loader: "Any", function: str):
        self.loader, self.function = loader, function

    def __getattr__(self, name: str) -> "Any":
        return getattr(self.loader, name)

    def create_module(self, spec: "Any") -> "Any":
        return self.loader.create_module(spec)

    def exec_module(self, module: "Any") -> None:
        self.loader.exec_module(module)
        hook_into(module, self.function)


class Finder:
    """Finds the modules that are hooked into, and a stand-in for those that are not installed."""

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name == "_lab_scalar_hooks":
            return spec_from_file_location(name, HERE.rpartition(os.sep)[0] + "/scalar_hooks.py")
        function, stand_in = HOOKS.get(name), STAND_INS.get(name)
        if not function and not stand_in:
            return None
        spec: Any = PathFinder.find_spec(name, path, target)
        if spec and spec.loader and function:
            spec.loader = Loader(spec.loader, function)
        elif not spec and stand_in:
            loader: Any = Loader(EmptyLoader(), stand_in)
            return ModuleSpec(name, loader)
        return spec


class EmptyLoader:
    """Loads an empty module."""

    def create_module(self, spec: "Any") -> None:
        pass

    def exec_module(self, module: "Any") -> None:
        pass


def report_imports() -> None:
    """Report each file of the project that is imported: as late if newer than the snapshot."""
    loader: Any = SourceFileLoader
    original = loader.get_code
    installed = (os.__file__.rpartition(os.sep)[0], *site.getsitepackages())

    def get_code(self: "Any", fullname: str) -> "Any":
        code = original(self, fullname)
        try:
            path = self.path if self.path.startswith(installed) else os.path.realpath(self.path)
            if path.startswith(PROJECT + os.sep) and not path.startswith(installed):
                found = os.stat(path)  # rsync -t sets the mtime back
                is_late = max(found.st_mtime_ns, found.st_ctime_ns) > TAKEN
                kind = "late" if is_late else "imported"
                load_hooks().report(**{kind: os.path.relpath(path, PROJECT)})
        except Exception:  # noqa: BLE001, S110 - the import goes on
            pass
        return code

    loader.get_code = get_code


def import_next() -> None:
    """Import the sitecustomize that Python would have found without this one."""
    others = [path for path in sys.path if os.path.realpath(path or ".") != HERE]
    spec: Any = PathFinder.find_spec("sitecustomize", others)
    if spec and spec.loader:
        module = sys.modules["sitecustomize"] = module_from_spec(spec)
        spec.loader.exec_module(module)


def hook() -> None:
    """Hook into the modules that are loaded by now, and into those loaded later."""
    finder: Any = Finder()
    sys.meta_path.insert(0, finder)
    for name in HOOKS.keys() & sys.modules.keys():
        hook_into(sys.modules[name], HOOKS[name])
    if PROJECT and TAKEN:
        report_imports()


if os.environ.get("LAB_METRICS") and os.environ.get("LAB_REPORT"):
    try:  # noqa: SIM105 - contextlib would have to be imported
        hook()
    except Exception:  # noqa: BLE001, S110 - site of an old virtualenv lacks functions
        pass
import_next()
