"""Markers of a lock are judged as packaging judges them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import Marker, default_environment

from lab.environment import markers

LOCK = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}/requirements.txt"
FOUND = sorted({*re.findall(r"(?m)^[\w.-]+==\S+ *; *(.+)$", LOCK.read_text("utf-8"))})
MORE = [
    "python_version >= '3.9' and (sys_platform == 'linux' or sys_platform == 'darwin')",
    "python_full_version == '3.11' or python_full_version != '3.12.*'",
    "python_full_version > '3.11.5'",
    "python_full_version <= '3.11.0'",
    "platform_release != 'x'",
    "'linux' in sys_platform",
    "platform_machine > 'a'",
]
PYTHONS = ["3.10.0", "3.11.0", "3.11.5", "3.11.6", "3.12.0", "3.14.0rc1"]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("system", [("linux", "posix", "x86_64"), ("win32", "nt", "AMD64")])
def test_markers_are_judged_as_packaging_does(python, system):
    about = markers.describe_python()
    about |= dict(zip(("sys_platform", "os_name", "platform_machine"), system, strict=True))
    about |= {"python_full_version": python, "python_version": ".".join(python.split(".")[:2])}
    assert len(FOUND) > 10
    for marker in FOUND + MORE:
        assert markers.holds(marker, about) is Marker(marker).evaluate(dict(about)), marker


def test_those_of_the_lock_need_no_packaging_and_the_variables_are_its_own():
    code = "import sys; from lab.environment import installed as i;"
    code += f"i.read_pins(open({str(LOCK)!r}).read()); print('packaging' in sys.modules)"
    lab = {"PYTHONPATH": str(Path(markers.__file__).parents[2])}
    assert subprocess.check_output([sys.executable, "-S", "-c", code], env=lab) == b"False\n"
    assert markers.describe_python().items() <= default_environment().items()
