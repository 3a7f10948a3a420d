"""Wrong settings of a run are refused on this computer; what cannot be checked here is sent."""

from pathlib import Path

import pytest
from asked_settings import SETTINGS

from lab.jobs import launch, settings

TEMPLATE = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}/src"
# as experiments are, but for what it is asked: tests/test_tracking.py asks a real one
EXPERIMENT = """
from dataclasses import dataclass
from typing import Annotated, Literal

class Ge: __init__ = lambda *_: None

class tracking:
    class Experiment:
        __init__ = lambda *_, **__: None
        def find_problem(self, words):
            print("what else is printed", words)
            return "there is no setting\\nlrr: did you mean lr?" if "lrr=0.1" in words else ""
"""
EXPERIMENT += SETTINGS


def command(*words: str) -> list[str]:
    return launch.experiment_command(list(words), "0")


def check(*words: str) -> None:
    with settings.checked(command(*words)):
        pass


@pytest.fixture
def experiment(repository) -> Path:
    file = repository / "src/my_experiment/experiment.py"
    file.parent.mkdir(parents=True)
    file.write_text(EXPERIMENT)
    return file


def test_a_wrong_setting_is_refused_before_anything_is_sent(machine, experiment):
    with pytest.raises(settings.WrongSettings, match="^there is no setting lrr: ") as caught:
        launch.start(machine.connection, command("with", "lrr=0.1"))
    assert caught.value.exit_code == 2
    assert machine.count_calls() == 0
    job = launch.start(machine.connection, command("with", "lr=0.1"))
    machine.wait_for(job.id)
    root = experiment.parents[2]
    assert not list(root.rglob("__pycache__"))


def test_with_torchrun_it_is_refused_as_well_and_another_program_is_not_asked(experiment):
    torchrun = launch.experiment_command(["with", "lrr=0.1"], "2")
    assert settings.find_words(torchrun) == ["with", "lrr=0.1"]
    assert settings.find_words(["echo", "with", "lrr=0.1"]) is None


@pytest.mark.parametrize("text", ["import nowhere", "raise SystemExit(1)", "x =", "ex = 1"])
def test_an_experiment_that_cannot_be_asked_here_is_left_to_the_machine(experiment, text):
    experiment.write_text(text)
    check("with", "lrr=0.1")


def test_an_experiment_that_takes_too_long_is_left_to_the_machine(experiment, monkeypatch):
    monkeypatch.setattr(settings, "ASK_TIMEOUT", 0.1)
    experiment.write_text("import time; time.sleep(1000)")
    check("with", "lrr=0.1")


def test_plain_settings_are_judged_by_the_text_without_asking(experiment, monkeypatch):
    monkeypatch.setattr(settings, "_ask", lambda *_: pytest.fail("it was asked"))
    check()
    check("with", "lr=1e-3", "seed=5", "mode=slow", "resume=20260101", "quick")
    (file,) = TEMPLATE.glob("*/experiment.py")
    check("with", "decay=0.5")
    words = ["lr=0.01", "seed=4294967295", "epochs=3", "dropout=0", "channels=3", "smoke"]
    assert settings.are_surely_right(["with", *words], file)


@pytest.mark.parametrize(
    "word",
    [
        "lrr=1",
        "lr=abc",
        "lr=True",
        "seed=-1",
        "seed=1.5",
        "mode=medium",
        "sizes=3",
        "quikc",
        "a.b=1",
    ],
)
def test_what_the_text_does_not_show_to_be_right_is_asked(experiment, word):
    assert not settings.are_surely_right(["with", word], experiment)
    assert not settings.are_surely_right(["print_config"], experiment)
