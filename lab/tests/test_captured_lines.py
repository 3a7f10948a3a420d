"""What a run prints becomes the lines that a terminal shows in the end, however it arrives."""

import io
import os
import sys
import time
from pathlib import Path

import pytest
from any_text import quickly
from hypothesis import given
from hypothesis import strategies as st

from lab.recording import capture, capture_helper
from lab.recording.capture_helper import MAX_LINE, Channel, Lines

PRINTED = {
    "lines": (b"one\ntwo\n", b"one\ntwo\n"),
    "an unfinished line": (b"one\ntwo", b"one\ntwo\n"),
    "line ends of a terminal": (b"one\r\ntwo\r\r\n", b"one\ntwo\n"),
    "an empty line": (b"one\n\ntwo\n", b"one\n\ntwo\n"),
    "a progress bar": (b" 0%\r 50%\r100%\ndone\n", b"100%\ndone\n"),
    "a bar that is erased with blanks": (b"bar\r   \rdone\n", b"done\n"),
    "a bar that is erased by an escape sequence": (b"bar\x1b[2K\rdone\n", b"done\n"),
    "a longer line below a shorter one": (b"longer\rsmall\n", b"small\n"),
    # the first "cursor up" tells that rows above may change: it may come after the first drawing
    "nested bars": (
        b"\x1b[Aouter 0\ninner 0\r\x1b[Aouter 1\ninner 1\r\x1b[1Aouter 2\n",
        b"outer 2\ninner 1\n",
    ),
    "colours": (b"\x1b[31mred\x1b[0m\n", b"\x1b[31mred\x1b[0m\n"),
    "a colour before what ends like a sequence": (
        b"\x1b[31mUSA\n\x1b[32mOK\n\r\x1b[33mOK\r\n\x1b[1;2A\n",
        b"\x1b[31mUSA\n\x1b[32mOK\n\x1b[33mOK\n\x1b[1;2A\n",
    ),
    "characters of several bytes": ("größe 日本\n".encode(), "größe 日本\n".encode()),
}


def collect(*pieces: bytes) -> bytes:
    lines = Lines()
    return b"".join(map(lines.feed, pieces)) + lines.finish()


@pytest.mark.parametrize("case", PRINTED)
def test_output_becomes_the_same_lines_wherever_it_is_split(case):
    printed, expected = PRINTED[case]
    whole = collect(printed)
    assert whole == expected
    for cut in range(len(printed)):
        assert collect(printed[:cut], printed[cut:]) == whole, cut
    assert collect(*(bytes([byte]) for byte in printed)) == whole


def test_a_finished_line_is_written_at_once_and_an_endless_one_in_time():
    lines = Lines()
    assert lines.feed(b"one\ntw") == b"one\n"
    assert lines.feed(b"o\n") == b"two\n"
    assert len(lines.feed(b"x" * (MAX_LINE + 1))) == MAX_LINE + 1


@pytest.mark.parametrize("before", [b"", b"\n", b"\n\x1b[A\n\n"])
def test_whatever_is_printed_takes_little_memory_and_time(before):
    """A command may print anything, without an end, and after it has moved the cursor."""
    began = time.process_time()
    for endless in (b"x", b"\r", b"\n", b"\x1b", b"\x1b[2", b"9", b"\x1b[A", b"\r\n", b"y\n"):
        lines = Lines()
        lines.feed(before)
        for _ in range(20):
            lines.feed(endless * (10_000 // len(endless)))
            assert sum(map(len, lines.rows)) + len(lines.rest) <= MAX_LINE + 100
            assert len(lines.rows) < 100
    assert collect(b"\x1b[" + b"9" * 5000 + b"A\n").endswith(b"9A\n")
    assert time.process_time() < began + 60


@quickly
@given(
    st.lists(
        st.sampled_from([b"\r", b"\n", b"a", b" ", b"\x1b[A", b"\x1b[2K", b"\x1b[", b"3", b"K"])
    )
)
def test_any_output_becomes_the_same_lines_wherever_it_is_split(pieces):
    assert collect(*pieces) == collect(b"".join(pieces))


def test_a_closed_terminal_does_not_end_the_record():
    source, sink = os.pipe()
    screen, closed = os.pipe()
    os.close(screen)
    channel = Channel(source, closed)
    channel.show(b"nobody reads this\n")
    assert channel.screen is None
    os.write(sink, b"more\n")
    assert channel.read() == b"more\n"
    for descriptor in (source, sink, closed):
        os.close(descriptor)


def test_output_that_does_not_reach_the_disk_has_its_true_cause(tmp_path, monkeypatch):
    """A disk in the network may say only now that it is full."""

    def fail(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "cout.txt").touch()
    (ended, end), (answers, answer), (source, sink) = os.pipe(), os.pipe(), os.pipe()
    screen = os.open(os.devnull, os.O_WRONLY)
    os.write(sink, b"one\n")
    os.close(sink)
    capture_helper.start(str(tmp_path / "cout.txt"), [ended, answer, source, screen])
    os.close(answer)
    assert b"No space left" in os.read(answers, 1000)
    for descriptor in (ended, end, answers, source, screen):
        os.close(descriptor)


def test_the_helper_needs_the_standard_library_only():
    text = Path(capture_helper.__file__).read_text("utf-8")
    assert "import lab" not in text
    assert "from lab" not in text


@pytest.mark.parametrize("kind", [io.TextIOWrapper, io.StringIO])
def test_what_is_printed_to_one_stream_by_two_names_is_recorded_once_and_not_after_the_end(
    kind, tmp_path, monkeypatch
):
    """As contextlib.redirect_stderr(sys.stdout) leaves it."""
    stream = io.StringIO() if kind is io.StringIO else io.TextIOWrapper(io.BytesIO())
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)
    (tmp_path / "cout.txt").touch()
    captured = capture.start(tmp_path / "cout.txt")
    print("out")
    print("error", file=sys.stderr)
    captured.stop()
    assert sys.stdout is stream and sys.stderr is stream
    (tmp_path / "next").touch()
    after = os.open(tmp_path / "next", os.O_WRONLY)  # takes the place of the closed file
    print("late")
    os.close(after)
    assert (tmp_path / "cout.txt").read_text() == "out\nerror\n"
    assert not (tmp_path / "next").read_text()
