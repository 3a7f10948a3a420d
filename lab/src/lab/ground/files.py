"""Files that are written whole or not at all, and the hash of their content."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield another path to write to, which replaces `path` at the end unless there was an error.

    So no reader ever sees a part of the file, and an attempt that fails leaves nothing behind.
    """
    name = path.name[:50]  # a name of full length leaves no room for more
    draft = path.with_name(f".{name}.{os.urandom(4).hex()}")  # another machine may write, too
    try:
        yield draft
        draft.replace(path)
    finally:
        if draft.is_dir() and not draft.is_symlink():
            shutil.rmtree(draft, ignore_errors=True)
        draft.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Move a file or folder, also to another disk, so that no reader ever sees a part of it."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(target) as draft:
            shutil.move(source, draft)


def write(path: Path, text: str | bytes, durable: bool = True) -> bool:
    """Write a file so that no reader ever sees a part of it; if `durable`, nor after a crash.

    Returns whether it changed: a file that already has this content is left alone. The mode of an
    existing file stays.
    """
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    path = Path(os.path.realpath(path))  # a link, say into a repository of dotfiles, stays a link
    if path.exists() and path.read_bytes() == content:
        return False
    with replacing(path) as draft, draft.open("wb") as file:
        if path.exists():
            os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
        file.write(content)
        file.flush()
        if durable:  # else some file systems keep the new name and lose the content
            os.fsync(file.fileno())
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
