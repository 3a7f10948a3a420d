"""What OpenSSH says when something is wrong, as one line with the cause and the next step."""

import re

from lab.ssh.machines import Machine

# What OpenSSH says, and what it means to the person at the keyboard: {host} and {gateway}.
CAUSES = [
    (
        r"Host key for (\S+) has changed",
        "the host key of {0} is not the known one: somebody may be listening in. If its"
        ' administrator confirms the change: ssh-keygen -R "{0}"',
    ),
    (
        r"Host key verification failed|No .* host key is known",
        "the host key of {spot} is not known yet: run {ssh} once and compare it",
    ),
    (
        r"Permission denied|Too many authentication failures",
        "{spot} refuses the key or user: {ssh}",
    ),
    (r"Could not resolve hostname (\S+?):? ", "{0} is no known host: see machines.toml"),
    (
        r"stdio forwarding failed|open failed: connect failed",
        "{gateway} answers, but does not reach {host}: is the machine up?",
    ),
    (r"Bad configuration option|terminating, \d+ bad|Bad owner or permissions", "{last}"),
    (
        r"Connection refused|No route to host|unreachable|timed out|banner exchange",
        "{spot} cannot be reached ({last}): is it up, and the network or VPN?",
    ),
]
# What stays so until somebody mends it: to try again is of no use.
LASTING = (
    "Host key (for|verification)|host key is known|Permission denied|Too many authentication"
    "|Bad configuration|Bad owner"
)


def explain(said: str, machine: Machine) -> str:
    """What ssh said, as one line with the cause and the next step."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    spot = machine.gateway or machine.host
    # a jump host's own ssh names it; without its name the last hop spoke
    if machine.gateway and re.search(rf"(@|\b){re.escape(machine.host)}\b", said):
        spot = machine.host
    words = {"host": machine.host, "gateway": machine.gateway or "the gateway", "spot": spot}
    words |= {"last": lines[-1] if lines else "", "ssh": f"ssh {spot}"}
    for pattern, cause in CAUSES:
        found = re.search(pattern, said)
        if found:
            words["last"] = next((line for line in lines if re.search(pattern, line)), "")
            line = f"{machine.name}: {cause.format(*found.groups(), **words)}"
            return line if line.endswith("?") else f"{line}."
    reason = f" ({lines[-1]})" if lines else ""
    return f"{machine.name}: no answer, or the line was cut{reason}; run the same command again."
