"""The checks of a login node: Slurm's partitions with their GPUs, and the limits of the user."""

import re

from lab.doctor.facts import FAILED, OK, UNKNOWN, WARNING, Check, Facts, first_line, short_version

PARTITION = re.compile(r"(\S{1,60}) (\d{1,7}) (\d{1,7}) (\d{1,7}) (\d{1,7}) (\S{1,30})")


def check_cluster(remote: Facts) -> list[Check]:
    """Check that Slurm answers; show free and total GPUs of each partition, and the limits."""
    version = first_line(remote, "slurm")
    if version == "?":
        advice = "there is no sbatch: ssh in machines.toml has to name a login node of the cluster"
        return [Check("Slurm", "", "missing", FAILED, advice)]
    found = [PARTITION.fullmatch(line) for line in remote.get("partitions", [])]
    if not any(found):
        cause = "sinfo does not answer, so its controller is away or has no partition for you"
        advice = f"{cause}: wait, or ask the administrator"
        return [Check("Slurm", "", short_version(version), FAILED, advice)]
    checks = [Check("Slurm", "", short_version(version), OK)]
    for one in filter(None, found):
        name, nodes, idle, gpus, free, time = one.groups()
        has = f"{free} of {gpus} GPUs free, " if int(gpus) else "no GPUs, "
        text = f"{has}{idle} of {nodes} nodes idle, time up to {time}"
        busy = int(gpus) and not int(free)
        advice = "no GPU is free now: a job waits in the queue, lab jobs says why" if busy else ""
        verdict = WARNING if busy else OK
        checks.append(Check(f"partition {name}", "", text, verdict, advice))
    limits = remote.get("limits", [])
    if not limits:
        return [*checks, Check("limits", "", "?", UNKNOWN)]
    known = [line for line in limits if line != "none"]
    return [*checks, Check("limits", "", "; ".join(known) or "none known, no accounting", OK)]
