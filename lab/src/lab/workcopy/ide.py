"""The exact values that editors need to work in the project's working copy on a machine."""

import shutil
import subprocess

from lab.ground import git, project
from lab.ground.errors import LabError
from lab.ssh import ssh_config
from lab.ssh.answers import SOON, expecting, parse_path
from lab.ssh.connection import Connection
from lab.ssh.machines import Machine
from lab.ssh.options import resolve


def find_working_copy(machine: Machine) -> str:
    """Return the project's absolute path in the working copy. RemoteError if there is none."""
    answer = Connection(machine).run("where.sh", inside=f"work/{git.prefix()}", within=SOON)
    with expecting(machine.name, "a path"):
        return parse_path(answer)


def vscode_command(machine: Machine, path: str) -> list[str]:
    """Return the command that opens the working copy in VS Code."""
    return ["code", "--remote", f"ssh-remote+{ssh_config.alias(machine)}", path]


def require_ssh_name(machine: Machine) -> None:
    """Raise LabError unless plain ssh, which editors call, knows the machine."""
    if not ssh_config.is_known(machine):
        name = ssh_config.alias(machine)
        raise LabError(
            f"editors call ssh {name}, which ssh does not know yet: lab ssh-config --install."
        )


def start_editor(command: list[str]) -> bool:
    """Start an editor; return False if this computer has no such program."""
    program = shutil.which(command[0])
    if not program:
        return False
    code = subprocess.run([program, *command[1:]], check=False).returncode
    if code:
        raise LabError(f"{command[0]} ended with {code}; run it yourself: {' '.join(command)}.")
    return True


def pycharm_settings(machine: Machine, path: str) -> list[tuple[str, str]]:
    """Return the fields of PyCharm's dialog Add Interpreter > On SSH, with their values."""
    name = ssh_config.own_alias(machine)  # PyCharm has an ssh of its own
    options = dict(resolve(name))
    return [
        ("Host", name),
        ("Port", options.get("port", "22")),
        ("Username", options.get("user", "")),
        ("Authentication", "OpenSSH config and authentication agent"),
        ("Existing interpreter", f"{path}/.venv/bin/python"),
        ("Path mapping", f"{project.root()} -> {path}"),
        ("Sync folders", f"{project.root()} -> {path}"),
    ]


UPLOAD = """\
Automatic upload may stay on: lab run takes its code from this computer, not from that copy, and lab
sync saves whatever differs there as a commit before it updates the copy. Without automatic upload,
lab sync is the upload; exclude data, runs and .venv from the deployment."""
