"""The scripts that jobs run on a machine: in `folder`/lab/<hash>/, brought there once.

They are not in the job's checkout, which may be of an old commit, and not the laptop's, which may
have another version when the job is looked at. A job keeps its own copy of them.
"""

import base64
import functools
import hashlib
import io
import tarfile

from lab.ssh import framing

SCRIPTS = ("environment.sh", "gpus.sh", "jobs.sh", "runner.sh", "view.sh")
MISSING = 76  # exit code of runner_scripts.sh: they are not there, and were not sent


@functools.cache
def contents() -> dict[str, str]:
    """The text of each script by its name."""
    return {name: framing.read_script(name) for name in SCRIPTS}


def variables(sent: bool = False) -> dict[str, str]:
    """What runner_scripts.sh wants to know: their hash and, if `sent`, an archive."""
    digest = hashlib.sha256(repr(contents()).encode()).hexdigest()[:12]
    return {"scripts": digest, "archive": archive() if sent else ""}


def archive() -> str:
    """A tar file of them, in base64; what carries it packs it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in contents().items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return base64.b64encode(packed.getvalue()).decode()
