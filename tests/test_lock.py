"""The lock is one list for every machine, and changes only where it must."""

import re

import pytest

from helpers.projects import TEMPLATE, edit

LOCK = TEMPLATE / "{{cookiecutter.project_slug}}" / "requirements.txt"
PIN = re.compile(r"[a-z0-9-]+==[\w.!]+( ; .+)?")


def test_the_lock_has_the_wheel_of_lab_then_pins_then_the_project():
    lines = LOCK.read_text("utf-8").splitlines()
    wheel, *pins, project = [line for line in lines if not line.startswith("#")]
    assert re.fullmatch(r"\./vendor/dl_remote_lab-\S+\.whl # sha256 [0-9a-f]{64}", wheel)
    assert project == "-e ."
    assert len(pins) > 100
    for line in pins:
        assert PIN.fullmatch(line), line
    assert "torch==2.13.0" in pins


def test_the_lock_holds_no_address_no_other_path_no_cuda_and_no_local_version():
    text = LOCK.read_text("utf-8").partition("whl # sha256")[2].partition("\n-e .\n")[0]
    assert not re.search(r"://|file:|^-|/[a-z]+/|nvidia|triton|^cuda|\+c(pu|u\d)", text, re.M)


def test_the_lock_serves_every_python_and_both_systems():
    text = LOCK.read_text("utf-8")
    assert re.search(r"^numpy==\S+ ; python_full_version < '3.11'", text, re.M)
    assert re.search(r"^appnope==\S+ ; sys_platform == 'darwin'", text, re.M)


def test_no_start_of_jupyter_waits_for_grammars_that_it_does_not_need():
    assert "rfc3987-syntax" not in LOCK.read_text("utf-8"), "see docs/decisions.md, jsonschema"


@pytest.mark.slow
def test_locking_from_nothing_gives_one_bare_torch_and_an_upper_bound_of_python_changes_nothing(
    bake,
):
    project = bake()
    lock = project.path / "requirements.txt"
    lock.unlink()
    project.run_lab("lock")
    text = lock.read_text("utf-8")
    assert re.findall("^torch==.*", text, re.M) == ["torch==2.13.0"]
    assert "rfc3987-syntax" not in text
    assert all(PIN.fullmatch(line) for line in text.splitlines() if line[0] not in "#.-")
    edit(project.path / "pyproject.toml", '">=3.10"', '">=3.10, <4"')
    assert "requirements.txt is unchanged" in project.run_lab("lock").stdout
    assert lock.read_text("utf-8") == text


@pytest.mark.slow
def test_a_new_dependency_adds_its_lines_and_changes_no_other(bake):
    project = bake()
    settings = project.path / "pyproject.toml"
    text = settings.read_text("utf-8").replace(
        "dependencies = [", 'dependencies = [\n    "einops",'
    )
    settings.write_text(text, "utf-8")
    lock = project.path / "requirements.txt"
    before = lock.read_text("utf-8").splitlines()
    output = project.run_lab("lock").stdout
    added = [line for line in lock.read_text("utf-8").splitlines() if line not in before]
    assert len(added) == 1 and added[0].startswith("einops==")
    assert output.splitlines()[0] == f"+ {added[0]}"
    assert len(lock.read_text("utf-8").splitlines()) == len(before) + 1


@pytest.mark.slow
def test_a_dependency_that_does_not_exist_leaves_the_lock_alone(bake):
    project = bake()
    settings = project.path / "pyproject.toml"
    text = settings.read_text("utf-8")
    settings.write_text(text.replace('"torch==2.13.0"', '"torch==99.99"'), "utf-8")
    lock = project.path / "requirements.txt"
    before = lock.read_text("utf-8")
    done = project.run_lab("lock", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert lock.read_text("utf-8") == before
    assert not list(project.path.glob("requirements.txt.*"))
