"""Starting jobs from the laptop, and waiting for their states."""

import json
import time

# for machines.local.toml: the account of the ordinary user
BOB = '[machines.gpu]\nuser = "bob"\nkey = "~/.ssh/id_bob"\ngateway_user = "bob"\n'
GO = "while ! [ -e {} ]; do sleep 0.2; done"  # a job that waits for a file


def start(laptop, *arguments, **options) -> str:
    """Start a job and return its id; a command is not recorded, which has its own tests."""
    bare = ("--no-record",) if "--" in arguments else ()
    return laptop.lab("run", *bare, *arguments, **options).split()[0]


def job(laptop, id: str) -> dict:
    """What lab jobs knows of a job."""
    listed = json.loads(laptop.lab("jobs", "--json", "--all"))
    return next(one for one in listed if one["id"] == id)


def until(condition, seconds=120, what="it"):
    """Wait for a condition; return its value."""
    end = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if value := condition():
            return value
        assert asked < end, f"{what} does not come true"
        # at least as long as asking took, to leave the processor to what is waited for
        time.sleep(max(0.02, time.monotonic() - asked))


def ended(laptop, id: str) -> str:
    """Wait for the end of a job; return its state, of which lab is asked only if it must be."""
    end = laptop.there(f"jobs/{id}/exit_code")
    until(end.exists, what=f"the end of {id}")
    code = int(end.read_text().split()[0])
    plain = code < 128 and not end.with_name("stop").exists()
    return f"finished({code})" if plain else job(laptop, id)["state"]


def log(laptop, id: str) -> str:
    return laptop.there(f"jobs/{id}/output.log").read_text()


def logged(laptop, id: str, text: str):
    until(lambda: text in log(laptop, id), what=f"{text!r} in {id}")
