"""The commands for the browser: Jupyter on a machine, local TensorBoard, and the tunnels."""

import argparse
import sys

from lab.cli.command import Command, CommandParser, add_env, add_json, add_machine, connect
from lab.ground.terminal import format_duration, format_table, print_json, print_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.browser.tunnels import Tunnel


def add_browser_options(parser: CommandParser, port: int) -> None:
    parser.add_argument(
        "--port", type=parse_port, metavar="N", help=f"local port [{port}, or the next free one]"
    )
    parser.add_argument("--no-open", action="store_true", help="do not open the browser")
    add_machine(parser)


def parse_port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not a port, a number from 1 to 65535")
    return int(text)


def show_address(
    url: str,
    tunnel: "Tunnel",
    args: argparse.Namespace,
    usual: int,
    write_page: "Callable[[str, Tunnel], str] | None" = None,
) -> None:
    """Print the address; on a terminal, also open it, or the page that leads to it."""
    if tunnel.port != (args.port or usual):
        print_message(f"port {args.port or usual} is in use: using {tunnel.port}")
    print(url, flush=True)
    if sys.stdout.isatty() and not args.no_open:
        import webbrowser

        webbrowser.open(write_page(url, tunnel) if write_page else url)


def add_notebook_arguments(parser: CommandParser) -> None:
    parser.add_argument("--stop", action="store_true", help="stop it, with its kernels")
    add_env(parser)
    add_browser_options(parser, 8888)


def open_notebook(args: argparse.Namespace) -> None:
    from lab.browser import notebook
    from lab.ssh import variables

    env = variables.parse(args.env)
    connection = connect(args)
    if args.stop:
        ran = notebook.stop(connection)
        print(f"{'stopped Jupyter' if ran else 'no Jupyter was running'} on {connection.name}")
        return
    server, tunnel = notebook.start(connection, args.port, env)
    if server.port:
        print_message(
            f"sshd on {connection.name} forwards no sockets: Jupyter listens on its 127.0.0.1:"
            f"{server.port}, where only the token keeps others out"
        )
    if not server.started:
        print_message("it was already running")
    url = notebook.format_url(server, tunnel)
    stop = f"{connection.machine.lab} notebook --stop ends it, with its kernels"
    print_message(f"it keeps running when this terminal is closed; {stop}")
    show_address(url, tunnel, args, notebook.PORT, notebook.write_page)


def add_tensorboard_arguments(parser: CommandParser) -> None:
    parser.add_argument("--local", action="store_true", help="only local records")
    parser.add_argument("--stop", action="store_true", help="stop it")
    add_browser_options(parser, 6006)


def open_tensorboard(args: argparse.Namespace) -> None:
    from lab.browser import tunnels
    from lab.ground import project
    from lab.ssh import machines

    if args.stop:
        closed = tunnels.close(None, "tensorboard")
        print(f"stopped: {', '.join(closed)}" if closed else "no TensorBoard was running")
        return
    machine = "" if args.local else machines.get(args.machine).name
    folder = project.runs_folder()
    tunnel = tunnels.start("tensorboard", machine, str(folder), args.port, 6006)
    if machine:
        print_message(
            f"the records of {machine} are fetched as they grow, into {project.relative(folder)}/"
        )
    print_message("it keeps running when this terminal is closed; lab tensorboard --stop ends it")
    show_address(f"http://127.0.0.1:{tunnel.port}/", tunnel, args, 6006)


def add_tunnels_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--close", nargs="?", const="", metavar="NAME", help="close one, or all of this project"
    )
    add_json(parser)


def list_tunnels(args: argparse.Namespace) -> None:
    import time

    from lab.browser import tunnels

    if args.close is not None:
        closed = tunnels.close(args.close)
        print(f"closed: {', '.join(closed)}" if closed else "nothing of this project is open")
        return
    rows = [
        {
            "name": tunnel.name,
            "port": tunnel.port,
            "machine": tunnel.machine,
            "age": format_duration(time.time() - tunnel.time),
            "state": tunnels.describe_state(tunnel),
            "target": tunnel.target,
            "project": tunnel.project,
        }
        for tunnel in tunnels.list_open()
    ]
    if args.json:
        print_json(rows)
    elif rows:
        print(
            format_table(
                rows, ["name", "port", "machine", "age", "state", "target"], ["name", "port"]
            )
        )
    else:
        print("nothing is open")


COMMANDS = (
    Command("notebook", "open JupyterLab on a machine", open_notebook, add_notebook_arguments),
    Command(
        "tensorboard",
        "open TensorBoard with the curves of all runs",
        open_tensorboard,
        add_tensorboard_arguments,
    ),
    Command(
        "tunnels",
        "list or close what notebook and tensorboard keep open",
        list_tunnels,
        add_tunnels_arguments,
    ),
)
