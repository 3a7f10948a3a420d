"""Asks several machines at once, so that all time-outs run in parallel."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from lab.ground.errors import LabError
from lab.ssh.machines import Machine

T = TypeVar("T")
MAX_AT_ONCE = 32


def ask_all(
    machines: Iterable[Machine], ask: Callable[[Machine], T]
) -> list[tuple[Machine, T | LabError]]:
    """Return what `ask` returns for each machine, or its LabError, in their order."""
    from concurrent.futures import ThreadPoolExecutor  # slow to import

    def try_one(machine: Machine) -> T | LabError:
        try:
            return ask(machine)
        except LabError as error:
            return error

    all_of_them = list(machines)
    with ThreadPoolExecutor(MAX_AT_ONCE) as pool:
        return list(zip(all_of_them, pool.map(try_one, all_of_them), strict=True))
