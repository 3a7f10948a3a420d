"""What runs in the background for the browser: tunnels to Jupyter, and TensorBoard.

Each is one small process (tunnel_keeper.py, tensorboard_server.py) with a file in a private folder,
by which it is found, listed and ended. It starts with its port already bound, and keeps it: no
other program can ever answer at a printed address.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from lab.ground import files, liveness, project
from lab.ground.errors import LabError
from lab.ground.terminal import print_message
from lab.ssh import sockets
from lab.ssh.framing import PATIENCE

Kind: TypeAlias = Literal["notebook", "tensorboard"]
MAX_ANSWER = 1 << 20  # bytes of an answer
START = 60  # seconds; importing TensorBoard from a cold disk takes its time
ENDING = 10  # seconds
ANSWER = min(5.0, PATIENCE)  # seconds
PROBE = "/data/environment"  # what TensorBoard is asked to see whether it answers
MODULES = {"notebook": "tunnel_keeper", "tensorboard": "tensorboard_server"}
SUFFIXES = ("json", "log", "sock", "state")  # of the files that belong to one tunnel


class Tunnel(NamedTuple):
    """A tunnel or TensorBoard, as its file describes it."""

    name: str
    kind: Kind
    project: str
    machine: str  # "": TensorBoard without a machine
    port: int
    target: str  # a socket or address on the machine; the folder of the records
    time: int  # when it was started
    process: dict[str, Any]
    path: Path  # the file


def make_folder() -> Path:
    """Return the folder of the files."""
    return sockets.make_socket_folder("tunnels")


def find_file(kind: Kind, machine: str) -> Path:
    """Return the path of this project's tunnel file; short, as that of its socket must be."""
    key = f"{socket.gethostname()}\0{project.root()}\0{machine}\0{kind}"
    return make_folder() / f"{zlib.crc32(os.fsencode(key)):08x}.json"


def list_open() -> list[Tunnel]:
    """Return this user's tunnels on this computer, oldest first; remove the files of dead ones.

    Say the last words of one that failed.
    """
    found = []
    with sockets.hold_lock(make_folder() / "lock"):
        for path in make_folder().glob("*.json"):
            tunnel = parse(path)
            if tunnel and tunnel.process["host"] != socket.gethostname():
                continue  # belongs to another computer with the same home folder
            if tunnel and is_running(tunnel):
                found.append(tunnel)
            else:
                if tunnel and (words := read_last_words(path)):
                    print_message(f"{tunnel.name} has ended: {words}")
                remove_files(path)
    return sorted(found, key=lambda tunnel: tunnel.time)


def parse(path: Path) -> Tunnel | None:
    """Read the file of a tunnel; None if it is missing or damaged."""
    try:
        content = files.parse_json(files.read_text(path))
        names = [name for name in Tunnel._fields if name != "path"]
        return Tunnel(path=path, **{name: content[name] for name in names})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_running(tunnel: Tunnel) -> bool:
    return liveness.judge_state(tunnel.process, None) == "RUNNING"


def read(path: Path) -> Tunnel | None:
    """Read the file of a tunnel; None if its process has ended."""
    tunnel = parse(path)
    return tunnel if tunnel and is_running(tunnel) else None


def remove_files(path: Path) -> None:
    """Remove the files of a tunnel that has ended."""
    for suffix in SUFFIXES:
        path.with_suffix(f".{suffix}").unlink(missing_ok=True)


def start(kind: Kind, machine: str, target: str, wanted: int | None, usual: int) -> Tunnel:
    """Return the open tunnel of this kind if its target and `wanted` port fit, else a new one.

    A new one gets the wanted or `usual` port, or the next that is free. If it does not come up,
    LabError says why, and nothing is left of it.
    """
    path = find_file(kind, machine)
    with sockets.hold_lock(make_folder() / "lock"):
        tunnel = read(path)
        # no need to keep a tunnel that waits to try again: the machine has just answered
        waits = kind == "notebook" and read_state(path)
        if tunnel and (waits or tunnel.target != target or wanted not in (None, tunnel.port)):
            usual = tunnel.port
            stop(tunnel)
            tunnel = None
        if not tunnel:
            remove_files(path)
            with listen(wanted or usual) as listening:
                spawn(path, kind, machine, target, listening)
    deadline = time.monotonic() + START
    while read_state(path) is None and read(path) and time.monotonic() < deadline:
        time.sleep(0.05)
    tunnel, state = read(path), read_state(path)
    if tunnel and (state == "" or (state and kind == "tensorboard")):
        return tunnel
    cause = state or read_last_words(path) or "it did not start"
    if tunnel:
        stop(tunnel)
    remove_files(path)
    raise LabError(f"{make_name(kind, machine)}: {cause.rstrip('.')}.")


def make_name(kind: Kind, machine: str) -> str:
    """Return what a tunnel of this project is called."""
    return "-".join(filter(None, [project.name(), machine, kind]))


def read_state(path: Path) -> str | None:
    """Return the state that a process reported last: "" if it is ready, None if it has not yet."""
    with suppress(OSError):
        return files.read_text(path.with_suffix(".state"))
    return None


def read_last_words(path: Path) -> str:
    """Return the last line that a process has written to its log; "" if there is none."""
    with suppress(OSError):
        return "".join(files.read_text(path.with_suffix(".log"), "replace").splitlines()[-1:])
    return ""


def spawn(path: Path, kind: Kind, machine: str, target: str, listening: socket.socket) -> None:
    """Start the process, in a session of its own, so that it outlives this terminal."""
    number = listening.fileno()
    command = [sys.executable, "-m", f"lab.browser.{MODULES[kind]}", str(path), str(number)]
    log = os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        process = subprocess.Popen(
            command,
            cwd="/",
            env={**os.environ, "LAB_PROJECT": str(project.root())},
            start_new_session=True,
            pass_fds=[number],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    finally:
        os.close(log)
    try:
        content = {
            "name": make_name(kind, machine),
            "kind": kind,
            "project": str(project.root()),
            "machine": machine,
            "port": listening.getsockname()[1],
            "target": target,
            "time": int(time.time()),
            "process": liveness.identify_process(process.pid),
        }
        files.write(path, json.dumps(content))
    except BaseException:  # without its file, nobody would find the process
        process.kill()
        process.wait()
        raise


def listen(wanted: int) -> socket.socket:
    """Return a socket that listens on the wanted port of 127.0.0.1, or the next free one."""
    for port in range(wanted, min(wanted + 100, 65536)):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
            listening.listen(128)
        except OSError:
            listening.close()
        else:
            return listening
    raise LabError(f"no port from {wanted} on is free: choose another with --port.")


def stop(tunnel: Tunnel) -> None:
    """End its process with all that it started, and remove its files."""
    pid = tunnel.process["pid"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(OSError):
            os.kill(pid, number) if number == signal.SIGTERM else os.killpg(pid, number)
        deadline = time.monotonic() + ENDING
        while is_running(tunnel) and time.monotonic() < deadline:  # until then it has the port
            time.sleep(0.05)
    remove_files(tunnel.path)


def close(name: str | None, kind: Kind | None = None) -> list[str]:
    """End the tunnels of this name or kind, or all of this project; return their names."""
    opened = [tunnel for tunnel in list_open() if kind in (None, tunnel.kind)]
    ours = [tunnel for tunnel in opened if tunnel.project == str(project.root())]
    if name:
        found = [tunnel for tunnel in ours if name in (tunnel.name, tunnel.kind)]
        found = found or [tunnel for tunnel in opened if tunnel.name == name]
        if not found:
            names = ", ".join(tunnel.name for tunnel in opened) or "nothing"
            raise LabError(f"there is no tunnel {name}; open: {names}.")
    else:
        found = ours
    for tunnel in found:
        stop(tunnel)
    return [tunnel.name for tunnel in found]


def describe_state(tunnel: Tunnel) -> str:
    """Ask a tunnel, and return "answers" or what is wrong."""
    problem = read_state(tunnel.path)
    if problem:
        return problem
    path = "/api" if tunnel.kind == "notebook" else PROBE
    return "answers" if request(tunnel, path)[0] == 200 else "does not answer"


def request(tunnel: Tunnel, path: str, token: str = "") -> tuple[int, bytes]:
    """Ask the server behind a tunnel; return (code, body), or (0, b"") if there is no answer.

    The code is 408 (HTTP's own for it) if an answer may only take longer.

    Jupyter is asked through the tunnel's socket in our own folder, where nobody else can listen.
    """
    client = http.client.HTTPConnection("127.0.0.1", tunnel.port, timeout=ANSWER)
    try:
        if tunnel.kind == "notebook":
            client.sock = socket.socket(socket.AF_UNIX)
            client.sock.settimeout(ANSWER)
            client.sock.connect(str(tunnel.path.with_suffix(".sock")))
        client.request("GET", path, headers={"Authorization": f"token {token}"} if token else {})
        answer = client.getresponse()
        return answer.status, answer.read(MAX_ANSWER)
    except TimeoutError:
        return 408, b""
    except (OSError, ValueError, http.client.HTTPException):
        return 0, b""
    finally:
        client.close()
