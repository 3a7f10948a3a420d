"""The documents' remote commands work as they stand there; the first hour with real torch."""

import json
import re
import shlex
import subprocess

import pytest

from helpers.jobs import ended, start
from helpers.laptop import Laptop
from helpers.projects import LAB, TEMPLATE

README = (TEMPLATE / "README.md").read_text("utf-8")
DOCUMENT = (TEMPLATE / "docs/remote.md").read_text("utf-8")
# These ask for a terminal, a file of the reader's own, an editor, or for Jupyter, which the small
# project has not; tested where it says.
ELSEWHERE = {
    "lab attach": "test_jobs",
    "lab shell": "test_jobs",
    "lab notebook": "test_tunnels",
    "lab notebook --stop": "test_tunnels",
    "lab tensorboard": "test_tunnels",
    'eval "$(lab completion bash)"': "test_completion",
    "rsync -a my-experiment-gpu:somewhere/ here/": "test_ssh_config",
}


def commands(text: str) -> list[str]:
    """The lines of the sh blocks, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    lines = [
        line.split("  #")[0].split(" #")[0].strip() for one in blocks for line in one.split("\n")
    ]
    return [line for line in lines if line]


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ", maxsplit=1)[0]


@pytest.fixture
def whole(compiled, hosts) -> Laptop:
    """The whole project, torch included, on the laptop; the worker has nothing of it."""
    place = hosts.laptop.home / "my-experiment"
    subprocess.run(["cp", "-a", compiled.path, place], check=True)  # sooner than shutil
    laptop = Laptop(place, hosts=hosts)
    machine = 'ssh = "worker"\ngateway = "gateway"\nfolder = "lab/my-experiment"\n'
    (place / "machines.toml").write_text(f"[machines.gpu]\n{machine}")
    laptop.run("python", "-m", "my_experiment.data", "prepare")
    return laptop


def test_the_first_hour_on_a_remote_machine_is_as_the_readme_says(whole):
    hour = commands(section(README, "The first hour on a remote machine"))
    assert hour[0] == "lab doctor" and len(hour) == 7
    shown = {line: whole.run(*shlex.split(line), timeout=300).stdout for line in hour}
    assert "test      accuracy" in shown["lab run --follow with smoke"]
    assert "COMPLETED" in shown["lab runs"] and "worker" in shown["lab runs"]
    url = shown["lab notebook"].strip()
    assert "<title>JupyterLab</title>" in whole.run("curl", "-sL", url).stdout
    (weights,) = (whole.path / "data/digits/models").glob("*/best.safetensors")
    run = weights.parent.name
    assert f"{run[:8]}" in shown["lab runs"]
    again = whole.lab("reproduce", run, timeout=300)
    assert "the same numbers" in again, "the laptop repeats what the machine has computed"


def test_the_projects_own_readme_lists_the_same_commands_and_they_are_there(project):
    theirs = section((project.path / "README.md").read_text("utf-8"), "On a remote machine")
    named = {words.split()[0] for words in re.findall(r"lab ([a-z-]+[a-z])", theirs)}
    help = project.run("lab", "--help").stdout
    assert len(named) > 15
    for name in named:
        assert f"\n    {name} " in help or f"\n    {name}\n" in help, name
        assert project.run("lab", name, "--help").stdout
    for options in re.findall(r"`lab ([a-z-]+) [^`]*?(--[a-z-]+)", theirs):
        assert options[1] in project.run("lab", options[0], "--help").stdout


def test_every_command_of_the_document_and_of_the_projects_readme_works(laptop):
    job = start(laptop, "--", "true")
    ended(laptop, job)
    (laptop.path / "src/my_experiment/data.py").write_text("print('prepared')\n")
    folder = laptop.path / "data/digits"
    (folder / "train/0").mkdir(parents=True)
    (folder / "train/0/a.png").write_text("a")
    hash = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    (folder / "manifest.json").write_text(json.dumps({"files": {"train/0/a.png": hash}}))
    theirs = section((laptop.path / "README.md").read_text("utf-8"), "On a remote machine")
    lines = [*commands(DOCUMENT), *commands(theirs)]
    assert len(lines) > 25
    for line in lines:
        if line not in ELSEWHERE:
            done = laptop.run(*shlex.split(line.replace("JOB", job)), check=False)
            assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"


def test_the_states_of_the_document_are_those_of_the_code(laptop):
    source = (LAB / "lab/jobs/control.py").read_text()
    states = re.findall(
        r"^\| ([a-z]+)(?:\([A-Z]+\))? \| ", section(DOCUMENT, "Set up, run, look"), re.M
    )
    assert len(states) == 8 and states.pop(0) == "state"
    for state in states:
        assert f'"{state}' in source
