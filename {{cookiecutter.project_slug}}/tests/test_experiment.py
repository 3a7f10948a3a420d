"""A run is repeatable, can be resumed, and leaves a record."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate

from lab import project, records, tracking
from lab.project import LabError

from {{ cookiecutter.__package }} import checkpoints, data, training
from {{ cookiecutter.__package }}.experiment import Config, ex
from {{ cookiecutter.__package }}.model import SmallCNN

QUICK = {"dataset": "digits", "width": 4}


def train(**settings):
    """The finished Sacred run of a small experiment."""
    return ex.run(config_updates=QUICK | settings)


def values(run, metric):
    """One metric of a recorded run, as (step, value) pairs."""
    table = records.metrics(run._id)
    return [tuple(row) for row in table[table["metric"] == metric][["step", "value"]].values]


def models(run):
    """The folder with a run's weights and checkpoint."""
    return project.dataset_folder("digits") / "models" / run._id


@pytest.fixture(autouse=True)
def record_here(folders, monkeypatch):
    """Records of the test's runs go into the test's folder."""
    monkeypatch.setattr(ex, "observers", [tracking.RunFolder(project.runs_folder())])


def test_a_run_leaves_record_weights_and_tensorboard_events(digits):
    run = train(epochs=1)
    folder = project.runs_folder() / run._id
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "COMPLETED"
    assert 0 <= record["result"]["accuracy"] <= 1
    assert json.loads((folder / "config.json").read_text())["epochs"] == 1
    assert list((folder / "tensorboard").glob("events.out.*"))
    assert (models(run) / "best.safetensors").exists()


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(digits):
    runs = [train(epochs=2, seed=seed) for seed in (0, 0, 1)]
    losses = [values(run, "val/loss") for run in runs]
    assert losses[0] == losses[1] != losses[2]
    assert runs[0].result == runs[1].result


def test_three_epochs_and_three_resumed_equal_six_in_one_go(digits):
    six = train(epochs=6, patience=0)
    three = train(epochs=3, patience=0)
    resumed = train(epochs=6, patience=0, resume="last")
    assert resumed.result == six.result
    for metric in ("train/loss", "val/loss", "val/accuracy"):
        assert values(three, metric) + values(resumed, metric) == values(six, metric) != []
    for run in (six, resumed):
        (checkpoint,) = models(run).glob("step-*")
        assert json.loads((checkpoint / "state.json").read_text())["progress"]["epoch"] == 6


class Crash(BaseException):
    """Ends a run at once, as when its process is killed: no except clause handles it."""


def test_a_crash_at_the_moment_of_the_rename_leaves_the_checkpoint_before(digits, monkeypatch):
    rename, renamed = Path.rename, []

    def rename_or_crash(path, target):
        if path.name.startswith("step-"):
            renamed.append(target.name)
            if len(renamed) == 2:
                raise Crash
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Path, "rename", rename_or_crash)
        train(epochs=3, patience=0)
    crashed = ex.current_run
    assert [path.name for path in models(crashed).glob("step-*")] == renamed[:1]
    (models(crashed) / f"{renamed[1]}.new").mkdir()  # a killed process could not remove it
    resumed = train(epochs=3, patience=0, resume=crashed._id)
    assert resumed.result == train(epochs=3, patience=0).result


def test_a_run_that_was_cut_anywhere_goes_on_exactly(digits, monkeypatch):
    """After any step, with augmentation and dropout, with or without workers."""

    def train_alone(run_id, cut=None, **settings):
        def step(*arguments):
            steps.append(run_id)
            if len(steps) == cut:
                raise Crash
            return train_step(*arguments)

        steps = []
        monkeypatch.setattr(training, "train_step", step)
        config = Config(**QUICK, epochs=2, shift=1, checkpoint_minutes=0, batch_size=32, **settings)
        models = project.dataset_folder("digits") / "models"
        return training.train(config, splits, models, run_id, lambda *_: None).test, len(steps)

    splits = {name: data.ImageSplit("digits", name, 8, 1) for name in project.SPLITS}
    train_step = training.train_step
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    result, steps = train_alone("whole")
    for cut in range(1, steps):  # each goes on from the one before, for one step
        with pytest.raises(Crash):
            train_alone(f"cut-{cut}", cut=2, resume=f"cut-{cut - 1}" if cut > 1 else "")
    for cut, workers in ((2, 2), (4, 0), (7, 2), (steps - 1, 0)):
        resumed, rest = train_alone(f"rest-{cut}", resume=f"cut-{cut}", workers=workers)
        assert (resumed, rest) == (result, steps - cut), f"cut after step {cut} of {steps}"


def test_a_run_cannot_be_resumed_as_another_one(digits, folders, capsys):
    first = train(epochs=1)
    for settings, why in (
        ({"epochs": 2, "lr": 0.1}, "lr was 0.003, is 0.1"),
        ({}, "has no epochs left: epochs=2"),
        ({"epochs": 1}, "has no epochs left: epochs=2"),
    ):
        with pytest.raises(LabError, match=why):
            ex.run(config_updates={"resume": first._id, **settings})
    with pytest.raises(LabError, match="nothing is not a run with a checkpoint"):
        train(resume="nothing")
    top = project.dataset_folder("digits")
    for name in (*project.SPLITS, "manifest.json"):
        (top / name).rename(folders / name)
    data.write_dataset("digits", "again", data.load_digits()[:300], seed=1, val=0.2, test=0.2)
    with pytest.raises(LabError, match="manifest of dataset digits has changed"):
        train(epochs=2, resume=first._id)
    assert len(list(project.runs_folder().glob("2*"))) == 1, "no record of what never ran"
    train(epochs=1, pretrained=first._id)
    assert f"{first._id} was trained on another split of digits" in capsys.readouterr().err


def test_what_does_not_fit_another_model_is_named(digits, monkeypatch):
    first = train(epochs=1)
    with pytest.raises(LabError, match=r"features.0.0.weight is \(4, 1, 3, 3\) there"):
        train(epochs=1, width=5, pretrained=first._id)

    class Other(SmallCNN):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.more = torch.nn.Linear(2, 2)

    monkeypatch.setattr(training, "SmallCNN", Other)
    with pytest.raises(LabError, match="more.weight is missing there"):
        train(epochs=2, resume=first._id)


def test_training_starts_from_the_weights_of_a_run(digits):
    first = train(epochs=3)
    second = train(epochs=1, pretrained=first._id[:-2])
    assert second.config["pretrained"] == first._id
    assert second.result["loss"] < train(epochs=1).result["loss"]


def test_weights_have_the_names_of_the_model_whatever_wraps_it():
    plain = SmallCNN(2).state_dict()
    compiled = torch.compile(SmallCNN(2), backend="eager").state_dict()  # the quickest to import
    wrapped = {f"module.{name}": tensor for name, tensor in compiled.items()}
    assert list(checkpoints.to_plain_names(wrapped)) == list(plain)


def test_the_best_weights_are_tested_and_a_resumed_run_takes_them_over(digits):
    settings = {"epochs": 50, "lr": 0.5, "patience": 2}
    run = train(**settings)
    assert len(values(run, "val/loss")) < 50, "it does not improve"
    with pytest.raises(LabError, match="patience=4"):
        train(**settings, resume=run._id)
    resumed = train(**settings | {"patience": 3}, resume=run._id)
    best, taken_over = (models(one) / "best.safetensors" for one in (run, resumed))
    assert taken_over.read_bytes() == best.read_bytes()
    split = data.ImageSplit(digits, "test", size=8, channels=1)
    model = SmallCNN(len(split.classes), width=QUICK["width"]).eval()
    model.load_state_dict(load_file(best))
    images, labels = default_collate(list(split))
    loss = cross_entropy(model(images), labels).item()
    assert run.result["loss"] == resumed.result["loss"] == pytest.approx(loss, rel=0.01)


def test_a_training_that_diverges_ends_and_says_so(digits):
    with pytest.raises(LabError, match="the training diverged: val/loss is nan after epoch 1"):
        train(epochs=2, lr=1e30)


SETTINGS = {"width": 5, "dropout": 0.5, "batch_size": 32, "lr": 0.01, "weight_decay": 0.5}
SETTINGS |= {"clip_norm": 1e-9, "mixed_precision": "bf16", "image_size": 16, "channels": 3}


def test_every_setting_has_an_effect(digits):
    result = train(epochs=1).result
    for name, value in SETTINGS.items():
        assert train(epochs=1, **{name: value}).result != result, name


@pytest.mark.parametrize("setting", [{"epoch": 3}, {"lr": "fast"}, {"epochs": 1.5}, {"lr": -1}])
def test_a_setting_that_does_not_fit_is_refused_before_there_is_a_record(setting):
    with pytest.raises(tracking.ConfigError, match=next(iter(setting))):
        train(**setting)
    assert not project.runs_folder().exists()
