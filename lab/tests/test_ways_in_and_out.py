"""Text leaves by one function, files and answers are read by one: other ways are found here."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from lab.ground.terminal import OutputWriter

LAB = Path(__file__).parents[1] / "src/lab"
# What writes on its own, and why nothing that it writes needs to be escaped.
WRITES = {
    "ground/terminal.py": "the one place",
    "browser/notebook_server.py": "runs on a machine; its answer is parsed here",
    "transfer/hashes.py": "runs on a machine; its answer is parsed here",
    "environment/repository.py": "the standard library alone; git quotes names",
    "environment/notebook_filter.py": "a notebook, for git",
    "transfer/rsync_shell.py": "what rsync reads",
    "code/sending.py": "a bar without any text from outside",
    "recording/capture.py": "the run's own output",
    "recording/capture_helper.py": "the run's own output",
    "recording/metrics_file.py": "a file",
    "recording/command/scalar_hooks.py": "a file",
}
# What reads on its own, and why it cannot wait forever or fill the memory.
READS = {
    "ground/files.py": "the one place",
    "ground/liveness.py": "/proc",
    "workcopy/mount.py": "/proc",
    "browser/notebook_server.py": "runs on a machine, as the user there",
    "browser/notebook.py": "a file of lab's own",
    "ssh/framing.py": "a file of lab's own",
    "adoption/adopt.py": "a text of importlib.metadata",
    "recording/mongo.py": "the run's own output",
    "recording/package.py": "texts of importlib.metadata",
    "recording/installed_packages.py": "texts of installed packages",
    "recording/command/record.py": "files of its own run",
    "recording/command/running.py": "/proc",
    "environment/repository.py": "the standard library alone; the project's own pyproject.toml",
    "environment/notebook_filter.py": "the standard library alone; asks first what it is",
}

# What takes the answer of a script without a schema, and why it needs none.
UNPARSED = {
    "doctor/examination.py": "facts; what does not fit is unknown",
    "code/sending.py": "passed on to the caller",
}


# Attributes to look at; finding the owners of all would take long.
ATTRIBUTES = {"read_text", "read_bytes", "buffer", "write", "__stdout__", "__stderr__"}


@functools.cache
def list_nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


@functools.cache
def find_uses(path: Path) -> list[tuple[int, str]]:
    """Return line and name of each function or stream that writes or reads past ours."""
    found = []
    for node in list_nodes(path):
        if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
            owner = ast.unparse(node.value)
            if node.attr.startswith("read_") and owner != "files":
                found.append((node.lineno, node.attr))
            if owner in ("sys.stdout", "sys.stderr") and node.attr in ("buffer", "write"):
                found.append((node.lineno, "write"))
            if owner == "sys" and node.attr in ("__stdout__", "__stderr__"):
                found.append((node.lineno, "write"))
            if owner == "os" and node.attr == "write":
                found.append((node.lineno, "write"))
        if isinstance(node, ast.Call):
            name = name_call(node)
            if name == ["print"]:
                found.append((node.lineno, "print"))
            if name == ["sys", "exit"] and node.args and isinstance(node.args[0], ast.JoinedStr):
                found.append((node.lineno, "print"))
    return found


def list_uses(names: set[str], allowed: dict[str, str]) -> list[str]:
    found = []
    for path in sorted(LAB.rglob("*.py")):
        file = path.relative_to(LAB).as_posix()
        if file not in allowed:
            found += [f"{file}:{line} {name}" for line, name in find_uses(path) if name in names]
    return found


def test_all_text_leaves_through_the_one_function_that_escapes_it():
    """print() is safe in the command `lab` alone, whose streams escape; see lab/cli/main.py."""
    assert list_uses({"write"}, WRITES) == []
    assert [use for use in list_uses({"print"}, WRITES) if not use.startswith("cli/")] == []


def test_files_are_read_by_the_one_function_that_has_limits():
    assert list_uses({"read_text", "read_bytes"}, READS) == []


def find_answers(path: Path) -> Iterator[int]:
    """Yield the line of each call that takes what a script on a machine answers."""
    for node in list_nodes(path):
        if isinstance(node, ast.Call) and name_call(node)[-2:] == ["connection", "run"]:
            yield node.lineno


def name_call(node: ast.Call) -> list[str]:
    """Return the names in self.connection.run(...), as far as they are names."""
    names, one = [], node.func
    while isinstance(one, ast.Attribute):
        names, one = [one.attr, *names], one.value
    return [one.id, *names] if isinstance(one, ast.Name) else names


def test_each_answer_of_a_machine_is_read_by_a_schema():
    found = {}
    for path in sorted(LAB.rglob("*.py")):
        unused = {one.value.lineno for one in list_nodes(path) if isinstance(one, ast.Expr)}
        used = set(find_answers(path)) - unused
        calls = [name_call(one) for one in list_nodes(path) if isinstance(one, ast.Call)]
        schemas = [one for one in calls if one[-1:] in (["expecting"], ["parse_one"])]
        if len(used) > len(schemas):
            found[path.relative_to(LAB).as_posix()] = used
    assert found.keys() <= UNPARSED.keys(), found


def test_output_of_a_machine_moves_the_cursor_and_no_more():
    writer = OutputWriter()
    assert writer.make_safe(b"\x1b[31mred\x1b[0m 50%\r\x1b[A\x1b[2K\n") == (
        b"\x1b[31mred\x1b[0m 50%\r\x1b[A\x1b[2K\n"
    )
    for evil in ("\x1b]52;c;eA==\x07", "\x1b]0;t\x1b\\", "\x1b[2J", "\x1bc", "\x9b2J", "\x1bP1"):
        pieces = [evil[:2], evil[2:], "\n"]
        shown = b"".join(writer.make_safe(piece.encode()) for piece in pieces)
        assert b"\x1b" not in shown and b"\x9b" not in shown and b"\x07" not in shown, shown
    halves = [writer.make_safe(piece) for piece in (b"\x1b[3", b"1mx \xc3", b"\xa9\xff")]
    assert b"".join(halves) == b"\x1b[31mx \xc3\xa9\\xff"
