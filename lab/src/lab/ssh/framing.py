"""Packs a script for a machine, and reads its answer.

Whatever lab does on a machine is a POSIX sh script, sent whole: the login shell may be any shell,
and may print anything. Marks around a script's output tell its answer from such noise, and a
complete answer from an incomplete one.
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
from functools import cache
from pathlib import Path
from typing import IO

from lab.ground.errors import LabError, UsageError
from lab.ssh.variables import make_exports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.ssh.machines import Machine

PACKAGE = Path(__file__).parents[1]  # its scripts lie beside the Python that sends them
MAX_STDERR = 100_000  # bytes that are kept
MAX_WRITTEN = 16 << 20  # bytes of stderr after which reading stops
MAX_MESSAGE = 2000  # characters of a script's message
MAX_NOISE = 1 << 20  # bytes that a login shell may print before the script begins
LATEST = 5  # seconds to go on reading after the time is up, or after the answer


def read_patience() -> float:
    """Return how many seconds of silence mean that a connection is dead."""
    given = os.environ.get("LAB_PATIENCE", "15")
    with suppress(ValueError):
        if 0 < float(given) < math.inf:
            return float(given)
    raise UsageError(f"LAB_PATIENCE={given}: expected a number of seconds.")


PATIENCE = read_patience()

# What lab makes on a machine is this user's alone; the user's commands keep the umask of the login.
PRIVATE = "login_umask=$(umask)\numask 077"
# What runs on the machine: the script, with a mark before and after its output.
FRAME = r"""
exec 3>&2
{{ printf '%s\0' {mark}
(
{source}
)
printf '\0%s %s\0' {mark} $?; }} 3>&-"""
# A small piece of output has to wait until the one before is acknowledged, often for 40 ms. So
# output that nobody watches is sent in one piece, and a script that takes long gives a sign of
# life. That goes to stderr: on stdout it could end up in the middle of the output.
IN_ONE_PIECE = r""" | {{
(sleep 2 >/dev/null 2>&1 3>&-; printf '%s+' {mark} >&3) 2>/dev/null &
dd ibs=64k obs=1M 2>/dev/null
kill $!; }}"""


def assemble_script(script: str, variables: dict[str, object], machine: "Machine") -> str:
    """Return one of our scripts, preceded by its variables, the prelude and the files it needs."""
    about = {"folder": machine.folder.removeprefix("~/"), "data": machine.data, "lab": machine.lab}
    variables = {**about, **variables}
    if any("\0" in str(value) for value in variables.values()):
        raise LabError("an argument cannot contain a NUL character.")
    body = read_script(find_variant(script, machine) or script)
    names = ["prelude.sh"]
    for name in find_needs(body):
        variant = find_variant(name, machine)
        more = [name, *find_needs(read_script(variant)), variant] if variant else [name]
        names += [one for one in more if one not in names]
    text = "\n".join(_strip_comments(part) for part in [*map(read_script, names), body])
    if not machine.shared:
        text = f"{PRIVATE}\n{text}"
    if "$prelude" in text:
        variables["prelude"] = shlex.join(machine.prelude)
    if "$exports" in text:
        variables.setdefault("exports", make_exports(machine.env))
    return "\n".join([*(f"{k}={shlex.quote(str(v))}" for k, v in variables.items()), text])


def read_script(name: str) -> str:
    """Return the text of a script, whichever sub-package it lies in."""
    return find_scripts()[name].read_text("utf-8")


@cache
def find_scripts() -> dict[str, Path]:
    """Return where each script lies; no two of them have the same name."""
    return {path.name: path for path in PACKAGE.glob("*/*.*sh")}


def find_needs(text: str) -> list[str]:
    """Return the scripts named in a script's "# Needs:" line, whose functions it calls."""
    needed = re.search("^# Needs: (.*)", text, re.M)
    return needed[1].split() if needed else []


def find_variant(script: str, machine: "Machine") -> str:
    """Return the script that replaces one under the machine's scheduler; "" if there is none."""
    name = f"{machine.scheduler}_{script}"
    return name if machine.scheduler and name in find_scripts() else ""


def _strip_comments(script: str) -> str:
    """Strip comments and indentation: what exceeds one packet costs another round trip."""
    lines = (line.strip() for line in script.splitlines())
    return "\n".join(line for line in lines if line and line[0] != "#")


def frame_script(source: str, mark: str, whole: bool) -> str:
    """Return a script with its marks; `whole`: its output comes in one piece."""
    return (FRAME + (IN_ONE_PIECE if whole else "")).format(mark=mark, source=source)


def pack_command(source: str) -> str:
    """Return a script as a command that any login shell passes to sh unchanged.

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
    """Pass the output between the marks to `receive`, for `within` seconds at most.

    Return the exit code after the last mark, or None if that never came, and the text of stderr.
    """
    answer = _Answer(mark, receive)
    sign_of_life = mark + b"+"
    alive = False  # the script has begun, or takes long
    errors, written = b"", 0
    give_up_at = time.monotonic() + within
    must_begin_by = time.monotonic() + PATIENCE
    reading = [stdout, stderr]
    while stdout in reading and answer.code is None:
        until = give_up_at if alive or answer.begun else min(give_up_at, must_begin_by)
        left = until - time.monotonic()
        ready = select.select(reading, [], [], None if left == math.inf else max(0, left))[0]
        if not ready or left < -LATEST:  # what came in time is read, but not endless output
            break
        if stderr in ready:
            piece = os.read(stderr.fileno(), 1 << 16)
            errors = (errors + piece)[-MAX_STDERR:]
            written += len(piece)
            if written > MAX_WRITTEN:
                raise BadFrame
            alive = alive or sign_of_life in errors
            if not piece:
                reading.remove(stderr)
        if stdout in ready:
            piece = os.read(stdout.fileno(), 1 << 16)
            answer.feed(piece)
            if not piece:
                reading.remove(stdout)
    patience = 0 if answer.code == 0 else 1
    latest = time.monotonic() + LATEST
    while stderr in reading and select.select([stderr], [], [], patience)[0]:
        piece = os.read(stderr.fileno(), 1 << 16)
        errors = (errors + piece)[-MAX_STDERR:]
        if not piece or time.monotonic() > latest:
            break
    return answer.code, errors.replace(sign_of_life, b"").decode("utf-8", "replace")


class BadFrame(Exception):
    """The output is not framed by marks, or stderr does not end."""


class _Answer:
    """Finds a script's output and exit code in the bytes that arrive, however they are split.

    Holds back a few bytes at most. Raises BadFrame.
    """

    def __init__(self, mark: bytes, receive: Callable[[bytes], object]):
        self.begin, self.end = mark + b"\0", b"\0" + mark + b" "
        self.receive = receive
        self.held = b""  # not yet passed on
        self.noise = 0  # bytes
        self.begun = self.ended = False
        self.code: int | None = None

    def feed(self, piece: bytes) -> None:
        self.held += piece
        if not self.begun:
            _, begin, after = self.held.partition(self.begin)
            self.begun = bool(begin)
            if not self.begun:
                self.noise += len(piece)
                if self.noise > MAX_NOISE:
                    raise BadFrame
                self.held = self.held[-len(self.begin) :]
                return
            self.held = after
        if not self.ended:
            output, end, rest = self.held.partition(self.end)
            self.ended = bool(end)
            if not self.ended:
                # the end of this piece may be the beginning of the mark
                keep = output.find(b"\0", max(0, len(output) - len(self.end)))
                keep = len(output) if keep < 0 else keep
                self.held = output[keep:]
                self.receive(output[:keep])
                return
            self.held = rest
            self.receive(output)
        code, found, _ = self.held.partition(b"\0")
        if not re.fullmatch(rb"[0-9]{1,3}" if found else rb"[0-9]{0,3}", code):
            raise BadFrame
        self.code = int(code) if found else None


def find_error(stderr: str) -> str:
    """Return the script's own message from stderr, or else the last line."""
    ours = re.findall(r"^lab: (.*)", stderr, re.M)
    lines = [line for line in stderr.splitlines() if line]
    return (" ".join(ours) or next(reversed(lines), ""))[:MAX_MESSAGE]
