"""A host that asks for a password or code is answered once a day, by a person at a terminal."""

import re
import subprocess

import pytest

from helpers.jobs import ended, start, until
from helpers.laptop import Laptop
from helpers.notebook import QUICK, get, notebook, tunnels
from helpers.terminal import in_terminal, read_until, type_in

NAME = "my-experiment-gpu"
CONNECTIONS = ".cache/dl-remote-template/ssh"
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
OTHERS = (
    ["ssh", NAME, "true"],
    ["rsync", "machines.toml", f"{NAME}:copied"],
    ["scp", "machines.toml", f"{NAME}:copied"],
    ["git", "ls-remote", f"{NAME}:lab/my-experiment/repo.git"],
)
ASKPASS = "#!/bin/sh\ntouch /tmp/asked\necho wrong\n"


@pytest.fixture
def laptop(served) -> Laptop:
    served.hosts.clean("served")
    return served


def log_in(laptop, *answers: str, expected=0):
    """Log in as a person does; the hosts ask in order."""
    with in_terminal(laptop, "lab login") as session:
        for answer in answers:
            read_until(session, "assword:")
            type_in(session, f"{answer}\n")
        assert session.wait(60) == expected


def end_connection(laptop):
    """Simulate what happens when the line is dead for too long."""
    host = laptop.hosts.laptop
    for path in (host.home / CONNECTIONS).iterdir():
        if path.suffix in ("", ".gate"):  # the machine's, and the gateway's that it rides on
            inside = f"{host.home_inside}/{CONNECTIONS}/{path.name}"
            laptop.run("ssh", "-S", inside, "-O", "exit", "x", stderr=subprocess.PIPE, check=False)


def answers(laptop) -> tuple[int, int]:
    return laptop.hosts.gateway.count_answers(), laptop.hosts.worker.count_answers()


DAYS = {
    "codes at the gateway": ("code", "", ()),
    "codes at the machine, one session": ("", "code", ["MaxSessions 1"]),
    "codes at both, no sockets": ("code", "code", ["AllowStreamLocalForwarding no"]),
    "passwords at both": ("password", "password", ()),
}


@pytest.mark.parametrize("day", DAYS)
def test_a_day_of_all_commands_has_one_question_of_each_host(laptop, day):
    at_gateway, at_worker, sshd = DAYS[day]
    hosts, given = laptop.hosts, []
    hosts.worker.set_sshd(*sshd)
    for host, kind in ((hosts.gateway, at_gateway), (hosts.worker, at_worker)):
        if kind == "code":
            host.ask_for_codes("111111", "222222")
        elif kind == "password":
            host.ask_for_password("secret")
        given += [{"code": "111111", "password": "secret"}[kind]] if kind else []
    before = answers(laptop)
    laptop.lab("ssh-config", "--install")
    log_in(laptop, *given)
    once = tuple(
        count + bool(kind) for count, kind in zip(before, (at_gateway, at_worker), strict=True)
    )
    assert answers(laptop) == once
    job = start(laptop, "with", "steps=2")
    ended(laptop, job)
    for command in (["jobs"], ["logs", job], ["fetch"], ["sync"], ["doctor"], ["login"]):
        laptop.lab(*command)
    for command in OTHERS:
        if sshd == ["MaxSessions 1"]:  # only lab waits for that of the one before
            until(lambda command=command: laptop.run(*command, check=False).returncode == 0)
        else:
            laptop.run(*command, stderr=subprocess.PIPE)
    mounted = laptop.run("sh", "-ec", "lab mount; ls remote/gpu; lab unmount").stdout
    assert "work" in mounted.split()
    url = notebook(laptop)
    assert get(laptop, url, "/api/status")[0] == 200
    laptop.run("lab", "tensorboard", env=QUICK)
    until(lambda: {one["state"] for one in tunnels(laptop)} == {"answers"})
    if sshd == ["MaxSessions 1"]:
        long = start(laptop, "--", "sh", "-c", "echo up; exec sleep 1000")
        with in_terminal(laptop, f"lab logs -f {long}") as follower:
            read_until(follower, "up")
            # it has shown what was there, and now follows the session
            until(lambda: any("tail -s" in line for _, _, line in hosts.worker.processes()))
            done = laptop.lab("jobs", check=False, env=QUICK)
            assert (done.returncode, "MaxSessions" in done.stderr) == (1, True)
            assert get(laptop, url, "/api/status")[0] == 200, "a tunnel needs no session"
            type_in(follower, "\x03")
            follower.wait(60)
        assert long in laptop.lab("jobs")
    # the connection is gone: all say so, nobody asks, and what is open waits for the next login
    end_connection(laptop)
    until(lambda: {"lab login" in one["state"] for one in tunnels(laptop)} == {True}, 60)
    for command in EVERY[:-1]:
        done = laptop.lab(*command, check=False, env=QUICK)
        assert done.returncode == 1 and "lab login" in done.stdout + done.stderr, done
    for command in OTHERS:
        done = laptop.run(*command, check=False)
        assert done.returncode and "lab login" in done.stderr, done
    assert answers(laptop) == once
    log_in(laptop, *(answer.replace("111111", "222222") for answer in given))
    until(lambda: get(laptop, url, "/api/status", seconds=5)[0] == 200, 60)
    assert answers(laptop) == tuple(
        count + bool(kind) for count, kind in zip(once, (at_gateway, at_worker), strict=True)
    )


OTHER = """
[machines.other]
ssh = "behind"
key = "~/.ssh/id_ed25519"
folder = "lab/other"
"""
# The gateway by the user's own ssh alone.
BEHIND = "Host behind\n    HostName worker\n    User ada\n    {}\n"
JUMP, COMMAND = "ProxyJump ada@gateway", "ProxyCommand ssh -W %h:%p ada@gateway"


def add_other(laptop, way: str):
    """Add a machine for which ~/.ssh/config has the way."""
    settings = laptop.path / "machines.local.toml"
    settings.write_text(f"{settings.read_text() if settings.exists() else ''}{OTHER}")
    laptop.hosts.laptop.write(".ssh/config", BEHIND.format(way))


def test_a_gateway_asks_once_for_all_machines_behind_it(laptop):
    """Each machine still asks for itself, and what ends one connection leaves the gateway's."""
    gateway, worker = laptop.hosts.gateway, laptop.hosts.worker
    add_other(laptop, JUMP)
    gateway.ask_for_codes("111111", "222222")
    before = answers(laptop)
    log_in(laptop, "111111")
    laptop.lab("ssh-config", "--install")
    laptop.lab("jobs", "--all-machines")
    assert answers(laptop) == (before[0] + 1, before[1])
    # now the machine asks as well: only that
    end = "for s in *; do case $s in *.*) ;; *) ssh -S $s -O exit x; esac; done"
    laptop.run("sh", "-c", f"cd ~/{CONNECTIONS}; {end}", stderr=subprocess.PIPE)
    worker.ask_for_codes("333333", "444444")
    for name, code in (("gpu", "333333"), ("other", "444444")):
        with in_terminal(laptop, f"lab login -m {name}") as session:
            read_until(session, "assword:")
            type_in(session, f"{code}\n")
            assert session.wait(60) == 0
    laptop.lab("jobs", "--all-machines")
    assert answers(laptop) == (before[0] + 1, before[1] + 2)
    # a machine that the gateway does not reach is not taken for one whose sessions are in use
    laptop.run("sh", "-c", f"cd ~/{CONNECTIONS}; {end}", stderr=subprocess.PIPE)
    worker.stop()
    done = laptop.lab("jobs", check=False, env=QUICK)
    assert done.returncode == 1 and "is the machine up" in done.stderr, done.stderr
    worker.start()
    # the line to the gateway was dead: lab login finds that, and a new connection is asked for
    laptop.hosts.drop()
    assert laptop.lab("login", check=False, env=QUICK).returncode == 1
    laptop.hosts.heal()
    assert "lab login" in laptop.lab("jobs", check=False, env=QUICK).stderr
    for name in (NAME, "my-experiment-other"):  # nothing in the background answers the gateway
        done = laptop.run("ssh", name, "true", check=False)
        assert done.returncode and "login" in done.stderr
    assert answers(laptop)[0] == before[0] + 1


@pytest.mark.parametrize("host", ["gateway", "worker"])
def test_nothing_in_the_background_answers_a_host_that_asks(laptop, host):
    asking = getattr(laptop.hosts, host)
    asking.ask_for_password("secret")
    before = asking.count_answers()
    laptop.hosts.laptop.program("ask", ASKPASS)
    # a program that answers, as on a desktop; without one ssh has nobody to ask here
    window = {"DISPLAY": ":0", "SSH_ASKPASS": "/usr/local/bin/ask"}
    add_other(laptop, COMMAND)
    for command in (*EVERY, ["-m", "other", "jobs"]):
        laptop.lab(*command, check=False, env={**QUICK, **window})
    assert asking.count_answers() == before
    assert not laptop.hosts.laptop.path("/tmp/asked").exists()
    done = laptop.lab("jobs", check=False)
    assert done.returncode == 1 and f"{host} asks for a password or a code" in done.stderr
    assert "lab login" in done.stderr
    with in_terminal(laptop, "lab jobs") as session:
        assert session.wait(60) == 1, "only lab login lets a host ask"
    assert laptop.lab("login", check=False).returncode == 1
    log_in(laptop, "wrong", "wrong", "wrong", expected=1)
    assert asking.count_answers() == before + 3
    with in_terminal(laptop, "lab login -m other") as session:
        read_until(session, "assword:")
        type_in(session, "secret\n")
        assert session.wait(60) == 0
    laptop.lab("-m", "other", "jobs")
    assert asking.count_answers() == before + 4


@pytest.mark.parametrize("asks", [True, False])
def test_ctrl_c_in_the_command_that_connected_leaves_the_connection_to_the_others(laptop, asks):
    gateway = laptop.hosts.gateway
    job = start(laptop, "--gpus", "0", "--", "sh", "-c", "echo up; exec sleep 1000")
    laptop.run("sh", "-c", f"rm -f ~/{CONNECTIONS}/*; pkill ssh", check=False)
    before = gateway.count_logins("Accepted")
    if asks:
        gateway.ask_for_password("secret")
    command = f"lab logs -f {job}"
    with in_terminal(laptop, f"lab login && {command}" if asks else command) as session:
        if asks:
            read_until(session, "password:")
            type_in(session, "secret\n")
        read_until(session, "up")
        type_in(session, "\x03")
        session.wait(60)
    assert job in laptop.lab("jobs")
    assert gateway.count_logins("Accepted") == before + 1


def test_a_connection_of_the_users_own_is_used_and_left_open(laptop):
    gateway, worker = laptop.hosts.gateway, laptop.hosts.worker
    own = "Host gateway worker\n    User ada\n    ControlMaster auto\n    ControlPath ~/.ssh/%C\n"
    own += "Host worker\n    ProxyJump gateway\n"
    laptop.hosts.laptop.write(".ssh/config", own)
    laptop.run("sh", "-c", f"rm -f ~/{CONNECTIONS}/*; pkill ssh", check=False)
    laptop.run("ssh", "-MNf", "worker", stderr=subprocess.DEVNULL)
    before = [host.count_logins("Accepted") for host in (gateway, worker)]
    worker.ask_for_codes("111111")
    answered = worker.count_answers()
    laptop.lab("jobs")
    assert get(laptop, notebook(laptop), "/api/status")[0] == 200
    assert "closed" in laptop.lab("tunnels", "--close")
    assert [host.count_logins("Accepted") for host in (gateway, worker)] == before
    laptop.run("ssh", "-O", "check", "worker", stderr=subprocess.PIPE)
    laptop.run("ssh", "-O", "exit", "worker", stderr=subprocess.PIPE)
    assert "lab login" in laptop.lab("jobs", check=False).stderr
    assert worker.count_answers() == answered


@pytest.mark.parametrize(
    ("host", "line", "words"),
    [
        ("gateway", "AllowTcpForwarding no", "gateway forwards no connections"),
        ("gateway", "AuthorizedKeysFile none", "gateway does not accept your key"),
        ("worker", "DisableForwarding yes", "forwards neither sockets nor ports"),
    ],
)
def test_a_host_that_forbids_something_is_told_from_one_that_is_down(laptop, host, line, words):
    getattr(laptop.hosts, host).set_sshd(line)
    laptop.run("sh", "-c", f"rm -f ~/{CONNECTIONS}/*; pkill ssh", check=False)
    done = laptop.lab("notebook", "--no-open", check=False, env=QUICK)
    assert done.returncode == 1 and words in done.stderr
    assert re.search(r"^lab: ", done.stderr, re.M) and "Traceback" not in done.stderr
