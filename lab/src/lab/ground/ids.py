"""Ids of jobs and of runs, in one format."""

import os
import re
import time

ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"  # sorted, without characters that look alike
FORMAT = re.compile(rf"\d{{8}}-\d{{6}}-[{ALPHABET}]{{6}}")
RUN_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,199}", re.A)  # also one that --id gave


def new_id() -> str:
    """Make a unique id that sorts by age: 20261122-101530-k7xq2a, in UTC.

    The last part starts with the fraction of the second (in 1/29791); its other half is random.
    """
    now = time.time()
    base = len(ALPHABET)
    fraction = int(now % 1 * base**3)
    chance = int.from_bytes(os.urandom(8), "big")  # the module secrets is slow to import
    numbers = (fraction, chance % base**3)
    last = [ALPHABET[one // base**place % base] for one in numbers for place in (2, 1, 0)]
    clock = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{clock}-{''.join(last)}"
