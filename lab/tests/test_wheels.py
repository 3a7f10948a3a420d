"""The wheels that are brought to a machine without a package index: which, and from where."""

import subprocess

import pytest

from lab.environment import lock, wheels
from lab.ground.errors import LabError
from lab.workcopy.wheels import parse_answer, read_platform

PLATFORM = wheels.Platform("3.11", "x86_64", 36)
COMPILED = """\
--find-links /opt/wheels
numpy==2.1.0
    # from https://index.example/simple
ruamel.yaml[jinja2]==1.0
torch==2.13.0+cu130
    # from https://download.example.org/whl/cu130
uv==0.13.9
"""


@pytest.fixture
def uv(project, monkeypatch):
    """What uv is asked, and its answer."""
    asked = []

    def run(*command, text=None, env=None):
        asked.append((command, text, env))
        return subprocess.CompletedProcess(command, 0, COMPILED)

    monkeypatch.setattr(lock, "run_uv", run)
    return asked


def test_a_platform_is_what_uv_and_pip_call_it():
    assert PLATFORM.uv_name == "x86_64-manylinux_2_36"
    assert PLATFORM._replace(glibc=30).uv_name == "x86_64-manylinux_2_28"
    assert PLATFORM.tags[0] == "manylinux_2_36_x86_64"
    assert {"manylinux2014_x86_64", "manylinux_2_17_x86_64", "linux_x86_64"} <= set(PLATFORM.tags)
    for strange in ({"machine": "riscv64"}, {"glibc": 12}):
        with pytest.raises(LabError, match="machine like this"):
            assert PLATFORM._replace(**strange).uv_name


def test_what_the_machine_says_is_data(project):
    facts, there = parse_answer(
        "machine x86_64\nglibc 36\ndriver 550.54\nhave ab a.whl\nstage /x\n"
    )
    assert read_platform(facts) == PLATFORM._replace(driver="550.54")
    assert there == {("have", "ab", "a.whl")}
    assert read_platform({**facts, "driver": "$(id)"}).driver == ""
    for strange in ({"glibc": "/etc"}, {"machine": "../x"}, {"machine": "-x y"}):
        with pytest.raises(LabError, match="without glibc"):
            read_platform({**facts, **strange})


@pytest.mark.parametrize(("driver", "backend"), [("550.54", "auto"), ("", "cpu")])
def test_torch_is_that_of_the_machines_driver(project, uv, monkeypatch, driver, backend):
    monkeypatch.setattr(wheels, "_has_sources", lambda: False)
    (project / "requirements.txt").write_text("./vendor/x.whl\nnumpy==2.1.0\ntorch==2.13.0\n-e .\n")
    found = wheels.resolve(PLATFORM._replace(driver=driver))
    ((command, text, env),) = uv
    assert text == "numpy==2.1.0\ntorch==2.13.0\nuv>=0.9\n"
    assert f"--torch-backend={backend}" in command
    assert env == {"UV_CUDA_DRIVER_VERSION": driver}
    lines = found.splitlines()
    assert "--extra-index-url https://download.example.org/whl/cu130" in lines
    assert "--find-links /opt/wheels" in lines and "torch==2.13.0+cu130" in lines


def test_where_the_user_says_where_packages_come_from_uv_chooses_no_torch(project, uv, monkeypatch):
    (project / "bootstrap.py").write_text("SOURCES = ['A']\nvariables = lambda: {'A': 'x'}\n")
    (project / "requirements.txt").write_text("torch==2.13.0\n")
    wheels.resolve(PLATFORM)
    assert not [word for word in uv[0][0] if "torch" in word]


def test_what_uv_prints_need_not_be_utf_8(project):
    code = "import sys; sys.stdout.buffer.write(b'error: \\xff/x')"
    (project / "bootstrap.py").write_text(code)
    assert lock.run_uv("--version").stdout == "error: \N{REPLACEMENT CHARACTER}/x"


def test_every_pin_has_its_wheel_or_is_named(tmp_path):
    names = ["numpy-2.1.0-cp311-x.whl", "ruamel_yaml-1.0-py3-none-any.whl", "uv-0.13.9-py3-x.whl"]
    for name in [*names, "numpy-2.0.0-cp311-x.whl", "torch-2.13.0%2Bcu130-cp311-x.whl"]:
        (tmp_path / name).touch()
    found = [path.name for path in wheels.find_wheels(COMPILED, tmp_path)]
    assert found == [*names[:2], "torch-2.13.0%2Bcu130-cp311-x.whl", names[2]]
    (tmp_path / names[1]).unlink()
    with pytest.raises(LabError, match=r"ruamel\.yaml"):
        wheels.find_wheels(COMPILED, tmp_path)
