"""The remote shell that rsync is given: ssh, without what the login shell prints.

rsync starts it with a host, which it ignores, and the command to run on the machine. LAB_SSH holds
the ssh command as JSON, LAB_UMASK a line for the remote shell.
"""

import json
import os
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # it is started with -I

from lab.ssh.framing import MAX_NOISE, PATIENCE, pack_command  # noqa: E402


def main(command: list[str]) -> int:
    """Run a command on the machine and print its output, but nothing that came before it."""
    mark = os.urandom(8).hex()
    path = "PATH=$HOME/.local/bin:$PATH"
    umask = os.environ.get("LAB_UMASK", "")
    source = f"export {path}\n{umask}\nprintf '%s\\0' {mark}\nexec {shlex.join(command)}"
    ssh = [*json.loads(os.environ["LAB_SSH"]), pack_command(source)]
    os.set_blocking(1, True)  # rsync passes it on as non-blocking
    reading, writing = os.pipe()
    process = subprocess.Popen(ssh, stdout=writing)
    os.close(writing)
    try:
        chunk = read_after_mark(reading, mark.encode() + b"\0")
        while chunk:
            while chunk:
                chunk = chunk[os.write(1, chunk) :]
            chunk = os.read(reading, 1 << 18)
    except OSError:  # rsync has ended, or there is no mark
        process.kill()
    os.close(1)
    return process.wait()


def read_after_mark(pipe: int, mark: bytes) -> bytes:
    """Return the first bytes after the mark. TimeoutError if it does not come in time."""
    held, deadline = b"", time.monotonic() + PATIENCE
    while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(pipe, 1 << 16)
        held += chunk
        _, found, after = held.partition(mark)
        if found:
            return after or os.read(pipe, 1 << 16)
        if not chunk or len(held) > MAX_NOISE:
            break
    raise TimeoutError


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
