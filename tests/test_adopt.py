"""Code that was there before: what docs/adopt.md says, command by command."""

import json
import subprocess
from pathlib import Path

from helpers.laptop import Laptop
from helpers.projects import TEMPLATE, Project
from test_remote_document import commands, section

PAGE = (TEMPLATE / "docs/adopt.md").read_text("utf-8")
(WHEEL,) = TEMPLATE.glob("{{cookiecutter.project_slug}}/vendor/dl_remote_lab-*.whl")
TRAIN = """
import argparse
from pathlib import Path

import wandb

from helper import halve

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()
out = Path("out")
out.mkdir(exist_ok=True)
state = out / "state"
first, loss = map(float, state.read_text().split()) if options.resume else (0, options.lr)
for step in range(int(first), int(first) + 2):
    loss = halve(loss)
    wandb.log({"loss": loss}, step=step)
state.write_text(f"{step + 1} {loss}")
"""
HELPER = """
import numpy


def halve(number):
    return float(numpy.float64(number) / 2)
"""
FLAT = {"train.py": TRAIN, "helper.py": HELPER, "requirements.txt": "numpy>=2\n"}


def commit(folder: Path, files: dict[str, str]) -> None:
    """Make a repository of these files."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "mine"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


def points(folder: Path) -> list[tuple[int, float]]:
    """The points of a record, of all its metrics."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(one["step"], float(one["value"])) for one in map(json.loads, lines)]


def test_the_ten_commands_lead_a_flat_repository_to_a_run_resumed_on_the_machine(hosts):
    path = hosts.laptop.home / "sugar"
    commit(path, FLAT)
    lines = commands(section(PAGE, "Ten commands"))
    assert len(lines) == 10
    for line in lines[:2]:  # the hosts reach no package index
        Project(path).run("sh", "-c", line, env={"WHEEL": str(WHEEL)})
    laptop, shown, ids = Laptop(path, hosts=hosts, inside="/home/ada/sugar"), {}, []
    for line in lines[2:]:
        typed = line.replace("RUN", ids[0]) if ids else line
        shown[line] = laptop.run("sh", "-c", typed, timeout=300).stdout
        ids = sorted(folder.name for folder in path.glob("runs/2*"))
    first, repeated, resumed = (path / "runs" / name for name in ids)
    for folder in (first, repeated, resumed):
        assert json.loads((folder / "run.json").read_text())["status"] == "COMPLETED"
    assert points(first) == points(repeated) == [(0, 0.25), (1, 0.125)]
    assert points(resumed) == [(2, 0.0625), (3, 0.03125)], "it goes on where the first one ended"
    assert "worker" in shown["lab runs"]
    assert laptop.git("diff", "HEAD") == "", "no line of theirs is another one"
    assert not (path / "out").exists(), "what ran there wrote there"
