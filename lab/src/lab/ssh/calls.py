"""Runs ssh in the background, or in the foreground, where it may ask for a password."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

from lab.ground.errors import LabError
from lab.ssh.framing import MAX_STDERR

ONLY_SHARED = ("-o", "ProxyCommand=false")  # makes no connection of its own
Code = TypeVar("Code", int, int | None)
LOGIN_PERSIST = 12 * 3600  # seconds that an idle connection stays open where a person had to answer


def run_in_foreground(command: list[str]) -> tuple[int, str] | None:
    """Run a command that may ask on the terminal; return its exit code and stderr.

    None if nobody is at a terminal. It runs in a process group of its own, so that a later Ctrl-C
    does not end what it leaves behind, and has the terminal until it exits.
    """
    with ExitStack() as stack:
        try:
            terminal = stack.enter_context(Path("/dev/tty").open("rb")).fileno()
            is_ours = os.tcgetpgrp(terminal) == os.getpgrp()  # not after a shell's &
        except OSError:
            return None
        if not (is_ours and sys.stdin.isatty() and sys.stderr.isatty()):
            return None
        try:
            code, errors = _run_on_terminal(command, terminal)
        except OSError as error:
            raise LabError(f"{command[0]} cannot be started ({error.strerror}).") from None
    if code == -signal.SIGINT:
        raise KeyboardInterrupt
    return code, errors


def _run_on_terminal(command: list[str], terminal: int) -> tuple[int, str]:
    """Run a command that has the terminal until it exits; return its exit code and stderr."""

    def wait(process: "subprocess.Popen[bytes]") -> int:
        try:
            os.tcsetpgrp(terminal, process.pid)
            with suppress(OSError):  # it has ended
                os.killpg(process.pid, signal.SIGCONT)  # it may have waited for the terminal
            return process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise

    ignored = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        # preexec_fn is safe: no other thread runs now
        return _run_silently(command, wait, preexec_fn=os.setpgrp)
    finally:
        try:
            os.tcsetpgrp(terminal, os.getpgrp())
        finally:
            signal.signal(signal.SIGTTOU, ignored)


def run_in_background(command: list[str], patience: float | None) -> tuple[int | None, str]:
    """Run a command for `patience` seconds at most; return its exit code (None: too slow), stderr.

    A process that hangs in a dead mount cannot even be killed, so nothing waits for it.
    """

    def wait(process: "subprocess.Popen[bytes]") -> int | None:
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.kill()

    try:  # without a terminal, on which it could ask and be interrupted
        return _run_silently(command, wait, start_new_session=True)
    except OSError as error:
        raise LabError(f"{command[0]} cannot be started ({error.strerror}).") from None


def _run_silently(
    command: list[str], wait: "Callable[[subprocess.Popen[bytes]], Code]", **options: Any
) -> tuple[Code, str]:
    """Run a command without input and output; return the result of `wait`, and its stderr.

    stderr goes to a file: processes that it leaves behind would hold a pipe open.
    """
    import tempfile  # slow to import

    with tempfile.TemporaryFile() as errors:
        code = wait(
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                **options,
            )
        )
        errors.seek(0)
        return code, errors.read(MAX_STDERR).decode("utf-8", "replace")
