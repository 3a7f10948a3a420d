"""What runs here in the background for the browser: tunnels to Jupyter, and TensorBoard.

Each is one small process of ours (tunnel_keeper.py, tensorboard_server.py) with a file in a folder
of this user alone, by which it is found, listed and ended. It gets its port from us, already
bound, and keeps it: no other program's server can ever be what is behind a printed address.
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
from typing import Any

from lab.ground import files, liveness, project
from lab.ground.errors import LabError
from lab.ssh import connection
from lab.ssh.framing import PATIENCE

START = 60  # seconds; importing TensorBoard from a cold disk takes its time
ENDING = 10  # seconds
ANSWER = min(5.0, PATIENCE)  # seconds
PROBE = "/data/environment"  # of TensorBoard: whether it answers
MODULES = {"notebook": "tunnel_keeper", "tensorboard": "tensorboard_server"}
# The files of one: what it is, and what its process makes.
FILES = ("json", "log", "ssh", "sock", "state")


def folder() -> Path:
    return connection.make_socket_folder("tunnels")


def entry_path(kind: str, machine: str) -> Path:
    """The file of this project's one; a short name, as sockets get the same."""
    key = f"{socket.gethostname()}\0{project.root()}\0{machine}\0{kind}"
    return folder() / f"{zlib.crc32(os.fsencode(key)):08x}.json"


def list_open() -> list[dict[str, Any]]:
    """Those of this user on this computer, oldest first; what dead ones left is removed."""
    found = []
    with connection.hold_lock(folder() / "lock"):
        for path in folder().glob("*.json"):
            entry = read_entry(path)
            if entry:
                found.append(entry)
            elif entry is None:
                remove_files(path)
    return sorted(found, key=lambda entry: entry["time"])


def read_entry(path: Path) -> dict[str, Any] | None:
    """What stands in a file; None if its process is dead, {} if it is another computer's."""
    try:
        entry = json.loads(path.read_text("utf-8"))
        process = entry["process"]
    except (OSError, ValueError, KeyError):
        return None
    if process["host"] != socket.gethostname():  # one that shares this home folder
        return {}
    return {**entry, "path": path} if liveness.judge_state(process, None) == "RUNNING" else None


def remove_files(path: Path) -> None:
    for suffix in FILES:
        path.with_suffix(f".{suffix}").unlink(missing_ok=True)


def start(kind: str, machine: str, target: str, wanted: int | None, usual: int) -> dict[str, Any]:
    """The one of this kind: reused if it has that target, and the `wanted` port if any, else new.

    A new one gets the wanted or the `usual` port, or the next that is free. Raises LabError with
    the reason if it does not come up; it is then gone.
    """
    path = entry_path(kind, machine)
    with connection.hold_lock(folder() / "lock"):
        entry = read_entry(path)
        # one that waits for its line has no need to: it is known to be well just now
        waits = kind == "notebook" and read_state(path)
        if entry and (waits or entry["target"] != target or wanted not in (None, entry["port"])):
            usual = entry["port"]
            stop(entry)
            entry = None
        if not entry:
            remove_files(path)
            with listen(wanted or usual) as listening:
                entry = {
                    "name": "-".join(filter(None, [project.name(), machine, kind])),
                    "kind": kind,
                    "project": str(project.root()),
                    "machine": machine,
                    "port": listening.getsockname()[1],
                    "target": target,
                    "time": int(time.time()),
                }
                spawn(path, entry, listening)
    deadline = time.monotonic() + START
    while read_state(path) is None and read_entry(path) and time.monotonic() < deadline:
        time.sleep(0.05)
    found = read_entry(path)
    if found and (read_state(path) == "" or (read_state(path) and kind == "tensorboard")):
        return found
    log = path.with_suffix(".log")
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    reason = read_state(path) or (lines[-1] if lines else "it did not start")
    if found:
        stop(found)
    remove_files(path)
    raise LabError(f"{entry['name']}: {reason.rstrip('.')}.")


def read_state(path: Path) -> str | None:
    """What a process last said of itself: "" if all is well, None if it has said nothing yet."""
    with suppress(OSError):
        return path.with_suffix(".state").read_text("utf-8")
    return None


def spawn(path: Path, entry: dict[str, Any], listening: socket.socket) -> None:
    """Start its process, in a session of its own: it outlives this terminal."""
    number = listening.fileno()
    module = f"lab.browser.{MODULES[entry['kind']]}"
    with open(os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(path), str(number)],
            cwd="/",
            env={**os.environ, "LAB_PROJECT": str(project.root())},
            start_new_session=True,
            pass_fds=[number],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    entry["process"] = liveness.identify_process(process.pid)
    files.write(path, json.dumps(entry))


def listen(wanted: int) -> socket.socket:
    """A socket that listens here on the wanted port or the next free one; LabError if none is."""
    for port in range(wanted, min(wanted + 100, 65536)):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
            listening.listen(128)
            return listening
        except OSError:
            listening.close()
    raise LabError(f"no port from {wanted} on is free here: choose another with --port.")


def stop(entry: dict[str, Any]) -> None:
    """End its process, with what that started, and remove its files."""
    pid = entry["process"]["pid"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(OSError):
            os.kill(pid, number) if number == signal.SIGTERM else os.killpg(pid, number)
        deadline = time.monotonic() + ENDING
        while read_entry(entry["path"]) and time.monotonic() < deadline:
            time.sleep(0.05)
    remove_files(entry["path"])


def close(name: str | None, kind: str = "") -> list[str]:
    """End those that are meant, by name or kind, without one all of this project; their names."""
    known = [entry for entry in list_open() if kind in ("", entry["kind"])]
    mine = [entry for entry in known if entry["project"] == str(project.root())]
    if name:
        found = [entry for entry in mine if name in (entry["name"], entry["kind"])]
        found = found or [entry for entry in known if entry["name"] == name]
        if not found:
            names = ", ".join(entry["name"] for entry in known) or "none"
            raise LabError(f"there is no tunnel {name}; there are: {names}.")
    else:
        found = mine
    for entry in found:
        stop(entry)
    return [entry["name"] for entry in found]


def describe_state(entry: dict[str, Any]) -> str:
    """How it stands, from asking it: "answers", or what is wrong."""
    wrong = read_state(entry["path"])
    if wrong:
        return wrong
    path = "/api" if entry["kind"] == "notebook" else PROBE
    return "answers" if request(entry, path)[0] == 200 else "does not answer"


def request(entry: dict[str, Any], path: str, token: str = "") -> tuple[int, bytes]:
    """A request to what is behind it: (code, body); (0, b"") if there is no answer.

    A tunnel is asked by its socket in our own folder, where nobody else can be listening.
    """
    client = http.client.HTTPConnection("127.0.0.1", entry["port"], timeout=ANSWER)
    try:
        if entry["kind"] == "notebook":
            client.sock = socket.socket(socket.AF_UNIX)
            client.sock.settimeout(ANSWER)
            client.sock.connect(str(entry["path"].with_suffix(".sock")))
        client.request("GET", path, headers={"Authorization": f"token {token}"} if token else {})
        answer = client.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        client.close()
