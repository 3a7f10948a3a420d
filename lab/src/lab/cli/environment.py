"""The commands for the environment: check, lock, update, kernel."""

import argparse

from lab.cli.remote import add_machine, connect
from lab.ground.terminal import format_table, print_json


def add(commands) -> None:
    """Their options."""
    check = commands.add_parser("check", help="is this computer up to date with the project?")
    check.set_defaults(command=check_all)
    check.add_argument("--json", action="store_true", help="for programs")
    update = commands.add_parser("update", help="another lab: the newest, a version, or a wheel")
    update.set_defaults(command=update_lab)
    update.add_argument("wanted", nargs="?", default="", metavar="VERSION", help="or a wheel")
    lock = commands.add_parser("lock", help="compile requirements.txt from pyproject.toml")
    lock.set_defaults(command=compile_lock)
    lock.add_argument(
        "uv", nargs=argparse.REMAINDER, metavar="...", help="options of uv pip compile"
    )
    kernel = commands.add_parser("kernel", help="the project's Jupyter kernel")
    actions = kernel.add_subparsers(required=True, metavar="ACTION")
    kernels = actions.add_parser("list", help="every kernel, and whether its environment is there")
    kernels.add_argument("--json", action="store_true", help="for programs")
    kernels.set_defaults(command=kernel_list)
    install = actions.add_parser("install", help="register this environment (bootstrap.py does)")
    install.set_defaults(command=kernel_install)
    remove = actions.add_parser("remove", help="take this project's kernel out of Jupyter's list")
    remove.set_defaults(command=kernel_remove)
    for one in (kernels, remove):
        add_machine(one, "there [here]")


def check_all(wanted: argparse.Namespace) -> int:
    from lab.environment import check

    rows = check.check()
    stale = any(row["state"] == "stale" for row in rows)
    if wanted.json:
        print_json(rows)
    else:
        for row in rows:
            print(f"  {row['state']:<8} {row['part']:<12} {row['details']}")
        if stale:
            print(f"To fix it: {check.SET_UP}")
    return int(stale)


def update_lab(wanted: argparse.Namespace) -> None:
    from lab.environment import update

    done = update.update(wanted.wanted)
    if done.old == done.new and not done.changes:
        print(f"lab is {done.new} already")
        return
    if done.news:
        print(done.news, end="\n\n")
    print("\n".join(done.changes))
    print(f"lab {done.old} -> {done.new}, in {', '.join(update.FILES)}. Now: python3 bootstrap.py,")
    print(f'and git add -A {" ".join(update.FILES)}; git commit -m "lab {done.new}"')


def compile_lock(wanted: argparse.Namespace) -> None:
    from lab.environment import lock

    changes = lock.compile_lock(wanted.uv)
    print("\n".join(changes) or "requirements.txt is unchanged")
    if changes:
        print("To bring this computer up to date: python3 bootstrap.py")


def kernel_list(wanted: argparse.Namespace) -> None:
    if wanted.machine:
        import json

        rows = json.loads(kernel_there(wanted, "list"))
    else:
        from dataclasses import asdict

        from lab.environment import kernel

        rows = [asdict(found) for found in kernel.list_kernels()]
    if wanted.json:
        print_json(rows)
    else:
        print(format_table(rows, ["name", "state", "title", "python"]) if rows else "no kernels")


def kernel_install(wanted: argparse.Namespace) -> None:
    from lab.environment import kernel

    print(kernel.install())


def kernel_there(wanted: argparse.Namespace, action: str) -> str:
    """What the lab on the machine says of the kernels there."""
    from lab.ground import git

    return connect(wanted).run("kernel.sh", project=git.prefix(), action=action)


def kernel_remove(wanted: argparse.Namespace) -> None:
    if wanted.machine:
        print(f"{wanted.machine}: {kernel_there(wanted, 'remove')}", end="")
        return
    from lab.environment import kernel

    removed = kernel.remove()
    print(f"removed: {', '.join(removed)}" if removed else "this project has no kernel here")
