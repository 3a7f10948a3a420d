"""JupyterLab on a machine, in this computer's browser."""

import json
from pathlib import Path
from typing import Any

from lab.browser import tunnels
from lab.ground import git
from lab.ground.errors import LabError
from lab.ssh.connection import Connection

PORT = 8888
FORBIDDEN = ("prohibited", "unknown channel type", "connect failed")  # ssh, of forwarded sockets


def start(connection: Connection, port: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Start or reuse the server there and the tunnel here; (what runs there, the tunnel).

    Raises RemoteError if it cannot run there, SshError; LabError if the tunnel does not lead to it.
    """
    there = call_server(connection, "start")
    tunnel = open_tunnel(connection, there, port)
    if "socket" in there and is_forbidden(tunnel):
        there = call_server(connection, "start", tcp="yes")
        tunnel = open_tunnel(connection, there, port)
    code, _ = tunnels.request(tunnel, "/api/status", there["token"])
    if code != 200:
        raise LabError(
            f"JupyterLab runs on {connection.name}, but does not answer through the tunnel"
            f" ({tunnels.describe_state(tunnel)}): lab tunnels --close, and try again."
        )
    return there, tunnel


def call_server(connection: Connection, action: str, tcp: str = "") -> dict[str, Any]:
    """What notebook.sh says after this action."""
    program = Path(__file__).with_name("notebook_server.py").read_text("utf-8")
    answer = connection.run(
        "notebook.sh", project=git.prefix(), action=action, tcp=tcp, program=program
    )
    return json.loads(answer)


def open_tunnel(connection: Connection, there: dict[str, Any], port: int | None) -> dict[str, Any]:
    target = there.get("socket") or f"127.0.0.1:{there['port']}"
    return tunnels.start("notebook", connection.name, target, port, PORT)


def is_forbidden(tunnel: dict[str, Any]) -> bool:
    """Whether sshd there does not forward sockets: what is behind this one does answer there."""
    log = tunnel["path"].with_suffix(".log")
    before = log.stat().st_size
    if tunnels.request(tunnel, "/api")[0]:
        return False
    said = log.read_bytes()[before:].decode("utf-8", "replace")
    return any(words in said for words in FORBIDDEN)


def stop(connection: Connection) -> bool:
    """End the server there with its kernels, and the tunnel; whether one ran."""
    path = tunnels.entry_path("notebook", connection.name)
    entry = tunnels.read_entry(path)
    if entry:
        tunnels.stop(entry)
    return call_server(connection, "stop")["stopped"]


def format_url(there: dict[str, Any], tunnel: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{tunnel['port']}/lab?token={there['token']}"
