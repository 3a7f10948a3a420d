"""Compiles a part of torch in a second process: in a new environment that takes seconds."""

import atexit
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

# What the first optimizer imports, long after `import torch`: it is compiled during that import.
AHEAD = """
import compileall, importlib.util, sympy
(torch,) = importlib.util.find_spec("torch").submodule_search_locations
for part in ("_dynamo", "distributed/tensor", "distributed/fsdp"):
    compileall.compile_dir(f"{torch}/{part}", quiet=2)
"""


def start() -> "subprocess.Popen[bytes] | None":
    """Start to compile what torch imports late; None if it is compiled already or cannot be."""
    if "torch" in sys.modules or sys.dont_write_bytecode or (os.cpu_count() or 1) < 2:
        return None
    packages = [importlib.util.find_spec(name) for name in ("torch", "sympy")]
    if not all(packages) or not packages[1] or Path(packages[1].cached or os.devnull).exists():
        return None
    null = subprocess.DEVNULL
    command = [sys.executable, "-c", AHEAD]
    process = subprocess.Popen(command, cwd="/", stdin=null, stdout=null, stderr=null)
    atexit.register(process.kill)
    return process
