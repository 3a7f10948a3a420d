"""Everything a run prints, into its record as well: from Python, subprocesses and workers.

Used as a module it sends what is printed through `helper`, which is this same file as a program.
That is a process and not a thread: a C extension that prints while it holds Python's lock would
wait forever for a thread; and a process writes the last lines even if the run is killed outright.
"""

import fcntl
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

GRACE = 1.0  # seconds that the last words of surviving child processes are waited for
QUIET = 0.3  # seconds of silence after which nothing more is expected of them
WINDOW = 16  # rows above the cursor that nested progress bars may still redraw
LONGEST = 65536  # bytes of an unfinished line that are kept back
TOKEN = re.compile(rb"(\r*\n|\r|\x1b\[\d*[AK])")
UNFINISHED = re.compile(rb"(\r+|\x1b(\[\d*)?)\Z")


class Lines:
    """Turns what goes to a terminal into the lines that stand there in the end.

    A carriage return begins the line anew and "cursor up" goes back to an earlier one, as progress
    bars do; so a bar is one line in the record, however often it was drawn.
    """

    def __init__(self):
        self.rows = [b""]
        self.row = 0  # where the cursor is
        self.fresh = False  # whether the cursor is at the beginning of the row
        self.window = 0  # becomes WINDOW once a program has moved the cursor up
        self.rest = b""  # the beginning of an escape sequence or line end

    def feed(self, data: bytes) -> bytes:
        """The lines that are finished now."""
        data, self.rest = self.rest + data, b""
        cut = UNFINISHED.search(data)
        if cut:
            data, self.rest = data[: cut.start()], data[cut.start() :]
        for token in TOKEN.split(data):
            self._take(token)
        done = b""
        while self.row > self.window:
            done += self.rows.pop(0) + b"\n"
            self.row -= 1
        if self.row == 0 and len(self.rows[0]) > LONGEST:
            done, self.rows[0] = done + self.rows[0], b""
        return done

    def _take(self, token: bytes) -> None:
        if token.endswith(b"\n"):
            self.row, self.fresh = self.row + 1, True
            if self.row == len(self.rows):
                self.rows.append(b"")
        elif token == b"\r":
            self.fresh = True
        elif token.startswith(b"\x1b[") and token.endswith(b"A"):
            self.row, self.fresh = max(0, self.row - int(token[2:-1] or 1)), True
            self.window = WINDOW
        elif token.startswith(b"\x1b[") and token.endswith(b"K"):
            if self.fresh or token == b"\x1b[2K":
                self.rows[self.row] = b""
        elif token:
            before = self.rows[self.row]
            if self.fresh and before:  # drawn over; blanks are how a progress bar is wiped away
                before, token = b"", token if token.strip(b" ") else b""
            self.rows[self.row] = before + token
            self.fresh = False

    def finish(self) -> bytes:
        """What is left, as if its last line were finished."""
        left, self.rows, self.row = self.rows, [b""], 0
        while left and not left[-1]:
            left.pop()
        return b"".join(row + b"\n" for row in left)


# --- in the process of the run -------------------------------------------------------------------


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
        command = [sys.executable, "-I", "-S", __file__, str(record), theirs.fileno(), *channels]
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


NAMES = ("stdout", "stderr")


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


# --- in both -------------------------------------------------------------------------------------


def copy_size(terminal: int, other: int) -> None:
    """Give a pseudo-terminal the size of the real one."""
    size = fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
    fcntl.ioctl(other, termios.TIOCSWINSZ, size)


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


# --- in the helper -------------------------------------------------------------------------------


class Channel:
    """One way from the run to its screen (a terminal, pipe or file), and into the record."""

    def __init__(self, source: int, screen: int):
        self.source, self.screen = source, screen
        self.lines = Lines()
        self.terminal = os.isatty(source)

    def read(self) -> bytes:
        try:
            return os.read(self.source, 65536)
        except OSError:  # how a pseudo-terminal says that nobody has it open any more
            return b""

    def show(self, data: bytes) -> None:
        while data and self.screen is not None:
            try:
                if self.terminal:
                    copy_size(self.screen, self.source)
                data = data[os.write(self.screen, data) :]
            except BlockingIOError:
                with selectors.DefaultSelector() as ready:
                    ready.register(self.screen, selectors.EVENT_WRITE)
                    ready.select()
            except OSError:  # the terminal was closed; the record goes on
                self.screen = None


def helper(record: str, control: socket.socket, channels: list[Channel]) -> None:
    """Copy until nobody can write any more; answer on `control` when the run's own part is done."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    file = os.open(record, os.O_WRONLY | os.O_APPEND)
    problem = ""
    deadline = None  # set when the run has ended
    reading = selectors.DefaultSelector()
    reading.register(control, selectors.EVENT_READ)
    for channel in channels:
        reading.register(channel.source, selectors.EVENT_READ, channel)

    def keep(data: bytes) -> None:
        nonlocal problem
        try:
            write_all(file, data)
        except OSError as error:
            problem = str(error)

    def answer() -> None:
        for channel in channels:
            keep(channel.lines.finish())
        try:
            os.fsync(file)
            control.send((problem or "ok").encode())
        except OSError:
            pass  # the run was killed: nobody listens

    answered = False
    while any(key.data for key in reading.get_map().values()):
        ready = reading.select(QUIET if deadline and not answered else None)
        for key, _ in ready:
            if key.data is None:
                deadline = time.monotonic() + GRACE
                reading.unregister(control)
                continue
            data = key.data.read()
            key.data.show(data)
            keep(key.data.lines.feed(data))
            if not data:
                reading.unregister(key.fd)
        if deadline and not answered and (not ready or time.monotonic() > deadline):
            answered = True
            answer()
    answer()


if __name__ == "__main__":
    path, control, *numbers = sys.argv[1:]
    numbers = [int(number) for number in numbers]
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    helper(path, socket.socket(fileno=int(control)), [Channel(*pair) for pair in pairs])
