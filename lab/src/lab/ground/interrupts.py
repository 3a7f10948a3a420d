"""Ctrl-C, SIGTERM and SIGHUP end a run as exceptions, and never in the middle of a write.

In an attempt of a job SIGTERM and SIGUSR1 only ask for its end, if the run looks for that itself.
"""

import mmap
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lab.ground import attempts

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ASKING = (signal.SIGTERM, signal.SIGUSR1)  # sent at preemption or lab stop; near the time limit


class Terminated(KeyboardInterrupt):
    """The run was ended by SIGTERM or SIGHUP.

    A KeyboardInterrupt, because an `except Exception` in the experiment does not catch it, and
    because Sacred treats it as an interruption and reads its STATUS.
    """

    STATUS = "TERMINATED"

    def __init__(self, number: int):
        super().__init__(name_signal(number))
        self.number = number


class Interrupted(Terminated):
    """The run ended because it was asked to; the next attempt of its job goes on from there."""

    def __init__(self, number: int = 0):
        super().__init__(number or _state.received or signal.SIGTERM)


class _State:
    received = 0  # the signal that ends the run
    waiting = 0  # a signal that arrived while deferred
    holds = 0  # nested `with deferred()`
    presses = 0  # how often Ctrl-C was pressed
    asks = False  # whether the run calls should_stop()
    alive: mmap.mmap | None = None  # shared with an attempt's forked children: 1 until it ends


_state = _State()


@contextmanager
def as_exceptions() -> Iterator[None]:
    """Inside, the first signal raises KeyboardInterrupt or Terminated; a second does nothing.

    The record can thus be finished even if Ctrl-C is pressed twice; the third press kills. A signal
    that was ignored before (nohup) stays ignored. In a thread this does nothing.

    In an attempt of a job, signals in ASKING do not raise once the run has called should_stop().
    """
    global _state  # noqa: PLW0603 - signals belong to the process
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner, outer, _state = os.getpid(), _state, _State()
    asking = ASKING if attempts.number() else ()
    alive = _state.alive = mmap.mmap(-1, 1) if asking else None
    before = {number: signal.getsignal(number) for number in {*SIGNALS, *asking}}
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # then every exit code is 0
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked child inherits this handler, but is not the run
            if number in asking and alive and alive[0]:
                return
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            die(number)
        _state.presses += number == signal.SIGINT
        if _state.presses > 2:
            die(number)
        if not _state.received:
            _state.received = number
            if number in asking and _state.asks:
                return
            if _state.holds:
                _state.waiting = number
            else:
                raise to_exception(number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN or number in asking:
            signal.signal(number, handle)
    if alive:
        alive[0] = 1
        attempts.mark("listens")
    try:
        yield
    finally:
        if alive:
            alive[0] = 0
        _state = outer
        for number, handler in before.items():
            if number == signal.SIGUSR1:  # it would kill a process whose run is complete
                signal.signal(number, signal.SIG_IGN)
            elif handler is not None:  # None: a C library set it, and Python cannot restore it
                signal.signal(number, handler)


def should_stop() -> bool:
    """Whether a signal has asked this attempt of a job to end.

    From the first call on, SIGTERM and SIGUSR1 no longer raise. False outside of such a job, where
    they always do.
    """
    _state.asks = True
    return bool(attempts.number()) and _state.received in ASKING


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


def ignore_in_worker(worker: int = 0) -> None:
    """Make this forked child ignore the signals that ask an attempt to end, until that has ended.

    For DataLoader(worker_init_fn=...): Slurm's SIGTERM reaches the workers, too, and would end
    them while the run still needs them for its checkpoint.
    """
    alive = _state.alive
    if not alive:
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if not alive[0]:
            die(number)

    for number in ASKING:
        signal.signal(number, handle)


def received_signal() -> int:
    """Return the number of the signal that ended this run, or 0."""
    return _state.received


def to_exception(number: int) -> KeyboardInterrupt:
    """Make the exception that stands for a signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)


def name_signal(number: int) -> str:
    """Name a signal: SIGTERM, or `signal 40` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:  # most of those for real-time programs
        return f"signal {number}"


def die(number: int) -> None:
    """End this process by this signal, with its default action."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
