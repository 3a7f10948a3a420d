"""Starts, reuses or ends a JupyterLab on the machine it runs on; notebook.sh hands it to Python.

It runs in the project's working copy with its environment, and needs nothing but the standard
library. It prints one line of JSON: what runs, where it listens, and its token. Everything that
holds the token is in a folder, or in the memory, of this user alone.
"""

import fcntl
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

START = 90  # seconds; a first start on a slow network disk takes long
ANSWER = 10  # seconds
LAB = sys.argv[-1]  # how a command of lab for this machine begins
NAME = "LAB_NOTEBOOK"  # the variable by which every process of it is found


def main(action, place, folder, data, tcp):
    """`place`: our folder for it; `folder`: the project's; `tcp`: "yes" where sockets do not do."""
    place = Path(place)
    place.mkdir(mode=0o700, exist_ok=True)
    place.chmod(0o700)
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if action == "stop":
            return {"stopped": stop(place)}
        known = read(place)
        if known:
            wait_for(known, place, ANSWER)
        # nobody's kernels are ended for a port
        if known and (tcp != "yes" or "port" in known or kernels(known)):
            return {**known, "started": False}
        stop(place)
        return {**start(place, Path(folder), data, tcp), "started": True}


def read(place):
    """What is known of the server that runs; None if none does."""
    try:
        known = json.loads((place / "server.json").read_text())
    except (OSError, ValueError):
        return None
    return known if known["boot"] == boot() and started(known["pid"]) == known["born"] else None


def start(place, folder, data, tcp):
    """A new server, which answers with its token and has the project's kernel."""
    token = secrets.token_hex(24)
    sockets = socket_folder(place)
    where = {"port": free_port()} if tcp == "yes" else {"socket": f"{sockets}/socket"}
    name = kernel()
    command = [os.path.abspath(".venv/bin/jupyter-lab"), "--no-browser", "--ServerApp.root_dir=."]
    command += ["--ServerApp.base_url=/", "--ServerApp.certfile=", "--ServerApp.port_retries=0"]
    command += [f"--MultiKernelManager.default_kernel_name={name}"]
    # on ports of 127.0.0.1 everybody could read along what the kernels print
    command += ["--KernelManager.transport=ipc"]
    if os.geteuid() == 0:
        command.append("--ServerApp.allow_root=True")
    if "port" in where:
        command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={where['port']}"]
    else:  # the port's own default: another one in the user's configuration would stop Jupyter
        command += [f"--ServerApp.sock={where['socket']}", "--ServerApp.sock_mode=0600"]
        command.append("--ServerApp.port=8888")
    environment = {
        **os.environ,
        "VIRTUAL_ENV": os.path.abspath(".venv"),
        "PATH": os.path.abspath(".venv/bin") + os.pathsep + os.environ["PATH"],
        "LAB_RUNS": str(folder / "runs"),
        "LAB_DATA": data,
        "JUPYTER_TOKEN": token,  # no other user can read a process' environment
        "JUPYTER_RUNTIME_DIR": sockets,  # the kernels' sockets are there
        NAME: str(place),
    }
    for one in ("JUPYTER_TOKEN_FILE", "JUPYTER_PORT"):
        environment.pop(one, None)
    with open(place / "log", "wb") as log:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        # its own session: it outlives this connection
        process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    born = started(process.pid)
    known = {"pid": process.pid, "born": born, "boot": boot(), "token": token, "kernel": name}
    known |= {"time": int(time.time()), "sockets": sockets, **where}
    draft = place / "server.json.new"
    draft.write_text(json.dumps(known))
    draft.replace(place / "server.json")
    try:
        wait_for(known, place, START)
        if status(known, "/api/status", "")[0] == 200:
            fail("your Jupyter configuration there switches the token off: it must not.")
        names = json.loads(status(known, "/api/kernelspecs", token)[1])["kernelspecs"]
        if name not in names:
            fail(f"its Jupyter does not find the kernel {name}: {LAB} setup.")
    except BaseException:
        stop(place)
        raise
    return known


def kernel():
    """The name of the project's kernel, which lab setup made for this folder."""
    from jupyter_core.paths import jupyter_data_dir

    mine = os.path.realpath(".")
    for path in sorted(Path(jupyter_data_dir(), "kernels").glob("*/kernel.json")):
        with suppress(OSError, ValueError, KeyError):
            mark = json.loads(path.read_text("utf-8"))["metadata"]["dl-remote-template"]
            if os.path.realpath(mark["project"]) == mine:
                return path.parent.name
    fail(f"the project's kernel is not there: {LAB} setup.")


def kernels(known):
    return json.loads(status(known, "/api/kernels", known["token"])[1] or "[]")


def wait_for(known, place, seconds):
    """Until the server answers with our token."""
    end = time.monotonic() + seconds
    while status(known, "/api/status", known["token"])[0] != 200:
        if started(known["pid"]) != known["born"]:
            lines = (place / "log").read_text("utf-8", "replace").strip().splitlines()
            fail(f"JupyterLab did not start: {lines[-1] if lines else 'it does not say why'}")
        if time.monotonic() > end:
            fail(f"JupyterLab there does not answer: {LAB} notebook --stop ends it.")
        time.sleep(0.1)


def status(known, path, token, method="GET"):
    """The answer to a request: (code, body); (0, b"") if there is none.

    Over TCP nobody but our own server is asked: the port may be somebody else's by now.
    """
    connection = http.client.HTTPConnection("127.0.0.1", known.get("port"), timeout=ANSWER)
    try:
        if "socket" in known:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(ANSWER)
            connection.sock.connect(known["socket"])
        elif owner(known["port"]) != os.getuid():
            return 0, b""
        headers = {"Authorization": f"token {token}"} if token else {}
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def stop(place):
    """End the server with its kernels, also what is left of one that died; whether one ran."""
    known = read(place)
    if known and status(known, "/api/shutdown", known["token"], "POST")[0] == 200:
        gone(place, 10)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in members(place):
            with suppress(OSError):
                os.kill(pid, number)
        if gone(place, 5):
            break
    with suppress(OSError, ValueError, KeyError):
        forget(Path(json.loads((place / "server.json").read_text())["sockets"]), place)
    (place / "server.json").unlink(missing_ok=True)
    return bool(known)


def members(place):
    """The server and its kernels, by the variable that they inherited.

    What else inherited it, such as a tmux that somebody started in Jupyter's terminal, may stay.
    """
    mark = f"{NAME}={place}".encode(errors="surrogateescape")
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (path / "cmdline").read_bytes()
            ours = b"/jupyter-lab\0" in command or b"\0ipykernel_launcher\0" in command
            if ours and mark in (path / "environ").read_bytes().split(b"\0") and started(path.name):
                yield int(path.name)


def gone(place, seconds):
    """Wait until there is none of them."""
    end = time.monotonic() + seconds
    while any(members(place)):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def socket_folder(place):
    """A folder of this user alone for the sockets: `place`, or one in /tmp where that cannot be.

    The path of a socket has at most 107 bytes, those of the kernels have 50 letters of their own,
    and ssh reads some letters in its own way. Not every network disk can hold a socket.
    """
    path = str(place)
    if len(path) <= 55 and path.isascii() and not set(path) & set(":%$\\\"' "):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            (place / "socket").unlink(missing_ok=True)
            probe.bind(f"{path}/socket")
            (place / "socket").unlink()
            return path
    return tempfile.mkdtemp(prefix="lab-", dir="/tmp")  # which is open to nobody else


def forget(sockets, place):
    """Remove what a server left there."""
    for pattern in ("socket", "kernel-*", "jpserver-*", "jupyter_cookie_secret"):
        for path in sockets.glob(pattern):
            path.unlink()
    if sockets != place:
        sockets.rmdir()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def owner(port):
    """The user id of who listens on 127.0.0.1 there; None if nobody does."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}" and fields[3] == "0A":
            return int(fields[7])
    return None


def boot():
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def started(pid):
    """When a process started, in the kernel's words; "" if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def fail(message):
    sys.exit(f"lab: {message}")


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:-1])))
