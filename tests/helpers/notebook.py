"""Starting Jupyter from the laptop, and asking it and the tunnels for answers."""

import json

QUICK = {"LAB_PATIENCE": "4"}  # seconds


def notebook(laptop, *arguments, **options) -> str:
    """The URL that lab notebook prints."""
    options["env"] = {**QUICK, **options.pop("env", {})}
    done = laptop.run("lab", "notebook", *arguments, **options)
    return done.stdout.splitlines()[-1]


def get(laptop, url, path="", token=True, check=False, seconds=60):
    """(code, body) of a request from the laptop; code 0: no answer in this time."""
    base, _, secret = url.partition("/lab?token=")
    head = ["-H", f"Authorization: token {secret}"] if token and secret else []
    words = ["curl", "-s", "-m", str(seconds), "-o", "-", "-w", "\n%{http_code}", *head]
    done = laptop.run(*words, base + path, check=check)
    body, _, code = done.stdout.rpartition("\n")
    return int(code), body


def tunnels(laptop) -> list[dict]:
    return json.loads(laptop.lab("tunnels", "--json", env=QUICK))
