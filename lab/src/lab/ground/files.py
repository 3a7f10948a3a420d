"""Files that are whole or not there at all, and the hash of their content."""

import os
import threading
from pathlib import Path


def write(path: Path, text: str | bytes, durable: bool = True) -> bool:
    """Write a file so that nobody ever sees half of it, if `durable` not even after a power cut.

    One that holds the same already is left alone: False. One that was there keeps its mode.
    """
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    path = Path(os.path.realpath(path))  # a link into a repository of dotfiles stays one
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
    """Of a file's content, whatever its size; OSError if it cannot be read."""
    import hashlib  # slow to import

    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


def sha256_or_none(path: Path) -> str | None:
    """Of a file's content; None if it cannot be read."""
    try:
        return sha256(path)
    except OSError:
        return None
