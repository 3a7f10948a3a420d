"""What OpenSSH writes becomes a typed error of one line, with the cause and the next step."""

import pytest

from lab.doctor import examination
from lab.ssh import ssh_errors
from lab.ssh.connection import Connection
from lab.ssh.machines import Machine
from lab.ssh.ssh_errors import (
    AuthenticationFailed,
    BadSshConfig,
    ConnectionLost,
    ForwardingForbidden,
    HostKeyChanged,
    HostKeyUnknown,
    HostUnreachable,
    LoginNeeded,
    SessionsInUse,
    explain,
)

DIRECT = Machine("gpu", ssh="worker", folder="x")
BEHIND = Machine("gpu", ssh="worker", folder="x", gateway="gate")
CHANGED = """@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
Host key for [worker]:2200 has changed and you have requested strict checking.
Host key verification failed.
"""
UNKNOWN = "No ED25519 host key is known for {} and you have requested strict checking.\r\n"
UNKNOWN += "Host key verification failed.\r\n"
CLOSED = "kex_exchange_identification: Connection closed by remote host\n"


@pytest.mark.parametrize(
    ("machine", "stderr", "error", "message"),
    [
        (DIRECT, CHANGED, HostKeyChanged, 'the host key of [worker]:2200 has changed: * -R "*".'),
        (DIRECT, UNKNOWN.format("worker"), HostKeyUnknown, "of worker is not known yet: run ssh"),
        (BEHIND, UNKNOWN.format("gate"), HostKeyUnknown, "of gate is not known yet: run ssh gate"),
        (BEHIND, UNKNOWN.format("worker"), HostKeyUnknown, "of worker is not known yet"),
        (
            DIRECT,
            "ada@worker: Permission denied (publickey).",
            AuthenticationFailed,
            "worker does not accept your key or user name: try ssh worker",
        ),
        (
            BEHIND,
            "ada@gate: Permission denied (publickey).\n" + CLOSED,
            AuthenticationFailed,
            "gate does not accept your key",
        ),
        (
            DIRECT,
            "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures",
            AuthenticationFailed,
            "worker does not accept your key",
        ),
        (
            DIRECT,
            "ssh: Could not resolve hostname worker: Name or service not known",
            HostUnreachable,
            "the host name worker is not known: check machines.toml.",
        ),
        (
            BEHIND,
            "ada@gate: Permission denied (publickey,keyboard-interactive).\n" + CLOSED,
            LoginNeeded,
            "gate asks for a password or a code",
        ),
        (
            BEHIND,
            "channel 0: open failed: administratively prohibited: open failed\n"
            "stdio forwarding failed\n" + CLOSED,
            ForwardingForbidden,
            "gate forwards no connections",
        ),
        (
            BEHIND,
            "mux_client_request_session: session request failed: Session open refused by peer\n"
            "Connection closed by UNKNOWN port 65535\n",
            SessionsInUse,
            "MaxSessions",
        ),
        (
            BEHIND,
            "channel 0: open failed: connect failed: No route to host\nstdio forwarding failed",
            HostUnreachable,
            "gate answers, but cannot reach worker: is the machine up?",
        ),
        (
            DIRECT,
            "/home/ada/.ssh/config: line 2: Bad configuration option: nonsense\r\n"
            "/home/ada/.ssh/config: terminating, 1 bad configuration options",
            BadSshConfig,
            "/home/ada/.ssh/config: line 2: Bad configuration option: nonsense.",
        ),
        (
            DIRECT,
            "Bad owner or permissions on /home/ada/.ssh/config",
            BadSshConfig,
            "Bad owner or permissions on /home/ada/.ssh/config.",
        ),
        (
            BEHIND,
            "ssh: connect to host gate port 22: Connection refused\n" + CLOSED,
            HostUnreachable,
            "gate cannot be reached (ssh: connect to host gate port 22: Connection refused): ",
        ),
        (
            DIRECT,
            "Connection timed out during banner exchange",
            HostUnreachable,
            "worker cannot be reached (Connection timed out during banner exchange): ",
        ),
        (DIRECT, "", ConnectionLost, "no answer, or the connection was lost; run the same command"),
        (DIRECT, "a\nKilled\n\n", ConnectionLost, "the connection was lost (Killed); run the same"),
    ],
)
def test_a_message_from_ssh_becomes_a_typed_error(machine, stderr, error, message):
    found = explain(stderr, machine)
    assert type(found) is error
    line = str(found)
    assert line.startswith("gpu: ") and "\n" not in line and line[-1] in ".?"
    for part in message.split("*"):
        assert part in line


def test_what_stays_until_somebody_changes_it_is_lasting():
    errors = {cause.error for cause in ssh_errors.CAUSES} | {ConnectionLost}
    lasting = {HostKeyChanged, HostKeyUnknown, AuthenticationFailed, LoginNeeded, BadSshConfig}
    lasting |= {ForwardingForbidden}
    assert {error for error in errors if error.lasting} == lasting
    assert all(issubclass(error, ssh_errors.SshError) for error in errors)


@pytest.mark.parametrize(
    ("error", "check"),
    [
        (HostKeyUnknown, "host key"),
        (HostKeyChanged, "host key"),
        (HostUnreachable, "connection"),
        (AuthenticationFailed, "connection"),
    ],
)
def test_the_doctor_tells_a_host_key_from_a_connection(project, monkeypatch, error, check):
    def fail(self):
        raise error("gpu: why.")

    monkeypatch.setattr(Connection, "open", fail)
    monkeypatch.setattr(examination, "resolve", lambda *_: [])
    facts, found = examination.reach_machine(Connection(DIRECT), {})
    assert facts is None
    assert [(row.check, row.advice) for row in found] == [(check, "gpu: why.")]
