"""The commands for the environment and the project: check, update, lock, kernel, example."""

import argparse

from lab.cli.command import Command, CommandParser, add_json, add_machine, connect
from lab.ground.terminal import escape, format_table, print_json, print_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KERNEL_FIELDS = ("name", "title", "python", "folder", "state")


def check_environment(args: argparse.Namespace) -> int:
    from lab.environment import check

    rows = check.check()
    stale = any(row["state"] == "stale" for row in rows)
    if args.json:
        print_json(rows)
    else:
        for row in rows:
            print(f"  {row['state']:<8} {row['part']:<12} {row['details']}")
        if stale:
            print(f"To fix it: {check.SET_UP}")
    return int(stale)


def add_update_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "wanted", nargs="?", default="", metavar="VERSION", help="a version or a wheel [the newest]"
    )


def update_lab(args: argparse.Namespace) -> None:
    from lab.environment import update

    done = update.update(args.wanted)
    if done.old == done.new and not done.changes:
        print(f"lab is already {done.new}")
        return
    if done.changelog:
        print(done.changelog, end="\n\n")
    print("\n".join(done.changes))
    changed = update.list_files()
    print(f"lab {done.old} -> {done.new}, in {', '.join(changed)}. Now: python3 bootstrap.py,")
    print(f'and git add -A {" ".join(changed)}; git commit -m "lab {done.new}"')


def add_lock_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "uv", nargs=argparse.REMAINDER, metavar="...", help="options of uv pip compile"
    )


def compile_lock(args: argparse.Namespace) -> None:
    from lab.environment import lock
    from lab.ground import project

    changes = lock.compile_lock(args.uv)
    print("\n".join(changes) or f"{project.lock_file().name} is unchanged")
    if changes:
        print("To bring this computer up to date: python3 bootstrap.py")


def add_kernel_actions(parser: CommandParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list all kernels, even if their Python is gone")
    add_json(listing)
    listing.set_defaults(function=list_kernels)
    install = actions.add_parser("install", help="register this environment, as bootstrap.py does")
    install.set_defaults(function=install_kernel)
    remove = actions.add_parser("remove", help="remove this project's kernel from Jupyter's list")
    remove.set_defaults(function=remove_kernel)
    for one in (listing, remove):
        add_machine(one, default="this computer")


def list_kernels(args: argparse.Namespace) -> None:
    if args.machine:
        from lab.ssh.answers import expecting

        answer = run_kernel_action(args, "list")
        with expecting(args.machine, "a list of kernels"):
            rows = parse_kernels(answer)
    else:
        from dataclasses import asdict

        from lab.environment import kernel

        rows = [asdict(found) for found in kernel.list_kernels()]
    if args.json:
        print_json(rows)
    else:
        print(format_table(rows, ["name", "state", "title", "python"]) if rows else "no kernels")


def parse_kernels(text: str) -> "list[dict[str, Any]]":
    """Parse the output of `lab kernel list --json` on a machine. ValueError if it is not that."""
    from lab.ground import files

    rows = files.parse_json(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("not a list of objects")
    if not all(isinstance(row.get(name), str) for row in rows for name in KERNEL_FIELDS):
        raise ValueError("not a kernel")
    return [{name: row[name] for name in KERNEL_FIELDS} for row in rows]


def install_kernel(args: argparse.Namespace) -> None:
    from lab.environment import kernel

    print(kernel.install())


def remove_kernel(args: argparse.Namespace) -> None:
    if args.machine:
        print(f"{args.machine}: {escape(run_kernel_action(args, 'remove').rstrip())}")
        return
    from lab.environment import kernel

    removed = kernel.remove()
    print(f"removed: {', '.join(removed)}" if removed else "this project has no kernel")


def run_kernel_action(args: argparse.Namespace, action: str) -> str:
    """Run `lab kernel` on the machine; return what it prints."""
    from lab.ground import git
    from lab.ssh.answers import SOON

    return connect(args).run("kernel.sh", project=git.prefix(), action=action, within=SOON)


def add_example_actions(parser: CommandParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    remove = actions.add_parser("remove", help="replace it with a skeleton of an experiment")
    remove.set_defaults(function=remove_example)


def remove_example(args: argparse.Namespace) -> None:
    from lab.example import removal
    from lab.ground import project

    done = removal.remove()
    for what, names in done._asdict().items():
        for name in names:
            print(f"{what:<8} {name}")
    if done.left:
        print_message("left: you edited these, and they may still mention the example: check them.")
    print_message(
        f"next: python -m {project.package()}.experiment with smoke, pytest, then git commit -a."
        " git checkout . undoes all of it. pyproject.toml still has the example's dependencies:"
        " remove what you do not import, then lab lock."
    )


COMMANDS = (
    Command("check", "check that the environment is up to date", check_environment, add_json),
    Command("update", "change to another version of lab", update_lab, add_update_arguments),
    Command(
        "lock",
        "compile the lock from pyproject.toml",
        compile_lock,
        add_lock_arguments,
    ),
    Command("example", "remove the example from a fresh project", None, add_example_actions),
    Command("kernel", "manage the project's Jupyter kernel", None, add_kernel_actions),
)
