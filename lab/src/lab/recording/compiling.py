"""In a new environment Python compiles torch for seconds: a second process does a part of that."""

import atexit
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

# What the first optimizer imports, long after `import torch`: while that goes on, it is compiled.
AHEAD = """
import compileall, importlib.util, sympy
(torch,) = importlib.util.find_spec("torch").submodule_search_locations
for part in ("_dynamo", "distributed/tensor", "distributed/fsdp"):
    compileall.compile_dir(f"{torch}/{part}", quiet=2)
"""


def start() -> "subprocess.Popen[bytes] | None":
    """Compile what torch imports late, beside this process; None if that is done or cannot be."""
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
