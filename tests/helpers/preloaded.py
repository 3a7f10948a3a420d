"""Runs scripts in forks of one Python that has imported Sacred, which takes longer than they do.

A project's Python runs this file as a program, which forks for each script that is requested.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


class Preloaded:
    """A project's Python that has imported what experiments do, and more; stop() ends it."""

    def __init__(self, python: Path, env: dict[str, str], *more: str):
        self.asked, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [str(python), __file__, str(theirs.fileno()), *more]
            self.process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()])

    def start(self, words: list, cwd: Path, env: dict[str, str], **streams) -> "Fork":
        """Start a script; streams as in subprocess, new_session for a session of its own."""
        return Fork(self, [str(word) for word in words], str(cwd), env, **streams)

    def stop(self) -> None:
        self.asked.close()
        self.process.wait()


class Fork:
    """A process of Preloaded, used like subprocess.Popen."""

    def __init__(
        self, server, words, cwd, env, stdin=None, stdout=None, stderr=None, new_session=False
    ):
        self.args, self.returncode, self.stdin, self.stdout = words, None, None, None
        closed, fds = [], [0, 1, 2]
        if stdin == subprocess.PIPE:
            fds[0], end = os.pipe()
            self.stdin = os.fdopen(end, "w")
            closed.append(fds[0])
        for number, stream in ((1, stdout), (2, stderr)):
            if stream == subprocess.PIPE:
                end, fds[number] = os.pipe()
                self.stdout = os.fdopen(end, encoding="utf-8")
                closed.append(fds[number])
            elif stream == subprocess.STDOUT:
                fds[number] = fds[1]
            elif stream is not None:
                fds[number] = stream if isinstance(stream, int) else stream.fileno()
        self.ended, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asked = json.dumps([words, cwd, env, new_session]).encode()
        with theirs:
            socket.send_fds(server.asked, [asked], [*fds, theirs.fileno()])
        for fd in closed:
            os.close(fd)
        self.pid = int(self.ended.recv(100))

    def poll(self, timeout: float | None = 0) -> int | None:
        if self.returncode is None and select.select([self.ended], [], [], timeout)[0]:
            said = self.ended.recv(100)
            assert said, "the preloaded Python has ended"
            self.returncode = int(said)
        return self.returncode

    def wait(self) -> int:
        return self.poll(timeout=None)

    def communicate(self, text: str | None = None) -> tuple[str | None, None]:
        if self.stdin:
            with suppress(BrokenPipeError):
                self.stdin.write(text or "")
                self.stdin.close()
        shown = self.stdout.read() if self.stdout else None
        self.wait()
        return shown, None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def serve(asked: socket.socket) -> Callable[[], None]:
    """Fork for each request, and report exit codes. Only a fork returns, with what it is to run."""
    wake, written = os.pipe()
    os.set_blocking(written, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    running: dict[int, socket.socket] = {}
    while True:
        for ready in select.select([asked, wake], [], [])[0]:
            if ready == wake:
                os.read(wake, 4096)
                while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    with running.pop(ended[0]) as told, suppress(BrokenPipeError):
                        told.send(str(os.waitstatus_to_exitcode(ended[1])).encode())
                continue
            request, fds, _, _ = socket.recv_fds(asked, 1 << 20, 4)
            if not request:
                sys.exit()
            told = socket.socket(fileno=fds.pop())
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (asked, told, *running.values()):
                    one.close()
                os.close(wake)
                os.close(written)
                return become(fds, *json.loads(request))
            running[pid] = told
            told.send(str(pid).encode())
            for fd in fds:
                os.close(fd)


def become(fds: list[int], words: list[str], cwd: str, env: dict, new_session: bool):
    """Make this process look like a new Python with these words; return what runs the script."""
    if new_session:
        os.setsid()
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    for fd in fds:
        os.close(fd)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    sys.argv = words
    sys.path[0] = os.path.dirname(words[0])
    sys.path[1:1] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__file__ = words[0]
    code = compile(Path(words[0]).read_bytes(), words[0], "exec")
    from lab.ground import project

    project.reload()
    return lambda: exec(code, main.__dict__)


def warm_up() -> None:
    """Import and cache what an experiment needs before its first run."""
    from lab import project, records, tracking

    assert project and records
    tracking.Experiment(Settings)


@dataclass(frozen=True)
class Settings:
    seed: int = 0


if __name__ == "__main__":
    for name in sys.argv[2:]:
        importlib.import_module(name)
    warm_up()
    gc.freeze()  # so that no fork visits what is imported when it ends
    serve(socket.socket(fileno=int(sys.argv[1])))()
