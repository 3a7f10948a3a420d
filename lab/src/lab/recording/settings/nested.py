"""Settings inside settings: dataclasses, lists and dictionaries of them, named as in trainer.lr."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints


def describe_unknown(config: type, values: Mapping[str, Any]) -> str:
    """Say which setting does not exist, at whatever depth, with a near name; "" if all do."""
    for path, known in find_unknown(config, values, ""):
        name = path.rpartition(".")[2]
        near = difflib.get_close_matches(name, known, n=1)
        inside = path[: len(path) - len(name)]
        advice = f"did you mean {inside}{near[0]}?" if near else f"there are {', '.join(known)}."
        return f"there is no setting {path}: {advice}"
    return ""


def find_unknown(kind: Any, value: Any, path: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the path of each name that a type does not have, and the names that it has there."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    arguments = get_args(kind)
    if is_dataclass(kind) and isinstance(value, Mapping):
        types = get_type_hints(kind, include_extras=True)
        for name, one in value.items():
            if name not in types:
                yield f"{path}{name}", list(types)
            else:
                yield from find_unknown(types[name], one, f"{path}{name}.")
    elif get_origin(kind) in (list, tuple) and isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            inner = arguments[min(index, len(arguments) - 1)]
            inner = arguments[0] if inner is Ellipsis else inner
            yield from find_unknown(inner, one, f"{path}{index}.")
    elif get_origin(kind) is dict and isinstance(value, Mapping):
        for name, one in value.items():
            yield from find_unknown(arguments[1], one, f"{path}{name}.")
    elif arguments:  # of a union, the value may be the one that has names
        inner = [one for one in arguments if is_dataclass(one)]
        if len(inner) == 1:
            yield from find_unknown(inner[0], value, path)


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
