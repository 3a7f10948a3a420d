"""The `lab` command: which commands there are, and how it reports errors.

Each command imports what it needs itself, so that `lab --help` is quick.
"""

import argparse
import atexit
import gc
import io
import os
import sys
from collections.abc import Collection

from lab.cli import adoption, environment, jobs, machine, records, remote, transfer, tunnels
from lab.cli.command import Command, CommandParser
from lab.ground import errors, terminal

MAX_ERROR = 3000  # columns; an error may quote long text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(words: list[str] | None = None) -> int:
    """Run one command; 0: done, 1: failed (one line on stderr says why), 2: wrong usage."""
    atexit.register(gc.freeze)  # Python would look for garbage among all that was imported
    words = sys.argv[1:] if words is None else words
    if None in (sys.stdin, sys.stdout, sys.stderr):  # files of ours would get their descriptors
        sys.exit("lab: standard input, output or error is closed: use /dev/null instead of >&-.")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may not have every character
        sys.stdout.reconfigure(errors="backslashreplace")
    terminal.escape_all_output()
    if words[:1] == ["_complete"]:  # the shell asks, at every Tab
        from lab.cli import completion

        completion.answer(build_parser(words), words[1:])
        return 0
    args = build_parser(words).parse_args(words)
    try:
        return args.function(args) or 0
    except errors.LabError as error:
        print(f"lab: {terminal.shorten(terminal.escape(error), MAX_ERROR)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        import signal

        from lab.ground import attempts, interrupts

        print("lab: interrupted", file=sys.stderr)
        number = getattr(interrupt, "number", signal.SIGINT)
        code = 128 + number  # as a shell reports it
        return attempts.report_interruption(code) if number in interrupts.ASKING else code
    except BrokenPipeError:  # `lab runs | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:  # a file that cannot be read or written, and nobody has explained it
        cause = terminal.escape(errors.explain_os_error(error, "the system"))
        print(f"lab: {cause}.", file=sys.stderr)
        return 1


def build_parser(words: Collection[str] | None = None) -> argparse.ArgumentParser:
    """Build the parser. If `words` are given, only the commands among them get their own parsers.

    Building those of all commands would take longer than the rest of `lab --help`.
    """
    built = {
        f"lab {command.name}" for command in COMMANDS if words is None or command.name in words
    }

    def build(prog: str, **settings: "Any") -> CommandParser | None:
        return CommandParser(prog=prog, **settings) if prog in built else None

    parser = CommandParser(prog="lab", description="Run and record experiments.")
    parser.add_argument(
        "-m", "--machine", metavar="NAME", help="the machine [the first in machines.toml]"
    )
    parser.add_argument("--version", action=PrintVersion, nargs=0, help="show the version of lab")
    commands = parser.add_subparsers(  # type: ignore[call-overload] # it only calls parser_class
        title="commands", required=True, metavar="COMMAND", parser_class=build
    )
    for command in COMMANDS:
        one = commands.add_parser(command.name, help=command.help)
        if one:
            command.add_arguments(one)
            if command.function:
                one.set_defaults(function=command.function)
    return parser


class PrintVersion(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import importlib.metadata

        print(f"lab {importlib.metadata.version('dl-remote-lab')}")  # parser.exit writes to stderr
        parser.exit()


def add_completion_arguments(parser: CommandParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])


def print_completion(args: argparse.Namespace) -> None:
    from lab.cli import completion

    print(completion.SHELLS[args.shell], end="")


COMMANDS = (
    Command(
        "completion",
        'Tab completion: eval "$(lab completion bash)"',
        print_completion,
        add_completion_arguments,
    ),
    *adoption.COMMANDS,
    *environment.COMMANDS,
    *remote.COMMANDS,
    *jobs.COMMANDS,
    *transfer.COMMANDS,
    *tunnels.COMMANDS,
    *machine.COMMANDS,
    *records.COMMANDS,
)
