"""The processes behind the browser end with their cause, and none of them stays unknown."""

import asyncio
import errno
import os
import signal
import sys
from contextlib import suppress

import pytest
from fake_machine import is_running

from lab.browser import notebook_server, tunnel_keeper, tunnels
from lab.ground import files
from lab.ground.errors import LabError
from lab.ssh import machines
from lab.ssh.machines import Machine
from lab.ssh.ssh_errors import SshError

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def path(project, monkeypatch, tmp_path):
    """The file of a tunnel that is open."""
    monkeypatch.setattr(tunnels, "make_folder", lambda: tmp_path)
    monkeypatch.setattr(machines, "get", lambda name: Machine("gpu", ssh="worker", folder="x"))
    path = tmp_path / "tunnel.json"
    path.write_text("{}")
    path.with_suffix(".log").touch()
    return path


def keep(path, monkeypatch, **steps) -> list[int]:
    """Run a keeper some of whose steps are replaced; return its exit codes."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)

    async def run(listening) -> None:
        keeper = tunnel_keeper.Keeper(path, "gpu", "/socket")
        for name, step in steps.items():
            monkeypatch.setattr(keeper, name, step)
        await keeper.run(listening)

    with tunnels.listen(0) as listening:
        asyncio.run(asyncio.wait_for(run(listening), 60))
    return codes


async def fail():
    raise RuntimeError("a bug")


async def wait():
    await asyncio.sleep(3600)


@pytest.mark.parametrize("step", ["keep", "watch_clocks"])
def test_a_tunnel_that_fails_leaves_its_log_with_the_cause(path, monkeypatch, capfd, step):
    steps = {"keep": wait, "watch_clocks": wait, step: fail}
    assert keep(path, monkeypatch, **steps) == [1]
    assert capfd.readouterr().err.splitlines()[-1] == "RuntimeError: a bug"
    assert path.exists() and path.with_suffix(".log").exists()


def test_a_tunnel_that_nobody_uses_ends_and_leaves_nothing(path, monkeypatch, capfd):
    async def end():
        pass

    assert keep(path, monkeypatch, keep=wait, watch_clocks=end) == [0]
    assert not list(path.parent.glob("tunnel.*")) and not capfd.readouterr().err


def test_neither_a_full_disk_nor_an_ssh_that_does_not_start_ends_a_tunnel(path, monkeypatch):
    def refuse(*arguments, **options):
        raise FULL

    monkeypatch.setattr(files, "write", refuse)
    tunnel_keeper.report_state(path.with_suffix(".state"), "")

    def fail_to_open():
        raise LabError("ssh cannot be started (Resource temporarily unavailable).")

    monkeypatch.undo()
    monkeypatch.setattr(machines, "get", lambda name: Machine("gpu", ssh="worker", folder="x"))
    keeper = tunnel_keeper.Keeper(path, "gpu", "/socket")
    monkeypatch.setattr(keeper.connection, "open", fail_to_open)
    error = asyncio.run(keeper.stay_forwarded())
    assert isinstance(error, SshError) and not error.lasting and "cannot be started" in str(error)


@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()])
def test_a_process_whose_file_cannot_be_written_does_not_stay(path, program, monkeypatch, error):
    """Nothing would name it, and it would hold the port for ever."""
    pids: list[int] = []
    identify = tunnels.liveness.identify_process

    def note(pid):
        pids.append(pid)
        return identify(pid)

    def fail(*arguments):
        raise error

    monkeypatch.setattr(sys, "executable", str(program("python", "exec sleep 3600")))
    monkeypatch.setattr(tunnels.liveness, "identify_process", note)
    monkeypatch.setattr(files, "write", fail)
    path.unlink()
    with tunnels.listen(0) as listening, pytest.raises(type(error)):
        tunnels.spawn(path, "notebook", "gpu", "/socket", listening)
    try:
        assert not is_running(pids[0])
    finally:
        with suppress(OSError):
            os.kill(pids[0], signal.SIGKILL)


def test_a_process_whose_file_never_comes_ends_with_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tunnel_keeper, "START", 0.05)
    with pytest.raises(SystemExit, match="the command that started this has ended"):
        tunnel_keeper.wait_for_file(tmp_path / "tunnel.json")


def test_a_jupyterlab_whose_file_cannot_be_written_is_ended(tmp_path, monkeypatch):
    program = tmp_path / ".venv/bin/jupyter-lab"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(3600)\n")
    program.chmod(0o755)
    pids: list[int] = []
    start_time = notebook_server.start_time

    def note(pid):
        pids.append(pid)
        return start_time(pid)

    def fail(*arguments):
        raise FULL

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebook_server, "find_kernel", lambda: "x")
    monkeypatch.setattr(notebook_server, "start_time", note)
    monkeypatch.setattr(notebook_server.Path, "write_text", fail)
    try:
        with pytest.raises(OSError, match="No space left"):
            notebook_server.start(tmp_path, tmp_path, "", "yes")
        assert not is_running(pids[0])
    finally:
        with suppress(OSError):
            os.kill(pids[0], signal.SIGKILL)
