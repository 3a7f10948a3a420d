"""The process of one tunnel: keeps the local port, and an ssh to the machine as long as needed.

    browser -> 127.0.0.1:PORT (held by this process) -> local socket -> ssh -> remote socket

The port stays with this process while there is no connection. A new ssh is started when one ends,
and after this computer slept. This process ends by lab tunnels --close, or after IDLE seconds
without use. However it dies, its ssh ends too: that lives only as long as a pipe from here.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.browser import tunnels
from lab.ground import files
from lab.ssh import machines
from lab.ssh.connection import Connection
from lab.ssh.framing import PATIENCE, pack_command
from lab.ssh.ssh_errors import explain

IDLE = 12 * 3600  # seconds without a connection
LONGEST = 30  # seconds between two attempts
LASTING_WAIT = 600  # the same after what stays wrong: some machines ban who fails five times
AWAKE = 20  # seconds by which the clocks disagree after a sleep
READY = b"the tunnel may open\n"
# What runs on the machine: nothing, until the pipe from here ends. A port may become somebody
# else's when Jupyter has ended; then the tunnel does not open, or ends within a second.
WAIT = "echo the tunnel may open; exec cat >/dev/null"
WATCH = """
ready=
while awk -v want=0100007F:{port:04X} -v me="$(id -u)" '
    $2 == want && $4 == "0A" && $8 == me {{ found = 1 }} END {{ exit !found }}' /proc/net/tcp
do
    [ "$ready" ] || echo the tunnel may open
    ready=yes
    timeout 1 cat >/dev/null && exit
done
echo "your server no longer listens on port {port}: lab notebook" >&2
exit 1"""


def watch_command(target: str) -> str:
    """Return the command that runs on the machine as long as the tunnel is open."""
    return WAIT if target.startswith("/") else WATCH.format(port=int(target.rpartition(":")[2]))


def forward_option(socket: Path, target: str) -> str:
    """Return the value of ssh's -L; `target` is an address, or a path that needs no escapes."""
    return str(socket).replace("\\", "\\\\").replace(":", "\\:") + f":{target}"


class Keeper:
    """Keeps one tunnel open."""

    def __init__(self, path: Path, machine: str, target: str):
        self.path, self.target = path, target
        self.state, self.ssh_log = path.with_suffix(".state"), path.with_suffix(".log")
        self.control, self.socket = path.with_suffix(".ssh"), path.with_suffix(".sock")
        self.connection = Connection(machines.get(machine))
        self.up, self.called = asyncio.Event(), asyncio.Event()
        self.used = time.monotonic()
        self.process: asyncio.subprocess.Process | None = None

    async def run(self, listening: socket.socket) -> None:
        """Keep the tunnel until a signal ends it, or nobody has used it for long."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, ended.set)
        await asyncio.start_server(self.serve, sock=listening)
        steps = (ended.wait(), self.keep(), self.watch_clocks())
        tasks = [asyncio.ensure_future(step) for step in steps]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def keep(self) -> None:
        """Run an ssh, and another one when it ends, after a little longer each time."""
        wait = 0.5
        while True:
            began = time.monotonic()
            stderr = await self.run_ssh()
            self.up.clear()
            error = explain(stderr, self.connection.machine)
            report_state(self.state, str(error))
            wait = 1 if time.monotonic() - began > 60 else min(2 * wait, LONGEST)
            if error.lasting:
                wait = LASTING_WAIT
            least = wait if wait == LASTING_WAIT else min(wait, 3)
            await asyncio.sleep(least)
            self.called.clear()
            with suppress(asyncio.TimeoutError):  # whoever wants to use it need not wait longer
                await asyncio.wait_for(self.called.wait(), wait - least)

    async def run_ssh(self) -> str:
        """Run one ssh to its end; return what it wrote to stderr."""
        for path in (self.control, self.socket):
            path.unlink(missing_ok=True)
        options = ["-M", "-S", str(self.control), "-T"]
        options += ["-o", "ControlPersist=no"]
        with self.ssh_log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *self.connection.ssh_command(*options),
                pack_command(watch_command(self.target)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async for line in process.stdout:  # the login shell may print something, too
                if line.endswith(READY):
                    await self.forward(process)
                    break
        finally:
            process.stdin.close()
            with suppress(OSError):
                process.terminate()
            await process.wait()
        lines = files.read_text(self.ssh_log, "replace").splitlines()
        # that Jupyter did not answer for a while is no cause of the end
        return "\n".join(line for line in lines if not line.startswith("channel "))

    async def forward(self, process: asyncio.subprocess.Process) -> None:
        """Forward our socket alone, not what the user's config forwards, as long as ssh runs."""
        command = ["ssh", "-F", "/dev/null", "-S", str(self.control), "-O", "forward"]
        command += ["-L", forward_option(self.socket, self.target), "x"]
        asking = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL)
        with suppress(asyncio.TimeoutError):
            if await asyncio.wait_for(asking.wait(), PATIENCE) == 0:
                self.up.set()
                report_state(self.state, "")
                await process.wait()

    async def watch_clocks(self) -> None:
        """End an ssh whose connection a sleep of this computer cut off.

        Returns after IDLE seconds without use, or if the file is gone by which others find this.
        """
        while time.monotonic() - self.used < IDLE and self.path.exists():
            before = time.time() - time.monotonic()
            await asyncio.sleep(2)
            if time.time() - time.monotonic() - before > AWAKE and self.process:
                with suppress(OSError):
                    self.process.terminate()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one connection of the browser; without an ssh it waits a little for one."""
        self.used = time.monotonic()
        self.called.set()
        remote_writer = None
        try:
            await asyncio.wait_for(self.up.wait(), PATIENCE)
            remote_reader, remote_writer = await asyncio.open_unix_connection(str(self.socket))
            await asyncio.gather(self.pump(reader, remote_writer), self.pump(remote_reader, writer))
        except (OSError, asyncio.TimeoutError):
            pass
        finally:
            for one in (writer, remote_writer):
                if one:
                    one.close()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy one direction until its end."""
        while chunk := await reader.read(1 << 16):
            self.used = time.monotonic()
            writer.write(chunk)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


def report_state(state: Path, text: str) -> None:
    """Write the state that lab tunnels shows: "" if all is ok, else what is wrong."""
    files.write(state, text, durable=False)


def wait_for_file(path: Path) -> dict[str, Any]:
    """Return the content of this process' file, which its starter is about to write."""
    while not path.exists():
        time.sleep(0.01)
    content: dict[str, Any] = files.parse_json(files.read_text(path))
    return content


def main(path: str, number: str) -> None:
    os.umask(0o077)
    file = Path(path)
    content = wait_for_file(file)
    with socket.socket(fileno=int(number)) as listening:
        listening.setblocking(False)
        asyncio.run(Keeper(file, content["machine"], content["target"]).run(listening))
    tunnels.remove_files(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
