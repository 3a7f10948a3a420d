"""Jupyter on the machine and TensorBoard, in the laptop's browser and in nobody else's."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.hosts import Clock, Host, nvidia_smi
from helpers.jobs import until
from helpers.laptop import Laptop
from helpers.notebook import QUICK, get, notebook, tunnels
from helpers.terminal import in_terminal, read_until, type_in

STATE = ".cache/dl-remote-template"
# Runs a cell on a new kernel: REST to make it, then the websocket, as the browser does it.
CELL = r"""
import asyncio, json, sys, urllib.request, uuid
from tornado.websocket import websocket_connect
from tornado.httpclient import HTTPRequest
url, code = sys.argv[1:]
base, token = url.split("/lab?token=")
def rest(method, path, body=None):
    data = json.dumps(body).encode() if body is not None else None
    head = {"Authorization": "token " + token}
    answer = urllib.request.urlopen(urllib.request.Request(base + path, data, head, method=method))
    return json.loads(answer.read() or "null")
async def main():
    specs = rest("GET", "/api/kernelspecs")
    kernel = rest("POST", "/api/kernels", {})
    assert [kernel["name"]] == [specs["default"]] == list(specs["kernelspecs"]), (kernel, specs)
    head = {"Authorization": "token " + token}
    ws = f"{base.replace('http', 'ws')}/api/kernels/{kernel['id']}/channels"
    line = await websocket_connect(HTTPRequest(ws, headers=head))
    id = uuid.uuid4().hex
    header = {"msg_id": id, "msg_type": "execute_request", "username": "", "session": id}
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
    await line.write_message(json.dumps({"header": {**header, "version": "5.3"}, "metadata": {},
        "parent_header": {}, "content": content, "channel": "shell"}))
    while True:
        said = json.loads(await line.read_message())
        if said["msg_type"] == "stream":
            print(said["content"]["text"], end="")
        if said["msg_type"] == "error":
            sys.exit("\n".join(said["content"]["traceback"]))
        content = said["content"]
        if said["parent_header"].get("msg_id") == id and content.get("execution_state") == "idle":
            print(kernel["name"])
            return
asyncio.run(asyncio.wait_for(main(), 60))
"""


@pytest.fixture(scope="module")
def settled(served) -> Laptop:
    served.hosts.clean("served")
    yield served
    served.hosts.worker.clean()  # ends Jupyter; whoever comes next brings the homes that they want


@pytest.fixture
def laptop(settled) -> Laptop:
    """Nothing is open on the laptop; on the worker an earlier test's Jupyter may run."""
    yield settled
    settled.hosts.heal()
    settled.hosts.laptop.clean()
    shutil.rmtree(settled.hosts.laptop.home / STATE, ignore_errors=True)


@pytest.fixture
def worker(settled) -> Host:
    """The worker, before and after without Jupyter."""
    host = settled.hosts.worker

    def clean():
        host.clean()
        for left in (host.home / STATE).glob("j[0-9]*"):
            shutil.rmtree(left)

    clean()
    yield host
    clean()


def cell(laptop, url, code="print(1 + 1)") -> list[str]:
    """What a cell prints on a new kernel, and the kernel's name, in a browser on the laptop."""
    return laptop.run("python", "-c", CELL, url, code).stdout.split()


def test_a_notebook_runs_on_the_machine_with_the_projects_kernel(laptop):
    own = "Host worker\n    LocalForward 7777 localhost:22\n"
    laptop.hosts.laptop.write(".ssh/config", own)
    url = notebook(laptop)
    (laptop.hosts.laptop.home / ".ssh/config").unlink()
    assert re.fullmatch(r"http://127\.0\.0\.1:8888/lab\?token=[0-9a-f]{48}", url)
    code = "import socket, os, my_experiment; print(socket.gethostname(), os.environ['LAB_RUNS'])"
    shown = cell(laptop, url, code)
    assert shown == ["worker", "/home/ada/lab/my-experiment/runs", "my-experiment"]
    listening = laptop.hosts.laptop.run("ss", "-ltnH").stdout.splitlines()
    assert [line.split()[3] for line in listening] == ["127.0.0.1:8888"], "none of the user's own"
    (one,) = tunnels(laptop)
    assert (one["name"], one["port"]) == ("my-experiment-gpu-notebook", 8888)
    assert (one["machine"], one["state"]) == ("gpu", "answers")


def test_no_gpu_of_the_machine_is_hidden_from_a_notebook(laptop, worker):
    worker.program("nvidia-smi", nvidia_smi(2))
    code = "import os, subprocess; print(os.environ.get('CUDA_VISIBLE_DEVICES'), end=' ')\n"
    code += "print(subprocess.check_output(['nvidia-smi', '-L'], text=True).count('GPU '))"
    assert cell(laptop, notebook(laptop), code)[:2] == ["None", "2"]


def everything(host) -> dict[str, str]:
    """Every process of a host: its pid and its command line."""
    return {str(pid): command for pid, _, command in host.processes()}


def count_connections(laptop) -> int:
    """How many connections the laptop shares among its commands."""
    return sum(" -MNf " in command for command in everything(laptop.hosts.laptop).values())


def test_a_second_start_uses_the_same_server_and_tunnel(laptop):
    first = notebook(laptop)
    before = everything(laptop.hosts.worker)
    done = laptop.run("lab", "notebook", env=QUICK)
    assert done.stdout.splitlines()[-1] == first
    assert "already running" in done.stderr
    jupyters = [pid for pid, command in before.items() if "jupyter-lab" in command]
    assert len(jupyters) == 1 and jupyters[0] in everything(laptop.hosts.worker)
    assert len(tunnels(laptop)) == 1
    assert notebook(laptop, "--port", "9001") == first.replace("8888", "9001")
    assert [one["port"] for one in tunnels(laptop)] == [9001]


def test_at_a_terminal_the_browser_is_opened_and_elsewhere_not(laptop):
    opened, page = (laptop.hosts.laptop.path(f"/tmp/{name}") for name in ("opened", "page"))
    script = '#!/bin/sh\necho "$1" >>/tmp/opened\ncat "${1#file://}" >/tmp/page\n'
    laptop.hosts.laptop.program("open-it", script)
    env = {**QUICK, "BROWSER": "open-it"}
    laptop.run("lab", "notebook", env=env)
    assert not opened.exists()
    command = ["script", "-qec", "lab notebook --no-open; lab notebook", "/dev/null"]
    shown = laptop.run(*command, env=env).stdout
    url = shown.split()[-1]
    assert url in page.read_text()
    # every user of this computer can see the arguments of a program
    assert url.split("token=")[1] not in opened.read_text() and opened.read_text().count("\n") == 1


def test_a_taken_port_is_left_alone_and_its_server_never_sees_the_token(laptop):
    log = laptop.hosts.laptop.home / "foreign.log"
    foreign = "import http.server as h\nclass H(h.BaseHTTPRequestHandler):\n def do_GET(s):\n"
    foreign += "  print(s.path, s.headers, flush=True); s.send_response(200); s.end_headers()\n"
    foreign += "h.HTTPServer(('127.0.0.1', 8888), H).serve_forever()"
    server = laptop.popen("sh", "-c", f"exec python -c {shlex.quote(foreign)} >{'~/foreign.log'}")
    until(lambda: get(laptop, "http://127.0.0.1:8888", "/hello", seconds=5)[0] == 200)
    done = laptop.run("lab", "notebook", env=QUICK)
    url = done.stdout.splitlines()[-1]
    assert url.startswith("http://127.0.0.1:8889/lab?token=")
    assert "port 8888 is in use: using 8889" in done.stderr
    laptop.lab("tunnels")
    assert get(laptop, url, "/api/status")[0] == 200
    assert log.read_text().count("GET") + log.read_text().count("/") >= 1
    assert "/api" not in log.read_text() and url.split("=")[1] not in log.read_text()
    server.kill()
    server.communicate()
    # the tunnel holds its port without a connection, too: nobody can slip in
    laptop.hosts.refuse()
    until(lambda: tunnels(laptop)[0]["state"] != "answers")
    taken = laptop.run("python", "-c", foreign.replace("8888", "8889"), check=False)
    assert "Address already in use" in taken.stderr


def test_a_tunnel_comes_back_after_a_lost_connection_on_the_same_port(laptop):
    url = notebook(laptop)
    laptop.hosts.reset()
    until(lambda: get(laptop, url, "/api/status", seconds=5)[0] == 200)
    laptop.hosts.refuse()
    until(lambda: "cannot be reached" in tunnels(laptop)[0]["state"])
    assert get(laptop, url, "/api/status", seconds=5)[0] == 0
    laptop.hosts.heal()
    until(lambda: get(laptop, url, "/api/status", seconds=5)[0] == 200, 60)
    laptop.hosts.drop()  # as after a sleep: the line looks well, and nothing comes
    until(lambda: tunnels(laptop)[0]["state"] not in ("answers", "does not answer"), 60)
    laptop.hosts.heal()
    until(lambda: get(laptop, url, "/api/status", seconds=5)[0] == 200, 60)
    assert cell(laptop, url) == ["2", "my-experiment"]
    assert count_connections(laptop) == 1


def test_a_tunnel_comes_back_after_the_laptop_slept_and_woke_in_another_network(laptop):
    clock = Clock(laptop.hosts.laptop, asleep=True)
    slow = {"LAB_PATIENCE": "300"}  # ssh itself finds the line dead after a quarter of an hour
    url = notebook(laptop, env={**clock.env, **slow})
    laptop.hosts.move()
    assert get(laptop, url, "/api/status", seconds=5)[0] == 0
    assert tunnels(laptop)[0]["state"] == "does not answer"
    clock.forward(1)
    until(lambda: get(laptop, url, "/api/status", seconds=5)[0] == 200, 60)
    assert tunnels(laptop)[0]["state"] == "answers"
    assert count_connections(laptop) == 1


def here(laptop) -> tuple:
    """What exists on the laptop: processes, listening ports, files of tunnels."""
    host = laptop.hosts.laptop
    listening = host.run("ss", "-ltnH").stdout
    files = sorted(path.name for path in (host.home / STATE / "tunnels").glob("*"))
    return everything(host), listening, files


def looked(laptop, part: str) -> None:
    """Wait until a process that only watches its clock has looked at it again."""
    (pid,) = [pid for pid, command in everything(laptop.hosts.laptop).items() if part in command]
    waits = f"awk '/^voluntary/ {{ print $2 }}' /proc/{pid}/status"
    more = f'before=$({waits}); until [ "$({waits})" -ge $((before + 3)) ]; do sleep 0.5; done'
    laptop.hosts.laptop.run("sh", "-c", more)


def ends_unused(laptop, command, path: str, process: str) -> None:
    """A command's process ends twelve hours after its last use, and leaves nothing."""
    laptop.lab("tunnels")  # makes their folder
    laptop.lab("jobs")  # opens the connection that all commands share
    before = here(laptop)
    clock = Clock(laptop.hosts.laptop, asleep=False)
    url = laptop.lab(*command, env=clock.env).strip()
    clock.forward(7)
    assert get(laptop, url, path)[0] == 200
    clock.forward(7)
    looked(laptop, process)
    assert get(laptop, url, path)[0] == 200, "it was used seven hours ago"
    clock.forward(7)
    assert tunnels(laptop)[0]["state"] == "answers", "which is no use of it"
    clock.forward(6)
    until(lambda: here(laptop) == before, 60)


def test_a_tunnel_that_nobody_used_for_twelve_hours_ends_and_leaves_nothing(laptop):
    ends_unused(laptop, ["notebook"], "/api/status", "lab.browser.tunnel_keeper")


def test_closing_leaves_nothing_behind(laptop):
    notebook(laptop)
    assert laptop.lab("tunnels", "--close").split() == ["closed:", "my-experiment-gpu-notebook"]
    assert tunnels(laptop) == []
    assert not [c for c in everything(laptop.hosts.laptop).values() if "keeper" in c]
    assert count_connections(laptop) == 1, "that of all commands"
    folder = laptop.hosts.laptop.home / STATE / "tunnels"
    assert [path.name for path in folder.iterdir()] == ["lock"]
    laptop.lab("tunnels", "--close")
    done = laptop.lab("tunnels", "--close", "nonsense", check=False)
    assert (done.returncode, "there is no tunnel nonsense" in done.stderr) == (1, True)
    assert laptop.lab("notebook", "--port", "70000", check=False).returncode == 2
    assert get(laptop, "http://127.0.0.1:8888")[0] == 0


def test_a_killed_tunnel_is_recognised_as_dead_and_can_be_opened_again(laptop):
    url = notebook(laptop)
    laptop.run("pkill", "-KILL", "-f", "lab.browser.tunnel_keeper")
    host = laptop.hosts.laptop
    until(lambda: tunnels(laptop) == [])
    assert [path.name for path in (host.home / STATE / "tunnels").iterdir()] == ["lock"]
    assert notebook(laptop) == url
    assert get(laptop, url, "/api/status")[0] == 200


def test_what_is_open_ends_when_its_files_are_removed_with_the_whole_cache(laptop):
    laptop.lab("jobs", env=QUICK)  # opens the connection that all commands share
    before = everything(laptop.hosts.laptop)
    notebook(laptop)
    laptop.run("lab", "tensorboard", "--local")
    assert len(tunnels(laptop)) == 2
    shutil.rmtree(laptop.hosts.laptop.home / STATE / "tunnels")
    until(lambda: everything(laptop.hosts.laptop) == before, 60)


def test_after_a_reboot_of_the_laptop_nothing_is_open_and_it_starts_again(laptop):
    url = notebook(laptop)
    laptop.hosts.laptop.reboot()
    assert tunnels(laptop) == []
    assert notebook(laptop) == url
    assert get(laptop, url, "/api/status")[0] == 200


def test_after_a_reboot_of_the_machine_the_tunnel_says_so_and_a_new_server_starts(laptop, worker):
    url = notebook(laptop)
    laptop.hosts.worker.reboot()
    until(lambda: "does not answer" in tunnels(laptop)[0]["state"], 60)
    again = notebook(laptop)
    assert again != url and again.split("=")[0] == url.split("=")[0]
    assert cell(laptop, again) == ["2", "my-experiment"]
    assert get(laptop, url, "/api/status")[0] == 403


def test_stop_ends_the_server_its_kernels_and_the_tunnel(laptop):
    worker = laptop.hosts.worker
    url = notebook(laptop)
    cell(laptop, url, "import os; os.system('setsid -f sleep 1234 >/dev/null 2>&1')")
    assert [c for c in everything(worker).values() if "ipykernel_launcher" in c]
    assert laptop.lab("notebook", "--stop").strip() == "stopped Jupyter on gpu"
    left = [c for c in everything(worker).values() if "jupyter" in c or "ipykernel" in c]
    assert left == []
    (place,) = (worker.home / STATE).glob("j[0-9]*")
    assert {path.name for path in place.iterdir()} == {"lock", "log"}
    assert "sleep 1234" in everything(worker).values(), "what was started to stay may stay"
    assert tunnels(laptop) == []
    assert laptop.lab("notebook", "--stop").strip() == "no Jupyter was running on gpu"


def test_bob_gets_in_neither_by_socket_nor_by_port_nor_by_token(laptop):
    worker = laptop.hosts.worker
    url = notebook(laptop)
    cell(laptop, url)
    token = url.split("=")[1]
    (place,) = (worker.home / STATE).glob("j[0-9]*")
    inside = f"/home/ada/{STATE}/{place.name}"
    assert oct(place.stat().st_mode & 0o777) == "0o700"
    assert oct(place.parent.stat().st_mode & 0o777) == "0o700"
    assert oct((place / "socket").stat().st_mode & 0o777) == "0o600"
    knock = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    for _ in range(2):
        refused = worker.run("python3", "-c", knock, f"{inside}/socket", user="bob", check=False)
        assert "PermissionError" in refused.stderr
        for folder in (place, place.parent):  # even if the folders were open
            folder.chmod(0o755)
    for folder in (place, place.parent):
        folder.chmod(0o700)
    running = [c for c in everything(worker).values() if "ipykernel_launcher" in c]
    listening = worker.run("ss", "-ltnpH").stdout.splitlines()
    # a kernel's own: its subprocesses bring it their output there, with a secret number
    kernels = [line for line in listening if "python" in line]
    assert len(kernels) == len(running) > 0
    assert all(line.split()[3].startswith("127.0.0.1:") for line in kernels)
    assert [line.split()[3] for line in listening if line not in kernels] == ["0.0.0.0:22"]
    seen = worker.run("ps", "axeww", user="bob").stdout
    assert "jupyter-lab" in seen and token not in seen
    assert token not in worker.run("ps", "axww").stdout
    look = "grep -rlsf - /proc/[0-9]*/environ /proc/[0-9]*/cmdline /home /tmp /run /var/tmp"
    assert worker.run("sh", "-c", look, user="bob", check=False, input=token).stdout == ""
    socket = f"/home/ada/{STATE}/tmux-worker"
    shown = worker.run("tmux", "-S", socket, "list-panes", "-a", "-F", "#{pane_start_command}")
    assert "tail" in shown.stdout and token not in shown.stdout
    spied = worker.run("tmux", "-S", socket, "capture-pane", "-p", user="bob", check=False)
    assert spied.returncode != 0


def test_without_tmux_it_runs_as_well(laptop, worker):
    laptop.hosts.worker.program("tmux", None)
    assert get(laptop, notebook(laptop), "/api/status")[0] == 200


@pytest.fixture
def no_sockets(worker):
    """The worker's sshd forwards no sockets."""
    worker.set_sshd("AllowStreamLocalForwarding no")
    yield
    worker.set_sshd()


def test_where_sshd_forwards_no_sockets_a_checked_port_is_used(laptop, no_sockets, worker):
    done = laptop.run("lab", "notebook", env=QUICK)
    url = done.stdout.splitlines()[-1]
    assert "forwards no sockets: Jupyter listens on its 127.0.0.1:" in done.stderr
    assert cell(laptop, url) == ["2", "my-experiment"]
    (one,) = tunnels(laptop)
    port = one["target"].removeprefix("127.0.0.1:")
    refused = worker.run("curl", "-s", f"127.0.0.1:{port}/api/status", user="bob").stdout
    assert "Forbidden" in refused
    # Jupyter ends, and bob takes its port: the tunnel shows nothing of him
    worker.run("pkill", "-KILL", "-f", "jupyter-lab")
    until(lambda: "jupyter-lab" not in str(everything(worker)))
    serve = ["python3", "-m", "http.server", "--bind", "127.0.0.1", port]
    bob = worker.popen(*serve, user="bob")
    until(lambda: worker.run("curl", "-s", f"127.0.0.1:{port}/", check=False).stdout)
    until(lambda: tunnels(laptop)[0]["state"] not in ("answers", "does not answer"))
    assert "no longer listens" in tunnels(laptop)[0]["state"]
    assert get(laptop, url, "/")[0] == 0
    again = notebook(laptop)
    assert cell(laptop, again) == ["2", "my-experiment"]
    bob.kill()
    bob.communicate()


def copy_project(laptop, place: Path) -> None:
    """Copy the project; of its environment the copy has links to the same files."""
    ignored = shutil.ignore_patterns(".venv")
    shutil.copytree(laptop.path, place, symlinks=True, ignore=ignored)
    subprocess.run(["cp", "-al", laptop.path / ".venv", place], check=True)


def test_on_a_machine_of_ones_own_root_has_notebooks_too(laptop, worker):
    worker._sh("""cp /etc/ssh/authorized/ada /etc/ssh/authorized/root
        mkdir -p /root/.local/share; cp -r /home/ada/.local/share/jupyter /root/.local/share""")
    local = laptop.path / "machines.local.toml"
    before = local.read_text()
    place = "/home/ada/lab/my-experiment"
    local.write_text(f'[machines.gpu]\nuser = "root"\ngateway_user = "ada"\nfolder = "{place}"\n')
    try:
        assert cell(laptop, notebook(laptop), "import os; print(os.getuid())")[0] == "0"
        laptop.lab("notebook", "--stop")
    finally:
        local.write_text(before)
        worker._sh("rm -r /etc/ssh/authorized/root /root/.local")


def test_two_projects_have_a_server_and_a_tunnel_each(laptop, worker):
    host = laptop.hosts.laptop
    first = notebook(laptop)
    other = Laptop(host.home / "other", hosts=laptop.hosts, inside="/home/ada/other")
    copy_project(laptop, other.path)
    text = (other.path / "machines.toml").read_text().replace("lab/my-experiment", "lab/other")
    (other.path / "machines.toml").write_text(text)
    environment = {"PYTHONPATH": "/home/ada/other/src"}
    other.run("lab", "setup", env=environment)
    second = notebook(other, env=environment)
    assert [url[:22] for url in (first, second)] == [f"http://127.0.0.1:{n}/" for n in (8888, 8889)]
    assert cell(laptop, first)[1] == "my-experiment"
    assert cell(laptop, second)[1] == "my-experiment-2"
    assert get(laptop, first.replace("8888", "8889"), "/api/status")[0] == 403
    laptop.lab("tunnels", "--close")
    assert [one["port"] for one in tunnels(laptop)] == [8889]
    other.run("lab", "notebook", "--stop", env=environment)
    assert get(laptop, notebook(laptop), "/api/status")[0] == 200, "the first one's is still there"
    laptop.lab("notebook", "--stop")
    shutil.rmtree(other.path)
    shutil.rmtree(laptop.hosts.worker.home / "lab/other")


class Eves(Laptop):
    """A colleague's laptop: another home, name and user in the place of the first one's."""

    def _options(self, options: dict) -> dict:
        own = {"HOME": "/home/eve", "LOGNAME": "eve", "PYTHONPATH": f"{self.inside}/src"}
        own = {"user": "root", "env": {"USER": "eve", **own, **options.get("env", {})}}
        return super()._options({**options, **own})

    def run(self, *command, **options):
        return super().run(*self._renamed(command), **options)

    def popen(self, *command, **options):
        return super().popen(*self._renamed(command), **options)

    def _renamed(self, command) -> list[str]:
        script = 'hostname desk; exec setpriv --reuid=ada --regid=ada --clear-groups "$@"'
        return ["unshare", "--uts", "sh", "-c", script, "sh", *command]


def test_two_people_share_an_account_from_a_laptop_each(laptop, worker):
    """Nobody sees, opens or ends what the other has, unless by a job's whole id."""
    eve = Eves(
        laptop.hosts.laptop.path("/home/eve/my-experiment"),
        hosts=laptop.hosts,
        inside="/home/eve/my-experiment",
    )
    copy_project(laptop, eve.path)
    both = (laptop, eve)
    started = ("run", "--name", "same", "--", "sleep", "1000")
    mine, hers = ids = [one.lab(*started).split()[0] for one in both]
    for one, id in zip(both, ids, strict=True):
        assert [job["id"] for job in json.loads(one.lab("jobs", "--mine", "--json"))] == [id]
        listed = {job["id"]: job["spec"]["by"] for job in json.loads(one.lab("jobs", "--json"))}
        assert listed == {mine: "ada@laptop", hers: "eve@desk"}

    urls = [notebook(one) for one in both]
    assert [get(*pair, "/api/status")[0] for pair in zip(both, urls, strict=True)] == [200, 200]
    laptop.lab("notebook", "--stop")
    answers = [get(*pair, "/api/status")[0] for pair in zip(both, urls, strict=True)]
    assert answers[0] != 200 and answers[1] == 200

    for one, seen in ((laptop, ""), (eve, ""), (laptop, "yes")):
        with in_terminal(one, "lab shell") as shell:
            read_until(shell, "$ ")
            type_in(shell, "echo [$seen]; seen=yes; tmux detach\n")
            shown, _ = shell.communicate(timeout=120)
        assert f"[{seen}]" in shown

    assert laptop.lab("stop", hers[-4:], check=False).returncode == 1
    until(lambda: "running" in laptop.there(f"jobs/{hers}/phase").read_text())
    assert laptop.lab("stop", "same") == f"{mine} stopped\n", "one's own of that name"
    assert [job["state"] for job in json.loads(eve.lab("jobs", "--json"))][1] == "running"
    assert laptop.lab("stop", hers) == f"{hers} stopped\n"
    assert eve.lab("stop", "--mine", check=False).returncode == 0, "there is nothing left"
    eve.lab("fetch", "--mine")
    (record,) = eve.path.glob("runs/2*/run.json")
    assert json.loads(record.read_text())["job"]["lab"] == hers
    eve.lab("notebook", "--stop")
    shutil.rmtree(eve.path.parent)
    for name in ("jobs", "runs"):
        shutil.rmtree(laptop.there(name))


def test_without_lab_setup_it_says_so(laptop):
    work = laptop.there("work")
    work.rename(work.with_name("away"))
    done = laptop.lab("notebook", check=False)
    work.with_name("away").rename(work)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("lab: the project is not on worker yet: lab setup.\n")
    (program,) = laptop.there("envs").glob("*/bin/jupyter-lab")
    program.rename(program.with_name("away"))
    done = laptop.lab("notebook", check=False)
    program.with_name("away").rename(program)
    assert done.returncode == 1 and "there is no JupyterLab" in done.stderr


def test_a_configuration_that_switches_the_token_off_is_refused(laptop, worker):
    settings = laptop.hosts.worker.write(
        ".jupyter/jupyter_server_config.py",
        "c.IdentityProvider.token = ''\nc.ServerApp.port = 9999",
    )
    done = laptop.lab("notebook", check=False)
    settings.unlink()
    assert done.returncode == 1 and "disables the token" in done.stderr
    assert not [c for c in everything(laptop.hosts.worker).values() if "jupyter-lab" in c]


def test_tensorboard_shows_the_curves_of_a_run_that_goes_on_there(laptop):
    go = laptop.hosts.worker.path("/tmp/go")
    go.unlink(missing_ok=True)
    laptop.lab("run", "with", "wait_for=/tmp/go")
    done = laptop.run("lab", "tensorboard", env=QUICK)
    url = done.stdout.splitlines()[-1].rstrip("/")
    assert url == "http://127.0.0.1:6006"

    def steps() -> list[int]:
        code, runs = get(laptop, url, "/data/runs", seconds=60)
        (run,) = (code == 200 and json.loads(runs)) or [""]
        asked = f"/data/plugin/scalars/scalars?tag=train%2Floss&run={run}"
        code, body = get(laptop, url, asked, seconds=60)
        return [point[1] for point in json.loads(body)] if run and code == 200 else []

    until(lambda: steps() == [1], 120, "the first step")
    (run,) = laptop.path.glob("runs/2*")
    shutil.copytree(
        run, laptop.path / "runs/.fetching-b/files" / run.name
    )  # half way in, not shown
    (one,) = tunnels(laptop)
    assert (one["name"], one["state"]) == ("my-experiment-gpu-tensorboard", "answers")
    assert "tensorboard" not in str(everything(laptop.hosts.worker).values())
    laptop.hosts.refuse()
    until(lambda: "shows what was fetched before" in tunnels(laptop)[0]["state"])
    assert steps() == [1]
    laptop.hosts.heal()
    go.touch()
    until(lambda: steps() == [1, 2, 3], 120, "the last step")
    assert tunnels(laptop)[0]["state"] == "answers"
    assert laptop.run("lab", "tensorboard", env=QUICK).stdout.strip() == url + "/", "the same one"
    assert laptop.lab("tensorboard", "--stop").strip() == "stopped: my-experiment-gpu-tensorboard"
    shutil.rmtree(laptop.path / "runs/.fetching-b")
    assert not [c for c in everything(laptop.hosts.laptop).values() if "tensorboard" in c]


def test_tensorboard_local_asks_no_machine(laptop):
    laptop.hosts.cut()
    url = laptop.run("lab", "tensorboard", "--local").stdout.splitlines()[-1]
    assert get(laptop, url.rstrip("/"), "/data/runs")[0] == 200
    (one,) = tunnels(laptop)
    assert (one["name"], one["machine"]) == ("my-experiment-tensorboard", "")
    listening = laptop.hosts.laptop.run("ss", "-ltnH").stdout.splitlines()
    assert [line.split()[3] for line in listening] == ["127.0.0.1:6006"]


def test_a_tensorboard_that_nobody_used_for_twelve_hours_ends_and_leaves_nothing(laptop):
    ends_unused(laptop, ["tensorboard", "--local"], "data/runs", "lab.browser.tensorboard_server")
