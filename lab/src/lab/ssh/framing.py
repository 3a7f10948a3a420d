"""A script on its way to a machine, and its answer on the way back.

Everything that is done there is a POSIX-sh script, sent whole: the login shell may be any, and may
print what it likes. Marks around a script's output tell its answer from such noise and from a line
that was cut.
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
from pathlib import Path

from lab.ground import project
from lab.ground.errors import LabError
from lab.ssh.machines import Machine

PACKAGE = Path(__file__).parents[1]  # its scripts lie beside the Python that sends them
try:
    PATIENCE = float(os.environ.get("LAB_PATIENCE", "15"))  # seconds of silence: the line is dead
    if not 0 < PATIENCE < math.inf:
        raise ValueError
except ValueError:
    raise LabError(f"LAB_PATIENCE={os.environ['LAB_PATIENCE']}: a number of seconds.") from None
MOST_SAID = 100_000  # bytes of stderr that are kept

# What runs there: the script between two marks.
FRAME = r"""
exec 3>&1
{{ printf '%s\0' {mark}
(
{source}
)
printf '\0%s %s\0' {mark} $?; }} 3>&-"""
# A small piece of output has to wait until the one before is acknowledged, often for 40 ms. So what
# need not be shown as it comes, comes in one; only what takes its time gives a sign of life before.
IN_ONE_PIECE = r""" | {{
(sleep 2 >/dev/null 2>&1 3>&-; printf '%s+' {mark} >&3) 2>/dev/null &
dd ibs=64k obs=1M 2>/dev/null
kill $!; }}"""


def assemble(script: str, variables: dict[str, object], machine: Machine) -> str:
    """A script of ours, behind its variables, the prelude and the files that it needs."""
    about = {"folder": machine.folder.removeprefix("~/"), "data": machine.data, "lab": machine.lab}
    variables = {**about, **variables}
    if any("\0" in str(value) for value in variables.values()):
        raise LabError("an argument cannot hold a NUL character.")
    body = read_script(script)
    needed = re.search("^# Needs: (.*)", body, re.M)
    names = ["prelude.sh", *(needed[1].split() if needed else [])]
    text = "\n".join(_without_comments(part) for part in [*map(read_script, names), body])
    if "$splits" in text:  # each byte may be one too many for a packet
        variables["splits"] = " ".join(project.SPLITS)
    return "\n".join([*(f"{k}={shlex.quote(str(v))}" for k, v in variables.items()), text])


def read_script(name: str) -> str:
    """The text of a script, in whatever room of the package it lies."""
    (path,) = PACKAGE.glob(f"*/{name}")
    return path.read_text("utf-8")


def _without_comments(script: str) -> str:
    """They need not travel: what is longer than a packet waits for an answer to the first."""
    lines = (line.strip() for line in script.splitlines())
    return "\n".join(line for line in lines if line and line[0] != "#")


def frame(source: str, mark: str, whole: bool) -> str:
    """A script between its marks; `whole`: its output comes in one piece."""
    return (FRAME + (IN_ONE_PIECE if whole else "")).format(mark=mark, source=source)


def for_any_shell(source: str) -> str:
    """A command that every login shell hands to sh unchanged: its only quotes are single ones."""
    packer = zlib.compressobj(9, wbits=31)  # as gzip has it
    packed = packer.compress(source.encode("utf-8", "surrogateescape")) + packer.flush()
    text = binascii.b2a_base64(packed, newline=False).decode()
    return f"exec sh -c 'eval \"$(echo {text} | base64 -d | gzip -d)\"'"


def receive_answer(
    pipe, errors, mark: bytes, receive: Callable[[bytes], None], within: float
) -> tuple[int | None, str]:
    """Hand over what stands between the marks, for so many seconds at most.

    Returns the exit code behind the last one, None if it never came; and what was said on stderr.
    """
    begin, end = mark + b"\0", b"\0" + mark + b" "
    held, said, begun, code = b"", b"", False, None
    end_of_all = time.monotonic() + within
    deadline = time.monotonic() + PATIENCE
    reading = [pipe, errors]
    while pipe in reading:
        until = min(end_of_all, math.inf if begun else deadline)
        wait = None if until == math.inf else max(0, until - time.monotonic())
        ready = select.select(reading, [], [], wait)[0]
        if not ready:
            break
        if errors in ready:
            piece = os.read(errors.fileno(), 1 << 16)
            said = (said + piece)[-MOST_SAID:]
            if not piece:
                reading.remove(errors)
        if pipe not in ready:
            continue
        piece = os.read(pipe.fileno(), 1 << 16)
        held += piece
        if not begun:
            before, begun, after = held.partition(begin)
            held = after if begun else before
            if mark + b"+" in before:
                deadline = math.inf
        if begun:
            output, ended, rest = held.partition(end)
            if ended and rest.endswith(b"\0"):
                receive(output)
                code = int(rest[:-1])
                break
            if not ended:  # the beginning of a mark may be the end of this piece
                keep = output.find(b"\0", -len(end))
                keep = len(output) if keep < 0 else keep
                receive(output[:keep])
                held = output[keep:]
        if not piece:
            break
    while errors in reading and select.select([errors], [], [], 0 if code == 0 else 1)[0]:
        piece = os.read(errors.fileno(), 1 << 16)
        said = (said + piece)[-MOST_SAID:]
        if not piece:
            break
    return code, said.decode("utf-8", "replace")


def words(said: str) -> str:
    """What the script itself said, or else the last line that somebody did."""
    ours = re.findall(r"^lab: (.*)", said, re.M)
    return " ".join(ours) or next(reversed([line for line in said.splitlines() if line]), "")
