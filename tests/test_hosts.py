"""The test bed keeps its promises: its lines and hosts behave as real ones do."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.files import put
from helpers.hosts import Clock, Traffic, nvidia_smi
from helpers.hosts.homes import Homes

CONFIG = """
Host *
    ControlMaster auto
    ControlPath ~/.ssh/%C
    ControlPersist yes
    ConnectTimeout 60
Host worker
    ProxyJump gateway
"""


@pytest.fixture
def ssh(hosts):
    """A command on the worker, over one connection that stays open."""
    hosts.laptop.write(".ssh/config", CONFIG)

    def run(*command, **options):
        # a master keeps the standard error of its client open
        options = {"stderr": subprocess.DEVNULL, "timeout": 120, **options}
        return hosts.laptop.run("ssh", "worker", *command, **options)

    return run


def plain(hosts, *command, **options):
    """The same over a connection of its own."""
    words = ["ssh", "-o", "ConnectTimeout=60", "-J", "ada@gateway", "ada@worker"]
    return hosts.laptop.run(*words, *command, **options)


def gateway(hosts, *command, wait=60, **options):
    """A command on the gateway, over a new connection also where another one is open."""
    words = ["ssh", "-o", f"ConnectTimeout={wait}", "-o", "ControlPath=none", "gateway"]
    return hosts.laptop.run(*words, *command, **{"timeout": 120, **options})


def test_the_worker_is_reached_through_the_gateway_only(hosts):
    seen = plain(hosts, "hostname; id -un; echo $HOME").stdout
    assert seen.split() == ["worker", "ada", "/home/ada"]
    words = ["ssh", "-o", "ConnectTimeout=1", "ada@198.51.100.2", "true"]
    assert "unreachable" in hosts.laptop.run(*words, check=False).stderr
    route = "ip route add 198.51.100.0/24 via 192.0.2.2"
    hosts.laptop.run(*route.split(), user="root")
    assert "timed out" in hosts.laptop.run(*words, check=False).stderr  # nothing is forwarded
    hosts.laptop.run(*route.replace("add", "del").split(), user="root")
    assert hosts.gateway.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout == "0\n"


def test_the_real_machine_is_another(hosts, tmp_path):
    """Nothing that happens in a host is seen outside: processes, files, programs, accounts."""
    before = Path("/etc/passwd").read_bytes()
    names = {
        name: host.run("hostname").stdout.strip()
        for name, host in vars(hosts).items()
        if name in ("laptop", "gateway", "worker")
    }
    assert names == {name: name for name in names}
    hosts.worker.program("only-there", "#!/bin/sh\necho here\n")
    hosts.worker.program("git", None)
    assert hosts.worker.run("only-there").stdout == "here\n"
    assert not Path("/usr/local/bin/only-there").exists()
    assert subprocess.run(["git", "--version"], capture_output=True).returncode == 0
    assert hosts.laptop.run("git", "--version").returncode == 0
    stays = subprocess.Popen(["sleep", "600"])
    try:
        hosts.worker.run("sh", "-c", "kill -9 -1", check=False)
        hosts.clean()
        assert stays.poll() is None
    finally:
        stays.kill()
        stays.wait()
    assert Path("/etc/passwd").read_bytes() == before


def test_a_cut_line_is_seen_at_once(hosts, ssh):
    ssh("true")
    hosts.cut()
    assert "unreachable" in gateway(hosts, "true", check=False).stderr
    hosts.heal()
    assert ssh("echo again").stdout == "again\n"  # the same connection lives on


def test_a_silent_line_lets_packets_vanish(hosts, ssh):
    ssh("true")
    hosts.drop()
    assert "LOWER_UP" in hosts.laptop.run("ip", "link", "show", "gateway").stdout
    with pytest.raises(subprocess.TimeoutExpired):
        ssh("true", timeout=1)
    assert "timed out" in gateway(hosts, "true", wait=1, check=False).stderr
    hosts.heal()
    assert gateway(hosts, "echo again").stdout == "again\n"


def test_a_moved_laptop_opens_new_connections_and_the_old_ones_are_silent(hosts, ssh):
    ssh("true")
    hosts.move()
    with pytest.raises(subprocess.TimeoutExpired):
        ssh("true", timeout=2)
    assert gateway(hosts, "echo new").stdout == "new\n"
    with pytest.raises(subprocess.TimeoutExpired):
        ssh("true", timeout=2)
    hosts.heal()
    assert ssh("echo again").stdout == "again\n", "back where it was, they go on"


def test_reset_closes_what_is_open(hosts, ssh):
    ssh("true")
    first = ssh("sh", "-c", "'echo $PPID'").stdout
    hosts.reset()
    until(lambda: not [line for line in lines(hosts.laptop) if line.startswith("ssh")])
    assert ssh("echo again").stdout == "again\n"
    assert ssh("sh", "-c", "'echo $PPID'").stdout != first
    assert hosts.traffic().connections == 2


def test_a_gateway_that_is_down_refuses(hosts, ssh):
    ssh("true")
    hosts.refuse()
    assert "refused" in gateway(hosts, "true", check=False).stderr
    assert ssh("true", check=False).returncode == 255
    hosts.heal()
    hosts.heal()
    assert plain(hosts, "echo again").stdout == "again\n"


def test_cut_after_some_bytes(hosts):
    hosts.laptop.run("ssh", "gateway", "> /tmp/copy")
    hosts.cut_after(200_000)
    hosts.traffic()
    copy = ["ssh", "gateway", "cat > /tmp/copy"]
    failed = hosts.laptop.run(*copy, input="x" * 1_000_000, check=False)
    assert failed.returncode == 255
    assert hosts.gateway.path("/tmp/copy").stat().st_size < 200_000
    hosts.laptop.run(*copy, input="x" * 1_000_000)
    assert hosts.gateway.path("/tmp/copy").stat().st_size == 1_000_000
    assert hosts.traffic().up > 1_000_000


def test_delay_and_the_count_of_round_trips(hosts, ssh):
    ssh("true")
    hosts.traffic()
    ssh("true")
    told = hosts.traffic()
    assert 1 <= told.round_trips <= 4 and told.connections == 0 and 0 < told.up < 10_000
    assert hosts.traffic() == Traffic(0, 0, 0, 0)
    hosts.delay(0.1)
    slow = timed(lambda: ssh("true"))
    assert 1 <= hosts.traffic().round_trips <= 4
    assert slow >= 0.2, "there and back"
    # latency, not throughput: one by one, these pieces would take more than ten times as long
    assert timed(lambda: ssh("cat >/dev/null", input="x" * 6_000_000), below=3) < 9
    hosts.heal()
    assert timed(lambda: ssh("true"), below=0.2) < slow


def timed(action, below=0.0) -> float:
    """Return the seconds it takes; with a bound, those of the first of ten tries below it."""
    for _ in range(10 if below else 1):
        begin = time.monotonic()
        action()
        if (seconds := time.monotonic() - begin) < below:
            break
    return seconds


def test_reboot(hosts):
    worker = hosts.worker
    worker.write("kept", "kept")
    worker.path("/tmp/lost").write_text("lost")
    before = plain(hosts, "setsid sleep 600 >/dev/null 2>&1 & cat /proc/sys/kernel/random/boot_id")
    until(lambda: lines(worker) == ["sleep 600"])
    assert timed(worker.reboot) < 20  # nothing is asked to end
    assert worker.processes() == []
    after = plain(hosts, "cat /proc/sys/kernel/random/boot_id")
    assert len(after.stdout) == 37 and after.stdout != before.stdout
    assert worker.read("kept") == "kept" and not worker.path("/tmp/lost").exists()
    hosts.gateway.reboot()
    assert plain(hosts, "echo again").stdout == "again\n"
    worker.stop()
    assert plain(hosts, "true", check=False).returncode == 255
    worker.start()
    assert plain(hosts, "echo again").stdout == "again\n"


def lines(host) -> list[str]:
    return [line for *_, line in host.processes()]


def test_the_orphans_are_reaped(hosts):
    hosts.worker.run("sh", "-c", "(sleep 0.01 & sleep 0.01 &) ; true")
    count = "ls -d /proc/[0-9]*/ | wc -l; cat /proc/[0-9]*/stat | grep -c ' Z ' || true"
    until(lambda: hosts.worker.run("sh", "-c", count).stdout.split()[1] == "0")
    assert hosts.worker.processes() == []


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


@pytest.mark.parametrize("name", ["git", "rsync", "tmux", "uv", "python3"])
def test_a_hidden_program_is_not_installed(hosts, name):
    worker = hosts.worker
    there = ["bash", "-lc", f"command -v {name}"]
    found = worker.run(*there).stdout
    worker.program(name, None)
    assert worker.run(*there, check=False).returncode == 1
    assert "not found" in plain(hosts, name, check=False).stderr
    worker.reboot()  # it is not installed by that
    assert worker.run(*there, check=False).returncode == 1
    worker.forget_programs()
    assert worker.run(*there).stdout == found


def test_another_home_and_another_shell(hosts):
    home = "/home/paths with spaces é"
    hosts.worker.account(home=home)
    assert plain(hosts, "pwd").stdout == f"{home}\n"
    hosts.worker.write("note", "there")
    assert plain(hosts, "cat note").stdout == "there"
    hosts.worker.account(shell="/usr/bin/fish")
    assert plain(hosts, "echo $FISH_VERSION").stdout.startswith("3.")
    hosts.worker.account(shell="/bin/tcsh")
    assert plain(hosts, "echo $shell; exit").stdout == "/bin/tcsh\n"
    hosts.clean()
    assert plain(hosts, "pwd; echo ${BASH##*/}").stdout == "/home/ada\nbash\n"
    assert not hosts.worker.path(home).exists()


def test_ada_is_an_ordinary_user_whose_files_the_tests_have(hosts):
    for host in (hosts.laptop, hosts.gateway, hosts.worker):
        assert host.run("id", "-u").stdout == host.run("stat", "-c", "%u", ".").stdout == "2000\n"
        assert host.run("id", "-G").stdout == "2000\n"
        for place in ("/etc/of-ada", "/usr/bin/of-ada", "/home/of-ada", "/root/of-ada"):
            assert host.run("touch", place, check=False).returncode == 1
        host.write("from-outside", "")
        host.run("sh", "-c", "echo more >>from-outside; echo >from-inside; echo >/tmp/from-inside")
        assert host.read("from-outside") == "more\n"
        made = (host.home / "from-inside", host.path("/tmp/from-inside"))
        assert [file.stat().st_uid for file in made] == [0, 0]
        host._sh("echo >/home/ada/of-root; chmod 600 /home/ada/of-root")
        assert host.run("stat", "-c", "%U", "of-root").stdout == "root\n"
        assert host.run("cat", "of-root", check=False).returncode == 1
        assert host.run("id", "-u", user="root").stdout == "0\n"


def test_bob_is_another_user(hosts):
    hosts.worker.write("private", "mine", mode=0o600)
    hosts.worker.write("public", "all", mode=0o644)
    words = ["ssh", "-i", "/home/ada/.ssh/id_bob", "-J", "ada@gateway", "bob@worker"]
    seen = hosts.laptop.run(*words, "id -un; pwd; cat ~ada/public ~ada/private", check=False)
    assert seen.stdout == "bob\n/home/bob\nall" and "Permission denied" in seen.stderr
    seen = hosts.worker.run("sh", "-c", "id -un; cat ~ada/private", user="bob", check=False)
    assert seen.stdout == "bob\n" and "Permission denied" in seen.stderr


def test_a_clock_that_is_wrong(hosts):
    def ahead():
        return int(plain(hosts, "date +%s").stdout) - time.time()

    hosts.worker.clock("+1h")
    assert ahead() == pytest.approx(3600, abs=600)
    hosts.worker.clock("")
    assert abs(ahead()) < 600


@pytest.mark.parametrize("asleep", [True, False])
def test_a_clock_that_is_moved_while_a_program_runs(hosts, asleep):
    clock = Clock(hosts.laptop, asleep)
    show = "import time\nwhile input(): print(time.time(), time.monotonic(), flush=True)"
    pipes = {"stdin": subprocess.PIPE}
    with hosts.laptop.popen("python3", "-c", show, env=clock.env, **pipes) as program:

        def seen() -> list[float]:
            program.stdin.write("now\n")
            program.stdin.flush()
            return [float(word) for word in program.stdout.readline().split()]

        before = seen()
        assert before[0] == pytest.approx(time.time(), abs=600)
        clock.forward(7)
        clock.forward(7)
        moved = [round((now - then) / 3600) for now, then in zip(seen(), before, strict=True)]
        program.kill()
    assert moved == [14, 0 if asleep else 14]


def test_another_host_key(hosts):
    hosts.worker.change_host_key()
    assert "IDENTIFICATION HAS CHANGED" in plain(hosts, "true", check=False).stderr
    hosts.clean()
    plain(hosts, "true")


def test_homes_are_kept_and_brought_back(hosts):
    hosts.worker.write("project/file", "prepared")
    hosts.snapshot("prepared")
    hosts.worker.write("project/file", "PREPARED")  # of the same length, within the same second
    hosts.laptop.write("more", "")
    hosts.restore("prepared")
    assert hosts.worker.read("project/file") == "prepared"
    assert not (hosts.laptop.home / "more").exists()
    hosts.clean()
    assert not (hosts.worker.home / "project").exists()
    hosts.restore("prepared")
    assert hosts.worker.read("project/file") == "prepared"
    assert hosts.worker.path("/home/bob").stat().st_uid == 2001


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_changes_are_undone_to_the_nanosecond(tmp_path, shared):
    homes = Homes(tmp_path / "home", tmp_path / "kept")
    for n in range(30):
        put(homes.folder / f"many/{n % 7}/{n}", f"{n}\n")
    for name in ("touched", "truncated", "removed/x", "replaced/x", "a folder/x", "odd\n\udcff"):
        put(homes.folder / name, "kept")
    (homes.folder / "link").symlink_to("nowhere")
    if shared:
        homes.share("one", tmp_path / "shared", ours=True)
    else:
        homes.save("one")
    inode = homes.folder.stat().st_ino  # the hosts have mounted it

    def seen() -> dict:
        found = [homes.folder, *homes.folder.rglob("*")]
        about = {path: path.lstat() for path in found}
        return {
            path: (one.st_mode, one.st_mtime_ns, path.is_file() and path.read_bytes())
            for path, one in about.items()
        }

    before = seen()
    for turn in (1, 2, 3):
        touched = (homes.folder / "touched").stat()
        (homes.folder / "touched").write_text("lost")  # of the same length and, put back, time
        os.utime(homes.folder / "touched", ns=(touched.st_atime_ns, touched.st_mtime_ns))
        (homes.folder / "truncated").write_text("")
        shutil.rmtree(homes.folder / "removed")
        shutil.rmtree(homes.folder / "a folder")
        put(homes.folder / "a folder", "a file")
        (homes.folder / "replaced").rename(homes.folder / "renamed")
        (homes.folder / "replaced").symlink_to("renamed")
        (homes.folder / "odd\n\udcff").chmod(0o600)
        (homes.folder / "link").unlink()
        put(homes.folder / "link/new", "new")
        for n in range(0, 30, 2):
            (homes.folder / f"many/{n % 7}/{n}").write_text("x\n")
        if turn == 1:  # later, what is in it now is watched as well
            shutil.rmtree(homes.folder / "many/1")
        if turn == 3:  # more than the kernel keeps for us
            for name in ("touched", "truncated") * 10_000:
                os.utime(homes.folder / name)
        homes.restore("one")
        assert seen() == before
        assert homes.folder.stat().st_ino == inode


def test_whatever_was_done_to_the_homes_is_undone(hosts):
    script = """mkdir -p a/b c; for name in a/b/1 a/2 c/3 4 ' ü'; do echo x >"$name"; done
        ln -s a link; echo x >5; chmod 700 c"""
    hosts.worker.run("sh", "-ec", script)
    hosts.snapshot("many")
    kept = hosts.worker.homes.kept / "many/ada"
    changes = """rm -r a/b; mv c d; chmod 600 4; rm link; mkdir -p link/new/deep; echo >link/new/y
        rm ' ü'; ln -s 4 ' ü'; touch -d yesterday a/2; mv 5 6; echo y >5; echo z >d/3"""
    for script in (changes, "rm -rf a c; echo >a; ln -s /tmp c", "true", changes, "chmod 755 c"):
        hosts.worker.run("sh", "-ec", script)
        hosts.restore("many")
        words = ["rsync", "-anic", "--delete", f"{kept}/", f"{hosts.worker.home}/"]
        assert subprocess.check_output(words, text=True) == ""


def test_cleaning_ends_what_a_test_left(hosts):
    for host in (hosts.laptop, hosts.worker):
        host.run("tmux", "new-session", "-d", "sleep 600")
        until(lambda host=host: "sleep 600" in lines(host))
    hosts.laptop.run("mkdir", "a folder")
    hosts.laptop.write(".ssh/config", CONFIG)
    before = [mounts(host) for host in (hosts.laptop, hosts.worker)]
    hosts.laptop.run("sshfs", "worker:", "a folder")
    hosts.worker._sh("mount -t tmpfs none /home/ada; cd /home/ada; mkdir a; mount --bind /tmp a")
    after = [mounts(host) for host in (hosts.laptop, hosts.worker)]
    assert [len(now) - len(then) for now, then in zip(after, before, strict=True)] == [1, 2]
    hosts.laptop.clean()
    hosts.worker.clean()
    assert [mounts(host) for host in (hosts.laptop, hosts.worker)] == before
    hosts.clean()
    assert [host.processes() for host in (hosts.laptop, hosts.gateway, hosts.worker)] == [[]] * 3
    plain(hosts, "true")


def mounts(host) -> list[str]:
    return host.run("cat", "/proc/self/mountinfo").stdout.splitlines()


def test_signals_go_to_the_command(hosts):
    script = "trap 'echo stopped; exit 3' TERM INT; echo ready; while :; do sleep 0.05; done"
    for end in ("terminate", "interrupt"):
        with hosts.worker.popen("sh", "-c", script) as process:
            assert process.stdout.readline() == "ready\n"
            getattr(process, end)()
            assert (process.stdout.read(), process.wait()) == ("stopped\n", 3)
    with pytest.raises(subprocess.TimeoutExpired):
        hosts.worker.run("sleep", "600", timeout=0.2)
    assert hosts.worker.processes() == []


def test_uv_works_without_a_network(hosts):
    hosts.worker.run("uv", "venv", "--quiet", "--python", "3.11", "environment")
    install = ["uv", "pip", "install", "--quiet", "--offline", "--python", "environment/bin/python"]
    hosts.worker.run(*install, "cookiecutter")
    hosts.worker.run("environment/bin/cookiecutter", "--version")


def test_nvidia_smi(hosts):
    gpus = [{}, {"name": "NVIDIA L4", "memory.used": "[N/A]"}]
    apps = [{"gpu_uuid": "GPU-1", "pid": 42, "used_memory": 512}]
    hosts.worker.program("nvidia-smi", nvidia_smi(gpus, apps))

    def ask(query):
        return hosts.worker.run("nvidia-smi", query, "--format=csv,noheader,nounits").stdout

    assert ask("--query-gpu=index,name,memory.used,memory.total,driver_version").splitlines() == [
        "0, NVIDIA A100-SXM4-40GB, 4, 40960, 550.54",
        "1, NVIDIA L4, [N/A], 40960, 550.54",
    ]
    assert ask("--query-compute-apps=pid,gpu_uuid,used_memory") == "42, GPU-1, 512\n"
    assert "CUDA Version: 12.4" in hosts.worker.run("nvidia-smi").stdout
    wrong = ["nvidia-smi", "--query-gpu=colour", "--format=csv,noheader,nounits"]
    assert hosts.worker.run(*wrong, check=False).returncode == 2
    hosts.worker.program("nvidia-smi", nvidia_smi(2, broken=True))
    assert hosts.worker.run("nvidia-smi", check=False).returncode == 9
    hosts.worker.program("nvidia-smi", nvidia_smi(1, hang=True))
    with pytest.raises(subprocess.TimeoutExpired):
        hosts.worker.run("nvidia-smi", timeout=0.3)


def inside(folder) -> list[str]:
    """The processes of this machine whose mounts are those of a host in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder) in (process / "mountinfo").read_text():
                found.append(process.name)
    return found


BED = """
import sys, time
from pathlib import Path
from helpers.hosts import Hosts
hosts = Hosts(Path(sys.argv[1]), *sys.argv[2:])
hosts.worker.popen("setsid", "sleep", "600")
print("up", flush=True)
sys.stdin.read()
hosts.close()
print("closed", flush=True)
"""


@pytest.mark.parametrize("end", ["close", "kill"])
def test_nothing_is_left(hosts, tmp_path, end):
    """Neither when the bed is closed nor when the tests are killed."""
    links = os.listdir("/sys/class/net")
    command = [sys.executable, "-c", BED, tmp_path, hosts.uv, hosts.uv_cache, hosts.python]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    with subprocess.Popen(command, cwd=Path(__file__).parent, **pipes) as process:
        assert process.stdout.readline() == "up\n"
        assert len(inside(tmp_path)) >= 6  # three hosts, two servers, a sleeper
        if end == "kill":
            process.send_signal(signal.SIGKILL)
            until(lambda: not inside(tmp_path))
        else:
            process.stdin.close()
            assert process.stdout.readline() == "closed\n"
            assert not inside(tmp_path)
    assert os.listdir("/sys/class/net") == links
    hosts.worker.run("true")  # and the other bed lives
