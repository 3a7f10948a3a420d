"""Starting Jupyter from the laptop, and asking it and the tunnels for answers."""

import json

QUICK = {"LAB_PATIENCE": "4"}  # seconds


def notebook(laptop, *arguments, **options) -> str:
    """The URL that lab notebook prints."""
    options["env"] = {**QUICK, **options.pop("env", {})}
    done = laptop.run("lab", "notebook", *arguments, **options)
    return done.stdout.splitlines()[-1]


def get(laptop, url, path="", token=True, check=False):
    """(code, body) of a request from the laptop; code 0: no answer."""
    base, _, secret = url.partition("/lab?token=")
    head = ["-H", f"Authorization: token {secret}"] if token and secret else []
    done = laptop.run(
        "curl", "-s", "-m", "5", "-o", "-", "-w", "\n%{http_code}", *head, base + path, check=check
    )
    body, _, code = done.stdout.rpartition("\n")
    return int(code), body


def tunnels(laptop) -> list[dict]:
    return json.loads(laptop.lab("tunnels", "--json", env=QUICK))
