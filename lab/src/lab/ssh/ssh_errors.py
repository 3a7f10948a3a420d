"""Why a machine cannot be reached: an error type for each cause, and OpenSSH's words for it."""

import re
from typing import NamedTuple

from lab.ground.errors import LabError
from lab.ssh.machines import Machine


class SshError(LabError):
    """The machine was not reached, or the connection ended before its answer was complete."""

    lasting = False  # whether trying again is useless until somebody changes something
    may_have_run = True  # whether the script may have begun on the machine


class ConnectionLost(SshError):
    """The connection ended or went silent: what happened on the machine is not known."""


class AnswerTimeout(SshError):
    """The answer was not complete in the time that the call may take."""


class HostUnreachable(SshError):
    """The machine or its gateway does not answer, or its name is not known."""


class HostKeyUnknown(SshError):
    """The host key has never been confirmed."""

    lasting = True


class HostKeyChanged(SshError):
    """The host key is not the one that was confirmed."""

    lasting = True


class AuthenticationFailed(SshError):
    """The machine or its gateway accepts neither the key nor the password."""

    lasting = True


class LoginNeeded(AuthenticationFailed):
    """The machine or its gateway asks for a password or a code: a person has to answer."""


class NoShell(SshError):
    """The account's login shell ended without running the command that it was given."""

    lasting = True
    may_have_run = False


class ForwardingForbidden(SshError):
    """The gateway or the machine lets the user in, but forwards nothing."""

    lasting = True


class SessionsInUse(SshError):
    """The server allows no more sessions on the shared connection (MaxSessions of its sshd)."""

    may_have_run = False


class BadSshConfig(SshError):
    """ssh does not accept its own configuration."""

    lasting = True


class RemoteError(LabError):
    """The script ran on the machine, and said why it could not do its work."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code  # the script's exit code


class BadAnswer(LabError):
    """The machine answered something that the programs that lab calls never answer."""

    def __init__(self, machine: str, what: str):
        super().__init__(
            f"{machine} gave an unexpected answer instead of {what}: it is damaged, or somebody has"
            " changed it. Ask its administrator."
        )


class Cause(NamedTuple):
    """What OpenSSH writes, the error that it means, and the message for the user."""

    pattern: str
    error: type[SshError]
    # {hop}: the machine or the gateway, whichever it is about; {line}: ssh's line; {lab}: how a
    # command begins
    message: str


# A host in a message that the machine, too, could have written: our advice is a command with it.
NAMED = r"[\w.:%\[\]-]{1,255}"
MAX_QUOTED = 300  # characters of a message that is not ours

# The first that matches counts.
CAUSES = [
    Cause(
        rf"Host key for ({NAMED}) has changed",
        HostKeyChanged,
        "the host key of {0} has changed: somebody may be listening in. If its administrator"
        ' confirms the change: ssh-keygen -R "{0}".',
    ),
    Cause(
        r"Host key verification failed|No .* host key is known",
        HostKeyUnknown,
        "the host key of {hop} is not known yet: run ssh {hop} once and compare it.",
    ),
    Cause(
        r"Permission denied \([^)]*(?:keyboard-interactive|password)",
        LoginNeeded,
        "{hop} asks for a password or a code (or does not accept your key): {lab} login.",
    ),
    Cause(
        r"Permission denied|Too many authentication failures",
        AuthenticationFailed,
        "{hop} does not accept your key or user name: try ssh {hop}, or {lab} login if your key has"
        " a passphrase.",
    ),
    Cause(
        rf"Could not resolve hostname ({NAMED}?):? ",
        HostUnreachable,
        "the host name {0} is not known: check machines.toml.",
    ),
    Cause(  # the connection to the gateway is a shared one, which keeps the reason to itself
        r"[Ss]tdio forwarding request failed",
        HostUnreachable,
        "{gateway} answers, but lets nothing through to {host}: is the machine up?",
    ),
    Cause(
        r"open refused by peer",
        SessionsInUse,
        "all sessions that {host} allows on one connection are in use (MaxSessions of its sshd):"
        " end a lab logs -f, lab shell or lab mount, and try again.",
    ),
    Cause(
        r"administratively prohibited",
        ForwardingForbidden,
        "{gateway} forwards no connections (AllowTcpForwarding of its sshd), so nobody gets to"
        " {host} through it: ask its administrator.",
    ),
    Cause(
        r"stdio forwarding failed|open failed: connect failed",
        HostUnreachable,
        "{gateway} answers, but cannot reach {host}: is the machine up?",
    ),
    Cause(
        r"Bad configuration option|terminating, \d+ bad|Bad owner or permissions",
        BadSshConfig,
        "{line}.",
    ),
    Cause(
        r"Connection refused|No route to host|unreachable|timed out|banner exchange",
        HostUnreachable,
        "{hop} cannot be reached ({line}): is it up, and are you on its network or VPN?",
    ),
]


def explain(stderr: str, machine: Machine, gateway: str = "") -> SshError:
    """Return the error for what ssh wrote: one line with the cause and the next step.

    `gateway`: the host in front of the machine, where machines.toml names none.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]

    def is_named(host: str) -> bool:
        return bool(re.search(rf"(@|\b){re.escape(host)}\b", stderr))

    # the ssh of a jump host names the machine; a message without its name is about the gateway
    about_gateway = not is_named(machine.host) if machine.gateway else gateway and is_named(gateway)
    gateway = machine.gateway or gateway or "the gateway"
    hop = gateway if about_gateway else machine.host
    names = {"host": machine.host, "gateway": gateway, "hop": hop, "lab": machine.lab}
    for pattern, error, message in CAUSES:
        found = re.search(pattern, stderr)
        if found:
            line = next((line for line in lines if re.search(pattern, line)), "")
            line = line[:MAX_QUOTED].rstrip(".")
            text = message.format(*found.groups(), **names, line=line)
            return error(f"{machine.name}: {text}")
    reason = f" ({lines[-1][:MAX_QUOTED]})" if lines else ""
    text = f"no answer, or the connection was lost{reason}; run the same command again."
    return ConnectionLost(f"{machine.name}: {text}")
