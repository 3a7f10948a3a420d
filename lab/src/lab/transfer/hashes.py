"""Runs on a machine with its Python 3: prints "HASH  NAME", ended by a NUL, for each file.

Standard input: the names, each ended by a NUL. hashlib uses the processor's SHA instructions, which
makes it up to five times as fast as sha256sum.
"""

import hashlib
import sys

for name in sys.stdin.buffer.read().split(b"\0")[:-1]:
    digest = hashlib.sha256()
    try:
        with open(name, "rb") as file:  # noqa: PTH123 - a name of any bytes
            for piece in iter(lambda: file.read(1 << 20), b""):  # noqa: B023 - called at once
                digest.update(piece)
    except OSError:  # it vanished
        continue
    sys.stdout.buffer.write(digest.hexdigest().encode() + b"  " + name + b"\0")
