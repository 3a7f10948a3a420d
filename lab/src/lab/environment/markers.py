"""Whether a marker of the lock holds here, such as python_full_version < '3.11'.

The usual markers are judged here, others by packaging, as importing that takes longer than the rest
of a record.
"""

import os
import re
import sys
from collections.abc import Mapping

TERM = re.compile(r"(\w+)\s*(==|!=|<=|>=|<|>)\s*'([^']*)'")
VERSION = re.compile(r"(\d+(?:\.\d+)*)(\.\*)?")
MAX_LENGTH = 100  # characters of a version
VERSIONS = ("python_version", "python_full_version")


def describe_python() -> dict[str, str]:
    """Return the variables of markers that are judged here."""
    return {
        "implementation_name": sys.implementation.name,
        "os_name": os.name,
        "platform_machine": os.uname().machine,
        "platform_system": os.uname().sysname,
        "python_full_version": sys.version.split()[0],  # as the module platform has it
        "python_version": ".".join(map(str, sys.version_info[:2])),
        "sys_platform": sys.platform,
    }


def holds(marker: str, variables: Mapping[str, str] | None = None) -> bool:
    """Return whether a marker holds for this Python, or for one with these variables."""
    variables = variables or describe_python()
    # "and" binds closer than "or", as without these parentheses
    plain = re.sub(r"\(([^()]*)\)", lambda one: one[0] if " or " in one[1] else one[1], marker)
    found = [
        [_compare(term.strip(), variables) for term in part.split(" and ")]
        for part in plain.split(" or ")
    ]
    if any(term is None for part in found for term in part):
        from packaging.markers import Marker

        try:
            return Marker(marker).evaluate(dict(variables))
        except Exception:  # noqa: BLE001 # of several types: the lock is damaged, as pip will report
            return True
    return any(all(part) for part in found)


def _compare(term: str, variables: Mapping[str, str]) -> bool | None:
    """Judge one comparison; None if that is not done here."""
    found = TERM.fullmatch(term)
    if not found or found[1] not in variables:
        return None
    name, sign, wanted = found.groups()
    if name not in VERSIONS:
        equal = variables[name] == wanted
        return {"==": equal, "!=": not equal}.get(sign)
    version, ours = VERSION.fullmatch(wanted), VERSION.fullmatch(variables[name])
    if not version or not ours or ours[2] or (version[2] and sign not in ("==", "!=")):
        return None  # a release candidate of Python, say
    if len(wanted) > MAX_LENGTH:
        return None
    right, left = (list(map(int, one[1].split("."))) for one in (version, ours))
    length = len(right) if version[2] else max(len(right), len(left))
    left, right = ([*one, *[0] * length][:length] for one in (left, right))
    answers = {"==": left == right, "!=": left != right, "<": left < right, ">": left > right}
    return (answers | {"<=": left <= right, ">=": left >= right})[sign]
