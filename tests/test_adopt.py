"""Existing code becomes a project as docs/adopt.md says, command by command."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.laptop import Laptop
from helpers.projects import LAB, TEMPLATE, Project, share_compiled
from test_any_script import HYDRA, LIBRARIES, LIGHTNING, TRAINER, WRITERS, points
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
SACRED = """
from sacred import Experiment, Ingredient

data = Ingredient("data")
ex = Experiment("sugar", ingredients=[data])


@data.config
def settings():
    batch = 3


@ex.config
def config():
    lr = 0.5


@data.capture
def load(batch):
    return [1.0] * batch


@ex.automain
def main(lr, _run):
    loss = sum(load())
    for step in range(3):
        loss *= lr
        _run.log_scalar("loss", loss, step)
"""
# The same as an experiment of lab.tracking, in a project without src/.
TYPED = """
from dataclasses import dataclass

import sugar_helper
from lab import tracking
from sacred import Ingredient

data = Ingredient("data")


@data.config
def settings():
    batch = 3


@dataclass(frozen=True)
class Config:
    lr: float = 0.5


ex = tracking.Experiment(Config, ingredients=[data])


@data.capture
def load(batch):
    return [1.0] * batch


@ex.automain
def main(lr, _run):
    loss = sum(load())
    with tracking.metrics(_run) as log:
        for step in range(sugar_helper.STEPS):
            loss *= lr
            log(step, {"loss": loss})
"""
KINDS = {
    "train.py": WRITERS,
    "train_hydra.py": HYDRA,
    "train_lightning.py": LIGHTNING,
    "train_trainer.py": TRAINER,
    "train_sacred.py": SACRED,
}
FLAT = {"train.py": TRAIN, "helper.py": HELPER, "requirements.txt": "numpy>=2\n"}


def commit(folder: Path, files: dict[str, str]) -> None:
    """Make a repository of these files."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "mine"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


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
    assert points(first) == points(repeated) == {"loss": [(0, 0.25), (1, 0.125)]}
    assert points(resumed) == {"loss": [(2, 0.0625), (3, 0.03125)]}, "where the first one ended"
    assert "worker" in shown["lab runs"]
    assert laptop.git("diff", "HEAD") == "", "none of their lines has changed"
    assert not (path / "out").exists(), "what ran remotely wrote remotely"


@pytest.mark.slow
@pytest.mark.environment
def test_five_kinds_of_projects_are_recorded_without_an_edited_line(compiled, tmp_path, home):
    path = tmp_path / "kinds"
    pins = (TEMPLATE / "{{cookiecutter.project_slug}}/requirements.txt").read_text()
    pins = "".join(f"{line}\n" for line in pins.splitlines() if line[:1].isalpha())
    needed = "\n".join(["-c pins.txt", "accelerate", "tensorboard", "torch", *LIBRARIES.split()])
    commit(path, {**KINDS, "requirements.txt": f"{needed}\n", "pins.txt": pins})
    project = Project(path)
    init = ("init", "--yes", "--wheel", WHEEL, "--outputs", "out/ outputs/")
    project.run(sys.executable, "-m", "lab.cli", *init, env={"PYTHONPATH": str(LAB)})
    project.bootstrap("--no-kernel", "--no-git")
    share_compiled(compiled, project)
    kinds = section(PAGE, "Five kinds of projects")
    found, configs = {}, {}
    for line in commands(kinds):
        name = shlex.split(line)[3]
        before = {*path.glob("runs/2*")}
        project.run(*shlex.split(line))
        (folder,) = {*path.glob("runs/2*")} - before
        assert json.loads((folder / "run.json").read_text())["status"] == "COMPLETED"
        found[name], configs[name] = (
            points(folder),
            json.loads((folder / "config.json").read_text()),
        )
    assert [step for step, _ in found["argparse"]["loss"]] == [0, 1, 2, 3]
    assert [value for _, value in found["hydra"]["loss"]] == [0.5, 0.25], "of wandb"
    assert found["hydra"]["both/a"] == [(5, 1.0)] and found["hydra"]["both/b"] == [(5, 2.0)]
    assert [step for step, _ in found["lightning"]["train_loss"]][:4] == [0, 1, 2, 3]
    assert [step for step, _ in found["trainer"]["loss"]][:3] == [1, 2, 3]
    assert found["sacred"]["loss"] == [(0, 1.0), (1, 0.25), (2, 0.0625)]
    assert configs["argparse"]["lr"] == 0.5 and configs["hydra"]["model"] == {"depth": 3}
    assert configs["sacred"]["data"] == {"batch": 4} and configs["sacred"]["lr"] == 0.25
    (path / "train_typed.py").write_text(TYPED)
    (path / "sugar_helper.py").write_text("STEPS = 3\n")
    before = {*path.glob("runs/2*")}
    project.run(
        *["lab", "record", "--name", "own", "--", "python", "train_typed.py", "with", "lr=0.25"]
    )
    (typed,) = {*path.glob("runs/2*")} - before
    entry = json.loads((typed / "run.json").read_text())
    assert entry["status"] == "COMPLETED" and entry["experiment"]["mainfile"] == "train_typed.py"
    assert entry["meta"]["options"]["--name"] == "own"
    assert not entry["code"].get("problem"), "the commit has the helper beside it"
    (path / "sugar_helper.py").write_text("STEPS = 9\n")
    project.run("lab", "reproduce", typed.name)
    repeated = {*path.glob("runs/2*")} - before - {typed}
    assert [points(folder) for folder in repeated] == [points(typed)]
    done = project.run(
        *["lab", "record", "--", "python", "train_typed.py", "with", "lrr=1"], check=False
    )
    assert done.returncode == 2 and {*path.glob("runs/2*")} == before | repeated | {typed}
    assert project.git("diff", "HEAD") == ""
    counted = re.findall(r"(?m)^\| (\w+) \| (\d+) \| (\d+) \|", kinds)
    assert [name.lower() for name, *_ in counted] == [*found]
    assert {(edited, new) for _, edited, new in counted} == {("0", "0")}
