"""Run git on the project's repository: in a clean environment, with errors of one line."""

import os
import re
import subprocess
from collections.abc import Container, Mapping
from pathlib import Path

from lab.ground import project
from lab.ground.errors import LabError

# The variables of git that are passed on: others, set in a hook, may name another repository.
ALLOWED = ("GIT_CONFIG_", "GIT_EXEC_PATH", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_")
IDENTITY = {"NAME": "lab", "EMAIL": "lab@localhost"}  # the user may have none


def run(
    *arguments: str | Path,
    cwd: Path | None = None,
    stdin: str = "",
    limit: int | None = None,
    accept: Container[int] = (0,),
    **variables: str,
) -> str:
    """Run git in the project's folder, or in `cwd`, and return what it printed.

    After more than `limit` bytes git is stopped, and the rest is left out. Bytes that are not UTF-8
    are decoded as Python decodes file names. Raises LabError if git is missing, or if its exit code
    is not in `accept`.
    """
    try:
        process = subprocess.Popen(
            ["git", *arguments],
            cwd=cwd or project.root(),
            env=_clean_environment(os.environ) | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise LabError(f"git cannot be started ({error.strerror}): install it.") from None
    with process:
        output = b""
        if limit and process.stdout:
            output = process.stdout.read(limit + 1)
            if len(output) > limit:
                return os.fsdecode(output)  # the end of `with` closes the pipe, which stops git
        rest, errors = process.communicate(os.fsencode(stdin))
    if process.returncode not in accept:
        raise LabError(_explain(errors.decode("utf-8", "replace")))
    return os.fsdecode(output + rest)


def top_level() -> Path:
    """Return the top folder of the working tree that the project is in."""
    return Path(run("rev-parse", "--show-toplevel").removesuffix("\n"))


def prefix() -> str:
    """Return the path of the project inside its repository; "." if it is the whole repository."""
    return run("rev-parse", "--show-prefix").removesuffix("\n").removesuffix("/") or "."


def split_null(output: str) -> list[str]:
    """Split what git printed with -z."""
    return output.split("\0")[:-1]


def _clean_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for git: this repository, one identity for everybody, English."""
    passed = {k: v for k, v in variables.items() if not k.startswith("GIT_")}
    passed |= {k: v for k, v in variables.items() if k.startswith(ALLOWED)}
    who = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in IDENTITY.items()}
    return {**passed, **who, "LANGUAGE": "C"}


def _explain(errors: str) -> str:
    """Turn git's errors into one line: the cause and the next step."""
    trust = re.search(r"git config --global --add safe\.directory .*", errors)
    if trust:
        return f"{project.root()} belongs to another user; if you trust them: {trust[0]}"
    if "not a git repository (or any" in errors:
        return f"{project.root()} is not in a git repository: run python3 bootstrap.py."
    found = re.findall(r"^(?:fatal|error): (.*)", errors, re.M) or ["it gave no reason"]
    cause = "; ".join(dict.fromkeys([found[0], found[-1]]))  # the first cause, and the end result
    return f"git failed: {cause}. Run git status for more."


def remote_urls() -> dict[str, str]:
    """Return the URL of each remote as it was typed, without passwords and tokens."""
    # `git remote` would apply url.*.insteadOf, where users keep them
    listed = run("config", "-z", "--get-regexp", r"^remote\..*\.url$", accept=(0, 1))
    pairs = (entry.partition("\n") for entry in split_null(listed))
    return {key[len("remote.") : -len(".url")]: _remove_secrets(url) for key, _, url in pairs}


def _remove_secrets(url: str) -> str:
    """Remove password, token and query; the user's name stays only where ssh needs it."""
    if "://" not in url:
        return url  # a path, or user@host:path, which has no password
    url = re.split("[?#]", url, maxsplit=1)[0]
    url = re.sub(r"(ssh://[^/:@]*):[^/]*@", r"\1@", url)
    return re.sub(r"(?<!ssh)://[^/]*@", "://", url)
