"""What Tab offers: every command and option, and the names of machines, runs and datasets."""

import re

import pytest

from lab.cli import completion
from lab.cli import main as cli
from lab.ground import project as current

RUN = "20261122-101530-abcdef"
MACHINES = (
    '[machines.gpu]\nssh = "gpu"\nfolder = "x"\n\n[machines.other]\nssh = "o"\nfolder = "x"\n'
)


@pytest.fixture
def complete(project, capsys):
    """A function that returns what is offered for the last of some words."""

    def offered(*words) -> list[str]:
        capsys.readouterr()
        assert cli.main(["_complete", "--", *words]) == 0
        return [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]

    return offered


def help_of(capsys, *words) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main([*words, "--help"])
    return capsys.readouterr().out


def test_every_command_is_offered_with_its_description(complete, capsys):
    assert complete("") == complete() == [command.name for command in cli.COMMANDS]
    assert complete("ru") == ["run", "runs"]
    completion.answer(cli.build_parser(["jobs"]), ["--", "job"])
    assert capsys.readouterr().out == "jobs\tlist the jobs and their states\n"


@pytest.mark.parametrize("command", [command.name for command in cli.COMMANDS])
def test_every_option_of_the_help_is_offered(complete, capsys, command):
    options = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_of(capsys, command)))
    assert options >= {"-h", "--help"}
    assert set(complete(command, "-")) >= options


def test_names_of_runs_datasets_and_machines_are_offered(complete, project):
    for name in (f"runs/{RUN}", "runs/_sources", "runs/$(reboot)", "data/zebras", "data/.x"):
        (project / name).mkdir(parents=True)
    (project / "machines.toml").write_text(MACHINES)
    assert complete("show", "") == complete("compare", RUN, "2026") == [RUN]
    assert complete("push-data", "") == ["zebras"]
    assert complete("jobs", "-m", "") == ["gpu", "other"]
    assert complete("--machine=o") == ["--machine=other"]
    assert complete("jobs", "--machine", "=", "g") == ["gpu"], "bash makes three words of it"
    assert complete("kernel", "") == ["list", "install", "remove"]
    assert complete("data", "") == ["add", "verify"]
    assert complete("data", "verify", "") == ["zebras"]
    assert complete("example", "") == ["remove"]
    assert complete("run", "--from", "2026") == complete("record", "--from", "") == [RUN]
    assert complete("completion", "z") == ["zsh"]


def test_what_follows_belongs_to_the_experiment_or_to_another_program(complete):
    assert complete("run", "--gpus", "2", "w") == ["with"]
    for words in (["run", "with", ""], ["run", "--", ""], ["nothing", ""], ["show", "x", ""]):
        assert complete(*words) == []


def test_where_something_is_damaged_or_missing_nothing_is_offered(complete, project, monkeypatch):
    assert complete("show", "") == complete("push-data", "") == []
    (project / "machines.toml").write_text("broken [")
    current.reload()
    assert complete("jobs", "-m", "") == complete("logs", "") == []
    monkeypatch.setenv("LAB_PROJECT", str(project / "nowhere"))
    assert complete("show", "") == []


def test_a_description_is_short_and_cannot_steer_the_terminal(complete, capsys, monkeypatch):
    found = [("word", "x" * 100), ("odd", "\x1b[2J"), ("not a word", "")]
    monkeypatch.setattr(completion, "find_candidates", lambda parser, words: found)
    completion.answer(cli.build_parser([]), ["--", ""])
    first, second = capsys.readouterr().out.splitlines()
    assert first == "word\t" + "x" * 57 + "..."
    assert second == r"odd" + "\t" + r"\x1b[2J"
