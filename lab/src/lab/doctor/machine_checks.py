"""The checks of the machine alone: GPUs, disks, clock, logout, terminal. Facts in, verdicts out."""

import re

from lab.doctor.facts import (
    FAILED,
    GIB,
    MIB,
    NUMBER,
    OK,
    UNKNOWN,
    WARNING,
    Check,
    Facts,
    Verdict,
    advise_more_room,
    first_line,
    parse_version,
)


def check_gpus(remote: Facts) -> list[Check]:
    """Check for GPUs, and say how much of each is in use, and by whom."""
    state, _, message = first_line(remote, "gpus").partition(" ")
    if state == "none":
        advice = "no nvidia-smi: jobs run on the CPU; if there is a GPU, its driver is missing"
        return [Check("GPUs", "", "none", WARNING, advice)]
    if state in ("hung", "broken"):
        cause = "nvidia-smi did not answer in 8 s, so the driver hangs"
        if state == "broken":
            cause = f"nvidia-smi fails ({message.rstrip('.')}), so the driver is broken"
        advice = f"{cause}: ask the administrator; often a restart of the machine helps"
        return [Check("GPUs", "", state, FAILED, advice)]
    if state != "ok":
        return [Check("GPUs", "", "?", UNKNOWN)]
    gpus = [line[4:].split("|", 4) for line in remote["gpus"] if line.startswith("gpu ")]
    checks, free, busy = [], 0, []
    for index, users, used, total, name in (gpu for gpu in gpus if len(gpu) == 5):
        known = all(re.fullmatch(NUMBER, one) for one in (used, total))
        memory = f"{used} of {total} MiB" if known else "memory unknown"
        use = users.replace(" ", ", ") or ("free" if known else "no process seen")
        if users:
            busy.append(f"GPU {index} by {use}")
        elif known:
            free += 1
        verdict = OK if known else UNKNOWN
        checks.append(Check(f"GPU {index}", "", f"{name}, {memory}, {use}", verdict))
    count = f"{free} of {len(gpus)} free"
    if free:
        return [Check("GPUs", "", count, OK), *checks]
    used_by = f" ({'; '.join(busy)})" if busy else ""
    advice = f"no GPU is known to be free{used_by}: lab run --queue waits for one"
    return [Check("GPUs", "", count, WARNING if busy else UNKNOWN, advice), *checks]


def check_disks(remote: Facts, lab: str) -> list[Check]:
    """Check the free space for the project and its data, and the quota if there is one."""
    checks = [
        check_disk(name, remote.get(fact, []), first_line(remote, key), key, lab)
        for name, fact, key in (("disk", "disk", "folder"), ("disk of data", "data_disk", "data"))
    ]
    checks += [check_execution(remote), check_cache(remote), check_room(remote)]
    quota = remote.get("quota", [])
    return [*checks, check_quota(quota)] if quota else checks


def check_execution(remote: Facts) -> Check:
    """Check that a program in the project's folder can be started."""
    start = first_line(remote, "programs")
    if start != "no":
        known = start == "yes"
        return Check("programs in folder", "", "start" if known else "?", OK if known else UNKNOWN)
    cause = f"the disk of {first_line(remote, 'folder')} is mounted noexec, so no environment works"
    advice = f"{cause}: choose another folder in machines.toml"
    return Check("programs in folder", "", "do not start", FAILED, advice)


def check_cache(remote: Facts) -> Check:
    """Check that uv's cache is on the disk of the project, so that files are linked."""
    path, disk = (remote.get("cache", []) + ["?", "?"])[:2]
    if disk not in ("same", "other"):
        return Check("uv's cache", "", "?", UNKNOWN)
    if disk == "same":
        return Check("uv's cache", "", path, OK)
    cause = f"{path} is on another disk than folder, so every environment is a full copy"
    advice = f"{cause}: set UV_CACHE_DIR in [machines.NAME.env] of machines.toml to a path there"
    return Check("uv's cache", "", "on another disk", WARNING, advice)


def check_room(remote: Facts) -> Check:
    """Check that there is room for an environment, unless there is one of this lock already."""
    found = re.fullmatch(f"({NUMBER}) ({NUMBER})", first_line(remote, "disk"))
    needed = first_line(remote, "needed")
    if not found or not re.fullmatch(NUMBER, needed):
        return Check("room", "", "?", UNKNOWN)
    free, about = int(found[2]), int(needed)
    room = f"{free / GIB:.1f} of about {about / GIB:.1f} GiB"
    if free >= about or first_line(remote, "environment") == "yes":
        return Check("room", "", room if free < about else "enough", OK)
    cause = f"an environment needs more than is free on the disk of {first_line(remote, 'folder')}"
    advice = f"{cause} ({room}): make room, or choose another folder in machines.toml"
    return Check("room", "", room, FAILED if free < about // 4 else WARNING, advice)


def check_index(local: Facts, remote: Facts) -> Check:
    """Check whether packages can be downloaded on the machine."""
    answers, _, address = first_line(remote, "index").partition(" ")
    if answers not in ("yes", "no"):
        return Check("package index", "", "?", UNKNOWN)
    if answers == "yes":
        return Check("package index", "", "answers", OK)
    lab, cause = first_line(local, "lab"), f"{address} does not answer from the machine"
    python = first_line(local, "environment").partition("-")[0]
    advice = f"{cause}: {lab} setup brings the wheels from this computer"
    if parse_version(python) != parse_version(first_line(remote, "python3"))[:2]:
        advice += f", but no Python: if {python} is not on it, setup says how to copy one there"
    return Check("package index", "", "does not answer", WARNING, advice)


def check_disk(check: str, lines: list[str], path: str, key: str, lab: str) -> Check:
    """Check bytes and inodes of one disk, by what facts.sh says; `key` is that of machines.toml."""
    found = [re.fullmatch(f"({NUMBER}) ({NUMBER})", line) for line in lines[:2]]
    if lines and lines[-1].startswith("not writable"):
        cause = f"{lines[-1].removeprefix('not writable: ')} cannot be written"
        fix = f"remove files, choose another {key} in machines.toml, or ask for the permission"
        return Check(check, "", "not writable", FAILED, f"{cause}: {fix}")
    if len(found) < 2 or not found[0]:
        return Check(check, "", "?", UNKNOWN)
    total, free = (int(number) for number in found[0].groups())
    inodes, left = (int(number) for number in found[1].groups()) if found[1] else (0, 0)
    verdict = OK
    if free < 5 * GIB or free * 20 < total or (inodes and left * 20 < inodes):
        verdict = WARNING
    if free < 500 * MIB or (inodes and left < 1000):
        verdict = FAILED
    room = f"{free / GIB:.1f} GiB free" + (f", {left} inodes" if inodes else "")
    fix = advise_more_room(lab)
    advice = "" if verdict == OK else f"the disk of {path} is nearly full ({room}): {fix}"
    return Check(check, "", room, verdict, advice)


def check_quota(lines: list[str]) -> Check:
    """Check what quota -w printed: a number with a star is used up."""
    if any(re.search(r"\d\*", line) for line in lines):
        cause = "the quota of this user is used up (quota -s on the machine)"
        advice = f"{cause}: remove files, or ask for more"
        return Check("quota", "", "used up", FAILED, advice)
    if lines[-1] != "code 0":  # it hung, as when a file server is down
        return Check("quota", "", "?", UNKNOWN)
    limited = any(re.search(r"\s\d+\s+\d+", line) for line in lines)
    return Check("quota", "", "not used up" if limited else "none", OK)


def check_clock(remote: Facts) -> list[Check]:
    """Check the difference of the clocks, which the doctor measured: seconds, and how accurate."""
    try:
        difference, accuracy = (float(word) for word in first_line(remote, "difference").split())
    except ValueError:
        return [Check("clock", "", "?", UNKNOWN)]
    word = f"{difference:+.1f} s"
    if abs(difference) <= 5 + accuracy:
        return [Check("clock", "", word, OK)]
    cause = f"the clocks differ by {abs(difference):.0f} s, so times in records are wrong"
    advice = f"{cause}: run a time service on both, such as chrony"
    return [Check("clock", "", word, WARNING, advice)]


def check_sessions(local: Facts, remote: Facts) -> list[Check]:
    """Check what happens to jobs at logout, and whether the machine knows this terminal."""
    checks, lab = [], first_line(local, "lab")
    values = {}
    for line in remote.get("logout", []):
        name, _, value = line.partition(" ")
        values[name] = value.rpartition("=")[2].removeprefix("b ").strip()
    if values:
        checks.append(check_logout(values.get("kills", ""), values.get("lingers", ""), lab))
    term = first_line(local, "term")
    if term != "?":
        checks.append(check_terminal(term, first_line(remote, "terminal"), lab))
    return checks


def check_logout(kills: str, lingers: str, lab: str) -> Check:
    """Check whether logind kills the processes of a user who logs out, and spares this one."""
    if kills in ("no", "false") or lingers in ("yes", "true"):
        return Check("at logout", "", "jobs go on", OK)
    if kills not in ("yes", "true"):
        return Check("at logout", "", "?", UNKNOWN)
    cause = "logind kills all processes of a user at logout (KillUserProcesses)"
    advice = f"{cause}: run loginctl enable-linger on the machine, or {lab} doctor --fix"
    return Check("at logout", "", "jobs are killed", FAILED, advice, "linger")


def check_terminal(term: str, known: str, lab: str) -> Check:
    """Check whether programs on the machine can draw on this terminal."""
    verdict: Verdict = {"yes": OK, "no": WARNING}.get(known, UNKNOWN)
    if verdict != WARNING:
        return Check("terminal", term, "known" if verdict == OK else "?", verdict)
    cause = f"the machine does not know the terminal {term}, so lab attach uses a simpler one"
    advice = f"{cause}: {lab} doctor --fix sends its description"
    return Check("terminal", term, "unknown", WARNING, advice, "terminal")
