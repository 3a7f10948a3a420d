"""The answer of a machine is complete or none, however its bytes are split on the way."""

import os
import threading

import pytest

from lab.ssh import framing

MARK = b"0123456789abcdef"
NOISE = b"Welcome to worker!\n\0" + MARK[:9]
# a NUL, and what looks like the beginning of an end mark, are part of the output
OUTPUT = b"one\0two\n\0" + MARK[:-1] + b"\0" + MARK + b"\0" + b"three \xff"
END = b"\0" + MARK + b" 7\0"
WHOLE = NOISE + MARK + b"\0" + OUTPUT + END


def feed(*pieces: bytes) -> tuple[int | None, list[bytes]]:
    """The exit code and what was received, if the answer comes in these pieces."""
    received: list[bytes] = []
    answer = framing._Answer(MARK, received.append)
    for piece in pieces:
        answer.feed(piece)
    return answer.code, received


@pytest.mark.parametrize("at", range(len(WHOLE)))
def test_an_answer_that_is_split_anywhere_is_complete(at):
    code, received = feed(WHOLE[:at], WHOLE[at:])
    assert (code, b"".join(received)) == (7, OUTPUT)


def test_an_answer_that_comes_byte_by_byte_is_complete():
    code, received = feed(*(WHOLE[at : at + 1] for at in range(len(WHOLE))))
    assert (code, b"".join(received)) == (7, OUTPUT)


@pytest.mark.parametrize("at", range(len(WHOLE)))
def test_an_answer_that_ends_early_has_no_exit_code_and_no_part_of_the_mark(at):
    code, received = feed(WHOLE[:at])
    assert code is None
    assert OUTPUT.startswith(b"".join(received))


@pytest.mark.parametrize("at", [0, len(NOISE) + 3, len(WHOLE) - len(END) + 5, len(WHOLE) - 1])
def test_bytes_that_come_later_are_waited_for_and_a_closed_pipe_is_not(at):
    reading, writing = os.pipe()
    errors, errors_end = os.pipe()
    received: list[bytes] = []

    def write() -> None:
        os.write(errors_end, b"lab: it failed\n")
        os.write(writing, WHOLE[:at])
        if at < len(WHOLE) - 1:
            os.write(writing, WHOLE[at:])
        os.close(writing)
        os.close(errors_end)

    writer = threading.Thread(target=write)
    writer.start()
    with open(reading, "rb") as stdout, open(errors, "rb") as stderr:
        code, text = framing.read_answer(stdout, stderr, MARK, received.append, within=20)
    writer.join()
    assert (code, text) == (7 if at < len(WHOLE) - 1 else None, "lab: it failed\n")
    assert OUTPUT.startswith(b"".join(received))


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("Welcome\nlab: it failed.\nbye\n", "it failed."),
        ("lab: one;\nlab: two.\n", "one; two."),
        ("sh: 1: x: not found\n\n", "sh: 1: x: not found"),
        ("", ""),
    ],
)
def test_the_message_of_a_script_is_found_in_what_others_write(stderr, message):
    assert framing.find_error(stderr) == message


def test_a_script_is_found_by_its_name_alone():
    paths = [*framing.PACKAGE.glob("*/*.*sh")]
    assert sorted(framing.find_scripts()) == sorted(path.name for path in paths)
