"""What rsync takes for its remote shell: ssh, but deaf to what the login shell prints.

rsync starts it as a program, with a host that it ignores and the command that is to run there.
LAB_SSH holds the ssh command as JSON.
"""

import json
import os
import secrets
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # it is started with -I

from lab.ssh.framing import PATIENCE, pack_command  # noqa: E402


def main(words: list[str]) -> int:
    """Run `words` there; what they print comes out here, and nothing that came before."""
    mark = secrets.token_hex(8)
    path = "PATH=$HOME/.local/bin:$PATH"
    source = f"export {path}\nprintf '%s\\0' {mark}\nexec {shlex.join(words)}"
    ssh = [*json.loads(os.environ["LAB_SSH"]), pack_command(source)]
    os.set_blocking(1, True)  # rsync hands it over as it uses it itself
    process = subprocess.Popen(ssh, stdout=subprocess.PIPE)
    try:
        piece = after_mark(process.stdout.fileno(), mark.encode() + b"\0")
        while piece:
            while piece:
                piece = piece[os.write(1, piece) :]
            piece = os.read(process.stdout.fileno(), 1 << 18)
    except OSError:  # rsync has gone
        process.kill()
    os.close(1)
    return process.wait()


def after_mark(pipe: int, mark: bytes) -> bytes:
    """The first bytes behind the mark; b"" if there is none in time."""
    held, deadline = b"", time.monotonic() + PATIENCE
    while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(pipe, 1 << 16)
        held += piece
        _, found, after = held.partition(mark)
        if found:
            return after or os.read(pipe, 1 << 16)
        if not piece:
            break
    raise TimeoutError


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
