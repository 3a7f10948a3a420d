"""Everything a run prints, into its record as well: from Python, subprocesses and workers.

Outside notebooks it goes through a process of its own, capture_helper.py.
"""

import os
import socket
import subprocess
import sys
import termios
import threading
from pathlib import Path

from lab.recording import capture_helper
from lab.recording.capture_helper import GRACE, QUIET, Lines, copy_size, write_all

NAMES = ("stdout", "stderr")


def start(record: Path) -> "Descriptors | Streams":
    """Begin to copy what is printed to the file `record`, until .stop(), which says what failed."""
    try:
        real = (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
    except (AttributeError, OSError, ValueError):
        real = False
    return Descriptors(record) if real else Streams(record)  # a notebook prints past descriptor 1


class Descriptors:
    """Copies the file descriptors 1 and 2, which child processes inherit."""

    def __init__(self, record: Path):
        flush()
        self.saved = {fd: os.dup(fd) for fd in (1, 2)}
        pairs = {}  # stdout and stderr that are one terminal or file stay in their order
        for fd, screen in self.saved.items():
            pairs.setdefault(tuple(os.fstat(fd)[:3]), (screen, pipe_like(fd)))
        self.control, theirs = socket.socketpair()
        channels = [fd for screen, (source, _) in pairs.values() for fd in (source, screen)]
        # -I -S: the helper needs the standard library only, and starts in 15 ms so
        command = [
            sys.executable,
            "-I",
            "-S",
            capture_helper.__file__,
            str(record),
            theirs.fileno(),
            *channels,
        ]
        self.helper = subprocess.Popen(
            [str(word) for word in command],
            pass_fds=(theirs.fileno(), *channels),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C and a closed terminal end the run, not its record
        )
        theirs.close()
        for fd in self.saved:
            os.dup2(pairs[tuple(os.fstat(fd)[:3])][1][1], fd)
        for _, (source, sink) in pairs.values():
            os.close(source)
            os.close(sink)
        # printed lines leave at once, so that they are not lost with a killed process
        self.buffered = getattr(sys.stdout, "line_buffering", True)
        if not self.buffered:
            sys.stdout.reconfigure(line_buffering=True)

    def stop(self) -> str:
        """Give stdout and stderr back when all is in the record; what failed, or ""."""
        flush()
        if not self.buffered:
            sys.stdout.reconfigure(line_buffering=False)
        for fd, screen in self.saved.items():
            os.dup2(screen, fd)
            os.close(screen)
        self.control.shutdown(socket.SHUT_WR)
        self.control.settimeout(30 + GRACE)  # a terminal may be held by Ctrl-S; not for ever
        try:
            answer = self.control.recv(1000).decode()
            self.helper.wait(timeout=QUIET)
        except subprocess.TimeoutExpired:
            pass  # a child of the run lives on; its output is passed on until it ends
        except OSError as error:
            answer = f"the helper that writes it does not answer ({error})"
        self.control.close()
        return "" if answer == "ok" else answer or "the helper that writes it was killed"


class Streams:
    """Copies what Python writes to sys.stdout and sys.stderr; for notebooks.

    The stream's own `write` is wrapped, so that loggers that hold the stream are heard, and what
    Jupyter itself passes on from subprocesses.
    """

    def __init__(self, record: Path):
        self.file = os.open(record, os.O_WRONLY | os.O_APPEND)
        self.lines, self.lock, self.problem = Lines(), threading.Lock(), ""
        self.streams = [(name, getattr(sys, name), self._wrap(name)) for name in NAMES]

    def _wrap(self, name):
        stream = getattr(sys, name)
        original = stream.write

        def write(text):
            written = original(text)
            self._record(text)
            return written

        try:
            stream.write = write
        except AttributeError:  # a stream in C, such as io.StringIO
            setattr(sys, name, Wrapped(stream, write))
        return original

    def _record(self, text: str) -> None:
        try:
            with self.lock:
                write_all(self.file, self.lines.feed(text.encode("utf-8", "replace")))
        except OSError as error:
            self.problem = str(error)

    def stop(self) -> str:
        """Give the streams back; what failed, or ""."""
        for name, stream, original in self.streams:
            if getattr(sys, name) is stream:
                stream.write = original
            elif isinstance(getattr(sys, name), Wrapped):
                setattr(sys, name, stream)
        try:
            write_all(self.file, self.lines.finish())
        except OSError as error:
            self.problem = str(error)
        os.close(self.file)
        return self.problem


class Wrapped:
    """A stream with another `write`."""

    def __init__(self, stream, write):
        self.stream, self.write = stream, write

    def __getattr__(self, name):
        return getattr(self.stream, name)


def pipe_like(fd: int) -> tuple[int, int]:
    """A pair (to read, to write): a pipe, or for a terminal one that is a terminal as well."""
    if not os.isatty(fd):
        return os.pipe()
    ours, theirs = os.openpty()
    settings = termios.tcgetattr(theirs)
    settings[1] &= ~termios.OPOST  # line ends are the real terminal's business
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    copy_size(fd, ours)
    return ours, theirs


def flush() -> None:
    """Empty the buffers of Python and of C."""
    from sacred.stdout_capturing import flush

    flush()
