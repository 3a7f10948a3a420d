"""Copies files as a tar stream, if one side has no rsync."""

import errno
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from lab.ground import files
from lab.ground.errors import LabError
from lab.ground.terminal import stream_for_bars
from lab.ssh.connection import Connection
from lab.ssh.ssh_errors import RemoteError, SshError
from lab.transfer.staging import DiskFull, connection_lost, list_names, names_file, parse_time

MAX_NAME = 1 << 16  # bytes
# Headers with a name or attributes, which tarfile reads into memory whatever their size.
HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


def pull(
    connection: Connection, base: str, names: list[str], stage: Path, follow_links: bool
) -> None:
    """See copying.pull. Unpack only wanted files from the stream, and no incomplete ones."""
    wanted = set(names)
    reading, writing = os.pipe()
    problems: list[BaseException] = []

    def unpack() -> None:
        try:
            with os.fdopen(reading, "rb") as pipe:
                for member, content in read_stream(pipe, len(wanted)):
                    name = member.name.removeprefix("./")
                    if name in wanted:
                        _write(stage / "files" / name, content, member)
        except (OSError, tarfile.TarError) as problem:
            problems.append(problem)

    thread = threading.Thread(target=unpack, daemon=True)
    thread.start()
    try:
        with _open_pipe(writing, "receiving") as receive:
            connection.run(
                "pack.sh",
                stdin=list_names(names),
                receive=receive,
                again=False,
                base=base,
                links="yes" if follow_links else "",
            )
    except BrokenPipeError:
        pass  # unpack() has failed, and put the reason into problems
    except SshError as error:
        thread.join()
        raise connection_lost(connection, error) from None
    thread.join()
    for problem in problems:
        if isinstance(problem, OSError):
            raise problem
        raise LabError(f"tar on {connection.name} sent a damaged archive: {problem}")


class Member(tarfile.TarInfo):
    """A member with small headers; sparse files are refused, as their maps may be large."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type == tarfile.GNUTYPE_SPARSE or (self.type in HEADERS and self.size > MAX_NAME):
            raise tarfile.ReadError("a header is too long")
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError("a file is sparse")


def read_stream(pipe: IO[bytes], limit: int) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Yield the regular files of a tar stream with their content; ReadError after `limit` members.

    Raises tarfile.TarError for anything that is not such a stream.
    """
    try:
        with tarfile.open(fileobj=pipe, mode="r|", tarinfo=Member) as stream:
            for count, member in enumerate(stream, 1):
                if count > limit:
                    raise tarfile.ReadError("more files than were asked for")
                content = stream.extractfile(member) if member.isreg() else None
                if content:
                    yield member, content
    # what tarfile raises for malformed archives, beside its own errors
    except (ValueError, LookupError, TypeError, OverflowError, RuntimeError, EOFError) as error:
        raise tarfile.ReadError(type(error).__name__) from None


def push(connection: Connection, base: Path, names: list[str], stage: str) -> None:
    """See copying.push."""
    reading, writing = os.pipe()
    with names_file(names) as listed:
        command = ["tar", "-C", str(base), "--null", "-T", listed, "-chf", "-"]
        environment = {**os.environ, "COPYFILE_DISABLE": "1"}  # else macOS adds files of its own
        tar = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        packed = tar.stdout
        assert packed is not None

        problems: list[Exception] = []

        def pass_on() -> None:
            try:
                with suppress(BrokenPipeError), _open_pipe(writing, "sending") as send:
                    for chunk in iter(lambda: packed.read(1 << 16), b""):
                        send(chunk)
            except Exception as problem:  # noqa: BLE001 - it is raised in the caller's thread
                problems.append(problem)

        thread = threading.Thread(target=pass_on)
        thread.start()
        try:
            with os.fdopen(reading, "rb") as pipe:
                connection.run("unpack.sh", stage=stage, stdin=pipe, again=False)
        except SshError as error:
            raise connection_lost(connection, error) from None
        except RemoteError as error:
            if error.code != errno.ENOSPC:
                raise
            raise DiskFull(connection.name) from None
        finally:
            tar.kill()
            tar.wait()
            thread.join()
            packed.close()
            for problem in problems:
                raise problem


@contextmanager
def _open_pipe(writing: int, action: str) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that writes into a pipe, with a progress bar on a terminal."""
    with os.fdopen(
        writing, "wb", buffering=0
    ) as pipe:  # closed in any case, so that its reader sees the end
        from tqdm import tqdm

        options = {"unit": "B", "unit_scale": True, "delay": 1, "leave": False, "disable": None}
        with tqdm(desc=action, file=stream_for_bars(), **options) as bar:

            def write(chunk: bytes) -> None:
                bar.update(len(chunk))
                while chunk:
                    chunk = chunk[pipe.write(chunk) :]

            yield write


def _write(target: Path, content: IO[bytes], member: tarfile.TarInfo) -> None:
    """Write one file, with its time to the nanosecond."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(target) as draft:
        with draft.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
        try:
            when = parse_time(member.pax_headers.get("mtime", str(int(member.mtime))))
            os.utime(draft, ns=(when, when))
        except (ValueError, OverflowError):
            raise tarfile.ReadError("a time is malformed") from None
