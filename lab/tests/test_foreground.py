"""ssh in the foreground, where it may ask: what goes wrong is said, and leaves nothing behind."""

import errno
import os
import signal
import sys
import tempfile

import pytest
from fake_machine import is_running

from lab.ground.errors import LabError
from lab.ssh import calls


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    """A terminal at which a person seems to be; it remembers who has had it."""
    owners: list[int] = []
    (tmp_path / "tty").touch()
    monkeypatch.setattr(calls, "Path", lambda path: tmp_path / "tty")
    monkeypatch.setattr(os, "tcgetpgrp", lambda number: os.getpgrp())
    monkeypatch.setattr(os, "tcsetpgrp", lambda number, group: owners.append(group))
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    return owners


def test_a_command_has_the_terminal_until_it_exits(terminal):
    assert calls.run_in_foreground(["sh", "-c", "echo said >&2; exit 7"]) == (7, "said\n")
    assert len(terminal) == 2 and terminal[-1] == os.getpgrp()


def test_a_full_disk_is_not_taken_for_nobody_at_the_terminal(terminal, monkeypatch):
    def fail():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    with pytest.raises(LabError, match="No space left on device"):
        calls.run_in_foreground(["true"])
    with pytest.raises(LabError, match="cannot be started"):
        calls.run_in_foreground(["/nowhere/ssh"])


@pytest.mark.parametrize("fails", ["at once", "at the end"])
def test_a_terminal_that_fails_leaves_no_process_and_no_ignored_signal(
    terminal, monkeypatch, fails
):
    groups: list[int] = []

    def give(number, group):
        groups.append(group)
        if fails == "at once" or group == os.getpgrp():
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "tcsetpgrp", give)
    before = signal.getsignal(signal.SIGTTOU)
    command = ["sleep", "3600"] if fails == "at once" else ["true"]
    try:
        with pytest.raises(LabError, match="Input/output error"):
            calls.run_in_foreground(command)
        assert signal.getsignal(signal.SIGTTOU) == before
        assert not is_running(groups[0])
    finally:
        signal.signal(signal.SIGTTOU, before)
        if is_running(groups[0]):
            os.kill(groups[0], signal.SIGKILL)


def test_without_a_terminal_nobody_is_asked(terminal, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "tcgetpgrp", lambda number: os.getpgrp() + 1)  # after a shell's &
    assert calls.run_in_foreground(["true"]) is None
    (tmp_path / "tty").unlink()
    assert calls.run_in_foreground(["true"]) is None
    assert not terminal
