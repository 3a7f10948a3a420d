"""The process of one tunnel: keeps the local port, and a forward of the shared connection.

    browser -> 127.0.0.1:PORT (held by this process) -> local socket -> shared ssh -> remote socket

The process keeps the port while there is no connection. When the shared connection ends, it is
opened again if no host asks for anything; otherwise the process waits until somebody opens it. It
ends with lab tunnels --close, or after IDLE seconds without use.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from lab.browser import tunnels
from lab.ground import files
from lab.ground.errors import LabError
from lab.ssh import machines
from lab.ssh.calls import ONLY_SHARED
from lab.ssh.connection import Connection
from lab.ssh.framing import MAX_STDERR, PATIENCE, pack_command
from lab.ssh.ssh_errors import ConnectionLost, SshError

IDLE = 12 * 3600  # seconds without a connection
START = 60  # seconds until its parent has written its file
MAX_WAIT = 30  # seconds between two attempts
LASTING_WAIT = 600  # the same after a lasting error: some machines ban a user who fails five times
AWAKE = 20  # seconds by which the clocks differ after a sleep
AFTER_SLEEP = min(10.0, PATIENCE)  # seconds for the connection to answer then
READY = b"the tunnel may open\n"
# Runs on the machine while a port is forwarded, as the port may become somebody else's once Jupyter
# has ended: then the tunnel does not open, or ends within a second. It also ends when the pipe from
# this process does.
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


class Keeper:
    """Keeps one tunnel open."""

    def __init__(self, path: Path, machine: str, target: str):
        self.path, self.target = path, target
        self.state, self.socket = path.with_suffix(".state"), path.with_suffix(".sock")
        self.connection = Connection(machines.get(machine))
        self.up, self.called = asyncio.Event(), asyncio.Event()
        self.used = time.monotonic()

    async def run(self, listening: socket.socket) -> None:
        """Keep the tunnel until a signal ends it, or nobody has used it for IDLE seconds."""
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
        results = await asyncio.gather(*tasks, return_exceptions=True)
        if self.up.is_set():
            self.connection.cancel(self.socket, self.target)
        failed = [one for one in results if isinstance(one, Exception)]
        if failed:  # its files stay: the cause is in the log
            with suppress(OSError):
                traceback.print_exception(failed[0])
        else:
            tunnels.remove_files(self.path)
        os._exit(1 if failed else 0)  # a thread may still wait for ssh

    async def keep(self) -> None:
        """Forward, and forward again when that has ended, waiting longer each time."""
        wait = 0.5
        while True:
            began = time.monotonic()
            error = await self.stay_forwarded()
            self.up.clear()
            report_state(self.state, str(error))
            wait = 1 if time.monotonic() - began > 60 else min(2 * wait, MAX_WAIT)
            if error.lasting:
                await wait_until_open(self.connection, LASTING_WAIT)
                continue
            least = min(wait, 3)
            await asyncio.sleep(least)
            self.called.clear()
            with suppress(asyncio.TimeoutError):  # a browser that asks for the tunnel cuts it short
                await asyncio.wait_for(self.called.wait(), wait - least)

    async def stay_forwarded(self) -> SshError:
        """Forward as long as the shared connection lasts; return why that has ended."""
        try:
            await asyncio.to_thread(self.connection.open)
            await asyncio.to_thread(self.connection.forward, self.socket, self.target)
            if self.target.startswith("/"):
                return await self.hold()
            return await self.watch(int(self.target.rpartition(":")[2]))
        except SshError as error:
            return error
        except LabError as error:  # ssh cannot be started now
            return SshError(str(error))

    async def hold(self) -> SshError:
        """Hold a connection through the forward, which ends at once with the shared connection.

        It is also what keeps ssh busy: a forward that only listens counts as idle.
        """
        self.up.set()
        report_state(self.state, "")
        with suppress(OSError):  # once the forward is gone
            while True:
                reader, writer = await asyncio.open_unix_connection(str(self.socket))
                with closing(writer):
                    await reader.read(1)  # nothing is sent, so nothing comes but the end
                await asyncio.sleep(2)  # Jupyter has ended, or has closed an idle connection
        return ConnectionLost(f"{self.connection.name}: the connection was lost.")

    async def watch(self, port: int) -> SshError:
        """Keep the tunnel open as long as the machine says that the port is the user's own."""
        process = await asyncio.create_subprocess_exec(
            *self.connection.ssh_command("-T", *ONLY_SHARED),
            pack_command(WATCH.format(port=port)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        errors = asyncio.ensure_future(keep_end(process.stderr))
        try:
            seen = b""  # the login shell may print something, too
            while piece := await process.stdout.read(1 << 16):
                seen += piece
                if READY in seen:
                    self.up.set()
                    report_state(self.state, "")
                    seen = b""
                seen = seen[-len(READY) :]
        finally:
            process.stdin.close()
            with suppress(OSError):
                process.terminate()
            await process.wait()
            self.connection.cancel(self.socket, self.target)
        return self.connection.explain((await errors).decode("utf-8", "replace"))

    async def watch_clocks(self) -> None:
        """End the shared connection if it did not survive a sleep of this computer.

        Return after IDLE seconds without use, or when the file is gone by which lab finds this
        process.
        """
        offset = time.time() - time.monotonic()
        while time.monotonic() - self.used < IDLE and self.path.exists():
            await asyncio.sleep(2)
            before, offset = offset, time.time() - time.monotonic()
            if offset - before > AWAKE and self.up.is_set():
                answers = await asyncio.to_thread(self.connection.answers, AFTER_SLEEP)
                if not answers:
                    await asyncio.to_thread(self.connection.give_up)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection of the browser; if the tunnel is down, wait a little for it."""
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


async def keep_end(stream: asyncio.StreamReader) -> bytes:
    """Read a stream to its end, and return only the last part: a machine may write forever."""
    end = b""
    while piece := await stream.read(1 << 16):
        end = (end + piece)[-MAX_STDERR:]
    return end


async def wait_until_open(connection: Connection, seconds: float) -> None:
    """Wait until somebody has opened the shared connection, but no longer than `seconds`."""
    until = time.monotonic() + seconds
    while not connection.is_open() and time.monotonic() < until:
        await asyncio.sleep(1)


def report_state(state: Path, text: str) -> None:
    """Write the state that lab tunnels shows: "" if all is ok, else what is wrong."""
    with suppress(OSError):  # a full disk ends no tunnel
        files.write(state, text, durable=False)


def wait_for_file(path: Path) -> dict[str, Any]:
    """Return the content of this process's file, which its parent is about to write."""
    deadline = time.monotonic() + START
    while not path.exists():
        if time.monotonic() > deadline:
            sys.exit("the command that started this has ended")
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


if __name__ == "__main__":
    main(*sys.argv[1:])
