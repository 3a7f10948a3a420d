"""torch._dynamo, which compiles, is loaded by who compiles; without this, by every optimizer.

That is a third of the processor time of a short run. All that an optimizer wants of it is a mark
on its methods, which matters once something is compiled; and Accelerate asks whether a model is.
Until more is asked for, a module that knows this stands in its place.
"""

import importlib
import importlib.util
import sys
import threading
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

NAME = "torch._dynamo"


def postpone() -> None:
    """Postpone loading torch._dynamo until it is needed; nothing if it is there, or no torch."""
    torch = sys.modules.get("torch")
    spec = torch and NAME not in sys.modules and importlib.util.find_spec(NAME)
    if torch and spec:
        module = Postponed(spec)
        sys.modules[NAME] = torch._dynamo = module  # type: ignore[attr-defined]
        sys.meta_path.insert(0, module)


class Postponed(ModuleType):
    """torch._dynamo before it is loaded; afterwards, for who still holds it, the same as that.

    It is a finder of modules too: who imports torch._dynamo.config wants the real one.
    """

    def __init__(self, spec: ModuleSpec):
        super().__init__(NAME, "torch._dynamo, when it is needed.")
        self.__spec__, self.__loader__, self.__file__ = spec, spec.loader, spec.origin
        self.__package__, self.__path__ = NAME, spec.submodule_search_locations or []
        self.marked: list[Any] = []
        self.lock = threading.RLock()
        self.eval_frame = EvalFrame(self)

    def is_waiting(self) -> bool:
        return sys.modules.get(NAME) is self

    def load(self) -> Any:
        """Return the real module, loaded now if it was not."""
        with self.lock:
            if self.is_waiting():
                del sys.modules[NAME], vars(sys.modules["torch"])["_dynamo"]
                sys.meta_path.remove(self)
                for function in self.marked:  # torch marks it anew at its next call
                    vars(function).pop("__dynamo_disable", None)
        return importlib.import_module(NAME)

    def disable(self, function: Any = None, *rest: Any, **options: Any) -> Any:
        """Return what is not compiled, by torch's own decorator the function itself for now."""
        if self.is_waiting() and options == {"wrapping": False}:
            self.marked.append(function)
            return function
        return self.load().disable(function, *rest, **options)

    def graph_break(self, *_: Any) -> None:
        """Do nothing, as outside of a compiled function."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # who looks at all modules wants no other one
            raise AttributeError(name)
        return getattr(self.load(), name)

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if not name.startswith(f"{NAME}."):
            return None
        self.load()
        return ModuleSpec(name, Loaded()) if name in sys.modules else None


class EvalFrame:
    """torch._dynamo.eval_frame, where Accelerate looks for the type of a compiled model."""

    def __init__(self, dynamo: Postponed):
        self._dynamo = dynamo

    def __getattr__(self, name: str) -> Any:
        if name == "OptimizedModule" and self._dynamo.is_waiting():
            return ()  # for isinstance: of no type
        return getattr(self._dynamo.load().eval_frame, name)


class Loaded(Loader):
    """The loader of a module that its package has loaded meanwhile."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = sys.modules[spec.name]
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec
