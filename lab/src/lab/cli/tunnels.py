"""The commands for the browser: Jupyter there, TensorBoard here, and the tunnels."""

import argparse
import sys

from lab.cli.remote import add_machine, connect
from lab.ground.terminal import format_duration, format_table, print_json, print_message


def add(commands) -> None:
    """Their options."""
    notebook = commands.add_parser("notebook", help="JupyterLab there, in the browser here")
    notebook.set_defaults(command=open_notebook)
    notebook.add_argument("--stop", action="store_true", help="end it there, with its kernels")
    board = commands.add_parser("tensorboard", help="the curves of the runs, also while they go on")
    board.set_defaults(command=open_tensorboard)
    board.add_argument("--local", action="store_true", help="only what has been fetched")
    board.add_argument("--stop", action="store_true", help="end it")
    for one, usual in ((notebook, 8888), (board, 6006)):
        one.add_argument("--port", type=port, metavar="N", help=f"here [{usual}, or the next free]")
        one.add_argument("--no-open", action="store_true", help="do not open the browser")
        add_machine(one)
    listed = commands.add_parser("tunnels", help="what those two keep open here")
    listed.set_defaults(command=list_tunnels)
    listed.add_argument(
        "--close", nargs="?", const="", metavar="NAME", help="end one, or all of this project"
    )
    listed.add_argument("--json", action="store_true", help="for programs")


def port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port: a number from 1 to 65535")
    return int(text)


def show(url: str, tunnel: dict, wanted: argparse.Namespace, usual: int) -> None:
    """Print the address, and open it if somebody is there to look at it."""
    if tunnel["port"] != (wanted.port or usual):
        print_message(f"port {wanted.port or usual} is taken here: it is {tunnel['port']}")
    print(url, flush=True)
    if sys.stdout.isatty() and not wanted.no_open:
        import webbrowser

        webbrowser.open(url)


def open_notebook(wanted: argparse.Namespace) -> None:
    from lab.browser import notebook

    connection = connect(wanted)
    if wanted.stop:
        ran = notebook.stop(connection)
        print(f"{'ended' if ran else 'there was none'} on {connection.name}")
        return
    print_message(f"starting JupyterLab on {connection.name} ...")
    there, tunnel = notebook.start(connection, wanted.port)
    if "port" in there:
        print_message(
            f"sshd on {connection.name} forwards no sockets: Jupyter listens on its 127.0.0.1:"
            f"{there['port']}, where the token alone keeps others out"
        )
    if not there["started"]:
        print_message("it runs already")
    show(notebook.format_url(there, tunnel), tunnel, wanted, notebook.PORT)


def open_tensorboard(wanted: argparse.Namespace) -> None:
    from lab.browser import tunnels
    from lab.ground import project
    from lab.ssh import machines

    if wanted.stop:
        closed = tunnels.close(None, "tensorboard")
        print(f"ended: {', '.join(closed)}" if closed else "there was none")
        return
    machine = "" if wanted.local else machines.machine(wanted.machine).name
    folder = project.runs_folder()
    tunnel = tunnels.start("tensorboard", machine, str(folder), wanted.port, 6006)
    if machine:
        print_message(
            f"the records of {machine} are fetched as they grow, into {project.relative(folder)}/"
        )
    show(f"http://127.0.0.1:{tunnel['port']}/", tunnel, wanted, 6006)


def list_tunnels(wanted: argparse.Namespace) -> None:
    import time

    from lab.browser import tunnels

    if wanted.close is not None:
        closed = tunnels.close(wanted.close)
        print(f"closed: {', '.join(closed)}" if closed else "nothing is open")
        return
    rows = [
        {
            "name": entry["name"],
            "port": entry["port"],
            "machine": entry["machine"],
            "age": format_duration(time.time() - entry["time"]),
            "state": tunnels.describe_state(entry),
            "target": entry["target"],
            "project": entry["project"],
        }
        for entry in tunnels.list_open()
    ]
    if wanted.json:
        print_json(rows)
    elif rows:
        print(
            format_table(
                rows, ["name", "port", "machine", "age", "state", "target"], ["name", "port"]
            )
        )
    else:
        print("nothing is open")
