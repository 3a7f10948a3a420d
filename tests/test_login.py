"""A host that asks is answered by a person at a terminal, once, and by nothing else."""

import pytest

from helpers.jobs import start
from helpers.terminal import in_terminal, read_until, type_in

EVERY = (
    ["jobs"],
    ["run", "--", "true"],
    ["sync"],
    ["fetch"],
    ["doctor"],
    ["notebook", "--no-open"],
    ["mount"],
    ["ssh-config"],
)
ASKPASS = "#!/bin/sh\ntouch /tmp/asked\necho wrong\n"


@pytest.mark.parametrize("host", ["gateway", "worker"])
def test_nothing_in_the_background_answers_a_host_that_asks(laptop, host):
    asking = getattr(laptop.hosts, host)
    asking.ask_for_password("secret")
    laptop.hosts.laptop.program("ask", ASKPASS)
    window = {"DISPLAY": ":0", "SSH_ASKPASS": "/usr/local/bin/ask", "LAB_PATIENCE": "4"}
    for env in (None, window):
        for command in EVERY:
            laptop.lab(*command, check=False, env=env or {"LAB_PATIENCE": "4"})
    assert asking.count_logins("Failed") == 0
    assert not laptop.hosts.laptop.path("/tmp/asked").exists()
    done = laptop.lab("jobs", check=False)
    assert done.returncode == 1 and f"{host} asks for a password or a code" in done.stderr
    assert "lab login" in done.stderr


def test_one_login_serves_every_command(laptop):
    gateway = laptop.hosts.gateway
    before = gateway.count_logins("Accepted")
    gateway.ask_for_password("secret")
    with in_terminal(laptop, "lab login") as session:
        read_until(session, "password:")
        type_in(session, "secret\n")
        assert session.wait(60) == 0
    for command in (["jobs"], ["run", "--", "true"], ["sync"], ["fetch"], ["doctor"], ["mount"]):
        laptop.lab(*command)
    laptop.lab("unmount")
    assert gateway.count_logins("Accepted") == before + 1
    assert gateway.count_logins("Failed") == 0


@pytest.mark.parametrize("asks", [True, False])
def test_ctrl_c_in_the_command_that_connected_leaves_the_connection_to_the_others(laptop, asks):
    gateway = laptop.hosts.gateway
    job = start(laptop, "--gpus", "0", "--", "sh", "-c", "echo up; exec sleep 1000")
    laptop.run("sh", "-c", "rm -f ~/.cache/dl-remote-template/ssh/*; pkill ssh", check=False)
    before = gateway.count_logins("Accepted")
    if asks:
        gateway.ask_for_password("secret")
    with in_terminal(laptop, f"lab logs -f {job}") as session:
        if asks:
            read_until(session, "password:")
            type_in(session, "secret\n")
        read_until(session, "up")
        type_in(session, "\x03")
        session.wait(60)
    assert job in laptop.lab("jobs")
    assert gateway.count_logins("Accepted") == before + 1
