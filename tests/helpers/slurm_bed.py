"""The Slurm bed: laptop, two login nodes, controller and two compute nodes, each in namespaces.

    laptop .1 ---+--- login1 .11, login2 .12 (behind one name: cluster)
                 +--- ctl .10 (slurmctld; the bridge is here)
                 +--- n1 .21, n2 .22 (slurmd, 8 CPUs and 2 GPUs each)

Login and compute nodes share /home and /srv. The accounts there are `ada` and `bob`, ordinary
users, as on the laptop. There is no accounting, no munge and no cgroup.
"""

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from helpers.hosts.bed import Bed
from helpers.hosts.host import ADA, BOB, KEY_EXCHANGE, SPACES, Host
from helpers.laptop import Laptop, find_programs, make_small_project

NETWORK = "198.18.0"
NUMBERS = {"laptop": 1, "ctl": 10, "login1": 11, "login2": 12, "n1": 21, "n2": 22}
SHARED = ("/home", "/srv")
PROGRAMS = ["slurmctld", "slurmd", "sbatch", "squeue", "srun"]
CONF = """
ClusterName=bed
SlurmctldHost=ctl
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation=/run/slurmctld
SlurmdSpoolDir=/run/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=/run/slurmctld.log
SlurmdLogFile=/run/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
KillWait=5
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=5,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=n[1-2] CPUs=8 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes=n[1-2] Default=YES MaxTime=02:00:00 PriorityTier=1 GraceTime=10
PartitionName=urgent Nodes=n[1-2] MaxTime=02:00:00 PriorityTier=10
PartitionName=closed Nodes=n[1-2] MaxTime=02:00:00 PriorityTier=1 AllowAccounts=physics
"""


def missing_programs() -> list[str]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [name for name in PROGRAMS if not shutil.which(name, path=path)]


class Node(Host):
    """One host of the Slurm bed."""

    @property
    def is_laptop(self) -> bool:
        return self.name == "laptop"

    def path(self, inside: str) -> Path:
        if not self.is_laptop and inside.startswith(SHARED):
            return self.bed.folder / "shared" / inside.lstrip("/")
        return super().path(inside)

    def _known_hosts(self) -> str:
        logins = "".join(f"{NETWORK}.{NUMBERS[name]} cluster\n" for name in ("login1", "login2"))
        if self.is_laptop:
            return logins
        return "".join(f"{NETWORK}.{number} {name}\n" for name, number in NUMBERS.items())

    def _preparation(self) -> str:
        if self.is_laptop:
            return super()._preparation()
        conf = shlex.quote(CONF)
        return f"""
            {super()._preparation()}
            mkdir -p /etc/slurm /run/slurmctld /run/slurmd
            printf %s {conf} >/etc/slurm/slurm.conf
            echo 'NodeName=n[1-2] Name=gpu File=/dev/shm/gpu[0-1]' >/etc/slurm/gres.conf
            echo 'CgroupPlugin=cgroup/v1' >/etc/slurm/cgroup.conf
            for n in 0 1; do mknod /dev/shm/gpu$n c 1 3 && chmod 666 /dev/shm/gpu$n; done
            printf '127.0.0.1 localhost\\n%s' {shlex.quote(self._known_hosts())} >/etc/hosts
        """

    def _swapped(self) -> dict[str, str]:
        shared = () if self.is_laptop else SHARED
        return super()._swapped() | {place: f"../shared{place}" for place in shared}

    def _serve(self, fresh=False):
        if self.name == "ctl":
            self._ask("start", "slurmctld", ["slurmctld", "-D"], "/run/slurmctld.pid")
        elif self.name.startswith("n"):
            self._ask("start", "slurmd", ["slurmd", "-D", "-N", self.name], "/run/slurmd.pid")
        elif self.name.startswith("login"):
            settings = f"""
                ListenAddress 0.0.0.0:22
                HostKey /etc/ssh/host_cluster
                AuthorizedKeysFile /etc/ssh/authorized/%u
                PasswordAuthentication no
                KbdInteractiveAuthentication no
                UsePAM no
                UseDNS no
                PrintMotd no
                {KEY_EXCHANGE}
                PidFile /run/sshd.pid
                Subsystem sftp internal-sftp
            """
            self._sh(f"printf %s {shlex.quote(settings)} >/etc/ssh/sshd_config")
            self._sh("chmod 600 /etc/ssh/host_*")
            self._ask(
                "start", "sshd", ["/usr/sbin/sshd", "-D", "-E", "/run/sshd.log"], "/run/sshd.pid"
            )

    def lose_slurm(self):
        """The node's daemon is killed; the processes of its jobs go on."""
        self._sh("pkill -9 -x slurmd")


class SlurmBed(Bed):
    """All hosts of the Slurm bed, and what tests ask of Slurm itself."""

    KIND = Node
    NAMES = ("ctl", "laptop", "login1", "login2", "n1", "n2")

    def _prepare(self):
        keys = self.folder / "keys"
        keys.mkdir()
        self._make_keys(keys, "host_cluster")
        for host in self.all:
            shutil.copytree(keys, host.folder / "keys")
        python = f"/usr/lib/bed/python/bin/{Path(os.path.realpath(self.python)).name}"
        self._make_home(self.laptop.home, python)
        self._settle_laptop(keys, {"cluster": "host_cluster"})
        for name in ("ada", "bob"):
            home, scratch = (self.folder / f"shared{one}/{name}" for one in SHARED)
            self._make_home(home, python)
            scratch.mkdir(parents=True)
        subprocess.run(["chown", "-R", f"{BOB}:{BOB}", home, scratch], check=True)
        for place in SHARED:
            os.chown(self.folder / f"shared{place}", ADA, ADA)  # they are root's there

    def _wire(self, host: Node):
        """Connect a host to the bridge, which is on the controller."""
        if host is self.ctl:
            host._sh(f"ip link add hub type bridge; ip addr add {NETWORK}.10/24 dev hub")
            host._sh("ip link set hub up")
            return
        own, hub = (
            f"/proc/{os.getpid()}/fd/{one._spaces[SPACES.index('net')]}" for one in (host, self.ctl)
        )
        words = f"ip link add line type veth peer name {host.name} netns {hub}".split()
        subprocess.run(["nsenter", f"--net={own}", *words], check=True)
        self.ctl._sh(f"ip link set {host.name} master hub up")
        host._sh(f"ip addr add {NETWORK}.{NUMBERS[host.name]}/24 dev line; ip link set line up")

    # --- Slurm

    def slurm(self, *command: str, user="root", check=True) -> str:
        """What a command of Slurm prints, on a login node."""
        return self.login1.run(*command, user=user, check=check, timeout=60).stdout

    def cut(self):
        """The laptop has no network."""
        self.laptop._sh("ip link set line down")

    def heal(self):
        self.laptop._sh("ip link set line up")


MACHINES = """
[machines.cluster]
ssh = "cluster"
user = "ada"
folder = "/srv/ada/my-experiment"
scheduler = "slurm"
[machines.cluster.slurm]
partition = "gpu"
time = "01:00:00"
mem = "300M"
"""


@dataclass(frozen=True)
class ClusterLaptop(Laptop):
    """The project on the laptop of the Slurm bed."""

    def there(self, name: str) -> Path:
        """A file in the project's folder on the cluster."""
        return self.hosts.login1.path("/srv/ada/my-experiment") / name


def start(folder: Path) -> SlurmBed:
    """The bed in that folder, with the uv and the Python of the tests."""
    return SlurmBed(folder, *find_programs())


def settle(started: SlurmBed, folder: Path) -> ClusterLaptop:
    """Put the small project on the laptop, and set it up on the cluster."""
    small = make_small_project(folder, remote="cluster")
    (small.path / "machines.toml").write_text(MACHINES)
    shutil.move(small.path, started.laptop.home)
    laptop = ClusterLaptop(started.laptop.home / "my-experiment", hosts=started)
    laptop.lab("setup")
    laptop.git("status", "--short")  # as in helpers.laptop: git knows its files again
    return laptop
