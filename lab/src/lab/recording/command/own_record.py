"""Whether a command records itself: `lab` and the experiments of the project do."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from lab.ground import files, project
from lab.ground.errors import LabError, UsageError
from lab.ground.terminal import print_message
from lab.recording.command.settings import find_program


def records_itself(words: list[str], root: Path, folder: Path) -> bool:
    """Whether a command, as it is run in a folder of the project `root`, needs no `lab record`."""
    if Path(words[0]).name == "lab":
        return True
    index = find_program(words)
    program = words[index]
    if not index or words[index - 1] != "-m":
        return program.endswith(".py") and makes_experiment(folder / program)
    parts = program.split(".")
    if parts[0] == "lab":
        return True
    found = (Path(top, *parts) for top in (project.source_folder(root), folder, root))
    return any(
        makes_experiment(file)
        for module in found
        for file in (module.with_name(f"{module.name}.py"), module / "__main__.py")
    )


def run(words: list[str], options: Mapping[str, str]) -> int:
    """Replace this process by a command that records itself, with options such as --name.

    UsageError for `lab` with options, as it takes none of them; LabError if it cannot be started.
    """
    index, given = find_program(words), [word for pair in options.items() for word in pair]
    if given and not index:
        raise UsageError(f"{given[0]} is for a command that does not record itself.")
    print_message(f"lab: {words[index]} records itself: it runs unchanged, with one record")
    sys.stdout.flush()
    os.environ["PATH"] = add_programs(os.environ.get("PATH", os.defpath))
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # as subprocess restores them
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(words[0], [*words[: index + 1], *given, *words[index + 1 :]])  # noqa: S606 - that is the use of it
    except OSError as error:
        raise LabError(f"{words[0]} cannot be started: {error.strerror}.") from None


def add_programs(path: str) -> str:
    """Return PATH with the programs of the project's environment before all others."""
    return f"{Path(sys.prefix, 'bin')}{os.pathsep}{path}"


def makes_experiment(file: Path) -> bool:
    """Whether a file's text makes an Experiment of lab.tracking."""
    try:
        text = files.read(file)
        if b"Experiment" not in text or b"tracking" not in text:
            return False
        import ast  # slow to import

        nodes = list(ast.walk(ast.parse(text)))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    imported = {
        f"{getattr(node, 'module', '')}.{one.name}"
        for node in nodes
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for one in node.names
    }
    called = {
        getattr(node.func, "attr", getattr(node.func, "id", ""))
        for node in nodes
        if isinstance(node, ast.Call)
    }
    known = {".lab.tracking", "lab.tracking", "lab.tracking.Experiment"}
    return "Experiment" in called and not imported.isdisjoint(known)
