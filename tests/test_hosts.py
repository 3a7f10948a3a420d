"""The test bed keeps its own promises: what a remote test sees there, a real line would do too."""

import subprocess

import pytest

CONFIG = """
Host *
    ControlMaster auto
    ControlPath ~/.ssh/%C
    ControlPersist yes
    ConnectTimeout 5
Host worker
    ProxyJump gateway
"""


@pytest.fixture
def ssh(hosts):
    """A command on the worker, over one connection that stays open."""
    hosts.laptop.write(".ssh/config", CONFIG)

    def run(*command, **options):
        # a master keeps the standard error of its client open
        options = {"stderr": subprocess.DEVNULL, "timeout": 20, **options}
        return hosts.laptop.run("ssh", "worker", *command, **options)

    return run


def plain(hosts, *command, **options):
    """The same over a connection of its own."""
    words = ["ssh", "-o", "ConnectTimeout=2", "-J", "ada@gateway", "ada@worker"]
    return hosts.laptop.run(*words, *command, **options)


def test_the_worker_is_reached_through_the_gateway_only(hosts):
    seen = plain(hosts, "hostname; id -un; echo $HOME").stdout
    assert seen.split() == ["worker", "ada", "/home/ada"]
    words = ["ssh", "-o", "ConnectTimeout=2", "ada@198.51.100.2", "true"]
    assert "unreachable" in hosts.laptop.run(*words, check=False).stderr
    route = "ip route add 198.51.100.0/24 via 192.0.2.2"
    hosts.laptop.run(*route.split())
    assert "timed out" in hosts.laptop.run(*words, check=False).stderr  # nothing is forwarded
    hosts.laptop.run(*route.replace("add", "del").split())
