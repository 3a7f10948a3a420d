"""The experiment: its configuration, and one recorded run from the data to the test score.

python -m {{ cookiecutter.__package }}.experiment
python -m {{ cookiecutter.__package }}.experiment with lr=0.01 seed=1
python -m {{ cookiecutter.__package }}.experiment with smoke
python -m {{ cookiecutter.__package }}.experiment print_config

The last two: a named configuration, for a quick trial, and the settings without a run.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from lab import project, tracking


@dataclass(frozen=True)
class Config:
    """Every setting of a run. A wrong name, type or range is refused before there is a record."""

    dataset: str = project.default_dataset()  # the folder in data/
    image_size: Annotated[int, Ge(4)] = 8  # images are scaled to this many pixels, square
    channels: Literal[1, 3] = 1  # 1: gray, 3: color
    shift: Annotated[int, Ge(0)] = 0  # augmentation: training images move by up to this many pixels

    width: Annotated[int, Ge(1)] = 32  # channels of the network's first layer
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1

    epochs: Annotated[int, Ge(1)] = 15
    batch_size: Annotated[int, Ge(1)] = 64  # per process
    lr: Annotated[float, Gt(0)] = 0.003  # AdamW's learning rate
    weight_decay: Annotated[float, Ge(0)] = 0.01
    clip_norm: Annotated[float, Gt(0)] = 1.0  # gradients are scaled down to this norm
    patience: Annotated[int, Ge(0)] = 5  # epochs without a better val/loss until it stops; 0: never
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    workers: Annotated[int, Ge(0)] = 0  # processes that load data; 0: the training process itself

    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0
    resume: tracking.Model = ""  # the id of a run to continue as a new run, with its settings
    pretrained: tracking.Model = ""  # the id of a run from whose best weights this one starts
    checkpoint_minutes: Annotated[float, Ge(0)] = 10  # between checkpoints within an epoch


ex = tracking.Experiment(
    Config,
    # What run() imports. Loaded after the settings have been checked, as torch takes seconds, and
    # before the code is recorded, so that the record holds what was loaded.
    modules=[".data", ".training"],
    inherit=".past_runs:inherit",  # with resume=ID: the settings of that run
    smoke={"epochs": 1, "width": 8},  # a few seconds: does everything work?
    full={"epochs": 60, "width": 64, "patience": 10},
)


@ex.main
def run(_config: dict[str, Any], _run: tracking.Run) -> dict[str, float]:
    """Train, test the best weights, and return the test metrics as the run's result."""
    from . import data, training

    config = tracking.make_config(Config, _config)
    size, channels = config.image_size, config.channels
    data.warn_of_lost_detail(config.dataset, size, channels)
    splits = {one: data.ImageSplit(config.dataset, one, size, channels) for one in project.SPLITS}
    models = project.dataset_folder(config.dataset) / "models"
    with tracking.metrics(_run) as log:
        result = training.train(config, splits, models, tracking.run_id(_run), log)
    if tracking.is_main_process():
        record = tracking.record_folder(_run)
        print(f"record    {project.relative(record) if record else 'none (--unobserved)'}")
        print(f"weights   {project.relative(result.weights)}")
        scores = ", ".join(f"{name} {value:.4f}" for name, value in result.test.items())
        print(f"test      {scores}")
    return result.test


if __name__ == "__main__":
    ex.run_commandline()
