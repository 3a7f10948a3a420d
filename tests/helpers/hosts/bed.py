"""A bed: hosts that are started and stopped together, one of them a laptop."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from helpers.hosts.host import CACHE, Host

KEYS = ("id_ed25519", "id_bob")  # the laptop's, for ada and for bob


class Bed:
    """Has its hosts as attributes; a subclass names them, prepares their homes and wires them."""

    KIND = Host
    NAMES: tuple[str, ...] = ()  # in the order in which they are started

    def __init__(self, folder: Path, uv: str, uv_cache: str, python: str):
        self.folder, self.uv, self.uv_cache, self.python = Path(folder), uv, uv_cache, python
        Path(uv_cache).mkdir(parents=True, exist_ok=True)
        self.all = [self.KIND(self, name) for name in self.NAMES]
        for host in self.all:
            setattr(self, host.name, host)
        try:
            self._prepare()
            for host in self.all:
                host.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Stop all hosts; the lines between them vanish with their networks."""
        for host in reversed(self.all):
            host.stop()

    def _prepare(self):
        """Keys, and the homes of the accounts."""
        raise NotImplementedError

    def _unwire(self, host: Host):
        """Remove the ends of the lines to a host that was stopped, which Linux does only later."""
        for other in self.all:
            if other is not host and other.running:
                other._sh(f"ip link del {host.name} 2>/dev/null || true")

    def _wire(self, host: Host):
        """Connect a host that was just started."""
        raise NotImplementedError

    def _make_keys(self, folder: Path, *hosts: str):
        """Make the keys of the accounts, and of these hosts."""
        for name in (*KEYS, *hosts):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name]
            subprocess.run(words, check=True)

    def _make_home(self, home: Path, python: str = ""):
        """Make the home of a new account; with `python`, it has the tests' uv and that Python."""
        shutil.copytree("/etc/skel", home)
        home.chmod(0o755)
        if python:
            (home / ".config/uv").mkdir(parents=True)
            (home / ".config/uv/uv.toml").write_text(uv_settings())
            (home / ".local/bin").mkdir(parents=True)
            (home / ".local/bin/uv").symlink_to("/usr/lib/bed/uv")
            (home / ".local/bin/python3.11").symlink_to(python)

    def _settle_laptop(self, keys: Path, known: dict[str, str]):
        """Give the laptop its keys, its git user, and the hosts that it knows by these keys."""
        (self.laptop.home / ".ssh").mkdir(mode=0o700)
        for name in KEYS:
            shutil.copy(keys / name, self.laptop.home / ".ssh")
            shutil.copy(keys / f"{name}.pub", self.laptop.home / ".ssh")
        public = {host: (keys / f"{key}.pub").read_text().split() for host, key in known.items()}
        lines = "".join(f"{host} {kind} {key}\n" for host, (kind, key, _) in public.items())
        self.laptop.write(".ssh/known_hosts", lines, 0o600)
        settings = "[user]\n\tname = Ada\n\temail = ada@example.org\n"
        # homes are copies, in which git is to recognize its files by time and size
        self.laptop.write(".gitconfig", f"{settings}[core]\n\tcheckStat = minimal\n")


def uv_settings() -> str:
    # the cache is another mount there, and a link cannot lead out of a mount
    settings = f'link-mode = "copy"\noffline = true\ncache-dir = "{CACHE}"\n'
    wheels = os.environ.get("PIP_FIND_LINKS", "")
    if wheels.startswith("/"):
        settings += f"find-links = {json.dumps(wheels.split())}\n"
    return settings
