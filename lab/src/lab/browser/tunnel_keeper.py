"""The process of one tunnel: keeps the port here, and an ssh to the machine for as long as needed.

    browser -> 127.0.0.1:PORT (held by this process) -> our socket here -> ssh -> socket there

The port never changes hands while the line is away. ssh is made anew when it ends, and after a
sleep of this computer. This process ends by lab tunnels --close, or after IDLE hours without use.
When it dies, however it dies, its ssh ends too: that one lives as long as a pipe from here.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from lab.browser import tunnels
from lab.ground import files
from lab.ssh import machines
from lab.ssh.connection import Connection
from lab.ssh.framing import PATIENCE, pack_command
from lab.ssh.ssh_errors import explain

IDLE = 12 * 3600  # seconds without a connection
LONGEST = 30  # seconds between two attempts
# What should not be tried often: some machines shut out who fails five times.
LASTING_WAIT = 600
AWAKE = 20  # seconds by which the clocks disagree after a sleep
READY = b"the tunnel may come\n"
# What runs there: nothing, until the pipe from here ends. A port may become somebody else's when
# Jupyter has ended; then the tunnel does not come, or ends within a second.
WAIT = "echo the tunnel may come; exec cat >/dev/null"
WATCH = """
said=
while awk -v want=0100007F:{port:04X} -v me="$(id -u)" '
    $2 == want && $4 == "0A" && $8 == me {{ found = 1 }} END {{ exit !found }}' /proc/net/tcp
do
    [ "$said" ] || echo the tunnel may come
    said=yes
    timeout 1 cat >/dev/null && exit
done
echo "nothing of ours listens on port {port} there any more: lab notebook" >&2
exit 1"""


def watch_command(target: str) -> str:
    """The command that runs there as long as the tunnel is up."""
    return WAIT if target.startswith("/") else WATCH.format(port=int(target.rpartition(":")[2]))


def forward_option(socket: Path, target: str) -> str:
    """What ssh's -L is told; `target` is an address, or a path without letters that it minds."""
    return str(socket).replace("\\", "\\\\").replace(":", "\\:") + f":{target}"


class Keeper:
    def __init__(self, path: Path):
        self.path, self.entry = path, json.loads(path.read_text("utf-8"))
        self.state, self.ssh_log = path.with_suffix(".state"), path.with_suffix(".log")
        self.control, self.socket = path.with_suffix(".ssh"), path.with_suffix(".sock")
        self.connection = Connection(machines.get(self.entry["machine"]))
        self.up, self.called = asyncio.Event(), asyncio.Event()
        self.used = time.monotonic()
        self.process: asyncio.subprocess.Process | None = None

    async def run(self, listening: socket.socket) -> None:
        """Until it is ended, or nobody has used it for long."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: ended.done() or ended.set_result(None))
        await asyncio.start_server(self.serve, sock=listening)
        tasks = [asyncio.ensure_future(one()) for one in (self.keep, self.watch_clocks)]
        await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def keep(self) -> None:
        """Have an ssh, and another one when it ends, after a little longer each time."""
        wait = 0.5
        while True:
            began = time.monotonic()
            said = await self.hold()
            self.up.clear()
            error = explain(said, self.connection.machine)
            report_state(self.state, str(error))
            wait = 1 if time.monotonic() - began > 60 else min(2 * wait, LONGEST)
            if error.lasting:
                wait = LASTING_WAIT
            least = wait if wait == LASTING_WAIT else min(wait, 3)
            await asyncio.sleep(least)
            self.called.clear()
            with suppress(asyncio.TimeoutError):  # who wants to use it need not wait
                await asyncio.wait_for(self.called.wait(), wait - least)

    async def hold(self) -> str:
        """One ssh, from its start to its end; what it said of that."""
        for path in (self.control, self.socket):
            path.unlink(missing_ok=True)
        options = ["-M", "-S", str(self.control), "-T", "-o", "BatchMode=yes"]
        options += ["-o", "ControlPersist=no"]
        with open(self.ssh_log, "wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.connection.ssh_command(*options),
                pack_command(watch_command(self.entry["target"])),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        try:
            async for line in self.process.stdout:  # the login shell may say something, too
                if line.endswith(READY):
                    await self.forward()
                    break
        finally:
            self.process.stdin.close()
            with suppress(OSError):
                self.process.terminate()
            await self.process.wait()
        lines = self.ssh_log.read_text("utf-8", "replace").splitlines()
        # that Jupyter was not there for a while says nothing of the line
        return "\n".join(line for line in lines if not line.startswith("channel "))

    async def forward(self) -> None:
        """Our forward alone, as long as its ssh lives: the user's own are not for us."""
        command = ["ssh", "-F", "/dev/null", "-S", str(self.control), "-O", "forward"]
        command += ["-L", forward_option(self.socket, self.entry["target"]), "x"]
        asking = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL)
        with suppress(asyncio.TimeoutError):
            if await asyncio.wait_for(asking.wait(), PATIENCE) == 0:
                self.up.set()
                report_state(self.state, "")
                await self.process.wait()

    async def watch_clocks(self) -> None:
        """End the ssh that a sleep of this computer has cut off; return after long idleness, or if
        its file is gone, without which nobody finds this process any more."""
        while time.monotonic() - self.used < IDLE and self.path.exists():
            before = time.time() - time.monotonic()
            await asyncio.sleep(2)
            if time.time() - time.monotonic() - before > AWAKE and self.process:
                with suppress(OSError):
                    self.process.terminate()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the browser; without a line it waits a little for one."""
        self.used = time.monotonic()
        self.called.set()
        far_writer = None
        try:
            await asyncio.wait_for(self.up.wait(), PATIENCE)
            far_reader, far_writer = await asyncio.open_unix_connection(str(self.socket))
            ways = [self.pump(reader, far_writer), self.pump(far_reader, writer)]
            await asyncio.gather(*ways)
        except (OSError, asyncio.TimeoutError):
            pass
        finally:
            for one in (writer, far_writer):
                if one:
                    one.close()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """What comes in goes out, until its end."""
        while piece := await reader.read(1 << 16):
            self.used = time.monotonic()
            writer.write(piece)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


def report_state(state: Path, text: str) -> None:
    """For lab tunnels: "" if all is well, else what is not."""
    files.write(state, text, durable=False)


def main(path: str, number: str) -> None:
    os.umask(0o077)
    file = Path(path)
    while not file.exists():  # who started us is about to write it
        time.sleep(0.01)
    with socket.socket(fileno=int(number)) as listening:
        listening.setblocking(False)
        asyncio.run(Keeper(file).run(listening))
    tunnels.remove_files(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
