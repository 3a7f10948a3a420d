"""The `lab` command: what it can do, and how it answers.

Each command imports what it needs itself, so that `lab --help` is quick.
"""

import argparse
import os
import sys
from functools import cached_property

from lab.cli import environment as cli_environment
from lab.cli import machine as cli_machine
from lab.cli import records as cli_records
from lab.cli import remote as cli_remote
from lab.cli import transfer as cli_transfer
from lab.cli import tunnels as cli_tunnels
from lab.ground import errors


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 done, 1 it failed (one clear line on stderr), 2 wrong usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if None in (sys.stdin, sys.stdout, sys.stderr):  # their numbers would go to files of ours
        sys.exit("lab: standard input or an output is closed: say /dev/null instead of >&-.")
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know every letter
    if arguments[:1] == ["_complete"]:  # the shell asks, at every Tab
        from lab.cli import completion

        completion.answer(build_parser(), arguments[1:])
        return 0
    dashes = arguments.index("--") if {"run", "--"} <= set(arguments) else len(arguments)
    wanted = build_parser().parse_args(arguments[:dashes])
    wanted.after_dashes = arguments[dashes + 1 :] if dashes < len(arguments) else None
    try:
        return wanted.command(wanted) or 0
    except errors.LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as ended:
        print("lab: interrupted", file=sys.stderr)
        return 128 + getattr(ended, "number", 2)  # as a shell says it
    except BrokenPipeError:  # `lab runs | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


class Later:
    """A command's parser that is made when the command is called: all of them would take 5 ms."""

    def __init__(self, **settings):
        self.settings, self.told = settings, []

    def add_argument(self, *words, **options) -> None:
        self.told.append(("add_argument", words, options))

    def set_defaults(self, **values) -> None:
        self.told.append(("set_defaults", (), values))

    @cached_property
    def _made(self) -> argparse.ArgumentParser:
        return argparse.ArgumentParser(**self.settings)

    def __getattr__(self, name: str):
        """All else is the parser's own; it is told first what was kept for it."""
        told, self.told = self.told, []
        for method, words, options in told:
            getattr(self._made, method)(*words, **options)
        return getattr(self._made, name)


class Version(argparse.Action):
    """Prints the version; it is looked up only then."""

    def __call__(self, parser, *_) -> None:
        import importlib.metadata

        parser.exit(message=f"lab {importlib.metadata.version('dl-remote-lab')}\n")


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog="lab", description="Run and record experiments.")
    parser.add_argument("-m", "--machine", metavar="NAME", help="[the first of machines.toml]")
    parser.add_argument("--version", action=Version, nargs=0, help="which lab this is")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", parser_class=Later
    )

    complete = commands.add_parser(
        "completion", help='for your shell: eval "$(lab completion bash)"'
    )
    complete.add_argument("shell", choices=["bash", "zsh", "fish"])
    complete.set_defaults(command=print_completion)
    cli_environment.add(commands)
    cli_remote.add(commands)
    cli_transfer.add(commands)
    cli_tunnels.add(commands)
    cli_machine.add(commands)
    cli_records.add(commands)
    return parser


def print_completion(wanted: argparse.Namespace) -> None:
    from lab.cli import completion

    print(completion.SHELLS[wanted.shell], end="")
