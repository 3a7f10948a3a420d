"""The checks that concern the machine alone: GPUs, disks, clock, logout, terminal; as values."""

import re

from lab.doctor.facts import FAILED, OK, UNKNOWN, WARNING, Check, Facts, first_line

GIGA, MEGA = 1 << 20, 1 << 10  # of the kilobytes that df counts in


def check_gpus(there: Facts) -> list[Check]:
    """The GPUs, what is in use of them, and by whom."""
    state, _, said = first_line(there, "gpus").partition(" ")
    if state == "none":
        advice = "no nvidia-smi: jobs run on the CPU; if there is a GPU, its driver is missing"
        return [Check("GPUs", "", "none seen", WARNING, advice)]
    if state in ("hung", "broken"):
        causes = {
            "hung": "nvidia-smi gives no answer in 8 s: the driver hangs",
            "broken": f"nvidia-smi fails ({said.rstrip('.')}): the driver is broken",
        }
        fix = "ask its administrator, a restart of the machine often fixes it"
        return [Check("GPUs", "", state, FAILED, f"{causes[state]}: {fix}")]
    if state != "ok":
        return [Check("GPUs", "", "?", UNKNOWN)]
    cards = [line[4:].split("|", 4) for line in there["gpus"] if line.startswith("gpu ")]
    checks, free, holders = [], 0, []
    for index, who, used, total, name in (card for card in cards if len(card) == 5):
        known = used.isdigit() and total.isdigit()
        memory = f"{used} of {total} MiB" if known else "memory unknown"
        use = who.replace(" ", ", ") or ("free" if known else "no process seen")
        free += not who and known
        holders += [f"GPU {index} by {use}"] if who else []
        checks.append(
            Check(f"GPU {index}", "", f"{name}, {memory}, {use}", OK if known else UNKNOWN)
        )
    verdict, advice = OK, ""
    if not free:
        held = f" ({'; '.join(holders)})" if holders else ""
        verdict = WARNING if holders else UNKNOWN
        advice = f"no GPU is known to be free{held}: lab run --queue waits for one"
    return [Check("GPUs", "", f"{free} of {len(cards)} free", verdict, advice), *checks]


def check_disks(there: Facts) -> list[Check]:
    """Room for files, bytes and inodes, where the project and its data are; the quota, if any."""
    checks = []
    for name, fact, place in (("disk", "disk", "folder"), ("disk of data", "data_disk", "data")):
        lines = there.get(fact, [])
        found = [re.fullmatch(r"(\d+) (\d+)", line) for line in lines[:2]]
        where = first_line(there, place)
        writable = lines[-1] if lines else ""
        if writable.startswith("not writable"):
            cause = f"{writable.removeprefix('not writable: ')} cannot be written"
            fix = f"remove files, choose another {place} in machines.toml, or ask for the right"
            checks.append(Check(name, "", "not writable", FAILED, f"{cause}: {fix}"))
            continue
        if len(found) < 2 or not found[0]:
            checks.append(Check(name, "", "?", UNKNOWN))
            continue
        total, free = int(found[0][1]), int(found[0][2])
        inodes, left = (int(found[1][1]), int(found[1][2])) if found[1] else (0, 0)
        verdict = OK
        if free < 5 * GIGA or free * 20 < total or (inodes and left * 20 < inodes):
            verdict = WARNING
        if free < 500 * MEGA or (inodes and left < 1000):
            verdict = FAILED
        full = f"{free / GIGA:.1f} GiB free" + (f", {left} inodes" if inodes else "")
        fix = "remove what is not needed (old jobs/ and envs/ of the project), or ask for room"
        said = "" if verdict == OK else f"the disk of {where} is nearly full ({full}): {fix}"
        checks.append(Check(name, "", full, verdict, said))
    quota = there.get("quota", [])
    if quota:
        limits = any(re.search(r"\s\d+\s+\d+", line) for line in quota)
        word, verdict, advice = "is kept" if limits else "none", OK, ""
        if any(re.search(r"\d\*", line) for line in quota):
            fix = "remove files, or ask for more; quota -s there shows it"
            word, verdict = "used up", FAILED
            advice = f"the quota of this user is used up: {fix}"
        elif quota[-1] != "code 0":  # it hangs, as with a file server that is away
            word, verdict = "?", UNKNOWN
        checks.append(Check("quota", "", word, verdict, advice))
    return checks


def check_clock(there: Facts) -> list[Check]:
    """The difference of the clocks, which the doctor measured: seconds, and how sure that is."""
    try:
        difference, sure = (float(word) for word in first_line(there, "difference").split())
    except ValueError:
        return [Check("clock", "", "?", UNKNOWN)]
    wrong = abs(difference) > 5 + sure
    advice = f"the clocks differ by {abs(difference):.0f} s, so the times of records mislead"
    fix = "both want a time service, such as chrony or ntp"
    word = f"{difference:+.1f} s"
    verdict = WARNING if wrong else OK
    return [Check("clock", "", word, verdict, f"{advice}: {fix}" if wrong else "")]


def check_sessions(here: Facts, there: Facts) -> list[Check]:
    """What becomes of jobs at logout, and whether this terminal can be drawn on there."""
    checks = []
    words = {}
    for line in there.get("logout", []):
        name, _, value = line.partition(" ")
        words[name] = value.rpartition("=")[2].removeprefix("b ").strip()
    if words:
        no, yes = ("no", "false"), ("yes", "true")
        kills, lingers = words.get("kills", ""), words.get("lingers", "")
        verdict = OK if kills in no or lingers in yes else FAILED if kills in yes else UNKNOWN
        told = {OK: "jobs stay", FAILED: "jobs are killed", UNKNOWN: "?"}[verdict]
        cause = "logind there kills all processes of a user who logs out (KillUserProcesses)"
        fix = f"loginctl enable-linger there, or {first_line(here, 'lab')} doctor --fix"
        advice = f"{cause}: {fix}" if verdict == FAILED else ""
        checks.append(Check("at logout", "", told, verdict, advice))
    term = first_line(here, "term")
    if term != "?":
        known = first_line(there, "terminal")
        verdict = {"yes": OK, "no": WARNING}.get(known, UNKNOWN)
        cause = f"the machine does not know the terminal {term}, lab attach takes a plainer one"
        fix = f"{first_line(here, 'lab')} doctor --fix sends its description"
        advice = f"{cause}: {fix}" if verdict == WARNING else ""
        word = {"yes": "known", "no": "not known"}.get(known, "?")
        checks.append(Check("terminal", term, word, verdict, advice))
    return checks
