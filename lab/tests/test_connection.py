"""A connection: one for all commands, and a call whose connection was lost is repeated whole."""

import os
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from fake_machine import until

from lab.cli import main, remote
from lab.jobs import control
from lab.ssh import framing, gateway, shared
from lab.ssh.connection import Connection
from lab.ssh.gateway import Hop
from lab.ssh.machines import Machine
from lab.ssh.options import resolve
from lab.ssh.ssh_errors import (
    AnswerTimeout,
    BadAnswer,
    ConnectionLost,
    LoginNeeded,
    RemoteError,
)

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def script(monkeypatch):
    """Makes test.sh one of our scripts."""
    read = framing.read_script

    def write(text: str) -> str:
        monkeypatch.setattr(
            framing, "read_script", lambda name: text if name == "test.sh" else read(name)
        )
        return "test.sh"

    return write


def test_a_call_that_is_repeated_sends_all_of_its_input_again(machine, script, tmp_path):
    name = script("cat")
    (tmp_path / "bundle").write_bytes(CONTENT)
    with (tmp_path / "bundle").open("rb") as file, (tmp_path / "copy").open("wb+") as copy:
        for given in (file, CONTENT):
            machine.next_call("head -c 5000 >/dev/null; exit 255")
            machine.connection.run(name, stdin=given, output=copy)
            assert (tmp_path / "copy").read_bytes() == CONTENT


def test_a_script_need_not_read_all_that_it_is_given(machine, script):
    assert machine.connection.run(script("head -c 5"), stdin=b"a" * (1 << 20)) == "aaaaa"


def test_what_came_before_the_connection_was_lost_is_not_in_the_answer_twice(machine, script):
    machine.next_call('sh -c "$command" | head -c 60; exit 255')
    assert machine.connection.run(script("seq 1 100")).split() == [str(n) for n in range(1, 101)]


def test_a_call_that_must_not_be_repeated_is_not(machine, script):
    name = script("echo called >>calls; echo done")
    machine.next_call('sh -c "$command" | head -c 20; exit 255')
    with pytest.raises(ConnectionLost):
        machine.connection.run(name, again=False)
    assert (machine.home / "calls").read_text() == "called\n"


@pytest.mark.slow
@pytest.mark.parametrize(("alive", "calls"), [(True, ["call"]), (False, ["call", "close"] * 2)])
def test_a_limit_that_ends_a_call_ends_the_connection_only_if_that_does_not_answer(
    machine, script, monkeypatch, alive, calls
):
    """The machine may hang and not the connection, on which others have tunnels and mounts."""
    done: list[str] = []
    exchange = Connection._exchange

    def note_call(self, *arguments):
        done.append("call")
        return exchange(self, *arguments)

    monkeypatch.setattr(Connection, "_exchange", note_call)
    monkeypatch.setattr(Connection, "close", lambda self: done.append("close"))
    monkeypatch.setattr(Connection, "answers", lambda self: alive)
    (machine.home / "busy").touch()
    with pytest.raises(AnswerTimeout, match="gpu: no answer within 0.2 s"):
        machine.connection.run(script("while [ -e busy ]; do sleep 0.02; done"), within=0.2)
    assert done == calls


def test_a_script_that_fails_is_an_error_with_its_code_and_is_not_repeated(machine, script):
    name = script("echo called >>calls; echo 'lab: no.' >&2; exit 7")
    with pytest.raises(RemoteError, match=r"^no\.$") as caught:
        machine.connection.run(name)
    assert caught.value.code == 7
    assert (machine.home / "calls").read_text() == "called\n"


@pytest.mark.parametrize(
    "evil",
    [
        "exec yes",
        "exec yes >&2",
        'sh -c "$command" | head -c 30; exec yes',
        'sh -c "$command" | head -c 30; exec yes >&2',
        'sh -c "$command" | tr -d 0; exec yes',
        'sh -c "$command"; exec yes >&2',
    ],
)
def test_an_answer_without_an_end_is_given_up(machine, script, monkeypatch, evil):
    monkeypatch.setattr(framing, "PATIENCE", 1)
    monkeypatch.setattr(framing, "LATEST", 0.2)
    machine.next_call(evil)
    with suppress(BadAnswer, ConnectionLost):
        assert machine.connection.run(script("echo text"), again=False) == "text\n"


@pytest.mark.parametrize("evil", ["cat /dev/zero", "cat /dev/zero >&2"])
def test_a_script_that_prints_for_ever_is_a_bad_answer(machine, script, evil):
    with pytest.raises(BadAnswer, match="gpu"):
        machine.connection.run(script(evil))


def test_followed_logs_go_on_at_the_right_byte_and_end_with_the_job(machine):
    log = "".join(f"line {n}\n" for n in range(1000))
    machine.job("20260101-000000-aaaaaa", **{"output.log": log, "exit_code": "0 1\n"})
    machine.next_call('sh -c "$command" | head -c 3000; exit 255')
    received: list[bytes] = []
    lost: list[Exception] = []
    control.write_logs(
        machine.connection,
        "20260101-000000-aaaaaa",
        received.append,
        follow=True,
        retry=lost.append,
    )
    assert b"".join(received).decode() == log
    assert [type(error) for error in lost] == [ConnectionLost]


def test_of_a_progress_bar_the_last_lines_have_what_it_showed_last(machine):
    id = "20260101-000000-aaaaaa"
    bar = "".join(f"\r{percent}%" for percent in range(100))
    machine.job(id, **{"output.log": f"first\n{bar}\r100%\nwindows\r\n{bar}"})
    received: list[bytes] = []
    left_out = control.write_logs(machine.connection, id, received.append, last=3)
    assert b"".join(received) == b"100%\nwindows\n99%"
    assert left_out == len("first\n")
    # what comes next belongs to the line that is still growing
    with (machine.folder / "jobs" / id / "output.log").open("a") as log:
        log.write("\r100%\nend\n")
    received.clear()
    control.write_logs(machine.connection, id, received.append, last=2, follow=True)
    assert b"".join(received) == b"100%\nend\n"


def test_output_after_the_last_lines_is_shown_once(machine):
    id = "20260101-000000-aaaaaa"
    log = "".join(f"line {n}\n" for n in range(1000))
    machine.job(id, **{"output.log": log, "exit_code": "0 1\n"})
    more = f"echo more >>{machine.folder}/jobs/{id}/output.log"
    machine.next_call(f'sh -c "$command" >answer; {more}; cat answer; exit')
    received: list[bytes] = []
    control.write_logs(machine.connection, id, received.append, last=2, follow=True)
    assert b"".join(received) == b"line 998\nline 999\nmore\n"


def test_in_a_terminal_the_last_screen_is_shown_and_how_to_get_all(
    machine, monkeypatch, capsysbinary
):
    id = "20260101-000000-aaaaaa"
    machine.job(id, **{"output.log": "".join(f"line {n}\n" for n in range(1000))})
    monkeypatch.setattr(remote, "connect", lambda _: machine.connection)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((80, 24)))
    shown = {}
    for terminal in (True, False):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal, raising=False)
        for words in ([], ["--all"], ["-n", "3"]):
            assert main.main(["logs", id, *words]) == 0
            out, err = capsysbinary.readouterr()
            shown[(terminal, *words)] = out.count(b"\n"), b"--all" in err
    assert shown[True,] == (22, True)
    assert shown[True, "--all"] == shown[False,] == shown[False, "--all"] == (1000, False)
    assert shown[True, "-n", "3"] == shown[False, "-n", "3"] == (3, False)


def test_machines_behind_one_gateway_share_its_connection_and_no_other(project):
    def find_path(host: str, **about: str | int) -> str:
        connection = Connection(Machine("gpu", ssh=host, folder="x", **about))
        connection.gateway.find_host()
        found = dict(resolve("gate", connection.config))
        assert found == dict(resolve("gate", connection.login_config)) | {
            name: found[name]
            for name in ("batchmode", "serveraliveinterval", "serveralivecountmax")
        }
        return found.get("controlpath", "none")

    one = find_path("a", gateway="gate", gateway_user="ada")
    assert one == find_path("b", gateway="gate", gateway_user="ada", key="~/.ssh/other") != "none"
    others = [
        find_path("a", gateway="gate", gateway_user="eve"),
        find_path("a", gateway="gate", gateway_user="ada", gateway_port=2200),
        find_path("a"),
    ]
    assert len({one, *others}) == 4


@pytest.mark.parametrize(
    ("jump", "hop"),
    [
        ("gate", Hop("gate")),
        ("ada@gate.example.org:2200", Hop("gate.example.org", "ada", 2200)),
        ("outer:22,ada@gate", Hop("gate", "ada", 0, "outer:22")),
        ("ada@[fe80::1]:22", Hop("fe80::1", "ada", 22)),
    ],
)
def test_a_jump_host_of_the_users_own_configuration_is_shared_as_a_gateway_is(
    project, monkeypatch, jump, hop
):
    def find(host: str, config: Path) -> list[tuple[str, str]]:
        return [("proxyjump", jump)] if host == "a" else resolve(host, config)

    monkeypatch.setattr(gateway, "resolve", find)
    connection = Connection(Machine("gpu", ssh="a", folder="x"))
    connection.gateway.find_host()
    assert connection.gateway.hop == hop
    command = connection.gateway.open_command()
    assert command[-1] == hop.name and ("-J" in command) == bool(hop.before)
    path = dict(resolve(hop.name, connection.config))["controlpath"]
    assert path == str(connection.gateway.socket)
    about = {"gateway": hop.name, "gateway_user": hop.user, "gateway_port": hop.port}
    other = Connection(Machine("gpu", ssh="b", folder="x", **about))
    other.gateway.find_host()
    assert other.gateway.socket == connection.gateway.socket


@pytest.mark.parametrize("given", ["ssh -W %h:%p gate", "exec /usr/bin/ssh gate nc %h %p"])
def test_the_ssh_of_a_proxy_command_is_told_not_to_ask(project, monkeypatch, given):
    monkeypatch.setattr(gateway, "resolve", lambda *_: [("proxycommand", given)])
    config = Path("/x/config")
    (option,) = gateway.extend_proxy_command("a", config, "-oBatchMode=yes")[1:]
    before, _, after = given.partition("ssh ")
    assert option == f"ProxyCommand={before}ssh -F /x/config -oBatchMode=yes {after}"
    for other in ("none", "nc -X connect -x proxy:3128 %h %p", "my-ssh %h", "sshuttle x"):
        monkeypatch.setattr(gateway, "resolve", lambda *_, o=other: [("proxycommand", o)])
        assert gateway.extend_proxy_command("a", config) == []


def test_what_rides_on_a_gateway_that_asked_is_not_tried_without_it(project, monkeypatch):
    """Such a machine may take keys; but once the gateway's connection has gone, that one asks."""
    monkeypatch.setattr(shared, "run_in_background", lambda *_: (0, ""))
    connection = Connection(Machine("gpu", ssh="a", folder="x", gateway="gate"))
    connection.asks.touch()
    connection.open()
    assert not connection.is_only_way(), "the hosts do not ask any more"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(connection.gateway.socket))
        listening.listen()
        connection.open()
        assert connection.is_only_way()
        direct = Connection(Machine("gpu", ssh="a", folder="x"))
        direct.open()
        assert not direct.is_only_way()


def test_one_process_opens_the_connection_and_the_others_wait_for_it(
    project, program, tmp_path, monkeypatch
):
    log = tmp_path / "log"
    only_opening = 'case " $* " in *" -MNf "*) ;; *) exit 1 ;; esac'
    called = f"echo called >>{log}\nuntil [ -e {tmp_path}/go ]; do sleep 0.02; done"
    program("ssh", f"{only_opening}\n{called}")
    waiting: list[object] = []
    hold = shared.hold_lock

    def note(path):
        waiting.append(path)
        return hold(path)

    monkeypatch.setattr(shared, "hold_lock", note)
    both = [Connection(Machine("gpu", ssh="worker", folder="x")) for _ in range(2)]
    threads = [threading.Thread(target=connection.open) for connection in both]
    for thread in threads:
        thread.start()
    until(lambda: log.exists() and (len(waiting) == 2 or log.read_text().count("called") == 2))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(both[0].socket))
        listening.listen()
        (tmp_path / "go").touch()
        for thread in threads:
            thread.join(60)
    assert log.read_text() == "called\n"


def test_a_second_login_that_waited_for_the_first_asks_nothing(project, monkeypatch):
    connection = Connection(Machine("gpu", ssh="worker", folder="x"))
    opened: list[bool] = []
    asked: list[list[str]] = []

    @contextmanager
    def wait_for_the_first(path):
        opened.append(True)
        yield

    def fail():
        raise LoginNeeded("gpu: worker asks for a password.")

    monkeypatch.setattr(shared, "hold_lock", wait_for_the_first)
    monkeypatch.setattr(connection, "open", fail)
    monkeypatch.setattr(connection, "is_open", lambda: bool(opened))
    monkeypatch.setattr(shared, "run_in_foreground", asked.append)
    connection.log_in()
    assert opened and not asked
