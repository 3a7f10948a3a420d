"""Before the first run of an environment, a second process compiles what torch imports late."""

import subprocess
import sys
from importlib.util import cache_from_source

from lab.recording import compiling


def test_what_torch_imports_late_is_compiled_once_beside_the_run(tmp_path, monkeypatch):
    names = ("torch/__init__.py", "torch/_dynamo/variables/late.py", "sympy/__init__.py")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    compiled = [tmp_path / cache_from_source(name) for name in names]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert compiling.start() is None, "each run would start it again"
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(compiling.os, "cpu_count", lambda: 2)
    process = compiling.start()
    assert isinstance(process, subprocess.Popen) and process.wait(60) == 0
    assert [path.exists() for path in compiled] == [False, True, True]
    assert compiling.start() is None


def test_without_torch_nothing_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert compiling.start() is None
