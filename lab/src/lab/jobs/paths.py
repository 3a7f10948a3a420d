"""What both sides of a job agree on: the files in its folder, and the line that tells its state.

FORMAT counts every change of either that an older lab would misread. It stands in job.json, and
describe in jobs.sh prints FIELDS in this order, separated by tabs.
"""

from pathlib import PurePosixPath

FORMAT = 1
FIELDS = ("id", "code", "start", "end", "alive", "stopped", "gpus", "phase", "spec")


class JobPaths:
    """Every file of one job, in its folder jobs/<id>/ on the machine."""

    def __init__(self, folder: str, id: str):
        self.folder = PurePosixPath(folder, "jobs", id)
        self.spec = self.folder / "job.json"  # one line: what lab run was told; format first
        self.settings = self.folder / "job.sh"  # the same for runner.sh, as shell variables
        self.code = self.folder / "code"  # the checkout of its commit
        self.output = self.folder / "output.log"
        self.once = self.folder / "once"  # made by the runner that carries the job
        self.pid = self.folder / "pid"  # PID BOOT BORN START HOST of the runner
        self.phase = self.folder / "phase"  # "running", or "queued" and what it waits for
        self.waits = self.folder / "waits"  # there while it waits for GPUs
        self.gpus = self.folder / "gpus"  # indices of those that it has
        self.refused = self.folder / "refused"  # why it did not start
        self.stop = self.folder / "stop"  # somebody has asked for its end
        self.exit_code = self.folder / "exit_code"  # CODE END, written when it has ended


def state_line(line: str) -> dict[str, str]:
    """The fields of one line of describe; ValueError if it is none."""
    return dict(zip(FIELDS, line.split("\t", len(FIELDS) - 1), strict=True))
