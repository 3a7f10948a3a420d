"""`lab run -- COMMAND` records by itself, unless the command does or nobody wants it."""

import json
import shlex
from pathlib import Path

import pytest

from lab.cli import main, remote
from lab.ground.errors import UsageError
from lab.jobs import control, launch

EXPERIMENT = "from lab import project, tracking\nex = tracking.Experiment(int)\n"


@pytest.fixture
def scripts(project) -> Path:
    """A project with an experiment, a second one, another module, and a script."""
    package = project / "src/my_experiment"
    package.mkdir(parents=True)
    (package / "experiment.py").write_text(EXPERIMENT)
    (package / "baseline.py").write_text("import lab.tracking as t\nt.Experiment(int)\n")
    (package / "data.py").write_text("from lab import project\n")
    (project / "other.py").write_text("from sacred import Experiment\nex = Experiment('x')\n")
    return project


@pytest.mark.parametrize(
    ("command", "recorded"),
    [
        ("python train.py --lr 0.1", True),
        ("python -m my_experiment.data prepare", True),
        ("python other.py", True),
        ("bash -c 'lab runs'", True),
        ("ls lab", True),
        ("lab record -- python train.py", False),
        (".venv/bin/lab record -- python train.py", False),
        ("python -m lab.cli record -- python train.py", False),
        ("python -m my_experiment.experiment with lr=0.1", False),
        ("torchrun --nproc-per-node=2 -m my_experiment.experiment", False),
        ("python -m torch.distributed.run -m my_experiment.experiment", False),
        ("python src/my_experiment/experiment.py", False),
        ("python -m my_experiment.baseline", False),
    ],
)
def test_what_records_itself_is_not_recorded_twice(scripts, command, recorded):
    record = launch.choose_record_options(shlex.split(command), "try")
    assert (record and record.words) == (["record", "--name", "try", "--"] if recorded else None)


def test_outputs_of_an_earlier_run_are_only_for_what_is_recorded(scripts):
    record = launch.choose_record_options(["true"], earlier="RUN")
    assert record.words == ["record", "--from", "RUN", "--"]
    with pytest.raises(UsageError):
        launch.choose_record_options(["lab", "runs"], earlier="RUN")
    for words in (["--from", "X", "with", "lr=1"], ["--from", "X", "--no-record", "--", "true"]):
        assert main.main(["run", *words]) == 2


@pytest.fixture
def run(machine, repository, monkeypatch, capsys):
    """A function that does `lab run` and returns the job's output, calls, and spec."""
    monkeypatch.setattr(remote, "connect_and_announce", lambda _: machine.connection)

    def run(*words: str) -> tuple[str, int, dict]:
        calls = machine.count_calls()
        assert main.main(["run", "--gpus", "0", *words]) == 0
        calls = machine.count_calls() - calls
        job = control.list_jobs(machine.connection)[-1]
        machine.wait_for(job.id)
        output = (machine.folder / "jobs" / job.id / "output.log").read_text()
        return output, calls, job.spec

    return run


@pytest.mark.slow
def test_the_job_records_where_its_environment_has_lab(machine, run):
    lab = machine.folder / "envs/3.11-e3b0c44298fc/bin/lab"
    output, _, _ = run("--", "echo", "bare")
    assert output.splitlines()[-1] == "bare" and len(output.splitlines()) == 2, "and it says so"
    lab.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    lab.chmod(0o755)
    output, calls, spec = run("--name", "it's", "--from", "a b", "--", "echo", "$HOME ü", "--")
    assert output == "<record><--from><a b><--name><it's><--><echo><$HOME ü><-->"
    assert spec["command"] == ["echo", "$HOME ü", "--"], "what was typed is shown"
    assert calls == 1
    assert run("--no-record", "--", "echo", "bare")[0] == "bare\n"
    assert run("--", "lab", "runs")[0] != "<record>"


@pytest.mark.slow
def test_the_outputs_of_a_run_come_along_to_a_machine_that_lacks_them(machine, run, project):
    lab, id = machine.folder / "envs/3.11-e3b0c44298fc/bin/lab", "20260101-101010-laptop-00000001"
    lab.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    lab.chmod(0o755)
    (project / ".gitignore").write_text("/data/\n/runs/\n")
    data = {"dataset": "table", "manifest_sha256": "0" * 64}
    files = {
        f"runs/{id}/run.json": json.dumps({"data": data}),
        f"runs/{id}/config.json": "{}",
        f"data/table/models/{id}/out/state": "7",
    }
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    for named in (id[:8], "last"):
        output, _, _ = run("--from", named, "--", "true")
        assert output == f"<record><--from><{id}><--data><table={'0' * 64}><--><true>"
    assert (machine.folder / f"data/table/models/{id}/out/state").read_text() == "7"
