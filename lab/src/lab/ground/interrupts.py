"""Ctrl-C, SIGTERM and SIGHUP end a run as exceptions, and never in the middle of a write."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """The run was ended by SIGTERM or SIGHUP.

    A KeyboardInterrupt, because an `except Exception` in the experiment does not catch it, and
    because Sacred treats it as an interruption and reads its STATUS.
    """

    STATUS = "TERMINATED"

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


class _State:
    received = 0  # the signal that ends the run
    waiting = 0  # a signal that arrived while deferred
    holds = 0  # nested `with deferred()`
    presses = 0  # of Ctrl-C


_state = _State()


@contextmanager
def as_exceptions() -> Iterator[None]:
    """Inside, the first signal raises KeyboardInterrupt or Terminated; a second does nothing.

    So the record can be finished even if Ctrl-C is pressed twice; the third press kills. A signal
    that was ignored before (nohup) stays ignored. In a thread this does nothing.
    """
    global _state  # noqa: PLW0603 - signals belong to the process
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner, outer, _state = os.getpid(), _state, _State()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked child inherits this handler, but is not the run
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            die(number)
        _state.presses += number == signal.SIGINT
        if _state.presses > 2:
            die(number)
        if not _state.received:
            _state.received = number
            if _state.holds:
                _state.waiting = number
            else:
                raise to_exception(number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield
    finally:
        _state = outer
        for number, handler in before.items():
            if handler is not None:  # None: a C library set it, and Python cannot restore it
                signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, signals wait; the first one is raised at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals only reach the main thread
        return
    _state.holds += 1
    try:
        yield
    finally:
        _state.holds -= 1
        number = _state.waiting
        if number and not _state.holds:
            _state.waiting = 0
            raise to_exception(number)


def received_signal() -> int:
    """Return the number of the signal that ended this run, or 0."""
    return _state.received


def to_exception(number: int) -> KeyboardInterrupt:
    """Make the exception that stands for a signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


def die(number: int) -> None:
    """End this process by the signal itself."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
