"""Settings inside settings: dataclasses, lists and dictionaries of them, named as in trainer.lr."""

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

LIMITS = ("gt", "ge", "lt", "le")  # attributes of annotated_types' Gt, Ge, Lt, Le and Interval


def describe_unknown(config: type, values: Mapping[str, Any]) -> str:
    """Say which setting does not exist, at any depth, with a similar name; "" if all do."""
    for path, known in find_unknown(config, values, ""):
        name = path.rpartition(".")[2]
        near = difflib.get_close_matches(name, known, n=1)
        inside = path[: len(path) - len(name)]
        advice = f"did you mean {inside}{near[0]}?" if near else f"there are {', '.join(known)}."
        return f"there is no setting {path}: {advice}"
    return ""


def find_unknown(kind: Any, value: Any, path: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the path of each name that a type does not have, and the names that it has there."""
    for where, plain, one, _ in list_values(kind, value, path):
        if is_dataclass(plain) and isinstance(one, Mapping):
            known = list(get_type_hints(plain))
            yield from ((f"{where}{name}", known) for name in one if name not in known)


def find_infinite(config: type, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the path of each inf and nan where the type has a limit, such as Gt(0), but not inf.

    A limit implies a finite number: lr=1e400 is above 0, but not a learning rate.
    """
    for path, _, value, limits in list_values(config, values):
        is_number = not isinstance(value, float) or math.isfinite(value)
        if limits and not is_number and not {math.inf, -math.inf} & {*limits}:
            yield path.removesuffix("."), value


def list_values(
    kind: Any, value: Any, path: str = "", limits: tuple[float, ...] = ()
) -> Iterator[tuple[str, Any, Any, tuple[float, ...]]]:
    """Yield path, type, value and limits of a value, and of all inside whose type is known."""
    if get_origin(kind) is Annotated:
        kind, *about = get_args(kind)
        about += [one for whole in about for one in getattr(whole, "metadata", ())]  # Field(gt=0)
        found = [getattr(one, name, None) for one in about for name in LIMITS]
        limits = (*limits, *(one for one in found if isinstance(one, (int, float))))
    yield path, kind, value, limits
    arguments = get_args(kind)
    if is_dataclass(kind) and isinstance(value, Mapping):
        types = get_type_hints(kind, include_extras=True)
        for name in (one for one in value if one in types):
            yield from list_values(types[name], value[name], f"{path}{name}.")
    elif get_origin(kind) in (list, tuple) and isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            inner = arguments[min(index, len(arguments) - 1)]
            inner = arguments[0] if inner is Ellipsis else inner
            yield from list_values(inner, one, f"{path}{index}.")
    elif get_origin(kind) is dict and isinstance(value, Mapping):
        for name, one in value.items():
            yield from list_values(arguments[1], one, f"{path}{name}.")
    elif arguments:  # a union: the value may be its dataclass, or its annotated number
        inner = [one for one in arguments if is_dataclass(one)]
        inner = inner or [one for one in arguments if get_origin(one) is Annotated]
        if len(inner) == 1:
            yield from list_values(inner[0], value, path)


def find_changed(
    config: Mapping[str, Any], defaults: Mapping[str, Any], path: str = ""
) -> dict[str, Any]:
    """Return the settings that differ from their defaults, those inside others by their path."""
    changed: dict[str, Any] = {}
    for name, value in config.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            changed |= find_changed(value, default, f"{path}{name}.")
        elif value != default:
            changed[f"{path}{name}"] = value
    return changed


def describe_missing_default(config: type) -> str:
    """Say which setting has no default, and what to write; "" if all have one."""
    for field in fields(config):
        if field.default is MISSING and field.default_factory is MISSING:
            kind = getattr(field.type, "__name__", field.type)
            return (
                f"{config.__name__}.{field.name} has no default, and every setting needs one:"
                f" write {field.name}: {kind} = ..., or {field.name}: {kind} | None = None."
            )
    return ""
