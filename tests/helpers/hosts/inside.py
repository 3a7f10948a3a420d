"""What runs inside a test host as its first process: its init, and on the gateway the proxy.

Requests come as lines of JSON on stdin and are answered on stdout. When stdin closes, because the
tests ended or were killed, this process ends, and with it everything in the host.
Standard library only, and nothing is imported later: the host's own /tmp may hide this file.
"""

import asyncio
import json
import os
import pwd
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

STARTED = {}  # name of a server of the bed: its process
KEPT = set()  # ids of the mounts that the bed itself made


def wait_until(true, seconds=60):
    """Wait for a condition; return whether it came true in time."""
    end = time.monotonic() + seconds
    while not (now := true()) and time.monotonic() < end:
        time.sleep(0.002)
    return bool(now)


def alive():
    """The processes of this host, without the bed's own and without zombies."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                state = stat.read().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        own = {1, *(process.pid for process in STARTED.values())}
        if state not in "ZX" and int(name) not in own:
            found.append(int(name))
    return found


def processes():
    """The processes that alive() finds, with their users and command lines."""
    found = []
    for pid in alive():
        try:
            user = pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
            with open(f"/proc/{pid}/cmdline", errors="replace") as line:
                found.append((pid, user, line.read().rstrip("\0").replace("\0", " ")))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return {"code": 0, "output": found, "error": ""}


def reap():
    """Reap all children that have ended, also orphans, as the first process has to."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def sh(script):
    """Run a script of the bed here."""
    done = subprocess.run(
        ["/bin/sh", "-euc", script], capture_output=True, text=True, timeout=120, errors="replace"
    )
    return {"code": done.returncode, "output": done.stdout, "error": done.stderr}


def start(name, command, pid_file):
    """Start or restart a server; it is ready when it has written its pid."""
    if former := STARTED.pop(name, None):
        former.terminate()
        former.wait()
    if os.path.exists(pid_file):
        os.unlink(pid_file)
    STARTED[name] = process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    ready = wait_until(lambda: os.path.exists(pid_file) or process.poll() is not None)
    failed = not ready or process.poll() is not None
    return {"code": int(failed), "output": "", "error": f"{name} did not start"}


def list_mounts():
    """The id and the mount point of each mount here, in the order in which they were made."""

    def unescape(text):
        return re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), text)

    with open("/proc/self/mountinfo", errors="surrogateescape") as mounts:
        found = [line.split(" ") for line in mounts]
    return [(fields[0], unescape(fields[4])) for fields in found]


def keep_mounts():
    """Let clear() leave the mounts that are there now."""
    KEPT.update(mount for mount, _ in list_mounts())
    return {"code": 0, "output": "", "error": ""}


def clear():
    """End every process here but the bed's own, by its id, and unmount what a test mounted.

    Tells which of the bed's own processes had ended.
    """

    def gone():
        for pid in alive():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        reap()
        return not alive()

    code = int(not wait_until(gone))
    for mount, folder in reversed(list_mounts()):  # one in another's folder before that other
        if mount not in KEPT:
            subprocess.run(["umount", "--lazy", folder], check=True)
    ended = [name for name, process in STARTED.items() if process.poll() is not None]
    return {"code": code, "output": ended, "error": f"still there: {alive()}"}


class Proxy:
    """Forwards TCP connections, and delays, counts and resets them as a real line would."""

    def __init__(self, listen, target):
        self.listen, self.target = listen, target
        self.seconds = 0.0
        self.limit = None
        self.open = set()  # (writer, writer) of each connection
        self.count()
        self.server = None
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def ask(self, name, *arguments):
        """Call the method in the thread of the connections."""

        async def called():
            answer = getattr(self, name)(*arguments)
            return await answer if asyncio.iscoroutine(answer) else answer

        answer = asyncio.run_coroutine_threadsafe(called(), self.loop).result(60)
        return {"code": 0, "output": answer, "error": ""}

    async def accept(self):
        if not self.server:
            self.server = await asyncio.start_server(self.connection, *self.listen, backlog=100)

    async def refuse(self):
        if self.server:
            self.server.close()
        self.server = None
        await self.reset()

    async def reset(self):
        """Linger of zero seconds: closing is a reset (RST); it has been sent by then."""
        for writer in [writer for pair in self.open for writer in pair]:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        self.open.clear()
        for _ in range(2):  # abort() only schedules it
            await asyncio.sleep(0)

    def delay(self, seconds):
        self.seconds = seconds

    def cut_after(self, limit):
        self.limit = limit

    def count(self):
        """Start new counters; return the former ones."""
        former = getattr(self, "counters", None)
        self.counters = {"up": 0, "down": 0, "round_trips": 0, "connections": 0}
        self.asked = 0  # round trips that the far side knows to be the laptop's
        return former

    def carry(self, name):
        """Return the counters, and the number of round trips that a piece sent now completes.

        A piece that was sent before the answer arrived did not wait for it, however late it is.
        """
        counters, number = self.counters, self.counters["round_trips"]
        if name == "up":
            return counters, number + 1
        return counters, self.asked

    def arrive(self, name, counters, number):
        if counters is not self.counters:  # sent before the last count
            return
        if name == "up":
            self.asked = max(self.asked, number)
        else:
            counters["round_trips"] = max(counters["round_trips"], number)

    async def connection(self, reader, writer):
        self.counters["connections"] += 1
        try:
            inner_reader, inner_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, inner_writer)
        self.open.add(pair)
        for one in pair:
            one.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(
            self.direction("up", reader, inner_writer),
            self.direction("down", inner_reader, writer),
        )
        self.open.discard(pair)
        for one in pair:
            one.close()

    async def direction(self, name, reader, writer):
        """Forward pieces when they are due; many may be on the way at once."""
        under_way = asyncio.Queue(maxsize=1000)
        writing = asyncio.create_task(self.deliver(name, under_way, writer))
        piece = b"first"
        while piece:
            try:
                piece = await reader.read(1 << 16)
            except OSError:
                piece = b""
            if piece:
                self.counters[name] += len(piece)
                if self.limit is not None:
                    self.limit -= len(piece)
                    if self.limit <= 0:
                        self.limit = None
                        await self.reset()
            await under_way.put((self.loop.time() + self.seconds, piece, self.carry(name)))
        await writing

    async def deliver(self, name, under_way, writer):
        failed = False
        while True:
            due, piece, carried = await under_way.get()
            if (left := due - self.loop.time()) > 0:
                await asyncio.sleep(left)
            try:
                if piece and not failed:
                    self.arrive(name, *carried)
                    writer.write(piece)
                    await writer.drain()
                elif not piece and not failed and not writer.transport.is_closing():
                    writer.write_eof()
            except OSError:
                failed = True  # the other side is gone; what still comes is thrown away
            if not piece:
                return


def main():
    children, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    proxy = None

    def answer(kind, *arguments):
        nonlocal proxy
        if kind == "proxy":
            proxy = Proxy(*arguments)
            return proxy.ask("accept")
        if kind in ("sh", "start", "keep_mounts", "clear", "processes"):
            return globals()[kind](*arguments)
        return proxy.ask(kind, *arguments)

    # the pid on the real machine, whose /proc this still is
    print(json.dumps(int(os.readlink("/proc/self"))), flush=True)
    buffer = b""
    while True:
        ready = select.select([0, children], [], [])[0]
        if children in ready:
            os.read(children, 4096)
            reap()
        if 0 in ready:
            read = os.read(0, 1 << 16)
            if not read:
                sys.exit()
            *lines, buffer = (buffer + read).split(b"\n")
            for line in lines:
                try:
                    answered = answer(*json.loads(line))
                except Exception as error:  # report it, and keep the host alive
                    answered = {"code": 1, "output": "", "error": repr(error)}
                print(json.dumps(answered), flush=True)


if __name__ == "__main__":
    main()
