"""Settings inside settings are refused, and named, at any depth."""

from dataclasses import dataclass, field
from math import inf, nan
from typing import Annotated, Any

import pytest

from lab.recording.settings.nested import (
    describe_missing_default,
    describe_unknown,
    find_changed,
    find_infinite,
)


@dataclass(frozen=True)
class Layer:
    width: int = 8


@dataclass(frozen=True)
class Trainer:
    lr: float = 0.1
    layers: tuple[Layer, ...] = (Layer(),)
    named: dict[str, Layer] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    seed: int = 0
    trainer: Trainer = Trainer()
    other: Trainer | None = None
    betas: tuple[float, float] = (0.9, 0.99)


@pytest.mark.parametrize(
    ("values", "path", "near"),
    [
        ({"sed": 1}, "sed", "seed"),
        ({"trainer": {"lrr": 1}}, "trainer.lrr", "trainer.lr"),
        ({"trainer": {"layers": [{}, {"widht": 1}]}}, "trainer.layers.1.widht", "layers.1.width"),
        ({"trainer": {"named": {"a": {"w": 1}}}}, "trainer.named.a.w", "there are width"),
        ({"other": {"layer": []}}, "other.layer", "other.layers"),
    ],
)
def test_a_misspelt_setting_is_named_at_every_depth(values, path, near):
    text = describe_unknown(Config, values)
    assert f"no setting {path}:" in text and near in text


def test_what_exists_is_not_refused():
    values: dict[str, Any] = {"other": None, "betas": [0.5, 1], "trainer": {"layers": [{}, {}]}}
    assert describe_unknown(Config, values) == ""
    assert describe_unknown(Config, {"trainer": 5}) == "", "the type is another check's"


class Limit:
    """Like Gt and Interval of annotated_types, and Field of pydantic."""

    def __init__(self, **given):
        vars(self).update(given)


Positive = Annotated[float, Limit(gt=0)]


@dataclass(frozen=True)
class Limited:
    lr: Positive = 0.1
    free: float = 0.1
    most: Annotated[float, Limit(gt=0, le=inf)] = 1.0
    field: Annotated[float, Limit(metadata=[Limit(le=1)])] = 1.0
    betas: tuple[Positive, ...] = ()
    none: Positive | None = None
    inside: "Limited | None" = None


@pytest.mark.parametrize(
    ("values", "paths"),
    [
        ({"lr": inf}, ["lr"]),
        ({"lr": nan}, ["lr"]),
        ({"lr": 1e300, "none": None, "betas": [1, 10**400]}, []),
        ({"free": inf, "most": inf}, []),
        ({"field": -inf}, ["field"]),
        ({"betas": [1.0, inf], "none": inf}, ["betas.1", "none"]),
        ({"inside": {"lr": inf, "inside": {"none": -inf}}}, ["inside.inside.none", "inside.lr"]),
    ],
)
def test_a_setting_with_a_limit_is_not_infinite_at_any_depth(values, paths):
    assert sorted(path for path, _ in find_infinite(Limited, values)) == paths


def test_what_differs_is_named_by_its_path():
    defaults = {"seed": 0, "trainer": {"lr": 0.1, "layers": [{"width": 8}]}}
    config = {"seed": 0, "trainer": {"lr": 0.3, "layers": [{"width": 8}]}, "new": 1}
    assert find_changed(config, defaults) == {"trainer.lr": 0.3, "new": 1}


def test_a_setting_without_a_default_is_advised():
    @dataclass(frozen=True)
    class Bare:
        lr: float

    assert "Bare.lr" in describe_missing_default(Bare)
    assert describe_missing_default(Config) == ""
