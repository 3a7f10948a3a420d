"""Run the recorded command to its end, and pass on to it the signals that lab record gets."""

import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from lab.ground import attempts, interrupts
from lab.ground.errors import LabError


def run(words: list[str], variables: dict[str, str]) -> int:
    """Run a command to its end and return its exit code, negative for a signal."""
    process: subprocess.Popen[bytes] | None = None
    running = threading.Lock()
    while process is None or process.returncode is None:
        try:
            if process is None:
                with interrupts.deferred():  # a signal finds the command started, or not at all
                    process = start(words, variables, running)
            running.acquire()  # unlike join(), a single step of Python: a signal spoils nothing
        except KeyboardInterrupt as interrupt:
            if process is None:
                raise
            number = getattr(interrupt, "number", signal.SIGINT)
            if number == signal.SIGUSR1:
                tell_time_limit(process)
            elif number != signal.SIGINT or not is_in_terminal():  # a terminal sends Ctrl-C to both
                process.send_signal(number)
    return process.returncode


def start(
    words: list[str], variables: dict[str, str], running: threading.Lock
) -> "subprocess.Popen[bytes]":
    """Start a command; `running` is locked until it has ended and its exit code is known.

    It is killed if a newer attempt of its job takes over.
    """
    # Slurm sends SIGUSR1 to each process of a step, and it kills those that do not handle it
    ignore = (lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN)) if attempts.number() else None
    try:
        process = subprocess.Popen(words, env=variables, preexec_fn=ignore)  # noqa: PLW1509 - it only calls C
    except OSError as error:
        raise LabError(f"{words[0]} cannot be started: {error.strerror}.") from None
    attempts.before_end.append(process.kill)
    running.acquire()

    # In a thread, where no signal raises: between waitpid and Popen that would lose the exit code,
    # and Popen would say 0.
    def wait() -> None:
        process.wait()
        running.release()

    threading.Thread(target=wait, daemon=True).start()
    return process


def tell_time_limit(process: "subprocess.Popen[bytes]") -> None:
    """Send SIGTERM to a command unless one of its processes handles SIGUSR1, which it got, too."""
    pids, handled = [process.pid], False
    while pids:
        pid = pids.pop()
        with suppress(OSError, ValueError):  # it has ended
            status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
            caught = int(status.partition("SigCgt:")[2].split()[0], 16)
            handled = handled or bool(caught >> signal.SIGUSR1 - 1 & 1)
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    if not handled:
        process.terminate()


def is_in_terminal() -> bool:
    """Whether Ctrl-C on the terminal reaches this process and its children."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
