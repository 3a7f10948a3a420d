"""lab run -m any: the first machine with enough free GPUs, among those of machines.toml."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from lab.ground.errors import LabError
from lab.ground.terminal import escape
from lab.jobs.control import Job
from lab.ssh.answers import expecting
from lab.ssh.connection import Connection
from lab.ssh.machines import Machine
from lab.ssh.several import ask_all
from lab.ssh.ssh_errors import RemoteError, SshError

ANSWER = 120  # seconds that free_gpus.sh may take, as nvidia-smi can be slow
STATES = ("free", "none", "busy", "never")
REFUSED = 77  # exit code of start.sh: the job was not started, and has left nothing


class NoneFree(LabError):
    """No machine can start the job now."""


class Offer(NamedTuple):
    """What free_gpus.sh says of a machine: one of STATES, and why."""

    connection: Connection
    state: str
    why: str


def ask(machine: Machine, gpus: str) -> Offer:
    """Return what a machine offers a job that starts now. Raises SshError if it is unreachable."""
    connection = Connection(machine)
    connection.open()  # fails at once if the machine is down: run() would try twice
    answer = connection.run("free_gpus.sh", gpus=gpus, within=ANSWER)
    with expecting(machine.name, "the state of its GPUs"):
        state, why = parse(answer)
    return Offer(connection, state, why)


def parse(answer: str) -> tuple[str, str]:
    """Return the state and the reason that free_gpus.sh printed. ValueError if it is malformed."""
    state, _, why = answer.strip().partition(" ")
    if state not in STATES:
        raise ValueError("not one of STATES")
    return state, escape(why)


def start_on_any(
    machines: Iterable[Machine],
    gpus: str,
    queue: bool,
    start: Callable[[Connection, bool], Job],
) -> tuple[Connection, Job]:
    """Start a job on the first of these machines with enough free GPUs; return both.

    If none has, with `queue` the job waits on the first machine that has that many.
    `start` is told whether to wait. An error after which the job may have started is raised at
    once, and no other machine is tried. Raises NoneFree.
    """
    offers: list[Offer] = []
    reasons: list[str] = []
    for machine, answer in ask_all(machines, lambda machine: ask(machine, gpus)):
        if isinstance(answer, LabError):
            reasons.append(str(answer))  # it begins with the machine's name
        else:
            offers.append(answer)
            if answer.why:
                reasons.append(f"{machine.name}: {answer.why}")
    free = [offer for offer in offers if offer.state == "free"]
    if not free and all(offer.state == "none" for offer in offers):
        free = offers
    later = [offer for offer in offers if offer.state in ("free", "busy")] if queue else []
    for offer, may_wait in [*((one, False) for one in free), *((one, True) for one in later)]:
        try:
            return offer.connection, start(offer.connection, may_wait)
        except RemoteError as error:  # another job took the GPUs first
            if error.code != REFUSED:
                raise
            reasons.append(f"{offer.connection.name}: {error}")
        except SshError as error:
            if error.may_have_run:
                raise
            reasons.append(str(error))
    waiting = not queue and any(offer.state == "busy" for offer in offers)
    advice = " lab run -m any --queue waits for some." if waiting else ""
    causes = "; ".join(reason.rstrip(".") for reason in reasons)
    raise NoneFree(f"no machine has enough free GPUs: {causes}.{advice}")
