"""The checks of a login node: Slurm's partitions with their GPUs, limits and quota of the user."""

import re

from lab.doctor.facts import (
    FAILED,
    GIB,
    OK,
    UNKNOWN,
    WARNING,
    Check,
    Facts,
    advise_more_room,
    first_line,
    short_version,
)

QUOTA = re.compile(r"(\d{1,15}) (\d{1,15}) (\d{1,15}) (\d{1,15})")
PARTITION = re.compile(r"(\S{1,60}) (\d{1,7}) (\d{1,7}) (\d{1,7}) (\d{1,7}) (\S{1,30})")


def check_cluster(remote: Facts, lab: str) -> list[Check]:
    """Check that Slurm answers; show free and total GPUs of each partition, and the limits."""
    version = first_line(remote, "slurm")
    if version == "?" and "partitions" not in remote:  # it hung
        return [Check("Slurm", "", "?", UNKNOWN)]
    if version == "?":
        advice = "there is no sbatch: ssh in machines.toml has to name a login node of the cluster"
        return [Check("Slurm", "", "missing", FAILED, advice)]
    found = [PARTITION.fullmatch(line) for line in remote.get("partitions", [])]
    if not any(found):
        cause = "sinfo lists nothing, so the controller is down or has no partition for you"
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
    return [*checks, check_limits(remote.get("limits", [])), check_folder_quota(remote, lab)]


def check_limits(lines: list[str]) -> Check:
    """Show the limits that accounting has for the user."""
    if not lines:
        return Check("limits", "", "?", UNKNOWN)
    known = [line for line in lines if line != "none"]
    return Check("limits", "", "; ".join(known) or "none known, no accounting", OK)


def check_folder_quota(remote: Facts, lab: str) -> Check:
    """Check the user's quota on the disk of folder, in bytes and inodes."""
    said = first_line(remote, "folder_quota")
    found = QUOTA.fullmatch(said)
    if not found:
        return Check("quota of folder", "", "?" if said != "none" else "none known", UNKNOWN)
    size, limit, inodes, inode_limit = map(int, found.groups())
    words = [f"{size / GIB:.1f} of {limit / GIB:.1f} GiB"] if limit else []
    words += [f"{inodes} of {inode_limit} inodes"] if inode_limit else []
    used = max(size / limit if limit else 0, inodes / inode_limit if inode_limit else 0)
    verdict = FAILED if used >= 1 else WARNING if used > 0.95 else OK
    room = ", ".join(words) or "no limit"
    fix = advise_more_room(lab)
    state = "used up" if used >= 1 else "nearly used up"
    advice = "" if verdict == OK else f"the quota on the disk of folder is {state} ({room}): {fix}"
    return Check("quota of folder", "", room, verdict, advice)
