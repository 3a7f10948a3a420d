"""One host of the test bed: making it out of namespaces, entering, changing and cleaning it."""

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
from pathlib import Path

from helpers.hosts.homes import Homes

INSIDE = Path(__file__).with_name("inside.py")
SWAP = Path(__file__).with_name("swap.py")
ADDRESSES = {
    ("laptop", "gateway"): ("192.0.2.1", "192.0.2.2"),
    ("gateway", "worker"): ("198.51.100.1", "198.51.100.2"),
}
KNOWN = {"laptop": "gateway", "gateway": "laptop worker", "worker": "gateway"}
SPACES = ("mount", "uts", "ipc", "net", "pid")
SWAPPED = ("home", "tmp", "var/tmp")  # of its own folders those where our files are ada's
OWN = (*SWAPPED, "run", "dev/shm")  # folders a host has for itself
ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
ADA, BOB = 2000, 2001
IDS = {"ada": ADA, "bob": BOB, "root": 0}
# The default of OpenSSH 9 takes 0.14 s of processor time for each connection.
KEY_EXCHANGE = "KexAlgorithms curve25519-sha256"
CACHE = "/usr/lib/bed/cache"  # uv's, where no folder of a host's own hides it

# PAM runs this to check a code, which arrives on standard input.
CHECK_CODE = """#!/bin/sh
PATH=/usr/bin:/bin
code=$(tr -d '\\0\\n')
echo "$code" >>/run/codes.log
grep -qxF "$code" /run/codes || exit 1
grep -vxF "$code" /run/codes >/run/codes.left
mv /run/codes.left /run/codes
"""

# Python runs this, as sitecustomize.py, before anything else: it moves its clocks forward.
MOVED = """
import time

def ahead(clock):
    def now():
        with open("/tmp/clock/hours") as hours:
            return clock() + 3600 * int(hours.read())
    return now

for name in {clocks}:
    setattr(time, name, ahead(getattr(time, name)))
"""


class HostProcess(subprocess.Popen):
    """A command in a host. Our child is nsenter, which waits for it; signals go to the command."""

    def __exit__(self, error, *rest):
        if error:  # the test has failed: do not wait for the command
            self.send_signal(signal.SIGKILL, group=True)
        super().__exit__(error, *rest)

    def send_signal(self, number, group=False):
        child = self.inner()
        if child and self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.killpg(child, number) if group else os.kill(child, number)

    def interrupt(self):
        """Send SIGINT to the command and to what it started, as Ctrl-C does."""
        self.send_signal(signal.SIGINT, group=True)

    def inner(self) -> int:
        """Return the pid of the command on the real machine; it leads a session of its own."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        end = time.monotonic() + 60
        while self.poll() is None and time.monotonic() < end:
            for child in children.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    if os.getsid(int(child)) == int(child):
                        return int(child)
            time.sleep(0.001)
        return 0


class Host:
    def __init__(self, bed, name: str):
        self.bed, self.name = bed, name
        self.folder = bed.folder / name
        self.home_inside, self.shell = "/home/ada", "/bin/bash"
        self.programs: dict[str, str | None] = {}
        self._forget_settings()
        self._space = None
        for own in OWN:
            (self.folder / own).mkdir(parents=True)
        for own in SWAPPED:
            os.chown(self.folder / own, ADA, ADA)  # they are root's there
        (self.folder / "system").mkdir()
        self.homes = Homes(self.folder / "home", bed.folder / "snapshots" / name)

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
        self._ask("keep_mounts")
        for name, script in self.programs.items():
            self._program(name, script)
        self.bed._wire(self)
        self._serve(fresh=True)

    def stop(self):
        """Switch the host off: everything in it is killed at once."""
        if self._space is None:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._init, signal.SIGKILL)
        select.select([self._init], [], [], 60)  # readable once all of its processes are gone
        self._space.wait(60)
        self._space.stdin.close()
        self._space.stdout.close()
        for descriptor in (self._init, *self._spaces):
            os.close(descriptor)
        self._space = None
        self.bed._unwire(self)

    def reboot(self):
        self.stop()
        self.start()

    def _preparation(self) -> str:
        """The script that makes this host out of new namespaces: its own folders and files."""
        folder = shlex.quote(str(self.folder))
        uv = shlex.quote(str(Path(self.bed.uv).resolve()))
        python = shlex.quote(str(Path(self.bed.python).resolve().parents[1]))
        (self.folder / "run/boot_id").write_text(f"{uuid.uuid4()}\n")
        (self.folder / "run/sshd").mkdir()
        write = {
            "/etc/hostname": f"{self.name}\n",
            "/etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n{self._known_hosts()}",
            "/etc/shadow": "".join(f"{user}:*:19000:0:99999:7:::\n" for user in self._users()),
        }
        files = "".join(f"printf %s {shlex.quote(write[name])} >{name}\n" for name in write)
        words = [word for place, folder in self._swapped().items() for word in (folder, place)]
        swap = shlex.join([sys.executable, "-I", "-S", str(SWAP), str(ADA), *words])
        binds = "".join(f"mount -c --bind {own} /{own}\n" for own in OWN if own not in SWAPPED)
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
            rm -f /usr/bin/node /usr/bin/npm  # few machines have them; JupyterLab starts them
            mkdir /usr/lib/bed
            >/usr/lib/bed/uv
            mount --bind {uv} /usr/lib/bed/uv
            mkdir {CACHE} /usr/lib/bed/python
            mount --bind {python} /usr/lib/bed/python
            mkdir -p /etc/ssh/authorized
            cp {folder}/keys/host_* /etc/ssh/
            cp {folder}/keys/id_ed25519.pub /etc/ssh/authorized/ada
            cp {folder}/keys/id_bob.pub /etc/ssh/authorized/bob
            {files}
            printf 'ada:x:{ADA}:\\nbob:x:{BOB}:\\n' >>/etc/group
            {self._passwd()}
            if [ -e /dev/fuse ]; then  # anybody may use it, as udev has it
                mknod -m 666 {folder}/system/fuse c 10 229
                mount --bind {folder}/system/fuse /dev/fuse
            fi
            cd {folder}  # not by its path below: one of these mounts may hide it
            {swap}
            {binds}
            {self._root_home()}
            mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
            echo 0 >/proc/sys/net/ipv4/ip_forward
            ip link set lo up
        """

    def _swapped(self) -> dict[str, str]:
        """Mount points of the folders where root's files are ada's; some are relative to ours."""
        return {**{f"/{own}": own for own in SWAPPED}, CACHE: self.bed.uv_cache}

    def _root_home(self) -> str:
        """The script that makes root's home; if the tests' Python lies there, it does so, too."""
        script = "mount -t tmpfs -o mode=755 tmpfs /root\n"
        prefix = Path(os.path.realpath(self.bed.python)).parents[1]
        if prefix.is_relative_to("/root"):
            path = shlex.quote(str(prefix))
            script += f"mkdir -p {path}; mount --bind /usr/lib/bed/python {path}\n"
        return script

    def _known_hosts(self) -> str:
        return "".join(f"{address(host, self.name)} {host}\n" for host in KNOWN[self.name].split())

    def _users(self) -> list[str]:
        lines = Path("/etc/passwd").read_text().splitlines()
        return [*(line.split(":")[0] for line in lines), "ada", "bob"]

    def _passwd(self) -> str:
        """The script that writes the accounts."""
        ours = f"ada:x:{ADA}:{ADA}:Ada:{self.home_inside}:{self.shell}\n"
        ours += f"bob:x:{BOB}:{BOB}:Bob:/home/bob:/bin/bash\n"
        system = Path("/etc/passwd").read_text()
        return f"printf %s {shlex.quote(system + ours)} >/etc/passwd"

    def _serve(self, fresh=False):
        """Start or restart sshd; open sessions go on."""
        if self.name == "laptop":
            return
        at = {"gateway": "127.0.0.1:2222", "worker": "0.0.0.0:22"}[self.name]
        environment = ""
        if self.offset:
            # the times of files stay right: some programs would see them shifted and some not
            library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
            environment = f"SetEnv LD_PRELOAD={library} FAKETIME={self.offset} NO_FAKE_STAT=1"
            environment += " FAKETIME_DONT_FAKE_MONOTONIC=1"
        settings = (
            "".join(f"{line}\n" for line in self.sshd_lines)
            + f"""
            ListenAddress {at}
            HostKey /etc/ssh/host_{self.name}_{self.host_key}
            AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/authorized/%u
            AuthenticationMethods {self.asks or "any"}
            PasswordAuthentication {"yes" if self.asks == "password" else "no"}
            KbdInteractiveAuthentication {"yes" if self.asks == "keyboard-interactive" else "no"}
            UsePAM {"yes" if self.asks == "keyboard-interactive" else "no"}
            {KEY_EXCHANGE}
            UseDNS no
            PrintMotd no
            AcceptEnv LANG LC_*
            PidFile /run/sshd.pid
            Subsystem sftp internal-sftp
            {environment}
        """
        )
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
        """Ada's home folder, as a path on the real machine."""
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
        """Return the environment variables of a login."""
        home = self._home_of(user)
        path = ROOT_PATH if user == "root" else USER_PATH
        if user != "root" and self.path(f"{home}/.local/bin").is_dir():
            path = f"{home}/.local/bin:{path}"
        found = {"HOME": home, "USER": user, "LOGNAME": user, "PATH": path, "SHELL": self.shell}
        found |= {"LANG": "C.UTF-8", "TERM": "xterm-256color"}
        if self.name == "laptop":
            found["UV_CACHE_DIR"] = CACHE
        return found

    def enter(self, *command, user="ada", cwd=None) -> list[str]:
        """The command line that runs a command in this host."""
        assert self._space is not None, f"{self.name} is switched off"
        spaces = [
            f"--{name}=/proc/{os.getpid()}/fd/{descriptor}"
            for name, descriptor in zip(SPACES, self._spaces, strict=True)
        ]
        account = ["--setuid", str(IDS[user]), "--setgid", str(IDS[user])]
        words = [str(word) for word in command]
        place = str(cwd or self._home_of(user))
        return ["nsenter", *spaces, *account, "setsid", "env", "-C", place, "--", *words]

    def _home_of(self, user: str) -> str:
        return {"ada": self.home_inside, "root": "/root"}.get(user, f"/home/{user}")

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
        if script is None and self.programs.get(name):  # forget_programs would bring it back
            self._sh(f"rm -f /usr/local/bin/{shlex.quote(name)}")
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
                # a program of the real machine at this path reappears from the layer below
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

    def ask_for_password(self, password: str):
        """Let nobody in without this password of ada's, whatever key they have."""
        self.asks = "password"
        hashed = subprocess.check_output(["openssl", "passwd", "-6", password], text=True).strip()
        entry = shlex.quote(f"s|^ada:[^:]*:|ada:{hashed}:|")
        self._sh(f"sed -i {entry} /etc/shadow")
        self._serve()

    def ask_for_codes(self, *codes: str):
        """Let nobody in without one of these codes, each of which works only once."""
        self.asks = "keyboard-interactive"
        rules = "auth requisite pam_exec.so expose_authtok quiet /etc/ssh/check_code\n"
        rules += "".join(
            f"{one} required pam_permit.so\n" for one in ("auth", "account", "session")
        )
        lines = "".join(f"{code}\n" for code in codes)
        for name, text in (
            ("/etc/pam.d/sshd", rules),
            ("/etc/ssh/check_code", CHECK_CODE),
            ("/run/codes", lines),
        ):
            self._sh(f"printf %s {shlex.quote(text)} >{name}; chmod 755 {name}")
        self._serve()

    def set_sshd(self, *lines: str):
        """Serve with these lines in sshd_config, before all others."""
        self.sshd_lines = lines
        self._serve()

    def count_answers(self) -> int:
        """Count the passwords and codes that the host was given, right or wrong."""
        codes = self.folder / "run/codes.log"
        passwords = sum(self.count_logins(f"{kind} password") for kind in ("Accepted", "Failed"))
        return passwords + (len(codes.read_text().splitlines()) if codes.exists() else 0)

    def count_logins(self, kind: str) -> int:
        """Count what sshd logged: "Accepted" or "Failed"."""
        return (self.folder / "run/sshd.log").read_text().count(f"{kind} ")

    def _forget_settings(self):
        self.offset, self.host_key, self.asks = "", 0, ""
        self.sshd_lines: tuple[str, ...] = ()

    def clean(self):
        """Bring the host back to how it was when it started, except for the homes."""
        if not self.running:
            self.stop()
            self.start()
        ended = self._ask("clear")
        if self.programs:
            self.forget_programs()
        if (self.home_inside, self.shell) != ("/home/ada", "/bin/bash"):
            self.account("/home/ada", "/bin/bash")
        if self.offset or self.host_key or self.asks or self.sshd_lines or ended:
            self._forget_settings()
            self._serve()
        for own in ("tmp", "var/tmp", "dev/shm"):
            empty(self.folder / own)


class Clock:
    """The time of Python programs that are started with its `env`; tests move it while they run.

    With asleep=True the monotonic clock stands still, as in a computer that sleeps. libfaketime
    0.9.10 cannot do this: every time.sleep of Python fails.
    """

    def __init__(self, host: Host, asleep: bool):
        self.folder, self.hours = host.path("/tmp/clock"), 0
        self.folder.mkdir()
        clocks = ["time"] if asleep else ["time", "monotonic"]
        (self.folder / "sitecustomize.py").write_text(MOVED.format(clocks=clocks))
        self.env = {"PYTHONPATH": "/tmp/clock"}
        self.forward(0)

    def forward(self, hours: int):
        self.hours += hours
        draft = self.folder / "new"
        draft.write_text(str(self.hours))
        draft.replace(self.folder / "hours")


def address(of: str, towards: str) -> str:
    """Return the address of a host on the line to a neighbour."""
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
