"""Everything a run prints, also copied into its record: from Python, subprocesses and workers.

Outside notebooks the output passes through a process of its own, capture_helper.py.
"""

import io
import os
import selectors
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from lab.recording import capture_helper
from lab.recording.capture_helper import GRACE, QUIET, Lines, copy_size, write_all

NAMES = ("stdout", "stderr")


def start(record: Path, prints_in_c: bool = True) -> "DescriptorCapture | StreamCapture":
    """Begin to copy what is printed to the file `record`, until .stop().

    `prints_in_c`: whether code in C may print in this process, whose buffers are then flushed.
    """
    try:
        real = (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)
    except (AttributeError, OSError, ValueError):
        real = False
    # what a notebook prints does not pass through descriptor 1
    return DescriptorCapture(record, prints_in_c) if real else StreamCapture(record)


class DescriptorCapture:
    """Copies the file descriptors 1 and 2, which child processes inherit."""

    def __init__(self, record: Path, prints_in_c: bool):
        self.prints_in_c = prints_in_c
        flush_buffers(prints_in_c)
        self.saved = {fd: os.dup(fd) for fd in (1, 2)}
        # by file: if stdout and stderr are one terminal or file, they share a pair and keep order
        pairs: dict[tuple[int, ...], tuple[int, tuple[int, int]]] = {}
        for fd, screen in self.saved.items():
            pairs.setdefault(_identify_file(fd), (screen, open_pair(fd)))
        channels = [fd for screen, (source, _) in pairs.values() for fd in (source, screen)]
        ended, self.ended = os.pipe()
        self.answers, answers = os.pipe()
        start_helper = spawn_helper if prints_in_c or has_threads() else fork_helper
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, capture_helper.SIGNALS)
        try:
            self.wait_for_helper = start_helper(record, [ended, answers, *channels])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(ended)
        os.close(answers)
        for fd in self.saved:
            os.dup2(pairs[_identify_file(fd)][1][1], fd)
        for _, (source, sink) in pairs.values():
            os.close(source)
            os.close(sink)
        # printed lines leave at once, so that they are not lost if the process is killed
        self.stdout = None
        if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.line_buffering:
            self.stdout = sys.stdout
            self.stdout.reconfigure(line_buffering=True)

    def stop(self) -> str:
        """Restore stdout and stderr once all output is recorded; returns what failed, or ""."""
        flush_buffers(self.prints_in_c)
        if self.stdout:
            self.stdout.reconfigure(line_buffering=False)
        for fd, screen in self.saved.items():
            os.dup2(screen, fd)
            os.close(screen)
        with suppress(OSError):  # it was killed
            os.write(self.ended, b".")  # a forked child may hold this open, so closing says nothing
        # Ctrl-S may stop a terminal, but must not block the run forever
        answer = read_within(30 + GRACE, self.answers)
        # else a child of the run lives on; its output is passed on until it ends
        if answer is not None and read_within(QUIET, self.answers) == b"":
            self.wait_for_helper()
        os.close(self.ended)
        os.close(self.answers)
        if answer is None:
            return "the helper that writes it does not answer"
        return "" if answer == b"ok" else answer.decode() or "the helper that writes it was killed"


class StreamCapture:
    """Copies what Python writes to sys.stdout and sys.stderr; for notebooks.

    The stream's own `write` is replaced, which also reaches loggers that hold the stream, and what
    Jupyter itself passes on from subprocesses.
    """

    def __init__(self, record: Path):
        self.file = os.open(record, os.O_WRONLY | os.O_APPEND)
        self.lines, self.lock, self.problem = Lines(), threading.Lock(), ""
        streams = {id(one): one for one in (sys.stdout, sys.stderr)}  # they may be the same
        self.streams: list[tuple[Any, Callable[[str], int]]] = [
            (stream, self._replace_write(stream)) for stream in streams.values()
        ]

    def _replace_write(self, stream: Any) -> Callable[[str], int]:
        original: Callable[[str], int] = stream.write

        def write(text: str) -> int:
            written = original(text)
            self._record(text)
            return written

        try:
            stream.write = write
        except AttributeError:  # a stream in C, such as io.StringIO
            replace_stream(stream, WrappedStream(stream, write))
        return original

    def _record(self, text: str) -> None:
        try:
            with self.lock:
                write_all(self.file, self.lines.feed(text.encode("utf-8", "replace")))
        except OSError as error:
            self.problem = str(error)

    def stop(self) -> str:
        """Restore the streams; returns what failed, or ""."""
        for wrapped in (sys.stdout, sys.stderr):
            if isinstance(wrapped, WrappedStream):
                replace_stream(wrapped, wrapped.stream)
        for stream, original in self.streams:
            with suppress(AttributeError):  # a stream in C
                stream.write = original
        try:
            write_all(self.file, self.lines.finish())
        except OSError as error:
            self.problem = str(error)
        os.close(self.file)
        return self.problem


def replace_stream(old: Any, new: Any) -> None:
    """Replace a stream by another one, wherever Python prints to it."""
    for name in NAMES:
        if getattr(sys, name) is old:
            setattr(sys, name, new)


class WrappedStream:
    """A stream with another `write`."""

    def __init__(self, stream: Any, write: Callable[[str], int]):
        self.stream, self.write = stream, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def spawn_helper(record: Path, descriptors: list[int]) -> Callable[[], object]:
    """Start the helper as a program; returns a function that waits for its end.

    It needs only the standard library: with -I -S it starts in 15 ms.
    """
    program = [sys.executable, "-I", "-S", capture_helper.__file__]
    helper = subprocess.Popen(
        [*program, str(record), *map(str, descriptors)],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # Ctrl-C and a closed terminal end the run, not its record
    )
    return helper.wait


def fork_helper(record: Path, descriptors: list[int]) -> Callable[[], object]:
    """Start the helper in a millisecond, from a process that runs only our code, in one thread."""
    if pid := os.fork():
        return partial(os.waitpid, pid, 0)
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        for fd in map(int, os.listdir("/dev/fd")):  # noqa: PTH208 - all are read before one is closed
            if fd > 2 and fd not in descriptors:
                with suppress(OSError):  # the listing's own is closed already
                    os.close(fd)
        capture_helper.start(str(record), descriptors)
    finally:
        os._exit(0)


def has_threads() -> bool:
    """Whether this process has other threads, which a fork does not copy."""
    try:
        return len(os.listdir("/proc/self/task")) > 1  # noqa: PTH208 - names
    except OSError:  # not Linux
        return threading.active_count() > 1


def read_within(seconds: float, fd: int) -> bytes | None:
    """Read what comes within a time; b"" at the end, None if nothing came."""
    with selectors.DefaultSelector() as ready:
        ready.register(fd, selectors.EVENT_READ)
        return os.read(fd, 1000) if ready.select(seconds) else None


def open_pair(fd: int) -> tuple[int, int]:
    """Open a pipe (to read, to write); if `fd` is a terminal, a pseudo-terminal like it."""
    if not os.isatty(fd):
        return os.pipe()
    source, sink = os.openpty()
    settings = termios.tcgetattr(sink)
    settings[1] &= ~termios.OPOST  # line ends are the real terminal's business
    termios.tcsetattr(sink, termios.TCSANOW, settings)
    copy_size(fd, source)
    return source, sink


def _identify_file(fd: int) -> tuple[int, ...]:
    return tuple(os.fstat(fd)[:3])


def flush_buffers(of_c: bool) -> None:
    """Flush the buffers of Python, and those of C."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # closed, or replaced by something else
            stream.flush()
    if not of_c:
        return
    import ctypes  # slow to import

    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).fflush(None)
