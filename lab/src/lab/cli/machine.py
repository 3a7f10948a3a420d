"""The commands that look after a machine: ssh for other programs, the doctor, editors, sshfs."""

import argparse

from lab.cli.command import (
    Command,
    CommandParser,
    add_all_machines,
    add_json,
    add_machine,
    connect,
    find_all_machines,
)
from lab.ground.errors import LabError, UsageError
from lab.ground.terminal import format_table, print_json, print_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.doctor.facts import Check


def add_ssh_config_arguments(parser: CommandParser) -> None:
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--install", action="store_true", help="include them in ~/.ssh/config")
    action.add_argument("--remove", action="store_true", help="undo --install")
    add_machine(parser)


def print_ssh_config(args: argparse.Namespace) -> None:
    from lab.ssh import machines, ssh_config

    if args.install:
        print("\n".join(ssh_config.install()))
        names = [ssh_config.alias(machine) for machine in machines.read_all().values()]
        print(f"these work now: {', '.join(f'ssh {name}' for name in names)}")
    elif args.remove:
        print("\n".join(ssh_config.remove() or ["~/.ssh had nothing of this project"]))
    else:
        asked = machines.get(args.machine)  # LabError if there is none
        chosen = [asked] if args.machine else machines.read_all().values()
        print("\n".join(ssh_config.make_blocks(machine) for machine in chosen), end="")


def log_in(args: argparse.Namespace) -> None:
    """Open the connection that every other command uses; the hosts may ask on the terminal."""
    connection = connect(args)
    connection.log_in()
    print(f"connected to {connection.name}")


def add_doctor_arguments(parser: CommandParser) -> None:
    add_json(parser)
    parser.add_argument("--fix", action="store_true", help="fix what needs no root")
    add_all_machines(parser)
    add_machine(parser)


def examine_all(args: argparse.Namespace) -> int:
    """Print one table of all machines side by side, then what to do; 1 if a check failed."""
    from lab.doctor import examination as doctor
    from lab.doctor import facts

    if args.fix:
        raise UsageError("lab doctor --fix fixes one machine: give -m NAME.")
    found = doctor.examine_all(find_all_machines(args))
    checks = [(name, check) for name in found for check in found[name]]
    if args.json:
        print_json([{"machine": name, **check._asdict()} for name, check in checks])
    else:
        rows: dict[str, dict[str, str]] = {}
        for name, check in checks:
            row = rows.setdefault(check.check, {"check": check.check})
            row["this computer"] = row.get("this computer") or check.local
            verdict = "" if check.verdict == facts.OK else f"({check.verdict})"
            row[name] = f"{check.remote} {verdict}".strip() or check.verdict
        columns = ["check", "this computer", *found]
        print(format_table([*rows.values()], columns, whole=["check"]), end="\n\n")
        for name, check in checks:
            print_advice(check, f"{name}: ")
    return 1 if facts.FAILED in [check.verdict for _, check in checks] else 0


def print_advice(check: "Check", about: str = "") -> None:
    """Print the cause of a check that is not ok, and what to do."""
    if check.advice:
        end = "" if check.advice.endswith((".", "?")) else "."
        print(f"{check.verdict}: {about}{check.check}: {check.advice}{end}")


def examine(args: argparse.Namespace) -> int:
    """Print the table of checks, then what to do; 1 if a check failed."""
    if args.all_machines:
        return examine_all(args)

    from lab.doctor import examination as doctor
    from lab.doctor import facts
    from lab.ssh import machines

    machine: machines.Machine | None
    try:
        machine = machines.get(args.machine)
    except LabError as error:
        if args.machine:
            raise
        machine, found = None, doctor.examine_locally(error)
    else:
        found = doctor.examine(machine)
    if args.fix and machine:
        for line in doctor.fix(machine, found):
            print_message(line)
        found = doctor.examine(machine)
    rows = [check._asdict() for check in found]
    if args.json:
        print_json(rows)
    else:
        name = machine.name if machine else "no machine"
        lines = [{**row, "this computer": row["local"], name: row["remote"]} for row in rows]
        columns = ["check", "this computer", name, "verdict"]
        print(format_table(lines, columns, whole=["check", "verdict"]), end="\n\n")
        for check in found:
            print_advice(check)
    return 1 if facts.FAILED in [check.verdict for check in found] else 0


def add_ide_arguments(parser: CommandParser) -> None:
    parser.add_argument("editor", nargs="?", choices=["vscode", "pycharm"], help="[show both]")
    add_machine(parser)


def set_up_editor(args: argparse.Namespace) -> None:
    import shlex

    from lab.ssh import machines
    from lab.workcopy import ide

    machine = machines.get(args.machine)
    ide.require_ssh_name(machine)
    folder = ide.find_working_copy(machine)
    if args.editor != "pycharm":
        command = ide.vscode_command(machine, folder)
        print(f"VS Code: {shlex.join(command)}")
        print(f"  interpreter: {folder}/.venv/bin/python", flush=True)
        if args.editor and not ide.start_editor(command):
            print_message("VS Code's command `code` is not in PATH: install it")
    if args.editor != "vscode":
        print("PyCharm: Add Interpreter > On SSH")
        for name, value in ide.pycharm_settings(machine, folder):
            print(f"  {name:<21} {value}")
        print(ide.UPLOAD)


def add_mount_arguments(parser: CommandParser) -> None:
    parser.add_argument("folder", nargs="?", metavar="DIR", help="the mount point [remote/MACHINE]")
    add_machine(parser)


def mount_folder(args: argparse.Namespace) -> None:
    from lab.workcopy import mount

    connection = connect(args)
    print(mount.mount(connection, mount.mount_point(connection.machine, args.folder)))


def unmount_folder(args: argparse.Namespace) -> None:
    from lab.ssh import machines
    from lab.workcopy import mount

    print(mount.unmount(mount.mount_point(machines.get(args.machine), args.folder)))


COMMANDS = (
    Command(
        "ssh-config",
        "print or install the machines as Host blocks for ssh",
        print_ssh_config,
        add_ssh_config_arguments,
    ),
    Command("login", "connect; the hosts may ask for a password or a code", log_in, add_machine),
    Command("doctor", "find out what is wrong and how to fix it", examine, add_doctor_arguments),
    Command("ide", "set up an editor to work on a machine", set_up_editor, add_ide_arguments),
    Command(
        "mount",
        "mount the project's folder on a machine (sshfs)",
        mount_folder,
        add_mount_arguments,
    ),
    Command(
        "unmount", "undo mount, even after a lost connection", unmount_folder, add_mount_arguments
    ),
)
