"""Bringing files across, either way: by rsync, or by tar where one side has none.

Both put them into `files` of a staging folder, whole or not at all, and go on after a cut where it
was. What arrived is put in place by others, once it is checked.
"""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.ground.errors import LabError
from lab.ssh.connection import Connection
from lab.ssh.framing import PATIENCE
from lab.ssh.ssh_errors import ConnectionLost, RemoteError, SshError

HELPER = Path(__file__).with_name("rsync_shell.py")
PARTIAL = ".lab-partial"  # folder of what was cut, beside its place; the next attempt goes on
LOST = {10, 12, 20, 30, 35, 255}  # rsync's exit codes for a line that is gone; 20: it was ended
VANISHED = {0, 23, 24}  # some files could not be read, or went away: what arrived is looked at

Fingerprint = tuple[int, int]  # bytes, and time of the last change in ns


class DiskFull(LabError):
    """Nothing half-made is in place, and what was gathered is given up to make room."""


def fingerprint(path: str | Path, links: bool = False) -> Fingerprint | None:
    """Of a file, or with `links` of what a link leads to; None if there is none."""
    try:
        about = os.stat(path, follow_symlinks=links)
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns


def parse_time(time: str) -> int:
    """Of a time in seconds, as find and tar print it: too long for a float."""
    seconds, _, rest = time.partition(".")
    return int(seconds) * 10**9 + int(f"{rest:0<9.9}")


def is_inside(name: str) -> bool:
    """Whether a path of another machine stays in the folder that it is meant for."""
    return all(part not in ("", ".", "..") for part in name.split("/")) and "\0" not in name


def can_rsync(version: str) -> bool:
    """Whether this side and the other, which says `version`, have an rsync of 2013 or later."""
    said = ""
    if shutil.which("rsync"):
        said = subprocess.run(["rsync", "--version"], capture_output=True, text=True).stdout
    found = [re.match(r"rsync +version v?(\d+)\.(\d+)", one) for one in (said, version)]
    return all(one and (int(one[1]), int(one[2])) >= (3, 1) for one in found)


def pull(
    connection: Connection,
    base: str,
    names: list[str],
    stage: Path,
    *,
    rsync: bool,
    known: Path | None = None,
    links: bool = False,
) -> None:
    """Bring files of the folder `base` there into stage/files here; with `links`, where they are
    links, what those lead to.

    What lies in `known` under the same name saves sending what it has in common. A file that goes
    away meanwhile is just not there afterwards. Raises SshError, or LabError if the disk is full.
    """
    for folder in ("files", "tmp"):
        (stage / folder).mkdir(parents=True, exist_ok=True)
    if not rsync:
        _pull_tar(connection, base, names, stage, links)
        return
    options = [f"--copy-dest={known}"] if known else []
    options += ["--copy-links"] if links else []
    options.append(f"--temp-dir={stage / 'tmp'}")
    _rsync(connection, names, f"there:{base}/", f"{stage / 'files'}/", options, "here")


def push(connection: Connection, base: Path, names: list[str], stage: str, *, rsync: bool):
    """Send files of the folder `base` here, or what they link to, into stage/files there.

    Raises SshError, or LabError if the disk is full.
    """
    if not rsync:
        _push_tar(connection, base, names, stage)
        return
    options = ["--copy-links", f"--temp-dir={stage}/tmp"]
    _rsync(connection, names, f"{base}/", f"there:{stage}/files/", options, connection.name)


def rsync_command(listed: str, options: list[str], source: str, target: str) -> list[str]:
    """The command line of rsync; no path of the other side passes a shell (-s)."""
    shell = " ".join(_quoted(word) for word in (sys.executable, "-I", str(HELPER)))
    command = ["rsync", "--times", "-s", "--partial", f"--partial-dir={PARTIAL}"]
    command += [f"--timeout={max(4, round(4 * PATIENCE))}", "--from0", f"--files-from={listed}"]
    command += ["--info=progress2"] if sys.stdout.isatty() else []
    return [*command, *options, "-e", shell, source, target]


def _quoted(word: str) -> str:
    """For rsync's -e, where a quote inside quotes is written twice."""
    return "'" + word.replace("'", "''") + "'"


def _rsync(connection, names, source, target, options, receiver) -> None:
    connection.open()
    ssh = json.dumps(connection.ssh_command("-T", "-o", "BatchMode=yes"))
    with names_file(names) as file, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            rsync_command(file.name, options, source, target),
            env={**os.environ, "LAB_SSH": ssh, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=None if sys.stdout.isatty() else subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # so that nothing of it stays: on a dead line ssh would
        )
        try:
            code = process.wait()
        finally:
            if process.poll() is None:  # on its own it keeps what has come so far
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(2)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace")
    # on a full disk the other rsync may be gone before it can say so: 11 is what is left of it
    if re.search("No space left on device|Disk quota exceeded", said) or (code == 11 and not said):
        raise disk_full(receiver)
    if code in LOST or code < 0:
        connection.close()
        raise connection_lost(connection)
    if code not in VANISHED:
        last = next((line for line in said.splitlines() if line.strip()), f"exit code {code}")
        raise LabError(f"rsync between here and {connection.name} failed: {last}")


def _pull_tar(connection, base, names, stage: Path, links: bool) -> None:
    """The stream is unpacked by hand: only files that were asked for, each renamed when whole."""
    asked = set(names)
    reading, writing = os.pipe()
    problems: list[BaseException] = []

    def unpack() -> None:
        try:
            with os.fdopen(reading, "rb") as pipe, tarfile.open(fileobj=pipe, mode="r|") as stream:
                for member in stream:
                    name = member.name.removeprefix("./")
                    if member.isreg() and name in asked:
                        _write(stage, name, stream.extractfile(member), member)
        except (OSError, tarfile.TarError) as problem:
            problems.append(problem)

    thread = threading.Thread(target=unpack, daemon=True)
    thread.start()
    try:
        with _passing(writing, "receiving") as receive, names_file(names) as file:
            variables = {"base": base, "links": "yes" if links else ""}
            connection.run("pack.sh", stdin=file, receive=receive, again=False, **variables)
    except (BrokenPipeError, SshError) as ended:
        thread.join()
        if isinstance(ended, SshError):
            raise connection_lost(connection) from None
    thread.join()
    for problem in problems:
        if isinstance(problem, OSError):
            raise problem
        raise LabError(f"tar on {connection.name} sent what is none: {problem}")


@contextmanager
def _passing(writing: int, what: str) -> Iterator[Callable[[bytes], None]]:
    """A function that writes into this pipe; a terminal shows how much, if it takes its time."""
    from tqdm import tqdm

    with os.fdopen(writing, "wb", buffering=0) as pipe:
        options = {"unit": "B", "unit_scale": True, "delay": 1, "leave": False, "disable": None}
        with tqdm(desc=what, **options) as bar:

            def write(piece: bytes) -> None:
                bar.update(len(piece))
                while piece:
                    piece = piece[pipe.write(piece) :]

            yield write


def _write(stage: Path, name: str, content, member) -> None:
    draft, target = stage / "tmp" / "draft", stage / "files" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with draft.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
    when = parse_time(member.pax_headers.get("mtime", str(int(member.mtime))))
    os.utime(draft, ns=(when, when))
    draft.replace(target)


def _push_tar(connection, base: Path, names, stage: str) -> None:
    with names_file(names) as file:
        command = ["tar", "-C", str(base), "--null", "-T", file.name, "-chf", "-"]
        environment = {**os.environ, "COPYFILE_DISABLE": "1"}  # macOS would add files of its own
        packing = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        reading, writing = os.pipe()

        def pass_on() -> None:
            with suppress(BrokenPipeError), _passing(writing, "sending") as send:
                for piece in iter(lambda: packing.stdout.read(1 << 16), b""):
                    send(piece)

        thread = threading.Thread(target=pass_on)
        thread.start()
        try:
            with os.fdopen(reading, "rb") as pipe:
                connection.run("unpack.sh", stage=stage, stdin=pipe, again=False)
        except SshError:
            raise connection_lost(connection) from None
        except RemoteError as refused:
            if refused.code != errno.ENOSPC:
                raise
            raise disk_full(connection.name) from None
        finally:
            packing.kill()
            packing.wait()
            thread.join()
            packing.stdout.close()


@contextmanager
def names_file(names: Iterable[str]) -> Iterator:
    """A file with the names; "./", as one that begins with - or # would mean something else."""
    with tempfile.NamedTemporaryFile(prefix="lab-files-") as file:
        file.writelines(b"./" + encode_name(name) + b"\0" for name in names)
        file.flush()
        file.seek(0)
        yield file


def encode_name(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def connection_lost(connection: Connection) -> ConnectionLost:
    return ConnectionLost(
        f"{connection.name}: connection lost; run the same command again: it goes on where it was."
    )


def disk_full(where: str) -> DiskFull:
    return DiskFull(
        f"the disk {where if where == 'here' else f'of {where}'} is full; nothing half-made is in"
        " place: make room and run it again."
    )


@contextmanager
def explain_os_errors() -> Iterator[None]:
    """What goes wrong with files here, as one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full("here") from None
        raise LabError(f"{error.filename or 'here'}: {error.strerror}.") from None


@contextmanager
def staging(*stages: Path) -> Iterator[None]:
    """The folders in which files are gathered: they go at the end, and stay for the next attempt
    if it is broken off, unless the disk is full."""
    try:
        with explain_os_errors():
            yield
    except BaseException as problem:
        if not isinstance(problem, DiskFull):
            stages = ()
        raise
    finally:
        for stage in stages:
            shutil.rmtree(stage, ignore_errors=True)
