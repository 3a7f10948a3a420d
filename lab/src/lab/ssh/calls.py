"""How a command of ssh is run: in the background, or in the foreground, where it may ask."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from lab.ground.errors import LabError
from lab.ssh.framing import MOST_STDERR

ONLY_SHARED = ("-o", "ProxyCommand=false")  # there is no other way than the shared connection
LOGIN_PERSIST = 12 * 3600  # seconds that an idle connection stays open where a person had to answer


def run_in_foreground(command: list[str]) -> tuple[int, str] | None:
    """Run a command that may ask on the terminal; return its exit code and stderr.

    None if nobody is there to answer. It runs in a process group of its own, so that a later Ctrl-C
    does not end what it leaves behind, and has the terminal as long as it asks.
    """
    import tempfile

    with (
        suppress(OSError),
        Path("/dev/tty").open("rb") as terminal,
        tempfile.TemporaryFile() as errors,
    ):
        is_ours = os.tcgetpgrp(terminal.fileno()) == os.getpgrp()  # not so behind a shell's &
        if is_ours and sys.stdin.isatty() and sys.stderr.isatty():
            ignored = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    preexec_fn=os.setpgrp,  # noqa: PLW1509 - no thread of ours runs here
                )
                os.tcsetpgrp(terminal.fileno(), process.pid)
                os.killpg(process.pid, signal.SIGCONT)  # it may have waited for the terminal
                code = process.wait()
            finally:
                os.tcsetpgrp(terminal.fileno(), os.getpgrp())
                signal.signal(signal.SIGTTOU, ignored)
            if code == -signal.SIGINT:
                raise KeyboardInterrupt
            errors.seek(0)
            return code, errors.read(MOST_STDERR).decode("utf-8", "replace")
    return None


def run_in_background(command: list[str], patience: float | None) -> tuple[int | None, str]:
    """Run a command for `patience` seconds at most; return its exit code (None: given up), stderr.

    A process that hangs in a dead mount cannot even be killed, so nothing waits for it. Its stderr
    goes to a file: processes that it leaves behind would hold a pipe open.
    """
    import tempfile  # slow to import

    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # no terminal to ask on, and no Ctrl-C of it
            )
        except OSError as error:
            raise LabError(f"{command[0]} cannot be started ({error.strerror}).") from None
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            process.kill()
        errors.seek(0)
        return code, errors.read(MOST_STDERR).decode("utf-8", "replace")
