"""The process that copies what a run prints to its screen and into its record.

A process and not a thread: a C extension that prints while it holds Python's lock would wait
forever for a thread, and a process writes the last lines even if the run is killed.
It imports only the standard library, so that it can be started with python -I -S.
"""

import fcntl
import os
import re
import selectors
import signal
import sys
import termios
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # for the run alone
GRACE = 1.0  # seconds to wait for the last output of child processes that live on
QUIET = 0.3  # seconds without output after which no more is expected from them
WINDOW = 16  # rows above the cursor that nested progress bars may still redraw
MAX_LINE = 65536  # bytes of an unfinished line that are held back
RETURNS = re.compile(rb"\r\r+")  # as one; else each search below would look at all of them again
TOKEN = re.compile(rb"(\r?\n|\r|\x1b\[\d{0,4}[AK])")
UNFINISHED = re.compile(rb"(\r|\x1b(\[\d{0,4})?)\Z")


class Lines:
    """Turns what is sent to a terminal into the lines that the terminal shows in the end.

    A carriage return starts the line again and "cursor up" goes back to an earlier one, as progress
    bars do; so a bar is one line in the record, however often it was drawn.
    """

    def __init__(self) -> None:
        self.rows = [b""]
        self.row = 0  # where the cursor is
        self.fresh = False  # whether the cursor is at the beginning of the row
        self.window = 0  # becomes WINDOW once a program has moved the cursor up
        self.rest = b""  # the beginning of an escape sequence or line end

    def feed(self, data: bytes) -> bytes:
        """Take more output; returns the lines that are finished now."""
        data, self.rest = RETURNS.sub(b"\r", self.rest + data), b""
        if found := UNFINISHED.search(data):
            data, self.rest = data[: found.start()], data[found.start() :]
        for number, part in enumerate(TOKEN.split(data)):
            if number % 2:
                self._obey(part)
            elif part:
                self._write(part)
        is_long = len(self.rows[self.row]) > MAX_LINE
        finished = self.row if is_long else max(0, self.row - self.window)
        done = b"".join(row + b"\n" for row in self.rows[:finished])
        del self.rows[:finished]
        self.row -= finished
        if is_long:
            done, self.rows[0] = done + self.rows[0], b""
        return done

    def _obey(self, token: bytes) -> None:
        if token.endswith(b"\n"):
            self.row, self.fresh = self.row + 1, True
            if self.row == len(self.rows):
                self.rows.append(b"")
        elif token == b"\r":
            self.fresh = True
        elif token.endswith(b"A"):
            self.row, self.fresh = max(0, self.row - int(token[2:-1] or 1)), True
            self.window = WINDOW
        elif self.fresh or token == b"\x1b[2K":
            self.rows[self.row] = b""

    def _write(self, text: bytes) -> None:
        before = self.rows[self.row]
        if self.fresh and before:  # overwritten; blanks are how a progress bar is erased
            before, text = b"", text if text.strip(b" ") else b""
        self.rows[self.row] = before + text
        self.fresh = False

    def finish(self) -> bytes:
        """Return what is left, as if its last line were finished."""
        left, self.rows, self.row = self.rows, [b""], 0
        while left and not left[-1]:
            left.pop()
        return b"".join(row + b"\n" for row in left)


def load_claim() -> "Callable[[], bool]":
    """Load the function that tells whether a newer attempt of the job writes the record."""
    import runpy
    from pathlib import Path

    module = runpy.run_path(str(Path(__file__).parents[1] / "ground/attempts.py"))
    is_superseded: Callable[[], bool] = module["is_superseded"]
    return is_superseded


class Channel:
    """A stream from the run to its screen (a terminal, pipe or file), and into the record."""

    def __init__(self, source: int, screen: int):
        self.source = source
        self.screen: int | None = screen  # None once it is closed
        self.lines = Lines()
        self.terminal = os.isatty(source)

    def read(self) -> bytes:
        try:
            return os.read(self.source, 65536)
        except OSError:  # how a pseudo-terminal reports that no process has it open
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


def copy_output(record: str, ended: int, answers: int, channels: list[Channel]) -> None:
    """Copy until no process can write; answer when the run's output is complete.

    `ended` and `answers` are pipes from the run and to it: the run has ended once `ended` has data
    or is closed.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # the run blocked them until now
    file = os.open(record, os.O_WRONLY | os.O_APPEND)
    problem = ""
    superseded = load_claim() if "LAB_ATTEMPT" in os.environ else bool  # bool() is False
    deadline = None  # set when the run has ended
    reading = selectors.DefaultSelector()
    reading.register(ended, selectors.EVENT_READ)
    for channel in channels:
        reading.register(channel.source, selectors.EVENT_READ, channel)

    def save(data: bytes) -> None:
        nonlocal problem
        try:
            if data and not superseded():
                write_all(file, data)
        except OSError as error:
            problem = str(error)

    def finish() -> None:
        nonlocal problem
        for channel in channels:
            save(channel.lines.finish())
        try:
            os.fsync(file)
        except OSError as error:  # a full disk in the network, say
            problem = str(error)
        try:
            if not answered:
                os.write(answers, (problem or "ok").encode())
        except OSError:
            pass  # the run was killed and does not listen

    answered = False
    while any(key.data for key in reading.get_map().values()):
        ready = reading.select(QUIET if deadline and not answered else None)
        for key, _ in ready:
            if key.data is None:
                deadline = time.monotonic() + GRACE
                reading.unregister(ended)
                continue
            data = key.data.read()
            key.data.show(data)
            save(key.data.lines.feed(data))
            if not data:
                reading.unregister(key.fd)
        if deadline and not answered and (not ready or time.monotonic() > deadline):
            finish()
            answered = True
    finish()


def copy_size(terminal: int, other: int) -> None:
    """Give a pseudo-terminal the size of the real one."""
    size = fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
    fcntl.ioctl(other, termios.TIOCSWINSZ, size)


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def start(record: str, descriptors: list[int]) -> None:
    """Copy the output; descriptors: `ended`, `answers`, then source and screen of each channel."""
    ended, answers, *channels = descriptors
    pairs = zip(channels[::2], channels[1::2], strict=True)
    copy_output(record, ended, answers, [Channel(*pair) for pair in pairs])


if __name__ == "__main__":
    start(sys.argv[1], list(map(int, sys.argv[2:])))
