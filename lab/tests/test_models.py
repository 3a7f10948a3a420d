"""A job finds the model of an earlier run that its settings name: it is brought, once, checked."""

import json
import os
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_machine import FakeMachine
from test_copying import Silent
from test_settings import EXPERIMENT

from lab.cli import main, remote
from lab.ground.errors import LabError, UsageError
from lab.jobs import control, launch
from lab.transfer import copying, models

RUN = "20260101-101010-laptop-00000001"
MODEL_SETTINGS = """
@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    resume: tracking.Model = ""
    pretrained: "Model" = ""
    base: tracking.Model = "20250101"

ex = tracking.Experiment(Config, tuned={"pretrained": "20250303", "lr": 1.0})
"""


@pytest.fixture
def experiment(repository, monkeypatch, machine) -> Path:
    """An experiment with settings that name runs, and a run with a model."""
    file = repository / "src/my_experiment/experiment.py"
    file.parent.mkdir(parents=True)
    text = EXPERIMENT.partition("@dataclass")[0] + MODEL_SETTINGS.replace(
        '"Model"', "tracking.Model"
    )
    text = text.replace("    class Experiment", "    Model = str\n    class Experiment")
    file.write_text(text.replace('"20250101"', '""'))
    (repository / ".gitignore").write_text("/data/\n/runs/\n")
    make_model(repository / "data", RUN)
    monkeypatch.setattr(remote, "connect_and_announce", lambda _: machine.connection)
    return file


def make_model(data: Path, run: str) -> dict[str, bytes]:
    contents = {"best.safetensors": os.urandom(5000), "step-00000010/state \\ ü.json": b"{}"}
    for name, content in {**contents, "step-20.new/half": b"", ".hidden": b""}.items():
        path = data / "digits/models" / run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return contents


def read(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def lab_run(*words: str) -> int:
    return main.main(["run", "--gpus", "0", *words])


def started(machine: FakeMachine) -> list[str]:
    """The command of the newest job."""
    job = control.list_jobs(machine.connection)[-1]
    machine.wait_for(job.id)
    return list(job.spec["command"])


@pytest.mark.slow
@pytest.mark.parametrize("rsync", [True, False])
def test_a_job_gets_each_model_that_it_names_once(machine, experiment, monkeypatch, capsys, rsync):
    if not rsync:
        machine.program("rsync", "exit 127")
        monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=Silent))
    there = machine.folder / "data/digits/models" / RUN
    local = read(experiment.parents[2] / "data/digits/models" / RUN)
    assert lab_run("with", "lr=0.5", f"pretrained={RUN[:13]}") == 0
    assert started(machine)[-1] == f"pretrained={RUN}"
    wanted = {name: text for name, text in local.items() if ".new" not in name and name[0] != "."}
    assert read(there) == wanted and len(wanted) == 2
    assert "2 files, 0.0 MB copied" in capsys.readouterr().err
    assert not list((machine.folder / "data").glob(".*"))
    assert lab_run("with", f"resume={RUN}") == 0
    assert "copied" not in capsys.readouterr().err
    (there / "best.safetensors").write_bytes(b"of the machine")
    assert lab_run("with", f"resume={RUN}") == 0
    assert "a different model" in capsys.readouterr().err
    assert (there / "best.safetensors").read_bytes() == b"of the machine"
    started(machine)


@pytest.mark.slow
def test_last_is_the_newest_run_of_this_computer(machine, experiment, monkeypatch, capsys):
    monkeypatch.setattr(models.records, "find", {"last": Path(RUN), "last~1": Path("gone")}.get)
    assert lab_run("--", "python", "-m", "my_experiment.experiment", "with", "resume=last") == 0
    assert started(machine)[-1] == f"resume={RUN}"
    assert (machine.folder / "data/digits/models" / RUN).is_dir()
    assert lab_run("with", "resume=last~1") == 0
    assert started(machine)[-1] == "resume=gone"
    said = capsys.readouterr().err
    assert "neither this computer nor gpu has a model of run gone" in said
    make_model(machine.folder / "data", "there-alone")
    assert lab_run("with", "resume=there") == 0
    assert "neither" not in capsys.readouterr().err, "the machine knows what is meant"
    assert started(machine)[-1] == "resume=there"


@pytest.mark.slow
def test_what_the_experiment_itself_or_a_named_configuration_names_comes_too(machine, experiment):
    text = experiment.read_text().replace(
        'base: tracking.Model = ""', 'base: tracking.Model = "2025"'
    )
    experiment.write_text(text)
    data = experiment.parents[2] / "data"
    for run in ("20250101-1", "20250303-1"):
        make_model(data, run)
    with pytest.raises(UsageError, match="20250101-1, 20250303-1"):
        models.bring_named(machine.connection, launch.experiment_command([], "0"))
    experiment.write_text(text.replace('"2025"', '"20250101"'))
    assert lab_run("with", "tuned") == 0
    assert sorted(os.listdir(machine.folder / "data/digits/models")) == ["20250101-1", "20250303-1"]
    assert started(machine)[-1] == "tuned"


def test_a_run_that_has_saved_nothing_yet_has_no_model(machine, experiment, capsys):
    folder = experiment.parents[2] / "data/digits/models/20260101-unsaved"
    (folder / "step-1.new").mkdir(parents=True)
    (folder / "step-1.new/half").touch()
    words = launch.experiment_command(["with", "resume=20260101-un"], "0")
    assert models.bring_named(machine.connection, words)[-1] == "resume=20260101-unsaved"
    assert "has a model of run 20260101-unsaved yet" in capsys.readouterr().err


def test_nothing_is_brought_for_settings_that_are_refused_or_name_no_run(machine, experiment):
    assert lab_run("with", "lrr=0.1", f"resume={RUN}") == 2
    assert machine.count_calls() == 0
    assert lab_run("--", "echo", f"resume={RUN}") == 0
    started(machine)
    assert not (machine.folder / "data").exists() or not os.listdir(machine.folder / "data")


@pytest.mark.slow
def test_a_model_that_arrives_damaged_is_named_and_not_put_in_place(
    machine, experiment, monkeypatch, capsys
):
    push, sent = copying.push, []

    def damage(connection, base, names, stage, **options):
        sent.append(sorted(names))
        push(connection, base, names, stage, **options)
        if len(sent) == 1:
            (Path(stage) / "files/best.safetensors").write_text("damaged")

    monkeypatch.setattr(copying, "push", damage)
    with pytest.raises(LabError, match="damaged.*best.safetensors"):
        models.bring_named(
            machine.connection, launch.experiment_command(["with", f"resume={RUN}"], "0")
        )
    assert not read(machine.folder / "data")
    assert lab_run("with", f"resume={RUN}") == 0
    started(machine)


def test_an_interrupted_copy_goes_on_with_what_has_arrived(machine, experiment, monkeypatch):
    push, sent = copying.push, []

    def interrupt(connection, base, names, stage, **options):
        sent.append(sorted(names))
        if len(sent) == 1:
            push(connection, base, ["best.safetensors"], stage, **options)
            raise KeyboardInterrupt
        push(connection, base, names, stage, **options)

    monkeypatch.setattr(copying, "push", interrupt)
    words = launch.experiment_command(["with", f"resume={RUN}"], "0")
    with pytest.raises(KeyboardInterrupt):
        models.bring_named(machine.connection, words)
    assert not (machine.folder / "data/digits").exists()
    models.bring_named(machine.connection, words)
    assert sent[1] == ["step-00000010/state \\ ü.json"]
    assert len(read(machine.folder / "data/digits/models" / RUN)) == 2


def test_the_outputs_that_a_recorded_command_goes_on_from_come_with_their_whole_id_and_dataset(
    machine, experiment
):
    data = {"dataset": "digits", "manifest_sha256": "0" * 64}
    record = experiment.parents[2] / "runs" / RUN / "run.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"status": "COMPLETED", "data": data}))
    assert lab_run("--name", "again", "--from", RUN[:13], "--", "python", "train.py") == 0
    started(machine)
    (job,) = (machine.folder / "jobs").glob("2*")
    words = ["record", "--from", RUN, "--data", f"digits={'0' * 64}", "--name", "again", "--"]
    assert f"record={shlex.quote(shlex.join(words))}" in (job / "job.sh").read_text()
    assert len(read(machine.folder / "data/digits/models" / RUN)) == 2
    options = launch.RecordOptions(earlier="2031")
    assert models.bring_outputs(machine.connection, options) == options, "the machine may know it"
