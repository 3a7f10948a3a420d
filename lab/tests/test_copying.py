"""A copy ends, with the cause, whatever fails on this side of it."""

import sys
import threading
from types import SimpleNamespace

import pytest

from lab.transfer import copying, rsync_copy, tar_copy


class Silent:
    """tqdm's progress bar, which need not be installed."""

    def __init__(self, *_: object, **__: object):
        pass

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, _: int) -> None:
        pass


class Broken(Silent):
    """One that fails."""

    def update(self, _: int) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("what", ["its first line", "its last"])
def test_a_tar_stream_whose_writer_dies_is_given_up(machine, tmp_path, monkeypatch, what):
    stage = machine.home / "stage"
    (stage / "files").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    if what == "its first line":
        monkeypatch.setitem(sys.modules, "tqdm", None)  # it is imported by the writer
    else:
        monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=Broken))
    raised: list[BaseException] = []

    def push() -> None:
        try:
            tar_copy.push(machine.connection, tmp_path, ["file"], str(stage))
        except Exception as error:  # noqa: BLE001 - whatever it is
            raised.append(error)

    thread = threading.Thread(target=push, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it waits forever"
    assert [type(error) for error in raised] in ([ModuleNotFoundError], [ZeroDivisionError])


@pytest.mark.parametrize(("delay", "shown"), [(0, True), (3600, False)])
def test_rsync_shows_its_progress_only_once_it_takes_long(
    machine, tmp_path, monkeypatch, capfd, delay, shown
):
    for name in ("files", "tmp"):
        (machine.home / "stage" / name).mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"x" * 1000)
    monkeypatch.setattr(rsync_copy, "DELAY", delay)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    copying.push(machine.connection, tmp_path, ["file"], str(machine.home / "stage"), rsync=True)
    assert (machine.home / "stage/files/file").stat().st_size == 1000
    assert ("100%" in capfd.readouterr().out) == shown
