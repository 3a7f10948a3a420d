"""Tunnels: their files, ports and sockets, without any ssh."""

import json
import re
import socket
import tempfile
from pathlib import Path

import pytest

from lab.browser import notebook, notebook_server, tunnels
from lab.ground import liveness
from lab.ground.errors import LabError
from lab.ssh import shared


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """The folder of the tunnels."""
    monkeypatch.setattr(tunnels, "make_folder", lambda: tmp_path)
    return tmp_path


def write(folder: Path, name: str, **changes) -> Path:
    """The files of a tunnel whose process is this one."""
    content = {
        "name": f"x-gpu-{name}",
        "kind": "notebook",
        "project": "/x",
        "machine": "gpu",
        "port": 8888,
        "target": "/socket",
        "time": 1,
        "process": liveness.identify_process(),
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**content, **changes}))
    path.with_suffix(".log").touch()
    return path


def test_only_tunnels_that_run_are_listed_and_the_files_of_dead_ones_are_removed(folder):
    write(folder, "new", time=2)
    write(folder, "old", time=1)
    dead = {**liveness.identify_process(), "started": "another process"}
    elsewhere = {**dead, "host": "another.example.org", "boot": "another"}
    for name, process in (("dead", dead), ("elsewhere", elsewhere)):
        write(folder, name, process=process)
    (folder / "damaged.json").write_text("{")
    (folder / "damaged.log").touch()
    assert [tunnel.name for tunnel in tunnels.list_open()] == ["x-gpu-old", "x-gpu-new"]
    left = {path.name for path in folder.iterdir()} - {"lock"}
    assert left == {
        f"{one}.{end}" for one in ("new", "old", "elsewhere") for end in ("json", "log")
    }
    assert tunnels.read(folder / "elsewhere.json") is None, "it is not for us to use"


def test_the_last_words_of_a_tunnel_that_failed_are_said_once(folder, capsys):
    dead = {**liveness.identify_process(), "started": "another process"}
    write(folder, "dead", process=dead).with_suffix(".log").write_text("Traceback\nOSError: why\n")
    assert tunnels.list_open() == [] == tunnels.list_open()
    assert capsys.readouterr().err == "x-gpu-dead has ended: OSError: why\n"


def test_the_next_free_port_is_taken_and_none_that_is_in_use():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        probe.listen()
        used = probe.getsockname()[1]
        with tunnels.listen(used) as listening:
            assert used < listening.getsockname()[1] < used + 100
    with pytest.raises(LabError, match="--port"):
        tunnels.listen(65536)


def test_an_answer_that_takes_too_long_is_not_taken_for_a_forward_that_is_forbidden(
    folder, monkeypatch
):
    """Then a server would be ended, or made to listen on a port."""
    monkeypatch.setattr(tunnels, "ANSWER", 0.1)
    tunnel = tunnels.parse(write(folder, "slow"))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "slow.sock"))
        listening.listen()
        assert not notebook.lets_nothing_through(tunnel)
        assert tunnels.describe_state(tunnel) == "does not answer"
    (folder / "slow.sock").unlink()
    assert notebook.lets_nothing_through(tunnel)


def test_a_server_that_does_not_say_whether_it_has_kernels_is_left_alone(monkeypatch, tmp_path):
    server = {"token": "t", "socket": "/s"}
    ended: list[Path] = []
    monkeypatch.setattr(notebook_server, "read_server", lambda own: server)
    monkeypatch.setattr(notebook_server, "wait_for", lambda *arguments: None)
    monkeypatch.setattr(notebook_server, "request", lambda *arguments: (0, b""))
    monkeypatch.setattr(notebook_server, "stop", ended.append)
    with pytest.raises(SystemExit, match="does not answer"):
        notebook_server.main("start", str(tmp_path), str(tmp_path), "", "yes", "")
    assert not ended


def test_ssh_forwards_a_socket_whose_path_has_characters_of_its_own():
    option = shared.make_forward_option(Path("/a:b\\c/s.sock"), "/home/ada/socket")
    assert option == "/a\\:b\\\\c/s.sock:/home/ada/socket"


def test_the_sockets_have_short_plain_paths_wherever_the_home_is():
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        assert notebook_server.make_socket_folder(Path(short)) == short
        odd = [Path(short, name) for name in ("ü", "a b", "x" * 60)]
        for path in odd:
            path.mkdir()
        for path in (*odd, Path(short, "gone")):  # the last as on a disk that holds no sockets
            found = Path(notebook_server.make_socket_folder(path))
            assert re.fullmatch("/tmp/lab-[a-z0-9_]+", str(found))
            assert found.stat().st_mode & 0o777 == 0o700
            found.rmdir()
