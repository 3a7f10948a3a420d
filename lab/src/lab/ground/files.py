"""Files that are read within limits, written whole or not at all, and the hash of their content."""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from lab.ground import attempts
from lab.ground.errors import LabError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

MAX_BYTES = 64 << 20  # bytes of a file that is read whole; a lock has 0.2 MB, a record rarely 1 MB
# Characters that some file systems ignore in names: two names may then be one file.
IGNORED = {
    *map(chr, [*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF])
}
MAX_DEPTH = 100  # levels of lists and dictionaries; code that walks deeper ones fails


def open_regular(path: Path | str) -> "BinaryIO":
    """Open a file for reading, without waiting; OSError if it is a FIFO, a device or a folder."""
    return os.fdopen(_open(path)[0], "rb")


def _open(path: Path | str) -> tuple[int, int]:
    """Open a file as open_regular() does; returns its descriptor and its size."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor, found.st_size


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry of a folder is one, or links to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def read(path: Path | str, limit: int = MAX_BYTES) -> bytes:
    """Read a regular file whole; OSError if it cannot be read, or has more than `limit` bytes.

    Every file that somebody else may have written is read by this function, so that a FIFO or an
    endless file in its place is an error, at once.
    """
    descriptor, size = _open(path)
    try:
        # allocating `limit` bytes would take longer than all the rest
        content = os.read(descriptor, min(size, limit) + 1)
        while content and (more := os.read(descriptor, min(1 << 20, limit + 1 - len(content)))):
            content += more  # the file grows, or has no size, as in /proc
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"more than {limit} bytes", str(path))
    return content


def read_text(path: Path | str, errors: str = "strict", limit: int = MAX_BYTES) -> str:
    """Read a regular file as UTF-8, as read() does; OSError also if it is not UTF-8."""
    try:
        return read(path, limit).decode("utf-8", errors).replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "not UTF-8", str(path)) from None


def parse_json(text: str | bytes) -> "Any":
    """Parse JSON; ValueError if it is not valid, or nested more than 100 levels deep."""
    import json

    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    brackets = (b"[", b"{") if isinstance(text, bytes) else ("[", "{")
    if sum(map(text.count, brackets)) > MAX_DEPTH:  # type: ignore[arg-type] # both are of one type
        refuse_depth(content)
    return content


def read_json(path: Path | str) -> "Any":
    """Read a JSON file, as read() and parse_json() do; OSError, ValueError."""
    return parse_json(read(path))


def refuse_depth(content: "Any") -> None:
    """Raise ValueError if lists and dictionaries are nested more than 100 levels deep."""
    level = [content]
    for _ in range(MAX_DEPTH + 1):
        inside = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for values in inside for one in values if isinstance(one, (dict, list))]
        if not level:
            return
    raise ValueError("nested too deeply")


def is_plain_path(path: str) -> bool:
    """Whether a relative path from outside stays in its folder, and has no special meaning there.

    No part may begin with a dot: programs would take a .git or .envrc for the user's own. Nor may a
    file be called HEAD: git would take its folder for a repository, whose configuration can name
    programs to run. The files of runs and datasets have no such names.
    """
    parts = ["".join(one for one in part if one not in IGNORED) for part in path.split("/")]
    hidden = any(part[:1] in ("", ".") for part in parts)
    return not hidden and parts[-1].casefold() != "head" and "\0" not in path


def find_link(root: Path, name: str) -> Path | None:
    """Find the link that a file in a folder is or lies behind, below that folder; None if none."""
    paths = (root / name, *(root / one for one in Path(name).parents))
    return next((path for path in paths if path != root and path.is_symlink()), None)


def refuse_links(root: Path, names: Iterable[str]) -> None:
    """Raise LabError if one of these files in a folder is a link, or lies behind one.

    Somebody else's repository may contain a link, which leads what we write to the user's home.
    """
    for name in names:
        if link := find_link(root, name):
            raise LabError(f"{link} is a link, and lab does not write through links: replace it.")


def make_private_folder(path: Path) -> None:
    """Make a folder that only this user can enter, and its parents, whatever the umask.

    One that exists stays as it is.
    """
    for folder in reversed([path, *path.parents]):
        if not folder.is_dir():
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield another path to write to, which replaces `path` at the end unless there was an error.

    No reader ever sees a part of the file, and a failure leaves nothing behind.
    """
    name = path.name[:50]  # the longest valid name leaves no room for a suffix
    draft = path.with_name(f".{name}.{os.urandom(4).hex()}")  # another machine may write, too
    remove = partial(draft.unlink, missing_ok=True)
    attempts.before_end.append(remove)
    try:
        yield draft
        draft.replace(path)
    finally:
        attempts.before_end.remove(remove)
        if _is_real_folder(draft):
            import shutil  # slow to import

            shutil.rmtree(draft, ignore_errors=True)
        remove()


def list_drafts(folder: Path) -> list[Path]:
    """List what replacing() left in a folder when it was killed, or is writing there now."""
    return [*folder.glob(f".*.{'[0-9a-f]' * 8}")]


def move(source: Path, target: Path) -> None:
    """Move a file or folder, also to another disk, so that no reader ever sees a part of it."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        import shutil  # slow to import

        with replacing(target) as draft:
            _copy(source, draft)
        if _is_real_folder(source):  # only now: an interrupt before would leave neither copy
            shutil.rmtree(source)
        else:
            source.unlink()


def _copy(source: Path, target: Path) -> None:
    """Copy a file or folder. Unlike shutil.copytree(), raise the first error, with its errno."""
    import shutil  # slow to import

    if not _is_real_folder(source):
        shutil.copy2(source, target, follow_symlinks=False)
        return
    target.mkdir()
    for path in source.iterdir():
        _copy(path, target / path.name)
    shutil.copystat(source, target)


def _is_real_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def write(
    path: Path,
    text: str | bytes,
    durable: bool = True,
    *,
    private: bool = False,
    follow: bool = False,
    before: "Callable[[], None] | None" = None,
) -> bool:
    """Write a file so that no reader ever sees a part of it; if `durable`, nor after a crash.

    Returns whether it changed: a file that already has this content is left alone. The mode of an
    existing file stays; if `private`, only this user can read a new one, whatever the umask.
    A link is replaced, as it may come from somebody else's repository; if `follow`, it stays and
    the file that it leads to, say in a repository of dotfiles, is written.
    `before` is called just before the new file replaces the old one.
    """
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    path = Path(os.path.realpath(path)) if follow else path
    exists = path.is_file() and not path.is_symlink()
    with suppress(OSError):
        if exists and path.stat().st_size == len(content) and read(path) == content:
            return False
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with (
        replacing(path) as draft,
        os.fdopen(os.open(draft, flags, 0o600 if private else 0o666), "wb") as file,
    ):
        if exists:
            os.fchmod(file.fileno(), path.stat().st_mode & 0o7777)
        file.write(content)
        file.flush()
        if durable:  # else some file systems keep the new name and lose the content
            os.fsync(file.fileno())
        if before:
            before()
    return True


def sync(path: Path, deep: bool = True) -> None:
    """Have a file or a folder written to the disk, so that it is there even after a power failure.

    `deep`: also all files in the folder, at any depth; links are left out.
    """
    for one in (*(path.rglob("*") if deep else ()), path):
        if one.is_symlink() or not (one.is_file() or one.is_dir()):
            continue
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError:
            if one.is_file():  # not every file system can do it with folders
                raise
        finally:
            os.close(descriptor)


def sha256(path: Path, advance: "Callable[[int], object]" = lambda size: None) -> str:
    """Hash a regular file of any size; OSError if it cannot be read.

    `advance` is called with the number of bytes of each piece; if it raises, hashing ends.
    """
    import hashlib  # slow to import

    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def sha256_or_none(path: Path) -> str | None:
    """Hash a file; None if it cannot be read."""
    try:
        return sha256(path)
    except OSError:
        return None
