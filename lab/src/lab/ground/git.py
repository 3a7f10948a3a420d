"""Running git on the project's repository: in a clean environment, with errors in one line."""

import os
import re
import subprocess
from pathlib import Path

from lab.ground import project
from lab.ground.errors import LabError

# The only variables of git's that it gets; others, as in a hook, may name another repository.
KEPT = ("GIT_CONFIG_", "GIT_EXEC_PATH", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_")
IDENTITY = {"NAME": "lab", "EMAIL": "lab@localhost"}  # the user may have none


def run(*arguments, cwd=None, stdin="", limit=None, accept=(0,), **variables) -> str:
    """What git printed; after more than `limit` bytes it is ended and the rest left out.

    It runs in the project's folder unless `cwd` names another one. Names come back as Python keeps
    those of files. Raises LabError if git is missing, or if its exit code is not in `accept`.
    """
    environment = _clean_environment(os.environ) | variables
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        command = ["git", *arguments]
        process = subprocess.Popen(command, cwd=cwd or project.root(), env=environment, **pipes)
    except OSError as error:
        raise LabError(f"git cannot be started ({error.strerror}): install it.") from None
    with process:
        output = process.stdout.read(limit + 1) if limit else b""
        if limit and len(output) > limit:
            return os.fsdecode(output)  # its pipe is closed, which ends git
        rest, said = process.communicate(os.fsencode(stdin))
    if process.returncode not in accept:
        raise LabError(_explain(said.decode("utf-8", "replace")))
    return os.fsdecode(output + rest)


def top_level() -> Path:
    """The top of the working tree that the project is in."""
    return Path(run("rev-parse", "--show-toplevel").removesuffix("\n"))


def prefix() -> str:
    """The project's folder inside its repository; "." unless that is a bigger one."""
    return run("rev-parse", "--show-prefix").removesuffix("\n").removesuffix("/") or "."


def split_null(output: str) -> list[str]:
    """What git printed with -z."""
    return output.split("\0")[:-1]


def _clean_environment(variables) -> dict[str, str]:
    """For git: no location but ours, the same identity for everybody, messages in English."""
    kept = {k: v for k, v in variables.items() if not k.startswith("GIT_") or k.startswith(KEPT)}
    who = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in IDENTITY.items()}
    return {**kept, **who, "LANGUAGE": "C"}


def _explain(said: str) -> str:
    """Git's complaint in one line, with the next step."""
    trust = re.search(r"git config --global --add safe\.directory .*", said)
    if trust:
        return f"{project.root()} belongs to another user; if you trust them: {trust[0]}"
    if "not a git repository (or any" in said:
        return f"{project.root()} is in no git repository: run python3 bootstrap.py."
    complaints = re.findall(r"^(?:fatal|error): (.*)", said, re.M) or ["it gave no reason"]
    cause = "; ".join(dict.fromkeys([complaints[0], complaints[-1]]))  # then what it came to
    return f"git failed: {cause}. git status may tell more."


def remote_urls() -> dict[str, str]:
    """The URL of each remote as it was typed, without passwords and tokens."""
    # `git remote` would put in what the user's url.*.insteadOf keeps out of them
    listed = run("config", "-z", "--get-regexp", r"^remote\..*\.url$", accept=(0, 1))
    pairs = (entry.partition("\n") for entry in split_null(listed))
    return {key[len("remote.") : -len(".url")]: _without_secrets(url) for key, _, url in pairs}


def _without_secrets(url: str) -> str:
    """A URL without password, token and query; the user's name stays only where ssh needs it."""
    if "://" not in url:
        return url  # a path, or user@host:path, where no password has a place
    place = re.split("[?#]", url, maxsplit=1)[0]
    place = re.sub(r"(ssh://[^/:@]*):[^/]*@", r"\1@", place)
    return re.sub(r"(?<!ssh)://[^/]*@", "://", place)
