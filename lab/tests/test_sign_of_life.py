"""A script that takes long gives a sign of life, which never gets into its output."""

import math
import os
import signal
import subprocess
from pathlib import Path

import pytest

from lab.ssh import framing

MARK = "0123456789abcdef"
MEGABYTE = 1 << 20


def run(source: str, patience: float, monkeypatch) -> tuple[int | None, bytes]:
    """The exit code and the output of a script, framed as for a machine."""
    monkeypatch.setattr(framing, "PATIENCE", patience)
    pieces: list[bytes] = []
    with subprocess.Popen(
        ["sh", "-c", framing.frame_script(source, MARK, True)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        code, errors = framing.read_answer(
            process.stdout, process.stderr, MARK.encode(), pieces.append, math.inf
        )
        os.killpg(process.pid, signal.SIGKILL)
    assert MARK not in errors
    return code, b"".join(pieces)


@pytest.mark.slow
def test_output_from_before_and_after_the_sign_stays_whole(monkeypatch):
    zeros = f"head -c {2 * MEGABYTE} /dev/zero | tr '\\0' x"
    code, output = run(f"{zeros}\nsleep 2.5\n{zeros}", 15, monkeypatch)
    assert code == 0
    assert output == b"x" * 4 * MEGABYTE


def make_signs_take(seconds: str, path: Path, monkeypatch) -> None:
    """Only the sign calls sleep by its name."""
    (path / "sleep").write_text(f"#!/bin/sh\nexec /bin/sleep {seconds}\n")
    (path / "sleep").chmod(0o700)
    monkeypatch.setenv("PATH", f"{path}:{os.environ['PATH']}")


@pytest.mark.slow
def test_a_script_that_takes_longer_than_the_patience_is_waited_for(tmp_path, monkeypatch):
    make_signs_take("0.1", tmp_path, monkeypatch)
    assert run("/bin/sleep 6\necho done", 5, monkeypatch) == (0, b"done\n")


def test_a_script_without_any_sign_is_given_up(tmp_path, monkeypatch):
    make_signs_take("1000", tmp_path, monkeypatch)
    assert run("/bin/sleep 1000\necho done", 0.5, monkeypatch) == (None, b"")
