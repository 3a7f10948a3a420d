"""The verdicts of lab doctor, from facts as text."""

import re

import pytest

from lab.doctor import checks, machine_checks
from lab.doctor.facts import parse_facts

LOCAL = {
    "ssh": ["OpenSSH_9.2p1"],
    "git": ["git version 2.39.5"],
    "rsync": ["rsync  version 3.2.7"],
    "python3": ["3.11.2"],
    "uv": ["uv 0.9.1"],
    "environment": ["3.11-abc"],
    "up to date": ["yes"],
    "torch wanted": ["yes"],
    "torch": ["__version__ = '2.13.0'"],
    "dataset name": ["digits"],
    "dataset": [],
    "lab": ["lab"],
    "socket": ["ok"],
}
REMOTE = {
    "git": ["git version 2.39.5"],
    "rsync": ["rsync  version 3.2.7"],
    "tmux": ["tmux 3.3a"],
    "script": ["script from util-linux 2.38.1"],
    "python3": ["Python 3.11.2"],
    "uv": ["uv 0.9.1"],
    "missing": ["asked"],
    "environment": ["yes"],
    "work": ["yes"],
}


def judge(remote=None, **local):
    """The checks by name, with these facts in place of those above."""
    found = checks.judge({**LOCAL, **local}, {**REMOTE, **(remote or {})})
    return {check.check: check for check in found}


def test_programs_in_order_need_no_advice():
    found = judge()
    for name in checks.PROGRAMS:
        assert (found[name].verdict, found[name].advice) == ("ok", "")
    assert (found["git"].local, found["tmux"].remote) == ("2.39.5", "3.3a")
    assert (found["ssh"].remote, found["tmux"].local) == ("", "")


@pytest.mark.parametrize(
    ("name", "fact", "verdict", "words"),
    [
        ("git", "missing", "failed", "the machine has no git: code cannot be sent"),
        ("git", "git version 2.20.1", "warning", "git 2.20.1, older than 2.25"),
        ("tmux", "broken", "warning", "a tmux that does not start"),
        ("python3", "missing", "ok", "uv will download"),
        ("rsync", "no number here", "unknown", ""),
    ],
)
def test_a_program_is_judged_by_what_it_is_needed_for(name, fact, verdict, words):
    check = judge({name: [fact]})[name]
    assert check.verdict == verdict and words in check.advice


def test_without_python_and_uv_no_environment_can_be_made():
    tools = judge({"python3": ["Python 3.6.8"], "uv": ["missing"]})["environment tools"]
    assert tools.verdict == "failed" and "neither Python 3.8 nor uv" in tools.advice
    assert "environment tools" not in judge({"python3": ["Python 3.6.8"]})
    assert "environment tools" not in judge({"python3": [], "uv": []}), "neither is known"


def test_missing_basic_tools_are_named_and_half_an_answer_is_unknown():
    tools = judge({"missing": ["flock", "awk", "asked"]})["basic tools"]
    assert (tools.verdict, tools.remote) == ("failed", "flock, awk")
    assert judge({"missing": ["flock"]})["basic tools"].verdict == "unknown"


@pytest.mark.parametrize(
    ("up_to_date", "there", "verdict", "fix"),
    [
        ("yes", "yes", "ok", ""),
        ("yes", "no", "warning", "setup"),
        ("no", "yes", "failed", ""),
        ("no", "no", "failed", "setup"),
        ("yes", "?", "unknown", ""),
    ],
)
def test_an_environment_fails_locally_and_warns_remotely(up_to_date, there, verdict, fix):
    check = judge({"environment": [there]}, **{"up to date": [up_to_date]})["environment"]
    assert (check.verdict, check.fix) == (verdict, fix)
    assert ("python3 bootstrap.py" in check.advice) == (up_to_date == "no")
    assert ("lab setup" in check.advice) == (there == "no")


def test_a_missing_working_copy_is_fixed_by_setup_and_nothing_else_is():
    check = judge({"work": ["no"], "git": ["missing"]})["working copy"]
    assert (check.verdict, check.fix) == ("warning", "setup")
    assert judge({"git": ["missing"]})["git"].fix == ""


@pytest.mark.parametrize(
    ("version", "cuda", "gpus", "verdict", "words"),
    [
        ("2.13.0+cu126", "'12.6'", ["ok", "cuda 12.4"], "ok", []),
        ("2.13.0+cu130", "'13.0'", ["ok", "cuda 12.4"], "failed", ["CUDA 13.0", "only 12.4"]),
        ("2.13.0+cpu", "None", ["ok", "cuda 12.4"], "failed", ["without CUDA", "lab setup"]),
        ("2.13.0+cpu", "None", ["none"], "ok", []),
        ("2.13.0+cu126", "'12.6'", ["ok"], "unknown", ["does not say"]),
        ("2.13.0+cu126", "'12.6'", ["hung"], "unknown", []),
    ],
)
def test_the_torch_build_is_compared_with_the_driver(version, cuda, gpus, verdict, words):
    lines = [f"__version__ = '{version}'", f"cuda: Optional[str] = {cuda}", "hip = None"]
    check = judge({"torch": lines, "gpus": gpus})["torch"]
    assert (check.verdict, check.remote) == (verdict, version)
    assert all(word in check.advice for word in words), check.advice


def test_a_torch_for_rocm_is_not_compared_with_nvidia_smi():
    lines = ["__version__ = '2.13.0+rocm6.3'", "cuda = None", "hip = '6.3'"]
    assert judge({"torch": lines, "gpus": ["ok"]})["torch"].verdict == "ok"


def test_what_is_not_known_is_called_unknown_and_never_ok():
    nothing = parse_facts("clock:\nhost:\n w\ngpus:\ndisk:\n")
    seen = {check.check: check.verdict for check in checks.judge({"lab": ["lab"]}, nothing)}
    for name in ("git", "environment", "GPUs", "disk", "clock", "basic tools"):
        assert seen[name] != "ok", name
    assert seen["GPUs"] == seen["disk"] == seen["clock"] == seen["basic tools"] == "unknown"


GIB = 1 << 20  # kilobytes


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        ([f"{100 * GIB} {50 * GIB}", "1000000 500000", "writable"], "ok"),
        ([f"{100 * GIB} {4 * GIB}", "1000000 500000", "writable"], "warning"),
        ([f"{1000 * GIB} {40 * GIB}", "1000000 500000", "writable"], "warning"),  # below 5 %
        ([f"{100 * GIB} {GIB // 4}", "1000000 500000", "writable"], "failed"),
        ([f"{100 * GIB} {50 * GIB}", "1000000 40000", "writable"], "warning"),
        ([f"{100 * GIB} {50 * GIB}", "1000000 900", "writable"], "failed"),
        ([f"{100 * GIB} {50 * GIB}", "0 0", "writable"], "ok"),  # btrfs does not count inodes
        ([f"{100 * GIB} {50 * GIB}", "- -", "not writable: /x (Disk quota exceeded)"], "failed"),
        (["] x", "$(("], "unknown"),
        ([], "unknown"),
    ],
)
def test_a_disk_is_judged_by_bytes_inodes_and_whether_one_can_write(lines, verdict):
    check = machine_checks.check_disk("disk", lines, "/home/ada/lab", "folder", "lab -m gpu")
    assert check.verdict == verdict
    assert bool(check.advice) == (verdict in ("warning", "failed"))
    assert not re.search("remove.*jobs/", check.advice), "they have results that were not fetched"


def test_a_quota_that_is_used_up_fails_and_half_an_answer_is_unknown():
    head = "Disk quotas for user ada (uid 5):"
    quota = machine_checks.check_quota
    over = quota([head, "/dev/sda1 1000* 900 1000 6days 10 0 0", "code 1"])
    assert over.verdict == "failed" and "remove files" in over.advice
    within = quota([head, "/dev/sda1 100 900 1000  10 0 0", "code 0"])
    assert (within.verdict, within.remote) == ("ok", "not used up")
    for lines in (["code 124"], ["/dev/sda1 100 900 1000  10 0 0", "code 1"]):
        assert quota([head, *lines]).verdict == "unknown"


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [("0.2 0.1", "ok"), ("-3600 0.1", "warning"), ("6 3", "ok"), ("", "unknown")],
)
def test_clocks_may_differ_by_five_seconds_and_the_accuracy(difference, verdict):
    (check,) = machine_checks.check_clock({"difference": [difference]})
    assert check.verdict == verdict


@pytest.mark.parametrize(
    ("kills", "lingers", "verdict"),
    [
        ("b true", "Linger=no", "failed"),
        ("b true", "Linger=yes", "ok"),
        ("KillUserProcesses=no", "Linger=no", "ok"),
        ("", "Linger=no", "unknown"),
    ],
)
def test_jobs_go_on_at_logout_if_logind_kills_nobody_or_the_user_lingers(kills, lingers, verdict):
    check = judge({"logout": [f"kills {kills}", f"lingers {lingers}"]})["at logout"]
    assert check.verdict == verdict
    assert check.fix == ("linger" if verdict == "failed" else "")


@pytest.mark.parametrize(
    ("local", "remote", "verdict", "words"),
    [
        (["0123456789ab", "2 10"], ["0123456789ab", "2 10"], "ok", ""),
        (["0123456789ab", "2 10"], ["0123456789ab", "2 9"], "warning", "truncated"),
        (["0123456789ab", "2 10"], ["a" * 12, "2 10"], "warning", "rename one"),
        (["0123456789ab", "2 10"], ["0123456789ab", "too many to count"], "unknown", "count"),
        (["0123456789ab", "2 10"], [], "warning", "lab push-data digits"),
        ([], ["0123456789ab", "2 10"], "ok", ""),
        ([], [], "warning", "README"),
        ([], None, "unknown", ""),
    ],
)
def test_a_dataset_is_compared_by_manifest_and_files(local, remote, verdict, words):
    facts = {} if remote is None else {"dataset": remote}
    check = judge(facts, dataset=local)["data digits"]
    assert check.verdict == verdict and words in check.advice


GIB = 1 << 20  # in kilobytes


@pytest.mark.parametrize(
    ("facts", "check", "verdict", "words"),
    [
        ({"programs": ["yes"]}, "programs in folder", "ok", ""),
        ({"programs": ["no"], "folder": ["/x"]}, "programs in folder", "failed", "noexec"),
        ({}, "programs in folder", "unknown", ""),
        ({"cache": ["/c", "same"]}, "uv's cache", "ok", ""),
        ({"cache": ["/c", "other"]}, "uv's cache", "warning", "UV_CACHE_DIR"),
        ({"cache": ["/c"]}, "uv's cache", "unknown", ""),
        ({"index": ["yes https://x/simple"]}, "package index", "ok", ""),
        (
            {"index": ["no https://x/simple"]},
            "package index",
            "warning",
            "lab setup brings",
        ),
        (
            {"index": ["no https://x/simple"], "python3": ["Python 3.9.2"]},
            "package index",
            "warning",
            "but no Python",
        ),
        ({"index": ["?"]}, "package index", "unknown", ""),
        ({}, "package index", "unknown", ""),
    ],
)
def test_what_would_stop_an_environment_is_said_before(facts, check, verdict, words):
    found = judge(facts)[check]
    assert found.verdict == verdict and words in found.advice


@pytest.mark.parametrize(
    ("free", "there", "verdict"),
    [(9, "no", "ok"), (7, "no", "warning"), (1, "no", "failed"), (1, "yes", "ok")],
)
def test_room_is_compared_with_what_an_environment_needs(free, there, verdict):
    disk = [f"{99 * GIB} {free * GIB}", "0 0"]
    found = judge({"disk": disk, "needed": [str(8 * GIB)], "environment": [there]})
    assert found["room"].verdict == verdict
    assert judge({"disk": ["?"], "needed": ["1"]})["room"].verdict == "unknown"


@pytest.mark.parametrize(
    ("partitions", "check", "verdict", "words"),
    [
        (["gpu 3 1 12 5 2:00:00"], "partition gpu", "ok", ["5 of 12 GPUs", "1 of 3 nodes"]),
        (["gpu 3 0 12 0 2:00:00"], "partition gpu", "warning", ["0 of 12"]),
        (["cpu 3 2 0 0 infinite"], "partition cpu", "ok", ["no GPUs"]),
        ([], "Slurm", "failed", ["22.05"]),
        (["nonsense"], "Slurm", "failed", ["22.05"]),
    ],
)
def test_on_a_login_node_the_partitions_count_and_not_its_own_gpus(
    partitions, check, verdict, words
):
    found = judge({"slurm": ["slurm 22.05.8"], "partitions": partitions, "limits": ["none"]})
    assert found[check].verdict == verdict and all(w in found[check].remote for w in words)
    assert not {"GPUs", "at logout", "tmux", "script"} & {*found}


def test_without_sbatch_a_machine_of_slurm_is_no_login_node():
    assert judge({"slurm": [], "partitions": []})["Slurm"].verdict == "failed"


def test_an_sbatch_that_hangs_is_not_called_missing():
    found = judge({"slurm": []})
    assert found["Slurm"].verdict == "unknown" and "GPUs" not in found


@pytest.mark.parametrize(
    ("quota", "verdict", "words"),
    [
        (f"{5 * GIB} {50 * GIB} 1200 100000", "ok", ["5.0 of 50.0 GiB", "1200 of 100000 inodes"]),
        (f"{5 * GIB} 0 99000 100000", "warning", ["99000 of 100000 inodes"]),
        (f"{50 * GIB} {50 * GIB} 1 0", "failed", ["50.0 of 50.0 GiB"]),
        ("1 0 1 0", "ok", ["no limit"]),
        ("none", "unknown", ["none"]),
        ("-1 x", "unknown", ["?"]),
    ],
)
def test_on_a_login_node_the_quota_of_folder_counts_bytes_and_inodes(quota, verdict, words):
    remote = {"slurm": ["slurm 22.05.8"], "partitions": ["gpu 3 1 12 5 2:00:00"]}
    found = judge({**remote, "folder_quota": [quota]})["quota of folder"]
    assert found.verdict == verdict and all(word in found.remote for word in words)
    state = {"warning": "is nearly used up", "failed": "is used up"}.get(verdict, "")
    assert state in found.advice and ("lab clean" in found.advice) == bool(state)
