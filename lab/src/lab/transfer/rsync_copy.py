"""Copies files by rsync, over the shared ssh connection."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from lab.ground.errors import LabError
from lab.ground.terminal import OutputWriter
from lab.ssh.connection import Connection
from lab.ssh.framing import MAX_STDERR, PATIENCE
from lab.ssh.shared import wait_for_session
from lab.ssh.ssh_errors import MAX_QUOTED, SessionsInUse
from lab.transfer.staging import LOCAL, PARTIAL, DiskFull, connection_lost, names_file

DELAY = 1  # seconds before progress is shown, which would only flicker for a small transfer
HELPER = Path(__file__).with_name("rsync_shell.py")
# Exit codes of rsync: the connection was lost (20: it was killed); some files vanished or could not
# be read; the other side ended.
LOST, VANISHED, ENDED = {10, 12, 20, 30, 35, 255}, {23, 24}, 11


def can_rsync(remote_version: str) -> bool:
    """Return whether both sides have rsync 3.1 (of 2013) or later."""
    import shutil

    local_version = ""
    if shutil.which("rsync"):
        command = ["rsync", "--version"]
        local_version = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    pattern = re.compile(r"rsync +version v?(\d{1,9})\.(\d{1,9})")
    found = [pattern.match(text) for text in (local_version, remote_version)]
    return all(version and (int(version[1]), int(version[2])) >= (3, 1) for version in found)


def pull(
    connection: Connection,
    base: str,
    names: list[str],
    stage: Path,
    basis: Path | None,
    follow_links: bool,
) -> None:
    """See copying.pull."""
    options = [f"--copy-dest={basis}"] if basis else []
    options += ["--copy-links"] if follow_links else []
    options.append(f"--temp-dir={stage / 'tmp'}")
    _run(connection, names, f"machine:{base}/", f"{stage / 'files'}/", options, LOCAL)


def push(connection: Connection, base: Path, names: list[str], stage: str) -> None:
    """See copying.push."""
    options = ["--copy-links", f"--temp-dir={stage}/tmp"]  # noqa: S108 (a folder of ours)
    _run(connection, names, f"{base}/", f"machine:{stage}/files/", options, connection.name)


def rsync_command(names: str, options: list[str], source: str, target: str) -> list[str]:
    """Return rsync's command line; with -s no shell sees a remote path. `names` is a file."""
    shell = " ".join(_quote(word) for word in (sys.executable, "-I", str(HELPER)))
    command = ["rsync", "--times", "-s", "--partial", f"--partial-dir={PARTIAL}"]
    command += [f"--timeout={max(4, round(4 * PATIENCE))}", "--from0", f"--files-from={names}"]
    command += ["--info=progress2", "--outbuf=N"] if sys.stdout.isatty() else []
    return [*command, *options, "-e", shell, source, target]


def _quote(word: str) -> str:
    """Quote for rsync's -e, where a quote inside quotes is doubled."""
    return "'" + word.replace("'", "''") + "'"


def _run(
    connection: Connection,
    names: list[str],
    source: str,
    target: str,
    options: list[str],
    receiver: str,
) -> None:
    connection.open()
    with names_file(names) as listed:
        command = rsync_command(listed, options, source, target)
        wait_for_session(lambda: _run_once(connection, command, receiver))


def _run_once(connection: Connection, command: list[str], receiver: str) -> None:
    ssh = json.dumps(connection.ssh_command("-T"))
    umask = "" if connection.machine.shared else "umask 077"
    process = subprocess.Popen(
        command,
        env={**os.environ, "LAB_SSH": ssh, "LAB_UMASK": umask, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if sys.stdout.isatty() else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a group of its own, so that ssh, which may hang, is killed too
    )
    errors: list[bytes] = []  # only the end of it, as the machine may write without end
    readers = [threading.Thread(target=_keep_end, args=(process.stderr, errors), daemon=True)]
    if process.stdout:
        readers.append(threading.Thread(target=_show_late, args=(process.stdout,), daemon=True))
    for reader in readers:
        reader.start()
    try:
        code = process.wait()
    finally:
        if process.poll() is None:  # after SIGTERM it keeps what has arrived
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(2)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for reader in readers:
            reader.join(PATIENCE)
    message = b"".join(errors).decode("utf-8", "replace")
    # on a full disk the other rsync may end before it can say why
    ended = code == ENDED and not message
    if ended or re.search("No space left on device|Disk quota exceeded", message):
        raise DiskFull(receiver)
    if code in LOST or code < 0:
        if isinstance(error := connection.explain(message), SessionsInUse):
            raise error
        connection.give_up()
        raise connection_lost(connection)
    if code and code not in VANISHED:
        cause = next((line for line in message.splitlines() if line.strip()), f"exit code {code}")
        raise LabError(f"rsync with {connection.name} failed: {cause[:MAX_QUOTED]}")


def _keep_end(pipe: IO[bytes], end: list[bytes]) -> None:
    """Read a pipe to its end, and keep the last MAX_STDERR bytes."""
    with pipe:
        while piece := os.read(pipe.fileno(), 1 << 16):
            end[:] = [b"".join([*end, piece])[-MAX_STDERR:]]


def _show_late(pipe: IO[bytes]) -> None:
    """Show rsync's progress in this terminal, after DELAY seconds."""
    shown_from = time.monotonic() + DELAY
    write = OutputWriter()
    with pipe:
        while piece := os.read(pipe.fileno(), 1 << 16):
            if time.monotonic() >= shown_from:
                write(piece)
