"""torch's compiler is loaded when something is compiled, and not by a training alone."""

import importlib
import sys

import pytest

from lab.recording import dynamo

TORCH = """
import importlib
def __getattr__(name):
    if name == "_dynamo":
        return importlib.import_module("._dynamo", __name__)
    raise AttributeError(name)
"""
DYNAMO = """
from . import config, eval_frame
def disable(function, recursive=True, *, reason=None, wrapping=True):
    return "marked", function
def optimize(function):
    return "compiled", function
"""


@pytest.fixture
def torch(tmp_path, monkeypatch):
    """A package with the parts of torch that matter here."""
    files = {"__init__": TORCH, "_dynamo/__init__": DYNAMO, "_dynamo/config": ""}
    files["_dynamo/eval_frame"] = "class OptimizedModule: pass"
    for name, text in files.items():
        path = tmp_path / f"torch/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    finders = sys.meta_path[:]
    yield importlib.import_module("torch")
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        del sys.modules[name]


def is_loaded() -> bool:
    return "torch._dynamo.config" in sys.modules


def test_what_an_optimizer_and_accelerate_ask_loads_nothing_and_compiling_does(torch):
    def step():
        pass

    def own():
        pass

    dynamo.postpone()
    waiting = importlib.import_module("torch._dynamo")
    assert torch._dynamo is waiting
    step.__dynamo_disable = waiting.disable(step, True, wrapping=False)
    assert step.__dynamo_disable is step
    waiting.graph_break()
    assert not isinstance(step, waiting.eval_frame.OptimizedModule)
    for module in list(sys.modules.values()):  # as inspect and autoreload do
        getattr(module, "__file__", None), getattr(module, "__wrapped__", None)
    assert importlib.util.find_spec("torch._dynamo").origin.endswith("_dynamo/__init__.py")
    assert not is_loaded()

    assert torch._dynamo.optimize(step) == ("compiled", step)
    assert torch._dynamo is sys.modules["torch._dynamo"] is not waiting
    assert not hasattr(step, "__dynamo_disable"), "torch marks it anew, and that counts"
    assert waiting.disable(step, True, wrapping=False) == ("marked", step)
    assert waiting.optimize(own) == ("compiled", own)
    assert waiting.eval_frame.OptimizedModule is torch._dynamo.eval_frame.OptimizedModule
    assert waiting not in sys.meta_path


def test_what_a_user_does_not_want_compiled_is_marked_at_once(torch):
    dynamo.postpone()
    assert torch._dynamo.disable(len, reason="own") == ("marked", len)
    assert is_loaded()


def test_who_imports_a_part_of_it_gets_the_real_one_once(torch):
    dynamo.postpone()
    part = importlib.import_module("torch._dynamo.eval_frame")
    assert part is torch._dynamo.eval_frame is sys.modules["torch._dynamo.eval_frame"]
    assert part.__spec__.origin.endswith("eval_frame.py")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("torch._dynamo.nothing")


def test_it_stays_as_it_is_where_it_is_loaded_and_without_torch(torch, monkeypatch):
    real = importlib.import_module("torch._dynamo")
    dynamo.postpone()
    assert sys.modules["torch._dynamo"] is real
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "torch")
        patch.delitem(sys.modules, "torch._dynamo")
        dynamo.postpone()
        assert "torch._dynamo" not in sys.modules
