"""The settings that the words of a command give are read as argparse and Hydra would."""

import pytest

from lab.recording.command.settings import name_program, read_settings


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
    ("command", "name"),
    [
        ("python train.py --lr 1", "train.py"),
        ("python -m pkg.train x=1", "pkg.train"),
        ("torchrun --nproc-per-node 2 -m pkg.train", "pkg.train"),
        ("/usr/bin/env true", "env"),
    ],
)
def test_a_command_is_named_after_what_it_runs(command, name):
    assert name_program(command.split()) == name
