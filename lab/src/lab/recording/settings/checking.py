"""The settings that were given, checked and converted to the types of a dataclass."""

import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from lab.ground import garbage, portable
from lab.recording.settings import nested
from lab.recording.settings.errors import ConfigError, UnknownSettingError

with garbage.pause_collection():
    from pydantic import AfterValidator, TypeAdapter, ValidationError, ValidationInfo

Config = TypeVar("Config")


def check_file(text: str, info: ValidationInfo) -> str:
    """Make a file's name portable, and add it to the list that check() was given."""
    name = portable.to_portable(text)
    if isinstance(info.context, list):
        info.context.append(name)
    return name


# project.find_file() gives the path; "" names none. The record has the file's hash.
File = Annotated[str, AfterValidator(check_file)]

# The id of a run, or its beginning; "" names none. lab.jobs.settings knows the type by its name.
Model = Annotated[str, "model"]


def find_models(config: type, values: Mapping[str, Any]) -> list[str]:
    """Find the settings of the type Model that name a run."""
    types = get_type_hints(config, include_extras=True)
    return [name for name, value in values.items() if types.get(name) == Model and value]


def make_config(config: type[Config], values: Mapping[str, Any]) -> Config:
    """Make the dataclass from the dictionary that Sacred passes to a run, or raise ConfigError."""
    return config(**check(config, without_own_seed(config, values)))


def find_own_seed(config: type, values: Mapping[str, Any]) -> set[str]:
    """Return {"seed"} if the values have one that is Sacred's own, not the dataclass's."""
    has_seed = any(field.name == "seed" for field in fields(config))
    return set() if has_seed else {"seed"} & values.keys()


def without_own_seed(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out Sacred's own seed."""
    own = find_own_seed(config, values)
    return {name: value for name, value in values.items() if name not in own}


def check(
    config: type, values: Mapping[str, Any], files: list[str] | None = None
) -> dict[str, Any]:
    """Convert the values to the types of the dataclass (1 to 1.0, say), or raise ConfigError.

    The names of all settings of the type File are added to `files`.
    """
    types = get_type_hints(config, include_extras=True)
    if unknown := nested.describe_unknown(config, values):
        raise UnknownSettingError(unknown)
    for path, number in nested.find_infinite(config, to_builtin(values)):
        raise ConfigError(f"{path}={number} is not valid: Input should be a finite number.")
    checked = {}
    for name, value in values.items():
        # Sacred takes resume=20261122 for a number
        is_text = getattr(types[name], "__origin__", types[name]) is str  # File and Model, too
        given = str(value) if is_text and type(value) is int else value
        try:  # as JSON, which has tuples, paths and enumerations in the form that Sacred knows
            text = json.dumps(to_builtin(given), default=str)
            checked[name] = TypeAdapter(types[name]).validate_json(text, strict=True, context=files)
        except ValidationError as error:
            first = error.errors()[0]
            reason = first["msg"].removeprefix("Value error, ")
            path = ".".join(map(str, (name, *first["loc"])))
            wrong = first["input"] if first["loc"] else given
            if given is None:
                reason += f"; to allow None, write {name}: {format_type(types[name])} | None = None"
            raise ConfigError(f"{path}={wrong!r} is not valid: {reason}.") from None
    return checked


def format_type(kind: Any) -> str:
    if get_origin(kind) is Annotated:  # File and Model, too
        kind = get_args(kind)[0]
    return str(getattr(kind, "__name__", kind))


def to_builtin(value: Any) -> Any:
    """Convert numbers and arrays of numpy to Python's, also inside dictionaries and lists."""
    if isinstance(value, dict):
        return {name: to_builtin(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_builtin(one) for one in value]
    numpy = sys.modules.get("numpy")
    return value.tolist() if numpy and isinstance(value, (numpy.generic, numpy.ndarray)) else value


def to_plain(config: Any) -> dict[str, Any]:
    """Convert a configuration to what JSON has, for Sacred: tuples to lists, paths to strings."""
    values: dict[str, Any] = TypeAdapter(type(config)).dump_python(config, mode="json")
    return values
