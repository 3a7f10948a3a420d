"""JSON in the dialect of jsonpickle, which Sacred writes: the part of it that is data."""

from lab.ground import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TAG = "py/"  # {"py/tuple": [1, 2]}; most other tags make jsonpickle import or call something
KEY = "json://"  # in front of a key that is not text: its JSON
KINDS = {"py/tuple": tuple, "py/set": set}


def restore(content: "Any") -> "Any":
    """Restore tuples, sets and keys that are not text; ValueError for any other object."""
    if isinstance(content, list):
        return [restore(one) for one in content]
    if not isinstance(content, dict):
        return content
    if len(content) == 1:
        ((tag, values),) = content.items()
        if tag in KINDS and isinstance(values, list):
            return KINDS[tag](map(restore, values))
    return {_restore_key(key): restore(value) for key, value in content.items()}


def _restore_key(key: str) -> "Any":
    if key.startswith(TAG):
        raise ValueError(f"{key} is an object, not data")
    if not key.startswith(KEY):
        return key
    restored = restore(files.parse_json(key.removeprefix(KEY)))
    try:
        hash(restored)
    except TypeError:
        raise ValueError(f"{key} cannot be a key") from None
    return restored
