"""Starts, reuses or ends a JupyterLab on the machine it runs on; notebook.sh passes it to Python.

It runs in the project's working copy with its environment, and needs only the standard library. It
prints one line of JSON: where the server listens, and its token. The token is only in files and
processes that no other user can read.
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
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

# What server.json holds: pid, born, boot, token, kernel, time, sockets; socket or port.
Server: TypeAlias = dict[str, Any]

START = 90  # seconds; a first start on a slow network disk takes long
ANSWER = 10  # seconds
LAB = sys.argv[-1]  # how lab commands for this machine begin
NO_ANSWER = f"JupyterLab does not answer: {LAB} notebook --stop ends it, with its kernels."
MARK = "LAB_NOTEBOOK"  # the variable by which all its processes are found


def main(action: str, folder: str, project: str, data: str, tcp: str, given: str) -> dict[str, Any]:
    """Take an action, "start" or "stop", and return what to print.

    `folder` is for the server's files, `project` has runs/. `tcp` is "yes" to listen on a port.
    `given` has the names of the variables that --env sets, for this start only; "": none.
    """
    own = Path(folder)
    own.mkdir(mode=0o700, exist_ok=True)
    own.chmod(0o700)
    with (own / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if action == "stop":
            return {"stopped": stop(own)}
        server = read_server(own)
        if server:
            wait_for(server, own, ANSWER)
            # a server with kernels is not ended to make it listen on a port
            if tcp != "yes" or "port" in server or list_kernels(server):
                if given:
                    fail(
                        "your JupyterLab is already running, with the variables of its start: leave"
                        f" out --env, or end it with its kernels first: {LAB} notebook --stop."
                    )
                return {**server, "started": False}
        stop(own)
        return {**start(own, Path(project), data, tcp), "started": True}


def read_server(own: Path) -> Server | None:
    """Read server.json; None if its server has ended."""
    try:
        server: Server = json.loads((own / "server.json").read_text())
    except (OSError, ValueError):
        return None
    running = server["boot"] == boot_id() and start_time(server["pid"]) == server["born"]
    return server if running else None


def start(own: Path, project: Path, data: str, tcp: str) -> Server:
    """Start a server; return it once it answers with its token and has the project's kernel."""
    token = secrets.token_hex(24)
    sockets = make_socket_folder(own)
    address: Server = {"port": free_port()} if tcp == "yes" else {"socket": f"{sockets}/socket"}
    kernel = find_kernel()
    command = [os.path.abspath(".venv/bin/jupyter-lab"), "--no-browser", "--ServerApp.root_dir=."]
    command += ["--ServerApp.base_url=/", "--ServerApp.certfile=", "--ServerApp.port_retries=0"]
    command += [f"--MultiKernelManager.default_kernel_name={kernel}"]
    # over ports of 127.0.0.1 everybody could read what the kernels print
    command += ["--KernelManager.transport=ipc"]
    if os.geteuid() == 0:
        command.append("--ServerApp.allow_root=True")
    if "port" in address:
        command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={address['port']}"]
    else:  # the port's default, as another one in the user's configuration would stop Jupyter
        command += [f"--ServerApp.sock={address['socket']}", "--ServerApp.sock_mode=0600"]
        command.append("--ServerApp.port=8888")
    environment = {
        **os.environ,
        "VIRTUAL_ENV": os.path.abspath(".venv"),
        "PATH": os.path.abspath(".venv/bin") + os.pathsep + os.environ["PATH"],
        "LAB_RUNS": str(project / "runs"),
        "LAB_DATA": data,
        "JUPYTER_TOKEN": token,  # no other user can read the environment of a process
        "JUPYTER_RUNTIME_DIR": sockets,  # for the sockets of the kernels
        MARK: str(own),
    }
    for name in ("JUPYTER_TOKEN_FILE", "JUPYTER_PORT"):
        environment.pop(name, None)
    with (own / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            start_new_session=True,  # it outlives this connection
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        server = {"pid": process.pid, "born": start_time(process.pid), "boot": boot_id()}
        server |= {"token": token, "kernel": kernel, "time": int(time.time()), "sockets": sockets}
        server |= address
        draft = own / "server.json.new"
        draft.write_text(json.dumps(server))
        draft.replace(own / "server.json")
        wait_for(server, own, START)
        if request(server, "/api/status", "")[0] == 200:
            fail("your Jupyter configuration on the machine disables the token: enable it.")
        if kernel not in ask(server, "/api/kernelspecs")["kernelspecs"]:
            fail(f"Jupyter does not find the kernel {kernel}: {LAB} setup.")
    except BaseException:
        stop(own)
        process.kill()  # stop() does not find it before it has begun
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        raise
    return server


def find_kernel() -> str:  # noqa: RET503 (fail() does not return)
    """Return the name of the project's kernel, which lab setup registered for this folder."""
    from jupyter_core.paths import jupyter_data_dir

    project = os.path.realpath(".")
    for path in sorted(Path(jupyter_data_dir(), "kernels").glob("*/kernel.json")):
        with suppress(OSError, ValueError, KeyError):
            mark = json.loads(path.read_text("utf-8"))["metadata"]["dl-remote-template"]
            if os.path.realpath(mark["project"]) == project:
                return path.parent.name
    fail(f"the project's kernel is missing: {LAB} setup.")


def list_kernels(server: Server) -> list[Any]:
    """Return the kernels that are running."""
    kernels: list[Any] = ask(server, "/api/kernels")
    return kernels


def ask(server: Server, path: str) -> Any:
    """Return what the server says in JSON."""
    code, body = request(server, path, server["token"])
    if code != 200:
        fail(NO_ANSWER)
    return json.loads(body)


def wait_for(server: Server, own: Path, seconds: float) -> None:
    """Wait until the server answers with our token."""
    deadline = time.monotonic() + seconds
    while request(server, "/api/status", server["token"])[0] != 200:
        if start_time(server["pid"]) != server["born"]:
            lines = (own / "log").read_text("utf-8", "replace").strip().splitlines()
            fail(f"JupyterLab did not start: {lines[-1] if lines else 'it does not say why'}")
        if time.monotonic() > deadline:
            fail(NO_ANSWER)
        time.sleep(0.1)


def request(server: Server, path: str, token: str, method: str = "GET") -> tuple[int, bytes]:
    """Ask the server; return (code, body), or (0, b"") if there is no answer.

    Over TCP only a server of this user is asked: the port may be somebody else's by now.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.get("port"), timeout=ANSWER)
    try:
        if "socket" in server:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(ANSWER)
            connection.sock.connect(server["socket"])
        elif find_owner(server["port"]) != os.getuid():
            return 0, b""
        headers = {"Authorization": f"token {token}"} if token else {}
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def stop(own: Path) -> bool:
    """End the server and its kernels, or what a dead one left behind; return whether one ran."""
    server = read_server(own)
    if server and request(server, "/api/shutdown", server["token"], "POST")[0] == 200:
        wait_until_ended(own, 10)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in find_processes(own):
            with suppress(OSError):
                os.kill(pid, number)
        if wait_until_ended(own, 5):
            break
    with suppress(OSError, ValueError, KeyError):
        remove_sockets(Path(json.loads((own / "server.json").read_text())["sockets"]), own)
    (own / "server.json").unlink(missing_ok=True)
    return bool(server)


def find_processes(own: Path) -> Iterator[int]:
    """Find the server and its kernels, by the variable that they inherited.

    Other processes that inherited it, such as a tmux started in Jupyter's terminal, are left alone.
    """
    mark = f"{MARK}={own}".encode(errors="surrogateescape")
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (path / "cmdline").read_bytes()
            ours = b"/jupyter-lab\0" in command or b"\0ipykernel_launcher\0" in command
            marked = ours and mark in (path / "environ").read_bytes().split(b"\0")
            if marked and start_time(int(path.name)):
                yield int(path.name)


def wait_until_ended(own: Path, seconds: float) -> bool:
    """Wait for its processes to end; return whether they did."""
    deadline = time.monotonic() + seconds
    while any(find_processes(own)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def make_socket_folder(own: Path) -> str:
    """Return a folder for sockets that only this user can enter: `own`, or a new one in /tmp.

    The path of a socket has at most 107 bytes, of which kernels need 50, and ssh takes some
    characters for its own syntax. Not every network disk can hold a socket.
    """
    path = str(own)
    if len(path) <= 55 and path.isascii() and not set(path) & set(":%$\\\"' "):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            (own / "socket").unlink(missing_ok=True)
            probe.bind(f"{path}/socket")
            (own / "socket").unlink()
            return path
    return tempfile.mkdtemp(prefix="lab-", dir="/tmp")


def remove_sockets(sockets: Path, own: Path) -> None:
    """Remove what a server left in its folder of sockets."""
    for pattern in ("socket", "kernel-*", "jpserver-*", "jupyter_cookie_secret"):
        for path in sockets.glob(pattern):
            path.unlink()
    if sockets != own:
        sockets.rmdir()


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_owner(port: int) -> int | None:
    """Return the id of the user who listens on a port of 127.0.0.1; None if nobody does."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}" and fields[3] == "0A":
            return int(fields[7])
    return None


def boot_id() -> str:
    """Identify the current boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> str:
    """Return when a process started, in the kernel's format; "" if there is no such process."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")  # it may have any name
    except OSError:
        return ""
    fields = line.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def fail(message: str) -> NoReturn:
    sys.exit(f"lab: {message}")


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:-1])))
