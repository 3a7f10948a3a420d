"""The `lab` command: what it can do, and how it answers.

Each command imports what it needs itself, so that `lab --help` is quick.
"""

import argparse
import json
import sys

from lab import project


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 done, 1 it failed (one clear line on stderr), 2 wrong usage."""
    parser = build_parser()
    wanted = parser.parse_args(arguments)
    try:
        return wanted.command(wanted) or 0
    except project.UserError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(prog="lab", description="Run and record experiments.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    kernel = commands.add_parser("kernel", help="the project's Jupyter kernel")
    actions = kernel.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="every kernel, and whether its environment is there")
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.set_defaults(command=kernel_list)
    install = actions.add_parser("install", help="register this environment (bootstrap.py does)")
    install.set_defaults(command=kernel_install)
    remove = actions.add_parser("remove", help="take this project's kernel out of Jupyter's list")
    remove.set_defaults(command=kernel_remove)
    return parser


def table(rows: list[dict], columns: list[str]) -> str:
    """Rows as aligned text under a line of column names."""
    lines = [columns, *([str(row[column]) for column in columns] for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    padded = (
        (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def kernel_list(wanted: argparse.Namespace) -> None:
    from dataclasses import asdict

    from lab import kernel

    rows = [asdict(found) for found in kernel.kernels()]
    if wanted.json:
        print(json.dumps(rows, indent=1))
    else:
        print(table(rows, ["name", "state", "title", "python"]) if rows else "no kernels")


def kernel_install(wanted: argparse.Namespace) -> None:
    from lab import kernel

    print(kernel.install())


def kernel_remove(wanted: argparse.Namespace) -> None:
    from lab import kernel

    removed = kernel.remove()
    print(f"removed: {', '.join(removed)}" if removed else "this project has no kernel here")


if __name__ == "__main__":
    sys.exit(main())
