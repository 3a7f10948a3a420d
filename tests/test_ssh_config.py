"""lab ssh-config: ssh, rsync and git reach the machine by our name."""

import shutil
import subprocess

import pytest

NAME = "my-experiment-gpu"
SETTINGS = ("machines.toml", "machines.local.toml", "pyproject.toml")


@pytest.fixture
def laptop(ready_once, tmp_path):
    """Its ~/.ssh and the project's settings are put back after each test."""
    ssh = ready_once.hosts.laptop.home / ".ssh"
    shutil.copytree(ssh, tmp_path / "ssh")
    settings = {name: (ready_once.path / name).read_text() for name in SETTINGS}
    yield ready_once
    shutil.rmtree(ssh)
    shutil.copytree(tmp_path / "ssh", ssh)
    for name, text in settings.items():
        (ready_once.path / name).write_text(text)


def options(laptop, name=NAME) -> dict[str, list[str]]:
    """What ssh -G says of a host: the values of each option."""
    found = {}
    for line in laptop.run("ssh", "-G", name).stdout.splitlines():
        option, _, value = line.partition(" ")
        found.setdefault(option, []).append(value)
    return found


def config(laptop):
    return laptop.hosts.laptop.home / ".ssh/config"


def machine(laptop, **keys):
    """Replace machines.toml: one machine, and nothing personal."""
    lines = [f"{key} = {value!r}" for key, value in {"folder": "lab/x", **keys}.items()]
    (laptop.path / "machines.toml").write_text("[machines.gpu]\n" + "\n".join(lines) + "\n")
    (laptop.path / "machines.local.toml").write_text("")


def test_it_prints_the_block_with_the_jump_host_and_both_forwards_and_changes_nothing(laptop):
    text = laptop.lab("ssh-config")
    assert f"\nHost {NAME}\n    User ada\n    HostName worker\n    ControlPath /" in text
    assert f"\nHost {NAME}-own\n    User ada\n" in text
    assert f"    ProxyJump {NAME}-gateway\n" in text
    assert "    LocalForward 127.0.0.1:8888 localhost:8888\n" in text
    assert "    LocalForward 127.0.0.1:6006 localhost:6006\n" in text
    assert f"\nHost {NAME}-gateway\n" in text
    assert not config(laptop).exists()
    assert laptop.lab("ssh-config", "-m", "gpu") == text


def test_after_install_ssh_rsync_and_git_reach_the_machine_by_its_name(laptop):
    said = laptop.lab("ssh-config", "--install")
    assert f"ssh {NAME}" in said
    done = laptop.run("ssh", NAME, "hostname; id -un", stderr=subprocess.PIPE)
    assert done.stdout.split() == ["worker", "ada"]
    laptop.run("rsync", "-a", "machines.toml", f"{NAME}:copied", stderr=subprocess.PIPE)
    assert laptop.hosts.worker.read("copied") == (laptop.path / "machines.toml").read_text()
    listed = laptop.run("git", "ls-remote", f"{NAME}:lab/my-experiment/repo.git")
    assert "refs/lab/snapshots/" in listed.stdout
    laptop.lab("jobs")  # opens the shared connection, and is not disturbed by the blocks
    before = laptop.hosts.gateway.count_logins("Accepted")
    laptop.run("ssh", NAME, "true", stderr=subprocess.PIPE)
    laptop.run("rsync", "-a", "machines.toml", f"{NAME}:copied", stderr=subprocess.PIPE)
    assert laptop.hosts.gateway.count_logins("Accepted") == before, "both use the shared one"
    laptop.run("ssh", f"{NAME}-own", "true", stderr=subprocess.PIPE)
    assert laptop.hosts.gateway.count_logins("Accepted") == before + 1


def test_ssh_itself_confirms_the_jump_host_both_forwards_and_the_keep_alive(laptop):
    laptop.lab("ssh-config", "--install")
    found = options(laptop)
    own = options(laptop, f"{NAME}-own")
    for one in (found, own):
        assert (one["hostname"], one["user"]) == (["worker"], ["ada"])
        assert one["proxyjump"] == [f"{NAME}-gateway"]
        assert (one["serveraliveinterval"], one["serveralivecountmax"]) == (["15"], ["3"])
    # a forward on the shared connection would stay when the ssh that asked for it has ended
    assert "localforward" not in found and "controlpath" not in own
    assert own["localforward"] == [
        "[127.0.0.1]:8888 [localhost]:8888",
        "[127.0.0.1]:6006 [localhost]:6006",
    ]
    gate = options(laptop, f"{NAME}-gateway")
    assert (gate["hostname"], gate["user"]) == (["gateway"], ["ada"])
    assert options(laptop, "worker").get("localforward") is None  # the user's own name for it


def test_a_port_comes_home_through_the_installed_forward(laptop):
    laptop.lab("ssh-config", "--install")
    script = (
        "import http.server as h, os\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(s): s.send_response(200); s.end_headers(); s.wfile.write(b'from there')\n"
        "    def log_message(s, *a): pass\n"
        "h.HTTPServer(('127.0.0.1', 8888), H).serve_forever()\n"
    )
    server = laptop.hosts.worker.popen("python3", "-c", script)
    line = laptop.popen("ssh", "-N", f"{NAME}-own")
    fetch = (
        "import time, urllib.request as u\n"
        "for _ in range(600):\n"
        "    try: print(u.urlopen('http://127.0.0.1:8888', timeout=2).read().decode()); break\n"
        "    except OSError: time.sleep(0.1)\n"
    )
    assert laptop.run("python3", "-c", fetch).stdout == "from there\n"
    # a second connection finds the port taken, and works all the same
    second = laptop.run("ssh", f"{NAME}-own", "hostname", stderr=subprocess.PIPE)
    assert second.stdout == "worker\n"
    for process in (line, server):
        process.kill()
        process.communicate()


ALIAS = """\
Host gateway
    IdentityFile "~/.ssh/a key"

Host cluster
    HostName worker
    User ada
    ProxyJump ada@gateway:22
    IdentityFile "~/.ssh/a key"
    IdentitiesOnly yes
    HostKeyAlias worker
    LocalForward 9999 localhost:9999
    RemoteCommand echo from the alias
    ControlPath ~/.ssh/%C

Host *
    ConnectTimeout 7
    User nobody
"""


def test_all_that_an_alias_of_the_user_does_for_the_connection_is_in_the_block(laptop):
    config(laptop).write_text(ALIAS)
    ssh = config(laptop).parent
    (ssh / "id_ed25519").rename(ssh / "a key")
    (ssh / "id_ed25519.pub").unlink()
    machine(laptop, ssh="cluster")
    text = laptop.lab("ssh-config")
    assert '    IdentityFile "~/.ssh/a key"\n' in text
    assert "    ProxyJump ada@gateway:22\n" in text
    assert "9999" not in text and "from the alias" not in text
    laptop.lab("ssh-config", "--install")
    found, theirs = options(laptop), options(laptop, "cluster")
    for name in ("hostname", "user", "port", "identityfile", "proxyjump", "hostkeyalias"):
        assert found[name] == theirs[name], name
    assert (found["identitiesonly"], found["connecttimeout"]) == (["yes"], ["7"])
    done = laptop.run("ssh", NAME, "hostname", stderr=subprocess.PIPE)
    assert done.stdout == "worker\n"
