"""What a run prints becomes the lines that a terminal shows in the end, however it arrives."""

import os
from pathlib import Path

import pytest

from lab.recording import capture_helper
from lab.recording.capture_helper import LONGEST, Channel, Lines

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
    assert len(lines.feed(b"x" * (LONGEST + 1))) == LONGEST + 1


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


def test_the_helper_needs_the_standard_library_only():
    text = Path(capture_helper.__file__).read_text("utf-8")
    assert "import lab" not in text
    assert "from lab" not in text
