"""Files that are written whole or not at all, and the hash of their content."""

import os
import threading
from pathlib import Path


def write(path: Path, text: str | bytes, durable: bool = True) -> bool:
    """Write a file so that no reader ever sees a part of it; if `durable`, nor after a crash.

    Returns whether it changed: a file that already has this content is left alone. The mode of an
    existing file stays.
    """
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    path = Path(os.path.realpath(path))  # a link, say into a repository of dotfiles, stays a link
    if path.exists() and path.read_bytes() == content:
        return False
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with draft.open("wb") as file:
            if path.exists():
                os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
            file.write(content)
            file.flush()
            if durable:  # else some file systems keep the new name and lose the content
                os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return True


def sha256(path: Path) -> str:
    """Hash a file of any size; OSError if it cannot be read."""
    import hashlib  # slow to import

    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_or_none(path: Path) -> str | None:
    """Hash a file; None if it cannot be read."""
    try:
        return sha256(path)
    except OSError:
        return None
