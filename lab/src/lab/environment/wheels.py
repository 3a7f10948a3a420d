"""The wheels of the lock for another computer, one that reaches no package index."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from lab.environment import lock
from lab.environment.installed import normalize
from lab.ground import files, project
from lab.ground.errors import LabError

GLIBC = (17, 28, *range(31, 41))  # minor versions of glibc 2 for which uv resolves
LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
UV = "uv>=0.9"


class Platform(NamedTuple):
    """What decides which wheels fit."""

    python: str  # such as 3.11
    machine: str  # as uname -m has it
    glibc: int  # its minor version
    driver: str = ""  # version of the NVIDIA driver; "": none

    @property
    def tags(self) -> list[str]:
        """Return the platform tags of wheels that run there, the best first."""
        names = []
        for minor in range(self.glibc, 4, -1):
            names.append(f"manylinux_2_{minor}")
            names += [LEGACY[minor]] if minor in LEGACY else []
        return [f"{name}_{self.machine}" for name in [*names, "linux"]]

    @property
    def uv_name(self) -> str:
        """Return uv's name for it. LabError if uv has none."""
        known = [minor for minor in GLIBC if minor <= self.glibc]
        if self.machine not in ("x86_64", "aarch64") or not known:
            found = f"{self.machine} with glibc 2.{self.glibc}"
            raise LabError(f"there are no wheels for a machine like this ({found}).")
        return f"{self.machine}-manylinux_2_{known[-1]}"


def collect(platform: Platform) -> list[Path]:
    """Download the wheels of the lock, and of uv, for that platform; return their paths.

    They stay in the cache folder for the next time. LabError if one cannot be downloaded.
    """
    folder = project.cache_folder() / "wheels" / "-".join(map(str, platform[:3]))
    files.make_private_folder(folder)  # what lies here is installed on machines
    requirements = resolve(platform)
    command = ["tool", "run", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={platform.python}"]
    abi = f"cp{platform.python.replace('.', '')}"
    command += [f"--abi={name}" for name in (abi, "abi3", "none")]
    command += [f"--platform={tag}" for tag in platform.tags]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as listed:
        listed.write(requirements)
        listed.flush()
        _check(lock.run_uv(*command, "--requirement", listed.name), "pip download")
    return find_wheels(requirements, folder)


def resolve(platform: Platform) -> str:
    """Return the requirements of the lock for that platform, with the indexes they come from."""
    locked = files.read_text(project.lock_file())
    pins, sources = lock.extract_pins(locked), re.findall(r"(?m)^--.*\n", locked)
    command = ["pip", "compile", "--quiet", "-", "--no-header", "--no-annotate"]
    command += ["--only-binary=:all:", f"--python-version={platform.python}"]
    command += [f"--python-platform={platform.uv_name}", "--emit-index-annotation"]
    command += ["--emit-index-url", "--emit-find-links"]
    command += ["--index-strategy=unsafe-best-match"] if sources else []
    env = {}
    has_torch = re.search("^torch==", pins, re.M)
    if has_torch and not (sources or _has_sources()):  # as bootstrap.py does on the machine
        command.append(f"--torch-backend={'auto' if platform.driver else 'cpu'}")
        env["UV_CUDA_DRIVER_VERSION"] = platform.driver
    done = lock.run_uv(*command, text="".join([*sources, pins, f"{UV}\n"]), env=env)
    _check(done, "uv pip compile")
    indexes = set(re.findall(r"# from (https?://\S+)", done.stdout))
    lines = re.findall(r"^(?:--|\w).*", done.stdout, re.M)
    named = "\n".join(lines)
    return "\n".join([*(f"--extra-index-url {x}" for x in indexes if x not in named), *lines, ""])


def find_wheels(requirements: str, folder: Path) -> list[Path]:
    """Return the wheel of each pin in a folder. LabError if one is missing."""
    found = {}
    for path in sorted(folder.glob("*.whl")):
        name, version = path.name.replace("%2B", "+").split("-")[:2]
        found[normalize(name), version] = path
    pins = re.findall(r"^([\w.-]+)(?:\[.*\])?==([^\s;]+)", requirements, re.M)
    missing = [name for name, version in pins if (normalize(name), version) not in found]
    if missing:
        raise LabError(f"no wheel was downloaded for {', '.join(missing)}.")
    return [found[normalize(name), version] for name, version in pins]


def _has_sources() -> bool:
    """Return whether the user has set where packages come from, by the rules of bootstrap.py."""
    code = "import bootstrap, json; v = bootstrap.variables()\n"
    code += "print(json.dumps([v.get(n) for n in [*bootstrap.SOURCES, 'UV_TORCH_BACKEND']]))"
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=project.root(), env=env, stdout=subprocess.PIPE, text=True, check=False
    )
    return done.returncode == 0 and any(json.loads(done.stdout))


def _check(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["it gave no reason"]
        cause = next((x for x in lines if x.lower().startswith(("error", "  × "))), lines[-1])
        raise LabError(f"the wheels cannot be collected on this computer: {what}: {cause.strip()}")
