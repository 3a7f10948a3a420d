"""The commands that look after a machine: ssh for other programs, the doctor, editors, sshfs."""

import argparse

from lab.cli.remote import add_machine, connect
from lab.ground.errors import LabError
from lab.ground.terminal import format_table, print_json, print_message


def add(commands) -> None:
    """Their options."""
    config = commands.add_parser("ssh-config", help="the machines for ssh itself, as Host blocks")
    config.set_defaults(command=ssh_config)
    ways = config.add_mutually_exclusive_group()
    ways.add_argument("--install", action="store_true", help="let ssh read them, from now on")
    ways.add_argument("--remove", action="store_true", help="undo that")

    doctor = commands.add_parser("doctor", help="what is wrong, here and there, and how to fix it")
    doctor.set_defaults(command=examine)
    doctor.add_argument("--json", action="store_true", help="for programs")
    doctor.add_argument("--fix", action="store_true", help="fix what needs no root")

    ide = commands.add_parser("ide", help="what an editor needs to know to work there")
    ide.set_defaults(command=editor)
    ide.add_argument("editor", nargs="?", choices=["vscode", "pycharm"], help="[both, as text]")

    mount = commands.add_parser(
        "mount", help="the project's folder there, as a folder here (sshfs)"
    )
    mount.set_defaults(command=mount_folder)
    unmount = commands.add_parser("unmount", help="undo that, also after the line was cut")
    unmount.set_defaults(command=unmount_folder)
    for one in (mount, unmount):
        one.add_argument("folder", nargs="?", metavar="DIR", help="[remote/<machine>]")

    for one in (config, doctor, ide, mount, unmount):
        add_machine(one)


def examine(wanted: argparse.Namespace) -> int:
    """The table of checks, then what to do; 1 if one failed."""
    from dataclasses import asdict

    from lab.doctor import examination as doctor
    from lab.doctor import facts
    from lab.ssh import machines

    try:
        machine = machines.machine(wanted.machine)
    except LabError as error:
        if wanted.machine:
            raise
        machine, found = None, doctor.examine_locally(str(error))
    else:
        found = doctor.examine(machine)
    if wanted.fix and machine:
        for line in doctor.fix(machine, found):
            print_message(line)
        found = doctor.examine(machine)
    rows = [asdict(check) for check in found]
    if wanted.json:
        print_json(rows)
    else:
        name = machine.name if machine else "no machine"
        lines = [{**row, "this computer": row["local"], name: row["remote"]} for row in rows]
        columns = ["check", "this computer", name, "verdict"]
        print(format_table(lines, columns, whole=["check", "verdict"]), end="\n\n")
        for row in rows:
            if row["advice"]:
                print(f"{row['verdict']}: {row['check']}: {row['advice'].rstrip('.')}.")
    return 1 if facts.FAILED in [check.verdict for check in found] else 0


def ssh_config(wanted: argparse.Namespace) -> None:
    from lab.ssh import machines, ssh_config

    if wanted.install:
        print("\n".join(ssh_config.install()))
        names = [ssh_config.alias(machine) for machine in machines.machines().values()]
        print(f"so these work now: {', '.join(f'ssh {name}' for name in names)}")
    elif wanted.remove:
        print("\n".join(ssh_config.remove() or ["nothing of this project was in ~/.ssh"]))
    else:
        asked = machines.machine(wanted.machine)  # says so if there is none
        chosen = [asked] if wanted.machine else machines.machines().values()
        print("\n".join(ssh_config.blocks(machine) for machine in chosen), end="")


def editor(wanted: argparse.Namespace) -> None:
    import shlex

    from lab.ssh import machines
    from lab.workcopy import ide

    machine = machines.machine(wanted.machine)
    ide.require_ssh_name(machine)
    place = ide.find_working_copy(machine)
    if wanted.editor != "pycharm":
        command = ide.vscode_command(machine, place)
        print(f"VS Code: {shlex.join(command)}")
        print(f"  interpreter: {place}/.venv/bin/python", flush=True)
        if wanted.editor and not ide.start_editor(command):
            print_message("there is no program code here: install VS Code with its command in PATH")
    if wanted.editor != "vscode":
        print("PyCharm: Add Interpreter > On SSH")
        for name, value in ide.pycharm_settings(machine, place):
            print(f"  {name:<21} {value}")
        print(ide.UPLOAD)


def mount_folder(wanted: argparse.Namespace) -> None:
    from lab.workcopy import mount

    connection = connect(wanted)
    print(mount.mount(connection, mount.mount_point(connection.machine, wanted.folder)))


def unmount_folder(wanted: argparse.Namespace) -> None:
    from lab.ssh import machines
    from lab.workcopy import mount

    print(mount.unmount(mount.mount_point(machines.machine(wanted.machine), wanted.folder)))
