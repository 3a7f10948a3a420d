"""Checks the settings of a run on this computer, before anything is sent.

What experiment.py declares in plain types is checked in milliseconds. For the rest, the experiment
itself is asked, in a process of its own, as its imports take a second or more.
"""

import ast
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lab.ground import files, project
from lab.ground.errors import LabError, UsageError

ASK_TIMEOUT = 20  # seconds for the experiment's answer
REFUSED = 76  # exit code of ASK; the last line it prints is the reason
ASK = f"""
import importlib, sys
package, *words = sys.argv[1:]
for one in list(vars(importlib.import_module(package + ".experiment")).values()):
    find_problem = getattr(type(one), "find_problem", None)
    problem = find_problem and find_problem(one, words)
    if problem:
        print("", " ".join(problem.split()), sep="\\n", flush=True)
        sys.exit({REFUSED})
"""
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str, int),  # tracking.check turns a number back into text
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "Model": (str, int),  # of lab.tracking
}
LIMITS = {
    "Ge": lambda value, limit: value >= limit,
    "Gt": lambda value, limit: value > limit,
    "Le": lambda value, limit: value <= limit,
    "Lt": lambda value, limit: value < limit,
}


class WrongSettings(UsageError):
    """The run would refuse its settings or its command line; nothing was sent."""


@contextmanager
def checked(command: list[str]) -> Iterator[None]:
    """Check the settings of a run while the body does something else; then raise WrongSettings.

    If the experiment cannot be imported on this computer, the check is left to the machine.
    """
    words = find_words(command)
    if words is None or are_surely_right(words, _experiment_file()):
        yield
        return
    with tempfile.TemporaryFile() as answer:
        process = _ask(words, answer.fileno())
        try:
            yield
            code = process.wait(ASK_TIMEOUT) if process else None
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process:
                process.kill()
                process.wait()
        answer.seek(0)
        if code == REFUSED:
            said = answer.read().decode("utf-8", "replace").splitlines()
            raise WrongSettings(said[-1] if said else "the experiment refuses its settings.")


def find_words(command: list[str]) -> list[str] | None:
    """Return the experiment's arguments in a command; None if it runs another program."""
    try:
        module = f"{project.package()}.experiment"
    except LabError:  # a project of scripts
        return None
    for index, word in enumerate(command[:-1]):
        if word == "-m" and command[index + 1] == module:
            return command[index + 2 :]
    return None


def _experiment_file() -> Path:
    return project.source_folder(project.root()) / project.package() / "experiment.py"


def _ask(words: list[str], answer: int) -> "subprocess.Popen[bytes] | None":
    """Start the experiment's own check; its environment is the project's, if there is one."""
    root = project.root()
    source = str(project.source_folder(root))
    python = root / ".venv/bin/python"
    environment = {name: text for name, text in os.environ.items() if name != "SACRED_MONGO_URL"}
    environment |= {
        "LAB_PROJECT": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",  # nothing new in the working tree
        "PYTHONPATH": os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")])),
    }
    try:
        return subprocess.Popen(
            [
                str(python if python.exists() else sys.executable),
                "-c",
                ASK,
                project.package(),
                *words,
            ],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=answer,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, ValueError):
        return None


def are_surely_right(words: list[str], file: Path) -> bool:
    """Return whether the experiment's source alone shows that it accepts these arguments.

    False: it does not, or only the experiment itself can tell.
    """
    if words and words[0] != "with":
        return False
    fields, named = _read_settings(file)
    for word in words[1:]:
        name, equals, text = word.partition("=")
        if equals:
            if name not in fields or not _fits(_read_value(text.strip()), fields[name].annotation):
                return False
        elif word not in named:
            return False
    return True


class Named(NamedTuple):
    """A run whose model a setting names."""

    run: str  # its id, as it was typed: the beginning of one, or last
    setting: str
    word: int  # the index in the command of the word that names it; -1: the experiment does


def find_models(command: list[str]) -> list[Named]:
    """Return the runs that a command's settings of type tracking.Model name."""
    words = find_words(command)
    if words is None:
        return []
    fields, named = _read_settings(_experiment_file())
    of_models = {name for name, one in fields.items() if _last_name(one.annotation) == "Model"}
    found: dict[str, tuple[object, int]] = {}
    for name in of_models:
        found[name] = _read_constant(fields[name].value), -1
    for index, word in enumerate(words, len(command) - len(words)):
        name, equals, text = word.partition("=")
        if equals and name in of_models:
            found[name] = _read_value(text.strip()), index
        one = named.get(word, ast.Dict([], []))
        for key, value in zip(one.keys, one.values, strict=True):
            if (name := str(_read_constant(key))) in of_models and found[name][1] < 0:
                found[name] = _read_constant(value), -1
    return [Named(str(run), name, index) for name, (run, index) in sorted(found.items()) if run]


def _read_constant(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else ""


def _read_settings(file: Path) -> tuple[dict[str, ast.AnnAssign], dict[str, ast.Dict]]:
    """Return each setting of an experiment, and its named configurations; none if in doubt."""
    try:
        module = ast.parse(files.read(file))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return {}, {}
    classes = {one.name: one for one in module.body if isinstance(one, ast.ClassDef)}
    for node in ast.walk(module):
        if not isinstance(node, ast.Call) or _last_name(node.func) != "Experiment" or not node.args:
            continue
        settings = classes.get(_last_name(node.args[0]))
        if settings:
            fields = {
                part.target.id: part
                for part in settings.body
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
            }
            named = {
                key.arg: key.value
                for key in node.keywords
                if key.arg and isinstance(key.value, ast.Dict)
            }
            return fields, named
    return {}, {}


def _last_name(node: ast.expr) -> str:
    """Return c of a.b.c."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _read_value(text: str) -> object:
    """Return the value that Sacred makes of a text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text


def _fits(value: object, annotation: ast.expr) -> bool:
    """Return whether a value certainly fits a plain annotation."""
    if isinstance(annotation, ast.Name) or _last_name(annotation) == "Model":
        return type(value) in TYPES.get(_last_name(annotation), ())
    if not isinstance(annotation, ast.Subscript):
        return False
    kind, inside = _last_name(annotation.value), annotation.slice
    parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    if kind == "Literal":
        choices = [part.value for part in parts if isinstance(part, ast.Constant)]
        return any(type(value) is type(one) and value == one for one in choices)
    if kind == "Annotated" and isinstance(value, (int, float)) and abs(value) != math.inf:
        return _fits(value, parts[0]) and all(_holds(value, part) for part in parts[1:])
    return False


def _holds(value: float, limit: ast.expr) -> bool:
    """Return whether a number keeps a limit such as Ge(0) or Le(2**32 - 1)."""
    if not isinstance(limit, ast.Call) or len(limit.args) != 1 or limit.keywords:
        return False
    compare, bound = LIMITS.get(_last_name(limit.func)), limit.args[0]
    plain = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
    if not compare or not all(isinstance(part, plain) for part in ast.walk(bound)):
        return False
    try:
        number = eval(compile(ast.Expression(bound), "limit", "eval"), {"__builtins__": {}})  # noqa: S307 - numbers only
        return bool(compare(value, number))
    except (ArithmeticError, TypeError, ValueError):
        return False
