"""A fake machine for tests in process: this computer, with its own home and programs.

The scripts are the real ones, run by sh. Only ssh is replaced: it runs its command locally. tmux is
missing, as its server would outlive the test.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.jobs import control, runner_scripts
from lab.jobs.control import Job
from lab.ssh.connection import Connection

SSH = """#!/bin/sh
# runs the command, its last argument; what stands in the file `next` happens instead, once
case "$*" in *"-O exit"*) exit ;; esac
echo called >>'{control}/calls'
for command; do :; done
cd '{home}' || exit 255
HOME='{home}'
export HOME
unset LAB_PROJECT LAB_JOB
if [ -e '{control}/next' ] && mv '{control}/next' '{control}/now' 2>/dev/null; then
    . '{control}/now'
fi
exec sh -c "$command"
"""
# Ends the ids of jobs: lab stop finds processes by them, also those of another worker's tests.
UNIQUE = f"{os.getpid():06}"[-6:].translate(str.maketrans("0123456789", "abcdefghjk"))
PYPROJECT = '[tool.lab]\npython = "3.11"\n'


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.01)


def start_time(pid: int) -> str:
    """When a process started, in the kernel's ticks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


@dataclass(frozen=True)
class FakeMachine:
    """The machine: `folder` is the project's on it, `next_call` changes what ssh does once."""

    connection: Connection
    home: Path
    control: Path

    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    hostname = Path("/proc/sys/kernel/hostname").read_text().strip()

    @property
    def folder(self) -> Path:
        return self.home / "lab/x"

    @property
    def ours(self) -> Path:
        return self.home / ".cache/dl-remote-template"

    def next_call(self, script: str) -> None:
        (self.control / "next").write_text(script)

    def count_calls(self) -> int:
        """How often a command was run so far."""
        log = self.control / "calls"
        return log.read_text().count("called") if log.exists() else 0

    def program(self, name: str, script: str) -> None:
        """Install a program; `exec_real` in its script becomes the one that it hides."""
        path = self.home / ".local/bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = f'PATH=${{PATH#*local/bin:}} exec {name} "$@"'
        path.write_text(f"#!/bin/sh\n{script}\n".replace("exec_real", hidden))
        path.chmod(0o755)

    def job(self, id: str, folder: Path | None = None, **files: str) -> Path:
        """A job's folder with these files, as start.sh leaves it before its runner starts."""
        job = (folder or self.folder) / "jobs" / id
        (job / "code/src").mkdir(parents=True)
        (job / "code/pyproject.toml").write_text(PYPROJECT)
        (job / "code/requirements.txt").touch()
        for name in ("job.json", "output.log", "exit_code.new"):
            (job / name).write_text(f'{{"format": 1, "id": "{id}"}}\n' if "json" in name else "")
        for name, text in files.items():
            (job / name).write_text(text)
        for name, text in runner_scripts.read_scripts().items():
            (job / name).write_text(text)
        return job

    def set_up(self) -> None:
        """Make the environment of an empty lock and the runner's scripts, as lab setup does."""
        scripts = self.folder / "lab" / runner_scripts.make_variables()["scripts"]
        scripts.mkdir(parents=True)
        for name, text in runner_scripts.read_scripts().items():
            (scripts / name).write_text(text)
        environment = self.folder / "envs/3.11-e3b0c44298fc"
        (environment / "bin").mkdir(parents=True)
        (environment / "bin/python").symlink_to("/bin/true")
        (environment / "lab-environment.json").touch()
        self.ours.mkdir(parents=True)
        self.program("tmux", "exit 1")

    def run_job(
        self, id: str, command: str, gpus: str = "0", queue: str = "", folder: Path | None = None
    ) -> Path:
        """Start the runner of a job with that shell command; `folder` is another project's."""
        folder = folder or self.folder
        settings = f"id={id} project=. gpus={gpus} queue={queue} lab=lab\n"
        settings += f"command=\"sh -c '{command}'\" folder={folder} data={folder}/data\n"
        settings += f"ours={self.ours} hostname={self.hostname}\n"
        job = self.job(id, folder, **{"job.sh": settings})
        with (job / "output.log").open("ab") as log:
            environment = {**os.environ, "HOME": str(self.home)}
            environment["PATH"] = f"{self.home}/.local/bin:{environment['PATH']}"
            subprocess.Popen(
                ["setsid", "-f", "sh", str(job / "runner.sh")],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            ).wait()
        return job

    def get(self, id: str) -> Job:
        return control.get(self.connection, id)

    def wait_for(self, id: str) -> Job:
        """Wait for the end of a job; return it. Looking for its file is cheaper than asking."""
        until((self.folder / "jobs" / id / "exit_code").exists)
        return self.get(id)

    def end_all(self) -> None:
        """Kill what the jobs have left."""
        for file in self.folder.parent.glob("*/jobs/*/pid"):
            pid, boot, born, *_ = file.read_text().split()
            with suppress(OSError):
                if boot == self.boot and start_time(int(pid)) == born:
                    os.killpg(int(pid), signal.SIGKILL)
