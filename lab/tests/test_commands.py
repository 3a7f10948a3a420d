"""The command line: which words belong to which command, and what a wrong one costs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cli import main as cli
from lab.runs import listing


def parse(*words):
    return cli.build_parser(words).parse_args(words)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--", "echo", "-m", "--", "x"],
        ["-m", "gpu", "run", "--", "echo", "-m", "--", "x"],
        ["--machine=gpu", "run", "--gpus", "2", "--", "echo", "-m", "--", "x"],
        ["-m", "run", "run", "--", "echo", "-m", "--", "x"],
    ],
)
def test_run_leaves_what_follows_the_dashes_to_the_other_program(words):
    args = parse(*words)
    assert args.after_dashes == ["echo", "-m", "--", "x"]
    assert args.arguments == []


def test_run_without_dashes_is_the_experiments():
    args = parse("run", "--queue", "with", "lr=0.1", "name=run")
    assert (args.queue, args.arguments, args.after_dashes) == (
        True,
        ["with", "lr=0.1", "name=run"],
        None,
    )
    assert parse("run", "--").after_dashes == []


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (
            ["note", "RUN", "how", "to", "run", "--", "now"],
            "text",
            ["how", "to", "run", "--", "now"],
        ),
        (["-m", "gpu", "note", "run", "-5", "--tried"], "text", ["-5", "--tried"]),
        (["show", "--", "run"], "run", "run"),
        (["compare", "run", "--", "other"], "runs", ["run", "other"]),
        (["logs", "--", "run"], "job", "run"),
        (["fetch", "run", "--", "x"], "jobs", ["run", "x"]),
        (["lock", "--", "run", "--upgrade"], "uv", ["--", "run", "--upgrade"]),
    ],
)
def test_no_other_command_loses_a_word_at_the_dashes(words, name, value):
    assert getattr(parse(*words), name) == value


def test_a_note_has_every_word_that_was_typed(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.lab]\n")
    run = tmp_path / "runs/20261101-120000-abcdef"
    run.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["note", run.name, "how", "to", "run", "--", "now"]) == 0
    assert (run / "notes.txt").read_text().endswith("  how to run -- now\n")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            FileNotFoundError(2, "No such file or directory", "a\nb"),
            r"a\nb: No such file or directory",
        ),
        (shutil.SameFileError("both are one\x1b"), r"the system: both are one\x1b"),
        (TimeoutError(), "the system: TimeoutError"),
    ],
)
def test_an_error_of_the_system_says_its_cause_with_or_without_a_number(
    monkeypatch, capsys, error, said
):
    def fail():
        raise error

    monkeypatch.setattr(listing, "list_rows", fail)
    assert cli.main(["runs", "--json"]) == 1
    assert capsys.readouterr().err == f"lab: {said}.\n"


def test_help_names_every_command_with_what_it_does(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    listed = re.findall(r"^    ([a-z-]+) +\S", capsys.readouterr().out, re.M)
    assert ended.value.code == 0
    assert listed == [command.name for command in cli.COMMANDS]
    assert len(set(listed)) == len(listed) > 30


SLOW = {"bz2", "concurrent", "dataclasses", "hashlib", "inspect", "logging", "shutil", "tarfile"}
SLOW_IN_HELP = {*SLOW, "pathlib", "signal", "subprocess", "typing"}
SLOW_IN_JOBS = {*SLOW, "lab.slurm.options", "random", "socket", "tempfile"}


@pytest.mark.parametrize(
    ("code", "slow"),
    [
        ("from lab.cli.main import build_parser; build_parser(['-h']).format_help()", SLOW_IN_HELP),
        ("import lab.cli.main, lab.jobs.control", SLOW_IN_JOBS),
        ("import lab.jobs.launch", SLOW - {"bz2", "hashlib", "shutil"}),
        ("import lab.transfer.fetch", SLOW),
        ("import lab.doctor.examination", SLOW - {"bz2", "hashlib", "shutil"}),
    ],
)
def test_a_command_imports_nothing_slow_that_it_does_not_need(code, slow):
    code = f"import sys; {code}; print(*sys.modules)"
    command = [sys.executable, "-S", "-c", code]
    environment = {"PYTHONPATH": str(Path(cli.__file__).parents[2])}
    imported = subprocess.check_output(command, env=environment, text=True).split()
    assert set(imported) & slow == set()


@pytest.fixture(scope="module")
def whole():
    """The parser of all commands."""
    return cli.build_parser()


@pytest.mark.parametrize("command", [command.name for command in cli.COMMANDS])
def test_a_command_has_the_same_arguments_whether_all_are_built_or_it_alone(whole, command, capsys):
    shown = []
    for parser in (whole, cli.build_parser([command])):
        with pytest.raises(SystemExit):
            parser.parse_args([command, "--help"])
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0].startswith(f"usage: lab {command} ")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nothing"],
        ["show"],
        ["logs", "--nothing"],
        ["runs", "--where", "lr"],
        ["kernel"],
        *(["reproduce", "last", "--tolerance", one] for one in ("inf", "nan", "-1", "x")),
    ],
)
def test_wrong_usage_ends_with_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: lab ")


def test_an_option_of_lab_run_among_the_experiments_words_is_wrong_usage(capsys):
    assert cli.main(["run", "with", "lr=0.1", "--follow"]) == 2
    assert capsys.readouterr().err.startswith("lab: --follow is an option of lab run")
