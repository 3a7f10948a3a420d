"""JupyterLab on a machine, in this computer's browser."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from lab.browser import tunnels
from lab.browser.tunnels import Tunnel
from lab.ground import files, git, owner, project
from lab.ground.errors import LabError, UsageError
from lab.ground.terminal import print_message
from lab.jobs import runner_scripts
from lab.ssh import variables
from lab.ssh.answers import expecting, parse_object
from lab.ssh.connection import Connection
from lab.ssh.ssh_errors import ForwardingForbidden

PORT = 8888
TIMEOUT = 300  # seconds for a start on the machine
SOCKET = re.compile("/[A-Za-z0-9._~+=@,/-]{1,106}")  # a path without characters special to ssh
PAGE = """<!DOCTYPE html>
<meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}">
<title>JupyterLab</title><a href="{url}">JupyterLab</a>
"""


class Server(NamedTuple):
    """A JupyterLab that runs on a machine."""

    token: str
    started: bool  # by this call
    socket: str  # where it listens
    port: int  # of its 127.0.0.1, where sshd forwards no sockets; else 0


def start(
    connection: Connection, port: int | None, env: Mapping[str, str] = MappingProxyType({})
) -> tuple[Server, Tunnel]:
    """Start or reuse the server on the machine and the tunnel to it.

    `env`: variables for the kernels, in addition to those of machines.toml; a server that already
    runs cannot take any. Raises UsageError for a login node of Slurm, RemoteError if the server
    cannot run, SshError, LabError if the tunnel does not reach it, ForwardingForbidden if sshd
    forwards nothing.
    """
    if connection.machine.scheduler:
        raise UsageError(
            f"{connection.name} is a login node of Slurm, where no JupyterLab may keep running:"
            " open the notebook on this computer, and start jobs with remote.run() of lab."
        )
    print_message(f"starting JupyterLab on {connection.name} ...")
    server = start_server(connection, env)
    tunnel = open_tunnel(connection, server, port)
    if server.socket and lets_nothing_through(tunnel):
        server = start_server(connection, env, tcp=True)
        tunnel = open_tunnel(connection, server, port)
    code, _ = tunnels.request(tunnel, "/api/status", server.token)
    if code != 200 and lets_nothing_through(tunnel):
        if server.started:
            stop(connection)
        else:
            tunnels.stop(tunnel)
        raise ForwardingForbidden(
            f"sshd on {connection.name} forwards neither sockets nor ports, so no browser on this"
            " computer reaches JupyterLab on it (AllowTcpForwarding, DisableForwarding): ask its"
            " administrator."
        )
    if code != 200:
        raise LabError(
            f"JupyterLab runs on {connection.name}, but does not answer through the tunnel"
            f" ({tunnels.describe_state(tunnel)}): lab tunnels --close, and try again."
        )
    return server, tunnel


def start_server(
    connection: Connection, env: Mapping[str, str] = MappingProxyType({}), tcp: bool = False
) -> Server:
    """Start or reuse the server; with `tcp` it listens on a port, not on a socket."""
    answer = _call_server(connection, "start", env, tcp)
    with expecting(connection.name, "where a JupyterLab listens"):
        return parse_server(answer)


def parse_server(answer: str) -> Server:
    """Parse what notebook_server.py printed after a start. ValueError if it is anything else."""
    content = parse_object(answer, token=str, started=bool)
    socket, port = content.get("socket", ""), content.get("port", 0)
    if not re.fullmatch("[0-9a-f]{16,100}", content["token"]):
        raise ValueError("no token")
    if socket != "" and not (isinstance(socket, str) and SOCKET.fullmatch(socket)):
        raise ValueError("no socket")
    if type(port) is not int or not (0 < port < 65536 or (port == 0 and socket)):
        raise ValueError("no port")
    return Server(content["token"], content["started"], socket, port)


def _call_server(
    connection: Connection,
    action: str,
    env: Mapping[str, str] = MappingProxyType({}),
    tcp: bool = False,
) -> str:
    """Run an action of notebook_server.py on the machine, and return its answer."""
    program = Path(__file__).with_name("notebook_server.py").read_text("utf-8")
    machine = connection.machine
    send = action == "start" and bool(machine.prelude)
    given: dict[str, Any] = {**variables.join(machine.env, env)}
    given |= runner_scripts.make_variables(machine.scheduler, send)
    return connection.run(
        "notebook.sh",
        project=git.prefix(),
        owner=owner.shorten(owner.name_owner()),
        action=action,
        tcp="yes" if tcp else "",
        program=program,
        within=TIMEOUT,
        **given,
    )


def open_tunnel(connection: Connection, server: Server, port: int | None) -> Tunnel:
    """Open or reuse the tunnel to a server."""
    target = server.socket or f"127.0.0.1:{server.port}"
    return tunnels.start("notebook", connection.name, target, port, PORT)


def lets_nothing_through(tunnel: Tunnel) -> bool:
    """Return whether sshd forbids forwarding: the tunnel is open, but nothing answers through it.

    ssh itself reports no error.
    """
    return not any(
        tunnels.request(tunnel, "/api")[0] or tunnels.read_state(tunnel.path) for _ in range(2)
    )


def stop(connection: Connection) -> bool:
    """End the tunnel, and the server with its kernels; return whether one ran."""
    tunnel = tunnels.read(tunnels.find_file("notebook", connection.name))
    if tunnel:
        tunnels.stop(tunnel)
    answer = _call_server(connection, "stop")
    with expecting(connection.name, "the end of a JupyterLab"):
        return bool(parse_object(answer, stopped=bool)["stopped"])


def write_page(url: str, tunnel: Tunnel) -> str:
    """Write a page that leads to the address, for this user alone; return the page's own address.

    Everybody on this computer can see a program's arguments, so the browser does not get the token
    as one. The page is in the environment, as some browsers may not read the hidden folders of a
    home.
    """
    name = f"lab-{tunnel.machine}-notebook.html"
    environment = project.root() / ".venv"
    page = environment / name if environment.is_dir() else tunnel.path.with_name(name)
    page.unlink(missing_ok=True)  # its mode may be another one
    files.write(page, PAGE.format(url=url), durable=False, private=True)
    return page.as_uri()


def format_url(server: Server, tunnel: Tunnel) -> str:
    """Return the address for the browser, with the token."""
    return f"http://127.0.0.1:{tunnel.port}/lab?token={server.token}"
