"""Ids of jobs and of runs, in one format."""

import re
import secrets
import time

LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # sorted, and none that looks like another
FORMAT = re.compile(rf"\d{{8}}-\d{{6}}-[{LETTERS}]{{6}}")


def new_id() -> str:
    """An id that no other computer gives and that sorts by age: 20261122-101530-k7xq2a; in UTC.

    The last part begins with the fraction of the second (in 1/961), the rest of it is random.
    """
    now = time.time()
    first, second = divmod(int(now % 1 * len(LETTERS) ** 2), len(LETTERS))
    rest = "".join(secrets.choice(LETTERS) for _ in range(4))
    clock = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{clock}-{LETTERS[first]}{LETTERS[second]}{rest}"
