"""Runs scripts on a machine, over the connection that all commands share."""

import math
import os
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, cast

from lab.ground.errors import LabError
from lab.ssh import answers
from lab.ssh.calls import ONLY_SHARED
from lab.ssh.framing import (
    MAX_STDERR,
    PATIENCE,
    BadFrame,
    assemble_script,
    find_error,
    frame_script,
    pack_command,
    read_answer,
)
from lab.ssh.shared import SharedConnection, wait_for_session
from lab.ssh.ssh_errors import (
    AnswerTimeout,
    BadAnswer,
    NoShell,
    RemoteError,
    SessionsInUse,
    SshError,
)

MAX_SECONDS = 6 * 3600  # seconds that an answer may take if nobody sees it arrive


class Connection(SharedConnection):
    """Runs scripts on one machine."""

    def run(
        self,
        script: str,
        *,
        stdin: bytes | IO[bytes] = b"",
        receive: Callable[[bytes], object] | None = None,
        output: IO[bytes] | None = None,
        again: bool = True,
        within: float | None = None,
        **variables: object,
    ) -> str:
        """Run one of our scripts on the machine, and return its output.

        `variables` become its shell variables; `stdin` is its standard input, as bytes or a file.
        The output goes to the file `output` instead, or piece by piece to `receive`, for as long as
        it takes; any other answer may take `within` seconds, by default some hours. With `again` a
        script whose connection was lost is run once more, on a new one.

        Raises RemoteError with the script's own message, SshError, or BadAnswer for output that is
        malformed or too long for memory. SessionsInUse: the server allows no more sessions on the
        connection, and none became free for a while. AnswerTimeout: `within` is over.
        """
        source = assemble_script(script, variables, self.machine)
        if within is None:
            within = math.inf if receive or output else MAX_SECONDS
        pieces: list[bytes] = []
        tried = False
        take = output.write if output else receive or answers.gather(self.name, pieces)

        def call() -> tuple[int, str]:
            return self._exchange(source, stdin, take, not receive, within)

        for last_attempt in (not again, True):
            pieces.clear()
            if output:
                output.seek(0)
                output.truncate()
            try:
                try:
                    self.open()
                except (SshError, KeyboardInterrupt) as error:
                    error.may_have_run = tried  # type: ignore[union-attr] # for launch.start
                    raise
                tried = True
                code, stderr = wait_for_session(call, min(PATIENCE, within))
                break
            except (NoShell, SessionsInUse):
                raise
            except SshError as error:
                if isinstance(error, AnswerTimeout) and self.answers():
                    raise  # the machine hangs, not the connection, which others use
                self.give_up()
                if last_attempt:
                    raise
                if not isinstance(stdin, bytes):
                    stdin.seek(0)
        if code:
            message = find_error(stderr) or f"{script} ended with {code} on {self.name}."
            raise RemoteError(message, code)
        if output:
            output.seek(0)
        return b"".join(pieces).decode("utf-8", "surrogateescape")

    def run_in_terminal(self, script: str, **variables: object) -> int:
        """Run a script in this terminal; return its exit code, 130 after Ctrl-C."""
        import tempfile

        self.open()
        term = os.environ.get("TERM", "xterm-256color")
        source = assemble_script(script, {**variables, "term": term}, self.machine)
        source = f"trap 'exit 130' INT\n{source}"  # after a signal ssh would return 255
        command = [*self.ssh_command("-tt", "-o", "LogLevel=ERROR"), pack_command(source)]

        def call() -> int:
            with tempfile.TemporaryFile() as errors:  # of ssh: the terminal has the script's
                code = subprocess.run(command, stderr=errors, check=False).returncode
                errors.seek(0)
                error = self.explain(errors.read(MAX_STDERR).decode("utf-8", "replace"))
            if isinstance(error, SessionsInUse):
                raise error
            return code

        return wait_for_session(call)

    def run_if_open(self, script: str, seconds: float, **variables: object) -> str:
        """Return a script's output if a connection is open and answers in time; else "".

        For shell completion, which must not wait: it opens no connection and raises nothing.
        """
        source = assemble_script(script, variables, self.machine)
        pieces: list[bytes] = []
        with suppress(OSError, LabError):
            if self.is_open():  # it may still be lost before the next line
                code, _ = self._exchange(
                    source,
                    b"",
                    answers.gather(self.name, pieces),
                    True,
                    seconds,
                    *ONLY_SHARED,
                )
                if code == 0:
                    return b"".join(pieces).decode("utf-8", "surrogateescape")
        return ""

    def _exchange(
        self,
        source: str,
        stdin: bytes | IO[bytes],
        receive: Callable[[bytes], object],
        whole: bool,
        within: float,
        *options: str,
    ) -> tuple[int, str]:
        """Run a script; return its exit code and stderr. SshError if the answer is incomplete.

        `whole`: its output may come in one piece, which is faster.
        """
        begun = False

        def pass_on(piece: bytes) -> None:
            nonlocal begun
            begun = True
            receive(piece)

        mark = os.urandom(8).hex()
        command = self.ssh_command("-T", *options)
        command.append(pack_command(frame_script(source, mark, whole)))
        content, file = (stdin, None) if isinstance(stdin, bytes) else (b"", stdin)
        began = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE if content else file or subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:  # E2BIG
            raise LabError(f"ssh cannot be started ({error.strerror}).") from None
        if process.stdin:
            threading.Thread(target=_feed, args=(process.stdin, content), daemon=True).start()
        stdout, errors = cast(IO[bytes], process.stdout), cast(IO[bytes], process.stderr)
        with stdout, errors:
            try:
                code, stderr = read_answer(stdout, errors, mark.encode(), pass_on, within)
                late = time.monotonic() - began >= within
                shell = None if code is not None or begun else _wait_briefly(process)
            except BadFrame:
                raise BadAnswer(self.name, "the output of a script") from None
            finally:
                process.kill()
                process.wait()
        if code is None and shell is not None and 0 <= shell < 255:  # 255 is ssh's own
            raise NoShell(
                f"{self.name}: the login shell ended without running the command: does one of its"
                " start-up files, such as ~/.bashrc, call exec or exit? Let it do so only in a"
                " terminal: case $- in *i*) exec zsh ;; esac"
            )
        if code is None and late:
            advice = f"{self.machine.lab} doctor says what is wrong"
            raise AnswerTimeout(f"{self.name}: no answer within {within:g} s: {advice}.")
        if code is None:
            raise self.explain(stderr)
        return code, stderr


def _feed(pipe: IO[bytes], content: bytes) -> None:
    """Write all of it into a pipe, unless the reader closes it first."""
    left = memoryview(content)
    with suppress(OSError), pipe:
        while left:
            left = left[pipe.write(left) :]


def _wait_briefly(process: "subprocess.Popen[bytes]") -> int | None:
    """Return the exit code of a process that closed its output; None if it keeps running."""
    try:
        return process.wait(1)
    except subprocess.TimeoutExpired:
        return None
