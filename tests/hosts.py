"""The test bed: laptop, gateway and worker as three hosts on this machine, in Linux namespaces.

    laptop 192.0.2.1 ---- 192.0.2.2 gateway 198.51.100.1 ---- 198.51.100.2 worker

Each host has its own network, mounts, processes, host name, home folders and accounts; `ada` is
its uid 0, `bob` an ordinary user. Nothing of it is left when it is closed or when the tests die.
"""

import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

INSIDE = Path(__file__).with_name("hosts_inside.py")
ADDRESSES = {
    ("laptop", "gateway"): ("192.0.2.1", "192.0.2.2"),
    ("gateway", "worker"): ("198.51.100.1", "198.51.100.2"),
}
KNOWN = {"laptop": "gateway", "gateway": "laptop worker", "worker": "gateway"}
SPACES = ("mount", "uts", "ipc", "net", "pid")
OWN = ("home", "tmp", "var/tmp", "run", "dev/shm")  # folders a host has for itself
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
PROGRAMS = ["unshare", "nsenter", "setsid", "ip", "ssh", "ssh-keygen", "sshd", "tmux", "rsync"]
PROGRAMS += ["sshfs", "fish", "tcsh", "faketime", "ps"]
BOB = 2001


def missing_programs() -> list[str]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [name for name in PROGRAMS if not shutil.which(name, path=path)]


def why_impossible() -> str:
    """Why there can be no bed on this machine; empty if there can."""
    if not sys.platform.startswith("linux"):
        return f"the test hosts are Linux namespaces, and this is {sys.platform}"
    if os.geteuid() != 0:
        return "the test hosts are Linux namespaces: only root may make them"
    words = ["unshare", "-m", "-u", "-i", "-n", "-p", "-f", "mount", "-t", "tmpfs", "none", "/mnt"]
    tried = subprocess.run(words, capture_output=True, text=True)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(frozen=True)
class Traffic:
    """What went through the proxy: bytes, round trips, new connections."""

    up: int
    down: int
    turns: int  # how often the talk turned to the direction laptop -> gateway
    connections: int


class HostProcess(subprocess.Popen):
    """A command in a host. Our child is nsenter, which waits for it; signals go to the command."""

    def send_signal(self, number, group=False):
        child = self.inner()
        if child and self.poll() is None:
            os.killpg(child, number) if group else os.kill(child, number)

    def interrupt(self):
        """What Ctrl-C does: SIGINT to the command and to what it started."""
        self.send_signal(signal.SIGINT, group=True)

    def inner(self) -> int:
        """The command's pid as the real machine counts; it leads a session of its own."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        end = time.monotonic() + 5
        while self.poll() is None and time.monotonic() < end:
            for child in children.read_text().split():
                if os.getsid(int(child)) == int(child):
                    return int(child)
            time.sleep(0.001)
        return 0


class Host:
    def __init__(self, bed: "Hosts", name: str):
        self.bed, self.name = bed, name
        self.folder = bed.folder / name
        self.home_inside, self.shell = "/home/ada", "/bin/bash"
        self.programs: dict[str, str | None] = {}
        self.offset, self.host_key = "", 0
        self._space = None
        for own in OWN:
            (self.folder / own).mkdir(parents=True)
        (self.folder / "system").mkdir()

    # --- starting and stopping

    @property
    def running(self) -> bool:
        return self._space is not None and self._space.poll() is None

    def start(self):
        """Switch the host on: new processes, new boot id, empty /tmp and /run; the same homes."""
        for own in ("tmp", "run", "dev/shm"):
            empty(self.folder / own)
            (self.folder / own).chmod(0o755 if own == "run" else 0o1777)
        flags = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
        with open(self.folder / "init.log", "a") as log:
            self._space = subprocess.Popen(
                ["unshare", *flags, sys.executable, "-I", "-S", INSIDE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"PATH": ROOT_PATH},
                encoding="utf-8",
            )
        pid = json.loads(self._space.stdout.readline())
        self._init = os.pidfd_open(pid)
        # held open, so that no command can ever enter another process that got the same pid
        names = [name.replace("mount", "mnt") for name in SPACES]
        self._spaces = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in names]
        self._sh(self._preparation())
        for name, script in self.programs.items():
            self._program(name, script)
        self.bed._wire(self)
        self._serve(fresh=True)

    def stop(self):
        """Switch it off: everything in it is killed at once."""
        if self._space is None:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._init, signal.SIGKILL)
        select.select([self._init], [], [], 20)  # readable once all of its processes are gone
        self._space.wait(20)
        self._space.stdin.close()
        self._space.stdout.close()
        for descriptor in (self._init, *self._spaces):
            os.close(descriptor)
        self._space = None

    def reboot(self):
        self.stop()
        self.start()

    def _preparation(self) -> str:
        """The script that makes this host out of new namespaces: its own folders and files."""
        folder = shlex.quote(str(self.folder))
        uv = shlex.quote(str(Path(self.bed.uv).resolve()))
        (self.folder / "run/boot_id").write_text(f"{uuid.uuid4()}\n")
        (self.folder / "run/sshd").mkdir()
        names = "".join(f"{address(host, self.name)} {host}\n" for host in KNOWN[self.name].split())
        write = {
            "/etc/hostname": f"{self.name}\n",
            "/etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n{names}",
            "/etc/shadow": "".join(f"{user}:*:19000:0:99999:7:::\n" for user in self._users()),
        }
        files = "".join(f"printf %s {shlex.quote(write[name])} >{name}\n" for name in write)
        binds = "".join(f"mount -c --bind {own} /{own}\n" for own in OWN)
        return f"""
            mount -t proc proc /proc
            hostname {self.name}
            # /usr and /etc are the machine's until the host changes them, and changes stay here;
            # on a tmpfs, because an overlay cannot lie on a container's own overlay
            mount -t tmpfs -o mode=755 tmpfs {folder}/system
            for name in usr etc; do
                mkdir {folder}/system/$name {folder}/system/$name.work
                layers=lowerdir=/$name,upperdir={folder}/system/$name
                mount -t overlay overlay -o "$layers,workdir={folder}/system/$name.work" /$name
            done
            mkdir /usr/lib/bed
            >/usr/lib/bed/uv
            mount --bind {uv} /usr/lib/bed/uv
            mkdir -p /etc/ssh/authorized
            cp {folder}/keys/host_* /etc/ssh/
            cp {folder}/keys/id_ed25519.pub /etc/ssh/authorized/ada
            cp {folder}/keys/id_bob.pub /etc/ssh/authorized/bob
            {files}
            printf 'bob:x:{BOB}:\\n' >>/etc/group
            {self._passwd()}
            cd {folder}  # and not by its name: one of these may hide it
            {binds}
            mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
            echo 0 >/proc/sys/net/ipv4/ip_forward
            ip link set lo up
        """

    def _users(self) -> list[str]:
        lines = Path("/etc/passwd").read_text().splitlines()
        system = [line.split(":")[0] for line in lines if line.split(":")[2] != "0"]
        return ["ada", *system, "bob"]

    def _passwd(self) -> str:
        """The script that writes the accounts."""
        ada = f"ada:x:0:0:Ada:{self.home_inside}:{self.shell}\n"
        bob = f"bob:x:{BOB}:{BOB}:Bob:/home/bob:/bin/bash\n"
        lines = Path("/etc/passwd").read_text().splitlines(keepends=True)
        system = "".join(line for line in lines if line.split(":")[2] != "0")
        return f"printf %s {shlex.quote(ada + system + bob)} >/etc/passwd"

    def _serve(self, fresh=False):
        """Start sshd, in place of the one before; sessions that are open go on."""
        if self.name == "laptop":
            return
        at = {"gateway": "127.0.0.1:2222", "worker": "0.0.0.0:22"}[self.name]
        environment = ""
        if self.offset:
            # what is seen of a file's time is shifted, and what is set is shifted back
            library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
            environment = f"SetEnv LD_PRELOAD={library} FAKETIME={self.offset} FAKE_UTIME=1"
            environment += " FAKETIME_DONT_FAKE_MONOTONIC=1"
        settings = f"""
            ListenAddress {at}
            HostKey /etc/ssh/host_{self.name}_{self.host_key}
            AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/authorized/%u
            PermitRootLogin yes
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            UsePAM no
            StrictModes no
            UseDNS no
            PrintMotd no
            AcceptEnv LANG LC_*
            PidFile /run/sshd.pid
            Subsystem sftp internal-sftp
            {environment}
        """
        self._sh(f"printf %s {shlex.quote(settings)} >/etc/ssh/sshd_config")
        command = ["/usr/sbin/sshd", "-D", "-E", "/run/sshd.log"]
        self._ask("start", "sshd", command, "/run/sshd.pid")
        if self.name == "gateway" and fresh:
            self._ask("proxy", [address("gateway", "laptop"), 22], ["127.0.0.1", 2222])

    def _ask(self, *request):
        """Ask the host's first process."""
        assert self._space is not None, f"{self.name} is switched off"
        self._space.stdin.write(json.dumps(request) + "\n")
        self._space.stdin.flush()
        line = self._space.stdout.readline()
        assert line, f"{self.name} died; see {self.folder}/init.log"
        answer = json.loads(line)
        assert answer["code"] == 0, f"{self.name}: {str(request)[:500]}\n{answer['error']}"
        return answer["output"]

    def _sh(self, script: str) -> str:
        return self._ask("sh", script)

    # --- commands and files

    @property
    def home(self) -> Path:
        """The account's home folder, as a path on the real machine."""
        return self.path(self.home_inside)

    def path(self, inside: str) -> Path:
        """Where a file of the host's own folders lies on the real machine."""
        inside = os.path.normpath(inside)
        own = [f"/{name}" for name in OWN]
        assert inside.startswith(tuple(own)), f"{inside}: only {own} are the host's own"
        return self.folder / inside.lstrip("/")

    def read(self, name: str) -> str:
        return (self.home / name).read_text(encoding="utf-8")

    def write(self, name: str, text: str, mode=None) -> Path:
        file = self.home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        if mode is not None:
            file.chmod(mode)
        return file

    def environment(self, user: str = "ada") -> dict[str, str]:
        """What a login would give."""
        home = self.home_inside if user == "ada" else f"/home/{user}"
        path = ROOT_PATH if user == "ada" else USER_PATH
        if self.path(f"{home}/.local/bin").is_dir():
            path = f"{home}/.local/bin:{path}"
        found = {"HOME": home, "USER": user, "LOGNAME": user, "PATH": path, "SHELL": self.shell}
        found |= {"LANG": "C.UTF-8", "TERM": "xterm-256color"}
        if self.name == "laptop":
            found["UV_CACHE_DIR"] = self.bed.uv_cache
        return found

    def enter(self, *command, user="ada", cwd=None) -> list[str]:
        """The command line that runs a command in this host."""
        assert self._space is not None, f"{self.name} is switched off"
        spaces = [
            f"--{name}=/proc/{os.getpid()}/fd/{descriptor}"
            for name, descriptor in zip(SPACES, self._spaces, strict=True)
        ]
        if user == "bob":
            spaces += ["--setuid", str(BOB), "--setgid", str(BOB)]
        cwd = cwd or (self.home_inside if user == "ada" else f"/home/{user}")
        words = [str(word) for word in command]
        return ["nsenter", *spaces, "setsid", "env", "-C", str(cwd), "--", *words]

    def popen(self, *command, user=None, env=None, cwd=None, **options) -> HostProcess:
        user = user or "ada"
        options = {"stdin": subprocess.DEVNULL, "encoding": "utf-8", **options}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return HostProcess(
            self.enter(*command, user=user, cwd=cwd),
            env={**self.environment(user), **(env or {})},
            cwd="/",
            **options,
        )

    def run(
        self,
        *command,
        check=True,
        user=None,
        env=None,
        input=None,
        cwd=None,
        timeout=120,
        **options,
    ) -> subprocess.CompletedProcess:
        if input is not None:
            options["stdin"] = subprocess.PIPE
        process = self.popen(*command, user=user, env=env, cwd=cwd, **options)
        with process:
            try:
                out, err = process.communicate(input, timeout)
            except BaseException:
                process.kill()
                process.wait()
                raise
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        if check:
            shown = f"{self.name}: {command} ended with {done.returncode}:\n{out}\n{err}"
            assert done.returncode == 0, shown
        return done

    def processes(self) -> list[tuple[int, str, str]]:
        """(pid there, user, command line) of all but the bed's own: init and the sshd listener."""
        return [tuple(process) for process in self._ask("processes")]

    # --- what a test can change

    def account(self, home=None, shell=None):
        """Give ada another home folder (a copy of the one so far) or another login shell."""
        if home:
            if not self.path(home).exists():
                subprocess.run(["cp", "-a", self.home, self.path(home)], check=True)
            self.home_inside = home
        self.shell = shell or self.shell
        self._sh(self._passwd())

    def program(self, name: str, script: str | None):
        """Install a program of this script, or with None hide the real one."""
        self.programs[name] = script
        self._program(name, script)

    def _program(self, name: str, script: str | None):
        file = shlex.quote(f"/usr/local/bin/{name}")
        if script is not None:
            self._sh(f"rm -f {file}; printf %s {shlex.quote(script)} >{file}; chmod 755 {file}")
            return
        self._sh(f"""
            for folder in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /home/*/.local/bin; do
                file=$folder/{shlex.quote(name)}
                if [ -e "$file" ] || [ -L "$file" ]; then mv "$file" "$file.hidden"; fi
            done
        """)

    def forget_programs(self):
        for name, script in self.programs.items():
            if script is not None:
                # one of the real machine in that very place comes back from the layer below
                self._sh(f"rm -f /usr/local/bin/{shlex.quote(name)}")
        self._sh("""
            for file in /usr/local/*bin/*.hidden /usr/*bin/*.hidden /home/*/.local/bin/*.hidden; do
                if [ -e "$file" ] || [ -L "$file" ]; then mv "$file" "${file%.hidden}"; fi
            done
        """)
        self.programs = {}

    def clock(self, offset: str):
        """Let ssh sessions see another time, for instance "+1h"; "" is the right time again."""
        self.offset = offset
        self._serve()

    def change_host_key(self, number=None):
        """Serve with another host key than the one that the laptop knows."""
        self.host_key = (self.host_key + 1) % 3 if number is None else number
        self._serve()

    def clean(self):
        """As it was when it was started, but for the homes."""
        if not self.running:
            self.stop()
            self.start()
        self._ask("clear")
        self._sh("awk '$3 ~ /^fuse/ { print $2 }' /proc/mounts | xargs -r -d '\\n' umount -l")
        if self.programs:
            self.forget_programs()
        if (self.home_inside, self.shell) != ("/home/ada", "/bin/bash"):
            self.account("/home/ada", "/bin/bash")
        if self.offset or self.host_key:
            self.offset, self.host_key = "", 0
            self._serve()
        for own in ("tmp", "var/tmp", "dev/shm"):
            empty(self.folder / own)


def address(of: str, towards: str) -> str:
    """The address that a host has on the line to a neighbour."""
    for pair, addresses in ADDRESSES.items():
        if {of, towards} == set(pair):
            return addresses[pair.index(of)]
    raise ValueError(f"there is no line between {of} and {towards}")


def empty(folder: Path):
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


class Hosts:
    """The three hosts and the lines between them."""

    def __init__(self, folder: Path, uv: str, uv_cache: str, python: str):
        self.folder, self.uv, self.uv_cache, self.python = Path(folder), uv, uv_cache, python
        self.laptop, self.gateway, self.worker = self.all = [
            Host(self, name) for name in ("laptop", "gateway", "worker")
        ]
        try:
            self._prepare()
            for host in self.all:
                host.start()
        except BaseException:
            self.close()
            raise
        self.snapshot("fresh")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Switch everything off; the lines vanish with the last host's network."""
        for host in self.all:
            host.stop()

    def _prepare(self):
        """Keys, and the homes of the accounts."""
        keys = self.folder / "keys"
        keys.mkdir()
        hosts = [f"host_{name}_{n}" for name in ("gateway", "worker") for n in range(3)]
        for name, comment in [("id_ed25519", "ada"), ("id_bob", "bob"), *((h, h) for h in hosts)]:
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment]
            subprocess.run([*words, "-f", keys / name], check=True)
        for host in self.all:
            shutil.copytree(keys, host.folder / "keys")
            shutil.copytree("/etc/skel", host.home)
            host.home.chmod(0o755)
            if host is not self.gateway:
                host.write(".config/uv/uv.toml", self._uv_settings())
                (host.home / ".local/bin").mkdir(parents=True)
                (host.home / ".local/bin/uv").symlink_to("/usr/lib/bed/uv")
                (host.home / ".local/bin/python3.11").symlink_to(os.path.realpath(self.python))
            if host is not self.laptop:
                bob = host.path("/home/bob")
                shutil.copytree("/etc/skel", bob)
                for path in (bob, *bob.rglob("*")):
                    os.chown(path, BOB, BOB)
        (self.laptop.home / ".ssh").mkdir(mode=0o700)
        for name in ("id_ed25519", "id_bob"):
            shutil.copy(keys / name, self.laptop.home / ".ssh")
            shutil.copy(keys / f"{name}.pub", self.laptop.home / ".ssh")
        known = {name: (keys / f"host_{name}_0.pub").read_text() for name in ("gateway", "worker")}
        lines = "".join(f"{name} {' '.join(key.split()[:2])}\n" for name, key in known.items())
        self.laptop.write(".ssh/known_hosts", lines, 0o600)
        self.laptop.write(".gitconfig", "[user]\n\tname = Ada\n\temail = ada@example.org\n")

    def _uv_settings(self) -> str:
        # the cache is another mount there, and a link cannot lead out of a mount
        settings = f'link-mode = "copy"\ncache-dir = {json.dumps(self.uv_cache)}\n'
        wheels = os.environ.get("PIP_FIND_LINKS", "")
        if wheels.startswith("/"):
            settings += f"find-links = {json.dumps(wheels.split())}\n"
        return settings

    def _wire(self, host: Host):
        """Lay the lines to the neighbours that are switched on; a line is named after its end."""
        by_name = {one.name: one for one in self.all}
        for pair, addresses in ADDRESSES.items():
            one, other = (by_name[name] for name in pair)
            if host not in (one, other) or not (one.running and other.running):
                continue
            # the other end of a line to a host that was killed goes away only some time later
            ends = ((one, other), (other, one))
            for end, neighbour in ends:
                end._sh(f"ip link del {neighbour.name} 2>/dev/null || true")
            space = f"/proc/{os.getpid()}/fd/{other._spaces[SPACES.index('net')]}"
            subprocess.run(
                [
                    "nsenter",
                    f"--net=/proc/{os.getpid()}/fd/{one._spaces[SPACES.index('net')]}",
                    *f"ip link add {other.name} type veth peer name {one.name}".split(),
                    *("netns", space),
                ],
                check=True,
            )
            for (end, neighbour), own in zip(ends, addresses, strict=True):
                end._sh(
                    f"ip addr add {own}/24 dev {neighbour.name}; ip link set {neighbour.name} up"
                )

    # --- what can happen to the line between laptop and gateway

    def cut(self):
        """The line is down, and both ends see it."""
        self.laptop._sh("ip link set gateway down")

    def drop(self):
        """Packets vanish in both directions, and the line looks well."""
        for host, other in ((self.laptop, self.gateway), (self.gateway, self.laptop)):
            far = address(other.name, host.name)
            host._sh(
                f"ip neigh replace {far} lladdr 02:00:00:00:00:99 dev {other.name} nud permanent"
            )

    def reset(self):
        """Every connection is closed at once (RST); new ones work."""
        self.gateway._ask("reset")

    def refuse(self):
        """The gateway is down: new connections are refused, and open ones are closed."""
        self.gateway._ask("refuse")

    def delay(self, seconds: float):
        """Every piece of a connection arrives this much later, in both directions."""
        self.gateway._ask("delay", seconds)

    def cut_after(self, bytes: int):
        """After this many more bytes, in both directions together, reset everything once."""
        self.gateway._ask("cut_after", bytes)

    def traffic(self) -> Traffic:
        """What went through since the last call."""
        return Traffic(**self.gateway._ask("count"))

    def heal(self):
        """The line is well and fast again."""
        for host, other in ((self.laptop, self.gateway), (self.gateway, self.laptop)):
            if host.running and other.running:
                far = address(other.name, host.name)
                host._sh(f"""
                    ip link set {other.name} up
                    ip neigh del {far} dev {other.name} 2>/dev/null || true
                """)
        if self.gateway.running:
            self.gateway._ask("delay", 0)
            self.gateway._ask("cut_after", None)
            self.gateway._ask("accept")

    # --- the homes

    def snapshot(self, name: str):
        """Keep the homes of all hosts as they are now."""
        for host in self.all:
            kept = self.folder / "snapshots" / name / host.name
            kept.mkdir(parents=True, exist_ok=True)
            copy(host.folder / "home", kept)

    def restore(self, name: str):
        """Bring the homes back to what they were at that snapshot."""
        for host in self.all:
            copy(self.folder / "snapshots" / name / host.name, host.folder / "home")

    def clean(self):
        """Everything as it was at the beginning."""
        for host in self.all:
            host.clean()
        self.heal()
        self.restore("fresh")


def copy(source: Path, target: Path):
    """Times are compared to the nanosecond: tests change a file twice within a second."""
    words = ["rsync", "-a", "--delete", "--modify-window=-1"]
    subprocess.run([*words, f"{source}/", f"{target}/"], check=True)


def nvidia_smi(gpus, apps=(), driver="550.54", hang=False, broken=False) -> str:
    """The script of an nvidia-smi that shows these GPUs and what computes on them.

    `gpus` is a number, or for each GPU the fields that differ from the usual ones; `apps` holds
    the fields of each process: gpu_uuid, pid, process_name, used_memory.
    """
    if hang:
        return "#!/bin/sh\nexec sleep 3600\n"
    if broken:
        said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
        return f'#!/bin/sh\necho "{said}"\nexit 9\n'
    gpus = [{} for _ in range(gpus)] if isinstance(gpus, int) else gpus
    usual = {
        "name": "NVIDIA A100-SXM4-40GB",
        "memory.total": 40960,
        "memory.used": 4,
        "utilization.gpu": 0,
        "compute_cap": "8.0",
        "driver_version": driver,
        "compute_mode": "Default",
        "mig.mode.current": "Disabled",
        "temperature.gpu": 34,
        "count": len(gpus),
    }
    rows = []
    for index, gpu in enumerate(gpus):
        row = {**usual, "index": index, "uuid": f"GPU-{index:08d}-0000-0000-0000-000000000000"}
        row |= gpu
        row.setdefault("memory.free", free(row))
        rows.append(row)
    apps = [{"process_name": "python", "used_memory": "[N/A]", **app} for app in apps]
    return (
        NVIDIA_SMI.replace("@gpus@", cases(rows))
        .replace("@apps@", cases([{"name": app["process_name"], **app} for app in apps]))
        .replace(
            "@list@", "".join(f"GPU {r['index']}: {r['name']} (UUID: {r['uuid']})\n" for r in rows)
        )
        .replace("@driver@", driver)
        .replace("@count-gpus@", str(len(rows)))
        .replace("@count-apps@", str(len(apps)))
    )


def free(row: dict):
    numbers = [row["memory.total"], row["memory.used"]]
    return numbers[0] - numbers[1] if all(isinstance(n, int) for n in numbers) else "[N/A]"


def cases(rows) -> str:
    """The branches of a shell `case` that know each row's fields."""
    lines = [
        f"{shlex.quote(f'{n} {field}')}) printf %s {shlex.quote(str(value))} ;;"
        for n, row in enumerate(rows)
        for field, value in row.items()
    ]
    return "\n".join(lines)


NVIDIA_SMI = r"""#!/bin/sh
# nvidia-smi, played for the tests
gpus() {
    case $1 in
@gpus@
    *) printf 'Field "%s" is not a valid field to query.\n' "${1#* }"; exit 2 ;;
    esac
}
apps() {
    case $1 in
@apps@
    *) printf 'Field "%s" is not a valid field to query.\n' "${1#* }"; exit 2 ;;
    esac
}
table() { # the rows' kind, their number, the fields
    row=0
    while [ "$row" -lt "$2" ]; do
        line=
        for field in $(echo "$3" | tr ',' ' '); do
            value=$("$1" "$row $field") || { echo "$value"; exit 2; }
            line="$line${line:+, }$value"
        done
        echo "$line"
        row=$((row + 1))
    done
}
format=
for word in "$@"; do
    case $word in --format=*) format=${word#--format=} ;; esac
done
for word in "$@"; do
    case $word in
    --query-*)
        case $format in
        csv,noheader,nounits | csv,nounits,noheader) ;;
        *) echo "this nvidia-smi knows only --format=csv,noheader,nounits" >&2; exit 2 ;;
        esac
        ;;
    esac
    case $word in
    --query-gpu=*) table gpus @count-gpus@ "${word#*=}"; exit ;;
    --query-compute-apps=*) table apps @count-apps@ "${word#*=}"; exit ;;
    -L | --list-gpus) cat <<'END'
@list@END
        exit ;;
    --format=*) ;;
    *) echo "this nvidia-smi does not know $word" >&2; exit 2 ;;
    esac
done
cat <<'END'
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI @driver@                 Driver Version: @driver@         CUDA Version: 12.4     |
+-----------------------------------------------------------------------------------------+
END
"""
