"""The ssh connection to a machine: one for all commands, a time-out on every wait, plain errors.

Everything that is done there is a POSIX-sh script, sent whole: the login shell may be any, and may
print what it likes. Marks around a script's output tell its answer from such noise and from a line
that was cut.
"""

import binascii
import fcntl
import math
import os
import re
import select
import shlex
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

from lab import machines
from lab.machines import Machine
from lab.project import UserError

SCRIPTS = Path(__file__).parent / "scripts"
try:
    PATIENCE = float(os.environ.get("LAB_PATIENCE", "15"))  # seconds of silence: the line is dead
except ValueError:
    raise UserError(f"LAB_PATIENCE={os.environ['LAB_PATIENCE']}: a number of seconds.") from None
MOST_SAID = 100_000  # bytes of stderr that are kept
KEPT = 600  # seconds that an idle connection stays open for the next command

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


class LineLost(UserError):
    """The connection failed, or ended before the answer was whole: what happened there is open."""


class Refused(UserError):
    """The script ran there, and said why it could not do its work."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class Connection:
    """Runs scripts on one machine."""

    def __init__(self, machine: Machine):
        self.machine = machine
        folder = _socket_folder()
        text = ssh_config(machine)
        name = f"{zlib.crc32(text.encode()):08x}{zlib.adler32(text.encode()):08x}"
        self.socket = folder / name
        self.config = folder / f"{name}.config"
        if not self.config.exists() or self.config.read_text("utf-8") != text:
            draft = folder / f"{name}.{os.getpid()}"
            draft.write_text(text, "utf-8")
            draft.replace(self.config)

    def ssh(self, *options: str) -> list[str]:
        """The command that leads to the machine; what is to run there is added to it."""
        return ["ssh", "-F", str(self.config), "-S", str(self.socket), *options, self.machine.host]

    def run(
        self,
        script: str,
        *,
        stdin=subprocess.DEVNULL,
        receive: Callable[[bytes], None] | None = None,
        again: bool = True,
        **variables: object,
    ) -> str:
        """Run a script of lab/scripts/ there, and return what it printed.

        `variables` are its shell variables; `stdin` is a file; `receive` is handed the output in
        pieces instead. A script that may run twice is tried `again` once, on a fresh connection.

        Raises Refused with the script's own words, or LineLost.
        """
        source = assemble(script, variables, self.machine)
        pieces: list[bytes] = []
        for last in (not again, True):
            pieces.clear()
            try:
                code, said = self._exchange(source, stdin, receive or pieces.append, not receive)
                break
            except LineLost:
                self.close()
                if last or (receive and pieces):
                    raise
                if hasattr(stdin, "seek"):
                    stdin.seek(0)
        if code:
            raise Refused(_words(said) or f"{script} ended with {code} on {self.name}.", code)
        return b"".join(pieces).decode("utf-8", "surrogateescape")

    @property
    def name(self) -> str:
        return self.machine.name

    def terminal(self, script: str, **variables: object) -> int:
        """Run a script there in this terminal; returns its exit code."""
        self.open()
        term = os.environ.get("TERM", "xterm-256color")
        source = assemble(script, {**variables, "term": term}, self.machine)
        return subprocess.run([*self.ssh("-tt", "-q"), for_any_shell(source)]).returncode

    def open(self) -> None:
        """Make sure of a living connection; ssh may ask for a password on the terminal.

        Raises LineLost with the cause and the next step.
        """
        if self._is_open():
            return
        import tempfile  # slow to import

        with locked(self.socket.with_suffix(".lock")):
            if self._is_open():
                return
            self.socket.unlink(missing_ok=True)
            ask = sys.stdin.isatty() and sys.stderr.isatty()
            command = self.ssh("-MNf", "-o", f"ControlPersist={KEPT}")
            command[1:1] = [] if ask else ["-o", "BatchMode=yes"]
            # a file: the process that stays behind would keep a pipe open
            with tempfile.TemporaryFile() as errors:
                pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
                try:
                    starting = subprocess.Popen(command, **pipes, stderr=errors)
                except OSError as error:
                    raise UserError(f"ssh cannot be started ({error.strerror}).") from None
                try:
                    code = starting.wait(None if ask else 4 * PATIENCE)
                except subprocess.TimeoutExpired:
                    code = None
                finally:
                    if starting.poll() is None:
                        starting.kill()
                        starting.wait()
                errors.seek(0)
                said = errors.read().decode("utf-8", "replace")
            if code != 0:
                if "UNKNOWN port" in said:  # the jump host's ssh ended, and what it said is lost
                    said = self._reason() or said
                raise LineLost(explain(said, self.machine))

    def _reason(self) -> str:
        """Why there is no connection, from one that does not hide what the jump host's ssh says."""
        import tempfile

        command = self.ssh("-S", "none", "-o", "BatchMode=yes")
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        with suppress(OSError, subprocess.TimeoutExpired), tempfile.TemporaryFile() as errors:
            wait = 4 * PATIENCE
            subprocess.run([*command, "true"], **pipes, stderr=errors, timeout=wait)
            errors.seek(0)
            return errors.read().decode("utf-8", "replace")
        return ""

    def close(self) -> None:
        """End the connection, dead or alive."""
        with suppress(OSError, subprocess.TimeoutExpired):
            command = self.ssh("-O", "exit")
            subprocess.run(command, capture_output=True, timeout=PATIENCE)
        self.socket.unlink(missing_ok=True)

    def _is_open(self) -> bool:
        """Whether a process of ours holds the connection; the line itself may still be dead."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def _exchange(self, source: str, stdin, receive, whole: bool) -> tuple[int, str]:
        """Run a script; its exit code and what it said on stderr. LineLost if there is no end.

        `whole`: its output may come in one piece, which is quicker.
        """
        self.open()
        mark = os.urandom(8).hex()
        framed = (FRAME + (IN_ONE_PIECE if whole else "")).format(mark=mark, source=source)
        command = [*self.ssh("-T", "-o", "BatchMode=yes"), for_any_shell(framed)]
        pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, **pipes)
        try:
            code, said = _receive(process.stdout, process.stderr, mark.encode(), receive)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
        if code is None:
            raise LineLost(explain(said, self.machine))
        return code, said


def _receive(pipe, errors, mark: bytes, receive) -> tuple[int | None, str]:
    """Hand over what stands between the marks.

    Returns the exit code behind the last one, None if it never came; and what was said on stderr.
    """
    begin, end = mark + b"\0", b"\0" + mark + b" "
    held, said, begun, code = b"", b"", False, None
    deadline = time.monotonic() + PATIENCE
    reading = [pipe, errors]
    while pipe in reading:
        wait = None if begun or deadline == math.inf else max(0, deadline - time.monotonic())
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


def assemble(script: str, variables: dict[str, object], machine: Machine) -> str:
    """A script of lab/scripts/, behind its variables, the prelude and the files that it needs."""
    variables = {"folder": machine.folder.removeprefix("~/"), "data": machine.data, **variables}
    if any("\0" in str(value) for value in variables.values()):
        raise UserError("an argument cannot hold a NUL character.")
    lines = [f"{name}={shlex.quote(str(value))}" for name, value in variables.items()]
    body = (SCRIPTS / script).read_text("utf-8")
    needed = re.search("^# Needs: (.*)", body, re.M)
    names = ["prelude.sh", *(needed[1].split() if needed else [])]
    parts = [*((SCRIPTS / name).read_text("utf-8") for name in names), body]
    return "\n".join([*lines, *(_without_comments(part) for part in parts)])


def _without_comments(script: str) -> str:
    """They need not travel: what is longer than a packet waits for an answer to the first."""
    lines = (line.strip() for line in script.splitlines())
    return "\n".join(line for line in lines if line and line[0] != "#")


def for_any_shell(source: str) -> str:
    """A command that every login shell hands to sh unchanged: its only quotes are single ones."""
    packer = zlib.compressobj(9, wbits=31)  # as gzip has it
    packed = packer.compress(source.encode("utf-8", "surrogateescape")) + packer.flush()
    text = binascii.b2a_base64(packed, newline=False).decode()
    return f"exec sh -c 'eval \"$(echo {text} | base64 -d | gzip -d)\"'"


def ssh_config(machine: Machine) -> str:
    """ssh's configuration for our own calls: ours first, then the user's and the system's."""
    forwards = "ClearAllForwardings yes"  # every call would try those of the user's Host block
    return f"""{machines.config(machine)}
Host *
    {forwards}
    ControlMaster no
    RemoteCommand none
    ConnectTimeout {round(PATIENCE) or 1}
    ServerAliveInterval {round(PATIENCE) or 1}
    ServerAliveCountMax 3
    Include ~/.ssh/config
    Include /etc/ssh/ssh_config
"""


def _socket_folder() -> Path:
    """A folder of this user's alone, with a path that is short enough for a socket."""
    folder = Path.home() / ".cache" / "dl-remote-template" / "ssh"
    if len(os.fsencode(folder)) > 60:  # ssh adds 17 letters of its own to our 16, and 104 are all
        folder = Path("/tmp", f"lab-ssh-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat()
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}.") from None
    if owner.st_uid != os.getuid() or owner.st_mode & 0o077:
        raise UserError(f"{folder} is open to others: remove it, or chmod 700 it.")
    return folder


@contextmanager
def locked(path: Path):
    """Only one process at a time gets in."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _words(said: str) -> str:
    """What the script itself said, or else the last line that somebody did."""
    ours = re.findall(r"^lab: (.*)", said, re.M)
    return " ".join(ours) or next(reversed([line for line in said.splitlines() if line]), "")


# What OpenSSH says, and what it means to the person at the keyboard: {host} and {gateway}.
CAUSES = [
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "the host key of {spot} is not the known one: somebody may be listening in. If its"
        " administrator confirms the change: ssh-keygen -R {spot}",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        "the host key of {spot} is not known yet: run {ssh} once and compare it",
    ),
    (
        r"Permission denied|Too many authentication failures",
        "{spot} refuses the key or user: {ssh}",
    ),
    (r"Could not resolve hostname (\S+?):? ", "{0} is no known host: see machines.toml"),
    (
        r"stdio forwarding failed|open failed: connect failed",
        "{gateway} answers, but does not reach {host}: is the machine up?",
    ),
    (r"Bad configuration option|terminating, \d+ bad|Bad owner or permissions", "{last}"),
    (
        r"Connection refused|No route to host|unreachable|timed out|banner exchange",
        "{spot} cannot be reached ({last}): is it up, and the network or VPN?",
    ),
]


def explain(said: str, machine: Machine) -> str:
    """What ssh said, as one line with the cause and the next step."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    spot = machine.gateway or machine.host
    # a jump host's own ssh names it; without its name the last hop spoke
    if machine.gateway and re.search(rf"(@|\b){re.escape(machine.host)}\b", said):
        spot = machine.host
    words = {"host": machine.host, "gateway": machine.gateway or "the gateway", "spot": spot}
    words |= {"last": lines[-1] if lines else "", "ssh": f"ssh {spot}"}
    for pattern, cause in CAUSES:
        found = re.search(pattern, said)
        if found:
            words["last"] = next((line for line in lines if re.search(pattern, line)), "")
            return f"{machine.name}: {cause.format(*found.groups(), **words)}."
    reason = f" ({lines[-1]})" if lines else ""
    return f"{machine.name}: no answer, or the line was cut{reason}; run the same command again."
