"""lab doctor: what is wrong is named, with its cause and how to fix it."""

import json
import shutil

import pytest

from helpers import hosts as bed

ENV = {"LAB_PATIENCE": "4"}
SMALL = ("machines.toml", "machines.local.toml", "requirements.txt")


@pytest.fixture
def laptop(ready_once):
    """Programs, clocks, connections and settings are put back after each test."""
    settings = {name: (ready_once.path / name).read_text() for name in SMALL}
    yield ready_once
    for host in ready_once.hosts.all:
        host.clean()
    ready_once.hosts.heal()
    for name, text in settings.items():
        (ready_once.path / name).write_text(text)


def doctor(laptop, *arguments, code=None, **env) -> dict[str, dict]:
    """The checks by name."""
    done = laptop.run("lab", "doctor", "--json", *arguments, env={**ENV, **env}, check=False)
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return {row["check"]: row for row in json.loads(done.stdout)}


def named(check: dict, *words: str) -> None:
    """Its advice names the cause and the fix, in these words."""
    for word in words:
        assert word in check["advice"], check


def test_a_machine_that_is_ok_passes_and_every_check_is_shown_side_by_side(laptop):
    done = laptop.run("lab", "doctor", check=False, env=ENV)
    assert done.returncode == 0, done.stdout
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["check", "this", "computer", "gpu", "verdict"]
    table = {line.split("  ")[0]: line for line in lines}
    for name in ("connection", "host key", "git", "environment", "clock", "terminal", "disk"):
        assert table[name].endswith(" ok"), table[name]
    assert "through gateway" in table["connection"] and "ms" in table["connection"]
    assert table["environment"].count("3.11-") == 2
    assert ".." not in done.stdout
    assert "\nwarning: GPUs: no nvidia-smi: jobs run on the CPU" in done.stdout


def test_the_machine_is_asked_in_one_round_trip_once_connected(laptop):
    laptop.lab("jobs", env=ENV)
    laptop.hosts.traffic()
    doctor(laptop)
    assert laptop.hosts.traffic().connections == 0
    laptop.hosts.delay(0.1)
    laptop.hosts.traffic()
    doctor(laptop)
    assert laptop.hosts.traffic().round_trips <= 8  # a channel is opened, and used once
    laptop.hosts.delay(0)


def test_a_machine_without_git_tmux_rsync_and_flock_is_told_check_by_check(laptop):
    for name in ("git", "tmux", "script", "rsync", "flock"):
        laptop.hosts.worker.program(name, None)
    checks = doctor(laptop, code=1)
    assert (checks["git"]["local"], checks["git"]["remote"]) == ("2.39.5", "missing")
    assert [checks[n]["verdict"] for n in ("git", "tmux", "rsync", "basic tools")] == [
        "failed",
        "warning",
        "warning",
        "failed",
    ]
    named(checks["git"], "the machine has no git", "cannot be sent", "install it")
    named(checks["tmux"], "has no tmux", "lab shell ends with the connection", "install it")
    named(checks["script"], "has no script", "lab run --interactive needs it", "install")
    named(checks["rsync"], "has no rsync", "slower", "install it")
    named(checks["basic tools"], "without flock", "install coreutils and util-linux")
    assert checks["disk"]["verdict"] == "ok"  # the others are ok


def test_warnings_alone_do_not_fail(laptop):
    laptop.hosts.worker.program("tmux", None)
    assert doctor(laptop, code=0)["tmux"]["verdict"] == "warning"


def test_neither_a_new_enough_python_nor_uv_fails(laptop):
    laptop.hosts.worker.program("uv", None)
    laptop.hosts.worker.program("python3", "#!/bin/sh\necho Python 3.6.8\n")
    checks = doctor(laptop, code=1)
    assert checks["environment tools"]["verdict"] == "failed"
    named(checks["environment tools"], "neither Python 3.8", "uv/install.sh")


def test_programs_that_hang_or_break_delay_the_doctor_by_seconds_and_spoil_no_other_check(laptop):
    laptop.hosts.worker.program("tmux", "#!/bin/sh\nexec sleep 3600\n")
    laptop.hosts.worker.program("rsync", "#!/bin/sh\nexit 127\n")
    laptop.hosts.worker.program("df", "#!/bin/sh\necho '] x $(( -'\n")
    checks = doctor(laptop)
    named(checks["tmux"], "does not start")
    named(checks["rsync"], "does not start")
    assert checks["disk"]["verdict"] == "unknown"
    assert checks["clock"]["verdict"] == checks["git"]["verdict"] == "ok"


def test_what_hangs_so_hard_that_it_cannot_be_given_up_leaves_the_other_checks(laptop):
    laptop.hosts.worker.program("timeout", None)
    laptop.hosts.worker.program("df", "#!/bin/sh\nexec sleep 3600\n")
    script = "from lab.cli import main as cli; from lab.doctor import examination;"
    script += "examination.TIMEOUT = 20; print(cli.main(['doctor', '--json']))"
    said = laptop.run("python", "-c", script, env=ENV).stdout
    checks = {row["check"]: row["verdict"] for row in json.loads(said.rpartition("]")[0] + "]")}
    assert (checks["git"], checks["clock"], checks["working copy"]) == ("ok", "ok", "ok")
    assert (checks["disk"], checks["data digits"]) == ("unknown", "unknown")


def test_a_changed_host_key_is_the_one_line_that_fails_and_the_laptops_side_is_shown(laptop):
    laptop.hosts.worker.change_host_key()
    done = laptop.run("lab", "doctor", check=False, env=ENV)
    assert done.returncode == 1
    rows = done.stdout.split("\n\n")[0].splitlines()
    assert [row.split("  ")[0] for row in rows if row.endswith("failed")] == ["host key"]
    assert 'ssh-keygen -R "worker"' in done.stdout and "has changed" in done.stdout
    git = next(row for row in rows if row.startswith("git "))
    assert "2.39.5" in git and git.endswith("unknown") and "?" in git
    assert ".." not in done.stdout and done.stderr == ""


def test_a_gateway_that_is_down_is_named_and_nothing_remote_is_called_ok(laptop):
    laptop.hosts.refuse()
    checks = doctor(laptop, code=1)
    assert checks["connection"]["verdict"] == "failed"
    named(checks["connection"], "gateway cannot be reached", "Connection refused", "VPN")
    assert "disk" not in checks and "GPUs" not in checks
    assert checks["environment"]["verdict"] == "unknown"
    assert checks["local ports"]["verdict"] == "ok"


def test_a_connection_that_swallows_everything_is_given_up_in_time(laptop):
    laptop.lab("jobs", env=ENV)
    laptop.hosts.drop()
    checks = doctor(laptop, code=1)
    assert checks["connection"]["verdict"] == "failed"
    laptop.hosts.heal()
    doctor(laptop, "--fix", code=0)


def test_a_clock_that_is_an_hour_ahead_is_a_warning(laptop):
    laptop.hosts.worker.clock("+1h")
    check = doctor(laptop, code=0)["clock"]
    assert check["verdict"] == "warning" and check["remote"].startswith("+3")
    named(check, "differ by 3", "records are wrong", "chrony")


def test_a_full_disk_fails_and_a_small_one_warns(laptop):
    worker = laptop.hosts.worker
    worker._sh("mkdir -p /var/tmp/small && mount -t tmpfs -o size=400m tmpfs /var/tmp/small")
    local = laptop.path / "machines.local.toml"
    local.write_text(local.read_text() + 'data = "/var/tmp/small/data"\n')
    checks = doctor(laptop, code=1)
    assert (checks["disk"]["verdict"], checks["disk of data"]["verdict"]) == ("ok", "failed")
    named(checks["disk of data"], "/var/tmp/small/data is nearly full", "ask for more room")
    worker._sh("mount -o remount,size=3g /var/tmp/small")
    assert doctor(laptop, code=0)["disk of data"]["verdict"] == "warning"
    worker._sh("mount -o remount,size=30g,nr_inodes=100 /var/tmp/small")
    assert doctor(laptop, code=1)["disk of data"]["verdict"] == "failed"
    worker._sh("umount /var/tmp/small")


def test_gpus_are_listed_with_their_memory_and_who_uses_them(laptop):
    worker = laptop.hosts.worker
    there = worker.popen("sh", "-c", "echo $$; exec sleep 1000", user="bob")
    pid = int(there.stdout.readline())
    uuid = "GPU-00000001-0000-0000-0000-000000000000"
    gpus = [{"memory.used": "[N/A]"}, {"memory.used": 9000}]
    worker.program("nvidia-smi", bed.nvidia_smi(gpus, [{"gpu_uuid": uuid, "pid": pid}]))
    checks = doctor(laptop, code=0)
    assert checks["GPU 0"]["verdict"] == "unknown"
    assert checks["GPU 1"]["remote"].endswith("9000 of 40960 MiB, bob")
    assert checks["GPUs"]["remote"] == "0 of 2 free"
    named(checks["GPUs"], "GPU 1 by bob", "lab run --queue")
    worker.program("nvidia-smi", bed.nvidia_smi(2))
    checks = doctor(laptop, code=0)
    assert (checks["GPUs"]["remote"], checks["GPUs"]["verdict"]) == ("2 of 2 free", "ok")
    assert doctor(laptop, "-m", "gpu").keys() == checks.keys()
    there.kill()
    there.communicate()


def test_a_driver_that_is_broken_or_hangs_fails_with_its_cause(laptop):
    laptop.hosts.worker.program("nvidia-smi", bed.nvidia_smi(1, broken=True))
    named(doctor(laptop, code=1)["GPUs"], "couldn't communicate", "restart")
    laptop.hosts.worker.program("nvidia-smi", bed.nvidia_smi(1, hang=True))
    check = doctor(laptop, code=1)["GPUs"]
    assert check["remote"] == "hung"
    named(check, "did not answer in 8 s", "restart")


def test_an_unknown_terminal_is_a_warning_and_fix_sends_its_description(laptop):
    described = laptop.run("infocmp", "-x", "xterm-256color").stdout
    described = described.replace("xterm-256color|", "strange-term|", 1)
    laptop.hosts.laptop.write("strange.ti", described)
    laptop.run("tic", "-x", "-o", f"{laptop.hosts.laptop.home_inside}/.terminfo", "../strange.ti")
    check = doctor(laptop, code=0, TERM="strange-term")["terminal"]
    assert (check["verdict"], check["remote"]) == ("warning", "unknown")
    named(check, "strange-term", "--fix")
    assert doctor(laptop, "--fix", TERM="strange-term")["terminal"]["verdict"] == "ok"


LOGIND = """#!/bin/sh
case "$*" in
*enable-linger*) touch {home}/lingers ;;
*show-user*) if [ -e {home}/lingers ]; then echo Linger=yes; else echo Linger=no; fi ;;
*show-session*) echo KillUserProcesses={kills} ;;
esac
"""


def test_processes_that_would_be_killed_at_logout_fail_and_are_fixed(laptop):
    worker = laptop.hosts.worker
    worker.program("busctl", "#!/bin/sh\nexit 1\n")
    worker.program("loginctl", LOGIND.format(home=worker.home_inside, kills="no"))
    assert doctor(laptop, code=0)["at logout"]["verdict"] == "ok"
    worker.program("loginctl", LOGIND.format(home=worker.home_inside, kills=""))
    assert doctor(laptop, code=0)["at logout"]["verdict"] == "unknown"
    worker.program("loginctl", LOGIND.format(home=worker.home_inside, kills="yes"))
    check = doctor(laptop, code=1)["at logout"]
    named(check, "KillUserProcesses", "loginctl enable-linger")
    assert doctor(laptop, "--fix", code=0)["at logout"]["verdict"] == "ok"
    (worker.home / "lingers").unlink()
    worker.program("busctl", "#!/bin/sh\necho b true\n")
    assert doctor(laptop, code=1)["at logout"]["verdict"] == "failed"


def test_an_environment_that_is_out_of_date_is_named_on_each_side_and_fix_makes_the_one_there(
    laptop,
):
    lock = laptop.path / "requirements.txt"
    lock.write_text(lock.read_text() + "# another lock\n")
    check = doctor(laptop, code=1)["environment"]
    named(check, "this computer does not match the lock: python3 bootstrap.py", "lab setup")
    checks = doctor(laptop, "--fix", code=1)  # bootstrap.py fixes what is local
    assert checks["environment"]["remote"].startswith("3.11-")
    named(checks["environment"], "this computer does not match", "python3 bootstrap.py")
    lock.write_text(lock.read_text().replace("# another lock\n", ""))
    assert doctor(laptop, code=0)["environment"]["verdict"] == "ok"


def test_a_machine_where_nothing_was_set_up_is_named_and_fix_sets_it_up(laptop):
    shutil.move(laptop.there("work"), laptop.there("hidden"))
    shutil.move(laptop.there("envs"), laptop.there("hidden envs"))
    checks = doctor(laptop, code=0)
    assert checks["working copy"]["verdict"] == checks["environment"]["verdict"] == "warning"
    named(checks["working copy"], "not on the machine yet", "lab setup")
    shutil.move(laptop.there("hidden envs"), laptop.there("envs"))  # making one takes its time
    checks = doctor(laptop, "--fix", code=0)
    assert checks["working copy"]["verdict"] == checks["environment"]["verdict"] == "ok"
    shutil.rmtree(laptop.there("hidden"))


def test_without_a_machine_the_laptop_is_examined_all_the_same(laptop):
    (laptop.path / "machines.toml").write_text("")
    (laptop.path / "machines.local.toml").write_text("")
    checks = doctor(laptop, code=0)
    assert checks["machine"]["verdict"] == "warning"
    named(checks["machine"], "no machine yet", "machines.toml")
    assert checks["git"]["local"] == "2.39.5" and checks["local ports"]["verdict"] == "ok"
    (laptop.path / "machines.toml").write_text("[machines.gpu]\nshs = 'x'\n")
    named(doctor(laptop, code=1)["machine"], "machines.toml:2", "did you mean ssh?")


def test_local_ports_in_use_are_named(laptop):
    script = "import socket as s, time; a = s.create_server(('127.0.0.1', 6006));"
    script += "print('up', flush=True); time.sleep(1000)"
    server = laptop.popen("python3", "-c", script)
    assert server.stdout.readline() == "up\n"
    check = doctor(laptop, code=0)["local ports"]
    assert (check["verdict"], check["local"]) == ("warning", "6006 in use")
    named(check, "port 6006", "take the next")
    server.kill()
    server.communicate()


def test_a_dataset_is_compared_by_its_manifest_and_its_files(laptop):
    here, there = laptop.path / "data/digits", laptop.there("data/digits")
    (here / "train/1").mkdir(parents=True)
    (here / "train/1/a.png").write_text("image")
    (here / "manifest.json").write_text("{}")
    check = doctor(laptop, code=0)["data digits"]
    assert "1 file, 0.0 MB" in check["local"]
    named(check, "has no dataset digits", "lab push-data digits")
    shutil.copytree(here, there, dirs_exist_ok=True)
    assert doctor(laptop)["data digits"]["verdict"] in ("ok", "warning")
    for split in ("train", "val", "test"):
        (there / split).mkdir(exist_ok=True)
    assert doctor(laptop)["data digits"]["verdict"] == "ok"
    (there / "train/1/a.png").write_text("im")
    named(doctor(laptop)["data digits"], "truncated", "lab push-data digits")
    (there / "manifest.json").write_text("[]")
    named(doctor(laptop)["data digits"], "a different dataset", "rename one")
    shutil.rmtree(here / "train/1")
    (here / "manifest.json").unlink()
    shutil.rmtree(there)


def test_a_socket_folder_that_is_open_to_others_fails(laptop):
    folder = laptop.hosts.laptop.home / ".cache/dl-remote-template/ssh"
    folder.chmod(0o755)
    check = doctor(laptop, code=1)["ssh sockets"]
    named(check, "chmod 700")
    folder.chmod(0o700)


def test_a_folder_where_no_environment_works_is_said_by_doctor_and_setup_before(laptop):
    worker = laptop.hosts.worker
    worker._sh("mkdir -p /var/tmp/disk && mount -t tmpfs -o size=30m,noexec tmpfs /var/tmp/disk")
    local = laptop.path / "machines.local.toml"
    settings = local.read_text()
    local.write_text(settings + 'folder = "/var/tmp/disk/x"\n')
    checks = doctor(laptop, code=1)
    assert checks["programs in folder"]["verdict"] == checks["room"]["verdict"] == "failed"
    named(checks["programs in folder"], "/var/tmp/disk/x", "noexec", "machines.toml")
    named(checks["room"], "/var/tmp/disk/x", "make room")
    assert checks["uv's cache"]["verdict"] == "warning"
    named(checks["uv's cache"], "another disk", "UV_CACHE_DIR")
    done = laptop.lab("setup", env=ENV, check=False)
    assert done.returncode == 1 and "noexec" in done.stderr and "choose another" in done.stderr
    worker._sh("mount -o remount,exec /var/tmp/disk")
    checks = doctor(laptop, code=1)
    assert (checks["programs in folder"]["verdict"], checks["room"]["verdict"]) == ("ok", "failed")
    done = laptop.lab("setup", env=ENV, check=False)
    assert done.returncode == 1 and "MiB are free" in done.stderr and "make room" in done.stderr
    # another cache on that disk, as machines.toml may name it
    local.write_text(local.read_text() + '[machines.gpu.env]\nUV_CACHE_DIR = "/var/tmp/disk/uv"\n')
    assert doctor(laptop)["uv's cache"]["remote"] == "/var/tmp/disk/uv"
    worker._sh("umount /var/tmp/disk")


def test_a_package_index_that_does_not_answer_is_named(laptop):
    local = laptop.path / "machines.local.toml"
    before, dead = local.read_text(), "http://127.0.0.1:9/simple"
    local.write_text(f'{before}[machines.gpu.env]\nUV_DEFAULT_INDEX = "{dead}"\n')
    check = doctor(laptop, code=0)["package index"]
    assert check["verdict"] == "warning"
    named(check, dead, "lab setup brings the wheels")
    server = laptop.hosts.worker.popen("python3", "-u", "-m", "http.server", "-b", "127.0.0.1", "0")
    port = server.stdout.readline().split()[5]
    index = f"http://eve:password@127.0.0.1:{port}/simple"
    local.write_text(f'{before}[machines.gpu.env]\nUV_DEFAULT_INDEX = "{index}"\n')
    assert doctor(laptop, code=0)["package index"]["verdict"] == "ok"
    server.kill()
    server.communicate()
    check = doctor(laptop, code=0)["package index"]
    named(check, f"http://127.0.0.1:{port}/simple")
    assert "password" not in json.dumps(check)
