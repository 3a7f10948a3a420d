"""The process of one TensorBoard: it runs here, on records that it keeps fetching from the machine.

TensorBoard knows no login, so none runs on a machine that others use. It ends by lab tunnels
--close or lab tensorboard --stop, or after IDLE hours in which nobody looked at it.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from lab.browser import tunnels
from lab.browser.tunnel_keeper import IDLE, report_state
from lab.ground import project
from lab.ground.errors import LabError
from lab.ssh import machines
from lab.ssh.connection import Connection
from lab.ssh.framing import PATIENCE
from lab.transfer import fetch

EVERY = min(10.0, PATIENCE)  # seconds between two looks at the machine, and at the event files
used = time.monotonic()
saying = threading.Lock()  # whoever holds it may write the state


def serve(number: int) -> None:
    """Serve on a socket that is bound already; never returns."""
    from tensorboard import program
    from werkzeug import serving

    class OnOurSocket(program.TensorBoardServer):
        def __init__(self, application, flags):
            def counted(environment, answer):
                global used
                if environment["PATH_INFO"] != tunnels.PROBE:  # that is lab tunnels
                    used = time.monotonic()
                return application(environment, answer)

            self.server = serving.make_server("127.0.0.1", 0, counted, threaded=True, fd=number)

        def serve_forever(self):
            self.server.serve_forever()

        def get_url(self):
            return f"http://127.0.0.1:{self.server.port}"

    board = program.TensorBoard(server_class=OnOurSocket)
    # the fast loader is a server of its own, on a port that asks nobody who he is
    options = ["--load_fast=false", f"--reload_interval={EVERY:.0f}"]
    board.configure(["tensorboard", f"--logdir={project.runs_folder()}", *options])
    board.launch()


def follow(machine: str, state: Path) -> None:
    """Fetch the records again and again, whatever becomes of the line; never returns."""
    connection = Connection(machines.get(machine))
    while True:
        try:
            fetch.fetch(connection, models=False)
            text = ""
        except LabError as error:
            text = f"shows what was fetched before; {error}"
        with saying:
            report_state(state, text)
        time.sleep(EVERY)


def end(*_) -> None:
    """All of it: a fetch that is broken off goes on next time where it was."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    os._exit(0)


def main(path: str, number: str) -> None:
    os.umask(0o077)
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, end)
    file = Path(path)
    while not file.exists():  # who started us is about to write it
        time.sleep(0.01)
    entry = json.loads(file.read_text("utf-8"))
    project.runs_folder().mkdir(parents=True, exist_ok=True)
    serve(int(number))
    state = file.with_suffix(".state")
    report_state(state, "")
    if entry["machine"]:
        threading.Thread(target=follow, args=(entry["machine"], state), daemon=True).start()
    while time.monotonic() - used < IDLE and file.exists():  # without it nobody would find this
        time.sleep(5)
    saying.acquire()  # for good: nothing is to be left
    tunnels.remove_files(file)
    end()


if __name__ == "__main__":
    main(*sys.argv[1:])
