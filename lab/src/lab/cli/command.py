"""What a command of `lab` consists of: a name, a line of help, its arguments and a function.

`lab --help` imports every file of commands, so none imports typing or pathlib, which are slow.
"""

import argparse
from collections.abc import Callable, Iterable

from lab.ground.errors import UsageError
from lab.ground.terminal import terminal_width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lab.ssh.connection import Connection
    from lab.ssh.machines import Machine


class HelpFormatter(argparse.HelpFormatter):
    """Help as wide as the terminal, found without shutil, which argparse would import."""

    def __init__(self, prog: str):
        super().__init__(prog, width=terminal_width(80) - 2)


class CommandParser(argparse.ArgumentParser):
    """The parser of one command, which may hand over to another program at `--`."""

    runs_another_program = False  # whether what follows -- is left alone, in `after_dashes`

    def __init__(self, **settings: "Any"):
        super().__init__(formatter_class=HelpFormatter, **settings)

    def parse_known_args(
        self, args: Iterable[str] | None = None, namespace: "Any" = None
    ) -> "tuple[Any, list[str]]":
        words = list(args or ())
        if not self.runs_another_program:
            return super().parse_known_args(words, namespace)
        end = words.index("--") if "--" in words else len(words)
        found, unknown = super().parse_known_args(words[:end], namespace)
        found.after_dashes = words[end + 1 :] if end < len(words) else None
        return found, unknown


def add_nothing(parser: CommandParser) -> None:
    """Add no arguments."""


class Command:
    """A command. One with sub-commands has no function of its own."""

    def __init__(
        self,
        name: str,
        help: str,
        function: Callable[[argparse.Namespace], int | None] | None,
        add_arguments: Callable[[CommandParser], None] = add_nothing,
    ):
        self.name, self.help = name, help
        self.function, self.add_arguments = function, add_arguments


def add_machine(parser: argparse.ArgumentParser, default: str = "the first") -> None:
    """Add -m to a command; before the command, as in `lab -m NAME jobs`, it means the same."""
    # no default, as it would override an -m before the command
    parser.add_argument(
        "-m",
        "--machine",
        default=argparse.SUPPRESS,
        metavar="NAME",
        help=f"the machine [{default}]",
    )


def add_all_machines(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all-machines", action="store_true", help="ask all machines at once")


def find_all_machines(args: argparse.Namespace) -> "list[Machine]":
    """Return every machine, for --all-machines. LabError if there is none, UsageError with -m."""
    from lab.ssh import machines

    if args.machine:
        raise UsageError("--all-machines asks all of them: leave out -m.")
    machines.get()  # says so if there is none
    return list(machines.read_all().values())


def add_env(parser: argparse.ArgumentParser, help: str = "set an environment variable") -> None:
    parser.add_argument("--env", action="append", default=[], metavar="NAME[=VALUE]", help=help)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def connect(args: argparse.Namespace) -> "Connection":
    """Return the connection to the chosen machine."""
    from lab.ssh import connection, machines

    return connection.Connection(machines.get(args.machine))


def connect_and_announce(args: argparse.Namespace) -> "Connection":
    """Connect for a command that changes the machine, and say which project and machine it is."""
    connection = connect(args)
    announce(connection.machine)
    return connection


def announce(machine: "Machine") -> None:
    """Say which project and machine a command is about."""
    from lab.ground import project
    from lab.ground.terminal import escape, print_message

    folder = f"{project.name()} in {escape(project.root())}"
    print_message(f"{folder}, on {machine.name}: {escape(machine.ssh)}:{escape(machine.folder)}")
