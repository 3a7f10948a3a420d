"""Who started a job, shell or server: several people and laptops may share one account."""

import os


def name_owner() -> str:
    """Return the person and the computer, as job.json and lab jobs show them: ada@laptop."""
    from getpass import getuser

    return f"{getuser()}@{os.uname().nodename}"  # the module socket is slow to import


def is_own(by: object) -> bool:
    """Tell whether something was started by this person on this computer."""
    return isinstance(by, str) and shorten(by) == shorten(name_owner())


def shorten(by: str) -> str:
    """Remove the domain, which on a laptop changes with the network."""
    person, _, host = by.rpartition("@")
    return f"{person}@{host.partition('.')[0]}"
