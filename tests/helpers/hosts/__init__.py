"""The test bed: laptop, gateway and worker as three hosts on this machine, in Linux namespaces.

    laptop 192.0.2.1 ---- 192.0.2.2 gateway 198.51.100.1 ---- 198.51.100.2 worker

Each host has its own network, mounts, processes, host name, home folders and accounts: `ada` and
`bob`, ordinary users, and `root`. Nothing of it is left when it is closed or when the tests die.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from helpers.hosts.bed import Bed
from helpers.hosts.host import ADA, ADDRESSES, BOB, SPACES, SWAP, Clock, Host, address
from helpers.hosts.nvidia import nvidia_smi
from helpers.once import once, run_pid

__all__ = ["Clock", "Host", "Hosts", "Traffic", "nvidia_smi"]
ELSEWHERE = "192.0.2.77"  # the laptop's address after it was moved
MEMORY = Path("/dev/shm")
PROGRAMS = ["unshare", "nsenter", "setsid", "ip", "ssh", "ssh-keygen", "sshd", "tmux", "rsync"]
PROGRAMS += ["sshfs", "fish", "tcsh", "zsh", "faketime", "ps", "mkfs.btrfs", "curl", "openssl"]


def missing_programs() -> list[str]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [name for name in PROGRAMS if not shutil.which(name, path=path)]


def why_impossible(uv_cache: str) -> str:
    """Return why this machine cannot have a test bed with that cache of uv; empty if it can."""
    if not sys.platform.startswith("linux"):
        return f"the test hosts are Linux namespaces, and this is {sys.platform}"
    if os.geteuid() != 0:
        return "the test hosts are Linux namespaces: only root may make them"
    Path(uv_cache).mkdir(parents=True, exist_ok=True)
    place = MEMORY if _is_roomy(MEMORY) else tempfile.gettempdir()
    words = ["unshare", "-m", "-u", "-i", "-n", "-p", "-f", "--mount-proc"]
    words += [sys.executable, "-I", "-S", SWAP, str(ADA), place, "/mnt", uv_cache, "/mnt"]
    tried = subprocess.run(words, capture_output=True, text=True)
    return f"no test hosts here: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(frozen=True)
class Traffic:
    """What passed the proxy: bytes, round trips, new connections."""

    up: int
    down: int
    round_trips: int  # how often the laptop sent something and waited for the answer
    connections: int


@contextlib.contextmanager
def folder_in_memory(otherwise: Path, memory=MEMORY, name="hosts-of"):
    """A folder in memory, where files are removed quickly (a disk took 1 ms for each).

    Its name has our pid: the next session removes what a killed one has left.
    """
    for left in memory.glob(f"{name}-*"):
        if not Path("/proc", left.name.rpartition("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)  # another worker may be removing it, too
    if not _is_roomy(memory):
        yield otherwise
        return
    folder = memory / f"{name}-{os.getpid()}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def shared_folder(otherwise: Path, memory=MEMORY):
    """A folder in memory that all workers share; removed after the run, or by the next one."""
    folder = memory / f"hosts-of-all-{run_pid()}"
    if not folder.exists() and not _is_roomy(memory):
        folder = otherwise
    folder.mkdir(mode=0o700, exist_ok=True)
    user = folder / f"user-{os.getpid()}"
    user.touch()
    try:
        yield folder
    finally:
        user.unlink()
        if folder != otherwise and not list(folder.glob("user-*")):
            shutil.rmtree(folder, ignore_errors=True)


def _is_roomy(memory: Path) -> bool:
    """Whether there is room for the folders of all workers, and programs in them can run."""
    room = os.statvfs(memory) if memory.is_dir() else None
    roomy = room and room.f_bavail * room.f_frsize > 8 << 30
    return bool(roomy and not room.f_flag & os.ST_NOEXEC)


class Hosts(Bed):
    """The three hosts and the lines between them.

    `shared` holds what all beds of this run have in common.
    """

    NAMES = ("laptop", "gateway", "worker")

    def __init__(self, folder: Path, uv: str, uv_cache: str, python: str, shared=None):
        self.shared = shared or Path(folder) / "shared"
        self._line_changed = False
        super().__init__(folder, uv, uv_cache, python)
        self.snapshot("fresh")

    def _prepare(self):
        keys = self.shared / "keys"
        with once(keys) as ours:
            if ours:
                served = [f"host_{name}_{n}" for name in ("gateway", "worker") for n in range(3)]
                self._make_keys(keys, *served)
        for host in self.all:
            shutil.copytree(keys, host.folder / "keys")
            python = "" if host is self.gateway else os.path.realpath(self.python)
            self._make_home(host.home, python)
            if host is not self.laptop:
                bob = host.path("/home/bob")
                self._make_home(bob)
                for path in (bob, *bob.rglob("*")):
                    os.chown(path, BOB, BOB)
        self._settle_laptop(keys, {"gateway": "host_gateway_0", "worker": "host_worker_0"})

    def _wire(self, host: Host):
        """Connect a host to its running neighbours; the device is named after the other end."""
        by_name = {one.name: one for one in self.all}
        for pair, addresses in ADDRESSES.items():
            one, other = (by_name[name] for name in pair)
            if host not in (one, other) or not (one.running and other.running):
                continue
            ends = ((one, other), (other, one))
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
        self._line_changed = True
        self.laptop._sh("ip link set gateway down")

    def drop(self):
        """Packets vanish in both directions, but the line looks up."""
        self._line_changed = True
        for host, other in ((self.laptop, self.gateway), (self.gateway, self.laptop)):
            far = address(other.name, host.name)
            host._sh(
                f"ip neigh replace {far} lladdr 02:00:00:00:00:99 dev {other.name} nud permanent"
            )

    def move(self):
        """Move the laptop to another network: open connections go silent, new ones work."""
        self._line_changed = True
        self.laptop._sh(f"ip addr flush dev gateway; ip addr add {ELSEWHERE}/24 dev gateway")

    def reset(self):
        """Every connection is closed at once (RST); new ones work."""
        self.gateway._ask("reset")

    def refuse(self):
        """The gateway is down: new connections are refused, and open ones are closed."""
        self.gateway._ask("refuse")

    def delay(self, seconds: float):
        """Delay every piece of a connection by this long, in both directions."""
        self.gateway._ask("delay", seconds)

    def cut_after(self, bytes: int):
        """Reset everything once, after this many more bytes in both directions together."""
        self.gateway._ask("cut_after", bytes)

    def traffic(self) -> Traffic:
        """Return what has passed the proxy since the last call."""
        return Traffic(**self.gateway._ask("count"))

    def heal(self):
        """Repair the line: everything passes, without a delay."""
        for host, other in ((self.laptop, self.gateway), (self.gateway, self.laptop)):
            if self._line_changed and host.running and other.running:
                near, far = address(host.name, other.name), address(other.name, host.name)
                host._sh(f"""
                    ip link set {other.name} up
                    ip addr del {ELSEWHERE}/24 dev {other.name} 2>/dev/null || true
                    ip addr replace {near}/24 dev {other.name}
                    ip neigh del {far} dev {other.name} 2>/dev/null || true
                """)
        self._line_changed = False  # a host that is off gets a new one when it starts
        if self.gateway.running:
            self.gateway._ask("delay", 0)
            self.gateway._ask("cut_after", None)
            self.gateway._ask("accept")

    # --- the homes

    def snapshot(self, name: str):
        """Keep the homes of all hosts as they are now."""
        for host in self.all:
            host.homes.save(name)

    @contextlib.contextmanager
    def shared_snapshot(self, name: str):
        """Yield True if the caller has to prepare the homes for a snapshot that all workers use."""
        folder = self.shared / name
        with once(folder) as ours:
            yield ours
            for host in self.all:
                host.homes.share(name, folder / host.name, ours)

    def restore(self, name: str):
        """Bring the homes back to what they were at that snapshot."""
        for host in self.all:
            host.homes.restore(name)

    def clean(self, snapshot="fresh"):
        """Bring everything back to the beginning, with the homes of that snapshot."""
        for host in self.all:
            host.clean()
        self.heal()
        self.restore(snapshot)
