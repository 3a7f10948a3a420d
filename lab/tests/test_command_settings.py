"""The settings that the words of a command give are read as argparse and Hydra would."""

import pytest

from lab.recording.command.settings import (
    has_path,
    join,
    name_program,
    read_arguments,
    read_settings,
)


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("python train.py --lr 0.1 --epochs=3 data=x", {"lr": 0.1, "epochs": 3, "data": "x"}),
        ("python train.py --weight-decay 1e-4 --cosine", {"weight_decay": 1e-4, "cosine": True}),
        ("python train.py --layers 64 32 --min -1", {"layers": [64, 32], "min": -1}),
        ("python -m pkg.train +trainer.lr=3 ++model=null", {"trainer.lr": 3, "model": None}),
        ("torchrun --nproc-per-node=2 train.py --amp True", {"amp": True}),
        ("bash run.sh --seed 007", {"seed": 7}),
        ("./train --date 2026_11_29 --version 1.2.3", {"date": "2026_11_29", "version": "1.2.3"}),
        ("python train.py config.yaml", {}),
    ],
)
def test_settings_are_read_from_the_words_behind_the_program(command, settings):
    assert read_settings(command.split()) == settings


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("python train.py config/small.py --lr=0.1", ["config/small.py"]),
        ("python train.py config/small.py lr=0.1 data", ["config/small.py", "data"]),
        ("python train.py --layers 64 32 -- x", []),
        ("bash run.sh -1 x", ["-1", "x"]),
        ("python -m pkg.train", []),
    ],
)
def test_words_that_are_no_settings_are_known_as_such(command, arguments):
    assert read_arguments(command.split()) == arguments


def test_a_setting_that_was_typed_by_its_path_is_found_at_its_depth():
    values = {"model": {"depth": 3}, "lr": 1}
    assert has_path(values, "model.depth") and has_path(values, "lr")
    assert not has_path(values, "lr.x") and not has_path(values, "model.width")
    typed = {"model": "big", "model.depth": 3, "lr": 2, "more": 1}
    assert join(values, typed) == {"model": {"depth": 3}, "lr": 2, "more": 1}
    assert join(values, join(values, typed)) == join(values, typed)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python train.py --lr 1", "train.py"),
        ("python -m pkg.train x=1", "pkg.train"),
        ("torchrun --nproc-per-node 2 -m pkg.train", "pkg.train"),
        ("python -m torch.distributed.run --nproc-per-node 2 -m pkg.train", "pkg.train"),
        ("/usr/bin/env true", "env"),
    ],
)
def test_a_command_is_named_after_what_it_runs(command, name):
    assert name_program(command.split()) == name
