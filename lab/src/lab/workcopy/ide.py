"""The exact values that editors ask for to work in the project's copy on a machine."""

import shutil
import subprocess

from lab.ground import git, project
from lab.ground.errors import LabError
from lab.ssh import ssh_config
from lab.ssh.connection import Connection
from lab.ssh.machines import Machine


def find_working_copy(machine: Machine) -> str:
    """The absolute path there of the project in the working copy. RemoteError if there is none."""
    return Connection(machine).run("where.sh", inside=f"work/{git.prefix()}").rstrip("\n")


def vscode_command(machine: Machine, place: str) -> list[str]:
    """The command that opens the working copy in VS Code."""
    return ["code", "--remote", f"ssh-remote+{ssh_config.alias(machine)}", place]


def require_ssh_name(machine: Machine) -> None:
    """LabError unless plain ssh, which editors call, knows the machine."""
    if not ssh_config.is_known(machine):
        name = ssh_config.alias(machine)
        raise LabError(
            f"editors call ssh {name}, which it does not know: lab ssh-config --install."
        )


def start_editor(command: list[str]) -> bool:
    """Start an editor; False if this computer has none of that name."""
    program = shutil.which(command[0])
    if not program:
        return False
    code = subprocess.run([program, *command[1:]], check=False).returncode
    if code:
        raise LabError(f"{command[0]} ended with {code}; run it yourself: {' '.join(command)}.")
    return True


def pycharm_settings(machine: Machine, place: str) -> list[tuple[str, str]]:
    """What PyCharm's dialogue Add Interpreter > On SSH asks for, in its words."""
    options = dict(ssh_config.resolve(ssh_config.alias(machine)))
    return [
        ("Host", ssh_config.alias(machine)),
        ("Port", options.get("port", "22")),
        ("Username", options.get("user", "")),
        ("Authentication", "OpenSSH config and authentication agent"),
        ("Existing interpreter", f"{place}/.venv/bin/python"),
        ("Path mapping", f"{project.root()} -> {place}"),
        ("Sync folders", f"{project.root()} -> {place}"),
    ]


UPLOAD = """\
Automatic upload may stay on: lab run takes its code from here, not from that copy, and lab sync
saves whatever differs there as a commit before it brings the copy in step. Without it, lab sync
is the upload; exclude data, runs and .venv from the deployment."""
