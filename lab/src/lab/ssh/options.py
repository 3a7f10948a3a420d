"""Asks ssh -G for the options of a host, which connects to nothing."""

import subprocess
from pathlib import Path

from lab.ground.errors import LabError

Option = tuple[str, str]  # its name in lower case, its value

TIMEOUT = 10  # seconds for ssh to read its configuration, where a Match exec may be slow


def resolve(host: str, config: Path | None = None) -> list[Option]:
    """Return every option that ssh would use for a host. LabError if ssh cannot say."""
    command = ["ssh", *(["-F", str(config)] if config else []), "-G", host]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise LabError(
            f"ssh -G {host} does not answer: is there a slow Match exec in ~/.ssh/config?"
        ) from None
    except OSError as error:
        raise LabError(f"ssh cannot be started ({error.strerror}): install OpenSSH.") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[0] if lines else "it gave no reason"
        raise LabError(f"ssh cannot read its configuration: {reason}; fix that line.")
    lines = done.stdout.decode("utf-8", "surrogateescape").splitlines()
    return [(name, value) for name, _, value in (line.partition(" ") for line in lines)]
