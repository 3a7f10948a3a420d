"""Whether a command makes a record by itself: `lab` and the experiments of the project do."""

import ast
from pathlib import Path

from lab.ground import files, project
from lab.recording.command.settings import find_program


def records_itself(words: list[str], root: Path, folder: Path) -> bool:
    """Whether a command, as it is run in a folder of the project `root`, needs no `lab record`."""
    if Path(words[0]).name == "lab":
        return True
    place = find_program(words)
    program = words[place]
    if not place or words[place - 1] != "-m":
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


def makes_experiment(file: Path) -> bool:
    """Whether a file's text makes an Experiment of lab.tracking."""
    try:
        nodes = list(ast.walk(ast.parse(files.read(file))))
    except (OSError, ValueError, SyntaxError, RecursionError):
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
