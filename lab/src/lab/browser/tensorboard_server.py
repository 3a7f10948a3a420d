"""The process of one TensorBoard: it runs on this computer, on records that it keeps fetching.

TensorBoard has no login, so it never runs on a machine that others use. It ends with lab tunnels
--close or lab tensorboard --stop, or when nobody has looked at it for IDLE seconds.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lab.browser import tunnels
from lab.browser.tunnel_keeper import (
    IDLE,
    LASTING_WAIT,
    report_state,
    wait_for_file,
    wait_until_open,
)
from lab.ground import project
from lab.ground.errors import LabError
from lab.ssh import machines
from lab.ssh.connection import Connection
from lab.ssh.framing import PATIENCE
from lab.ssh.ssh_errors import SshError
from lab.transfer import fetch

EVERY = min(10.0, PATIENCE)  # seconds between two fetches, and between two reads of the event files


class Use:
    """When somebody last looked at TensorBoard."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def note(self, path: str) -> None:
        if path != tunnels.PROBE:  # which lab tunnels asks for
            self.last = time.monotonic()


def serve(number: int, use: Use) -> None:
    """Serve on a socket that is already bound, in threads of its own."""
    from tensorboard import program
    from tensorboard.backend.event_processing import io_wrapper
    from werkzeug import serving

    find, runs = io_wrapper.GetLogdirSubdirectories, project.runs_folder()

    def find_placed(folder: str) -> list[str]:
        """Find the folders with curves, except those that a fetch has not put in place yet."""
        found = {path: Path(path).relative_to(runs).parts for path in find(folder)}
        return [path for path, parts in found.items() if not any(p[0] == "." for p in parts)]

    io_wrapper.GetLogdirSubdirectories = find_placed

    class OnOurSocket(program.TensorBoardServer):  # type: ignore[misc]  # it has no types
        def __init__(self, application: Callable[..., Iterable[bytes]], flags: Any):
            def counted(environment: dict[str, Any], answer: Any) -> Iterable[bytes]:
                use.note(environment["PATH_INFO"])
                return application(environment, answer)

            self.server = serving.make_server("127.0.0.1", 0, counted, threaded=True, fd=number)

        def serve_forever(self) -> None:
            self.server.serve_forever()

        def get_url(self) -> str:
            return f"http://127.0.0.1:{self.server.port}"

    board = program.TensorBoard(server_class=OnOurSocket)
    # the fast loader is a server of its own, on a port that is open to everybody
    options = ["--load_fast=false", f"--reload_interval={EVERY:.0f}"]
    board.configure(["tensorboard", f"--logdir={project.runs_folder()}", *options])
    board.launch()


def fetch_forever(machine: str, state: Path, reporting: threading.Lock) -> None:
    """Fetch the records again and again, even if the connection is lost."""
    connection = Connection(machines.get(machine))
    while True:
        lasting = False  # whether trying again soon would not help
        try:
            fetch.fetch(connection, models=False)
            text = ""
        except LabError as error:
            text = f"shows what was fetched before; {error}"
            lasting = isinstance(error, SshError) and error.lasting
        with reporting:
            report_state(state, text)
        if lasting:
            asyncio.run(wait_until_open(connection, LASTING_WAIT))
        else:
            time.sleep(EVERY)


def end(*_: object) -> None:
    """End all processes of this group; an interrupted fetch continues next time."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    os._exit(0)


def main(path: str, number: str) -> None:
    os.umask(0o077)
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, end)
    file = Path(path)
    content = wait_for_file(file)
    project.runs_folder().mkdir(parents=True, exist_ok=True)
    use = Use()
    serve(int(number), use)
    state, reporting = file.with_suffix(".state"), threading.Lock()
    report_state(state, "")
    if content["machine"]:
        arguments = (content["machine"], state, reporting)
        threading.Thread(target=fetch_forever, args=arguments, daemon=True).start()
    while time.monotonic() - use.last < IDLE and file.exists():  # lab finds this process by it
        time.sleep(5)
    reporting.acquire()  # never released: no state may be written from here on
    tunnels.remove_files(file)
    end()


if __name__ == "__main__":
    main(*sys.argv[1:])
