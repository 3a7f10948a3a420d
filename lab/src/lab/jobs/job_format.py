"""What this computer and the machine agree on: the line that describes a job, and its version.

FORMAT goes up with every change that an older lab would misread, in FIELDS, which describe() in
jobs.sh prints in this order, separated by tabs, or in the files of the job's folder jobs/<id>/:

    job.json     what lab run was told, in one line; with the format
    job.sh       the same for runner.sh, as shell variables
    code         the checkout of its commit
    output.log   what its command printed
    once         made by its runner: a second one exits
    pid          PID BOOT BORN START HOST of the runner
    phase        "running" and since when, or "queued" and what it waits for
    secrets      a pipe, while it waits for them
    gpus         the indices of its GPUs
    refused      why it did not start
    stop         made by lab stop
    wrote        how many files it left in its checkout; describe() prints "?" if nobody counted
    exit_code    CODE END, written when it has ended
"""

FORMAT = 1
FIELDS = ("id", "code", "start", "end", "alive", "stopped", "gpus", "phase", "wrote", "spec")


def split_line(line: str) -> dict[str, str]:
    """Return the fields of one line of describe. ValueError if it is not such a line."""
    return dict(zip(FIELDS, line.split("\t", len(FIELDS) - 1), strict=True))
