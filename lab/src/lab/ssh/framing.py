"""A script on its way to a machine, and its answer on the way back.

Everything that is done on a machine is a POSIX-sh script, sent whole: the login shell may be any,
and may print anything. Marks around a script's output tell its answer from such noise, and a
complete answer from one that is not.
"""

import binascii
import math
import os
import re
import select
import shlex
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from lab.ground import project
from lab.ground.errors import LabError, UsageError
from lab.ssh.machines import Machine
from lab.ssh.variables import make_exports

PACKAGE = Path(__file__).parents[1]  # its scripts lie beside the Python that sends them
MOST_STDERR = 100_000  # bytes that are kept


def read_patience() -> float:
    """Return how many seconds of silence mean that a connection is dead."""
    given = os.environ.get("LAB_PATIENCE", "15")
    with suppress(ValueError):
        if 0 < float(given) < math.inf:
            return float(given)
    raise UsageError(f"LAB_PATIENCE={given}: a number of seconds.")


PATIENCE = read_patience()

# What runs on the machine: the script between two marks.
FRAME = r"""
exec 3>&2
{{ printf '%s\0' {mark}
(
{source}
)
printf '\0%s %s\0' {mark} $?; }} 3>&-"""
# A small piece of output has to wait until the one before is acknowledged, often for 40 ms. So what
# need not be shown as it comes is sent in one; a script that takes long gives a sign of life. That
# goes to stderr: on stdout it could come in the middle of the output.
IN_ONE_PIECE = r""" | {{
(sleep 2 >/dev/null 2>&1 3>&-; printf '%s+' {mark} >&3) 2>/dev/null &
dd ibs=64k obs=1M 2>/dev/null
kill $!; }}"""


def assemble_script(script: str, variables: dict[str, object], machine: Machine) -> str:
    """Return one of our scripts after its variables, the prelude and the files that it needs."""
    about = {"folder": machine.folder.removeprefix("~/"), "data": machine.data, "lab": machine.lab}
    variables = {**about, **variables}
    if any("\0" in str(value) for value in variables.values()):
        raise LabError("an argument cannot contain a NUL character.")
    body = read_script(script)
    needed = re.search("^# Needs: (.*)", body, re.M)
    names = ["prelude.sh", *(needed[1].split() if needed else [])]
    text = "\n".join(_strip_comments(part) for part in [*map(read_script, names), body])
    if "$prelude" in text:
        variables["prelude"] = shlex.join(machine.prelude)
    if "$exports" in text:
        variables["exports"] = make_exports(machine.env)
    if "$splits" in text:  # each byte may be one too many for a packet
        variables["splits"] = " ".join(project.SPLITS)
    return "\n".join([*(f"{k}={shlex.quote(str(v))}" for k, v in variables.items()), text])


def read_script(name: str) -> str:
    """Return the text of a script, whichever sub-package it lies in."""
    (path,) = PACKAGE.glob(f"*/{name}")
    return path.read_text("utf-8")


def _strip_comments(script: str) -> str:
    """Save bytes: what is longer than a packet waits for an answer to the first."""
    lines = (line.strip() for line in script.splitlines())
    return "\n".join(line for line in lines if line and line[0] != "#")


def frame_script(source: str, mark: str, whole: bool) -> str:
    """Put a script between its marks; `whole`: its output comes in one piece."""
    return (FRAME + (IN_ONE_PIECE if whole else "")).format(mark=mark, source=source)


def pack_command(source: str) -> str:
    """Return a script as a command that any login shell passes on to sh unchanged.

    Its only quotes are single ones.
    """
    packer = zlib.compressobj(9, wbits=31)  # as gzip has it
    packed = packer.compress(source.encode("utf-8", "surrogateescape")) + packer.flush()
    text = binascii.b2a_base64(packed, newline=False).decode()
    return f"exec sh -c 'eval \"$(echo {text} | base64 -d | gzip -d)\"'"


def read_answer(
    stdout: IO[bytes],
    stderr: IO[bytes],
    mark: bytes,
    receive: Callable[[bytes], object],
    within: float,
) -> tuple[int | None, str]:
    """Pass on what stands between the marks, for `within` seconds at most.

    Return the exit code after the last mark, None if that never came; and the text of stderr.
    """
    answer = _Answer(mark, receive)
    sign_of_life = mark + b"+"
    alive = False  # the script has begun, or takes long
    errors = b""
    give_up_at = time.monotonic() + within
    must_begin_by = time.monotonic() + PATIENCE
    reading = [stdout, stderr]
    while stdout in reading and answer.code is None:
        until = give_up_at if alive or answer.begun else min(give_up_at, must_begin_by)
        wait = None if until == math.inf else max(0, until - time.monotonic())
        ready = select.select(reading, [], [], wait)[0]
        if not ready:
            break
        if stderr in ready:
            piece = os.read(stderr.fileno(), 1 << 16)
            errors = (errors + piece)[-MOST_STDERR:]
            alive = alive or sign_of_life in errors
            if not piece:
                reading.remove(stderr)
        if stdout in ready:
            piece = os.read(stdout.fileno(), 1 << 16)
            answer.feed(piece)
            if not piece:
                reading.remove(stdout)
    patience = 0 if answer.code == 0 else 1
    while stderr in reading and select.select([stderr], [], [], patience)[0]:
        piece = os.read(stderr.fileno(), 1 << 16)
        errors = (errors + piece)[-MOST_STDERR:]
        if not piece:
            break
    return answer.code, errors.replace(sign_of_life, b"").decode("utf-8", "replace")


class _Answer:
    """Finds a script's output and exit code in the bytes that come, however they are split."""

    def __init__(self, mark: bytes, receive: Callable[[bytes], object]):
        self.begin, self.end = mark + b"\0", b"\0" + mark + b" "
        self.receive = receive
        self.held = b""  # not yet passed on
        self.begun = False
        self.code: int | None = None

    def feed(self, piece: bytes) -> None:
        self.held += piece
        if not self.begun:
            _, begin, after = self.held.partition(self.begin)
            self.begun = bool(begin)
            if not self.begun:
                return
            self.held = after
        output, end, rest = self.held.partition(self.end)
        if end:
            if rest.endswith(b"\0"):
                self.receive(output)
                self.code = int(rest[:-1])
            return
        # the end of this piece may be the beginning of the mark
        keep = output.find(b"\0", -len(self.end))
        keep = len(output) if keep < 0 else keep
        self.receive(output[:keep])
        self.held = output[keep:]


def find_error(stderr: str) -> str:
    """Return the script's own message in stderr, or else the last line."""
    ours = re.findall(r"^lab: (.*)", stderr, re.M)
    return " ".join(ours) or next(reversed([line for line in stderr.splitlines() if line]), "")
