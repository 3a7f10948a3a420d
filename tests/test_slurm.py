"""Jobs on a real Slurm: started, followed, stopped, continued; every kind of end is told apart."""

import json
import random
import re
import shlex
import shutil
from pathlib import Path

import pytest

from helpers.jobs import job, logged, start, until
from helpers.projects import TEMPLATE
from helpers.terminal import in_terminal, type_in

HELPERS = Path(__file__).with_name("helpers")
LISTENER, EXPERIMENT = HELPERS / "listener.py", HELPERS / "cluster_experiment.py"
QUEUE = "/home/ada/.cache/dl-remote-template/slurm/queue"
ENDLESS = ("sh", "-c", "while :; do sleep 1; done")


@pytest.fixture
def laptop(cluster):
    """The laptop of the Slurm bed; no job of an earlier test is left."""
    shutil.copy(LISTENER, cluster.path)
    yield cluster
    for user in ("ada", "bob"):
        cluster.hosts.slurm("scancel", f"--user={user}", check=False)
    for host in (cluster.hosts.login1, cluster.hosts.login2):
        host.forget_programs()
    until(lambda: not cluster.hosts.slurm("squeue", "-h").strip(), what="an empty queue")


def ask_again(laptop):
    """Let the next command ask Slurm, as one does a minute later."""
    laptop.hosts.login1.path(QUEUE).unlink(missing_ok=True)


def state(laptop, id: str) -> str:
    ask_again(laptop)
    return job(laptop, id)["state"]


def number(laptop, id: str) -> str:
    return laptop.there(f"jobs/{id}/slurm_id").read_text().strip()


def count(laptop, file: str, id: str, *options: str, last=100000, pause=0.1) -> str:
    """Start a command that counts in a file and goes on; return its job."""
    command = ("python", "listener.py", f"/srv/ada/{file}", str(last), str(pause))
    return start(laptop, "--name", id, "--gpus", "0", *options, "--", *command)


def points(laptop, file: str) -> list[tuple[int, str, int]]:
    """Return the attempt, the node and the number of each point."""
    path = laptop.hosts.login1.path(f"/srv/ada/{file}")
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(a), node, int(n)) for a, node, n in map(str.split, lines)]


def attempts(laptop, file: str) -> set[int]:
    return {attempt for attempt, _, _ in points(laptop, file)}


def test_a_run_is_started_by_slurm_and_everything_of_it_comes_home(laptop):
    hosts = laptop.hosts
    rc = hosts.login1.path("/home/ada/.bashrc")
    before = rc.read_text()
    local = laptop.path / "machines.local.toml"
    profile = hosts.login1.path("/home/ada/.bash_profile")
    try:
        # what a login sets would be obeyed by sbatch, and by srun in the job
        rc.write_text(
            "export SLURM_NTASKS=7 SBATCH_PARTITION=nowhere SLURM_CPU_BIND=none\n" + before
        )
        profile.write_text("module() { export LOADED=$2; }\nexport SLURM_NTASKS=9\n")
        local.write_text('[machines.cluster]\nprelude = ["module load cuda"]\n')
        words = ("run", "--follow", "--gpus", "2", "--no-record", "--", "sh", "-c", SHOW)
        done = laptop.run("lab", *words, timeout=200)
    finally:
        rc.write_text(before)
        profile.unlink()
        local.unlink()
    shown = dict(re.findall(r"^(\w+)=(.*)$", done.stdout, re.M))
    assert shown["LOADED"] == "cuda" and shown["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert shown["HOST"] in ("n1", "n2") and shown["LAB_ATTEMPT"] == "1"
    run = laptop.lab("run", "--follow", "with", "lr=0.5", timeout=200)
    assert "step 3 of 3" in run
    laptop.lab("fetch")
    (about,) = json.loads(laptop.lab("runs", "--json"))
    assert about["state"] == "COMPLETED" and about["machine"] in ("n1", "n2")
    # nothing of ours stays alive on a login node
    for host in (hosts.login1, hosts.login2):
        until(lambda host=host: not lines_of(host), what="an empty login node")


SHOW = "HOST=$(cat /proc/sys/kernel/hostname); export HOST; env"


def lines_of(host) -> list[str]:
    """The processes there, without the connection that is kept open."""
    return [line for _, _, line in host.processes() if not line.startswith("sshd: ada")]


def commands(text: str) -> list[str]:
    """The lines of the sh blocks."""
    return "".join(re.findall(r"```sh\n(.*?)```", text, re.S)).splitlines()


def test_the_commands_of_the_readme_and_of_the_document_work_as_they_stand_there(laptop):
    readme = (TEMPLATE / "README.md").read_text("utf-8")
    readme = readme.split("## The same behind Slurm\n")[1].split("\n## ")[0]
    document = (TEMPLATE / "docs/slurm.md").read_text("utf-8")
    lines = [*commands(readme), *commands(document)]
    assert len(lines) > 10
    for line in lines:
        words = shlex.split(line.replace("with smoke", "with quick"))
        done = laptop.run(*words, check=False, timeout=300)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        if line == "lab doctor":
            assert "2:00:00" in done.stdout and "4 of 4 GPUs free" in done.stdout


def test_what_is_refused_or_would_never_start_is_one_line_and_leaves_nothing(laptop):
    for words, told in (
        (("--time", "3:00:00"), ("time=3:00:00", "02:00:00")),
        (("--slurm", "partition=foo"), ("partition=foo", "gpu (", "urgent (")),
        (("--slurm", "partition=closed", "--slurm", "account=ada"), ("account=ada", "physics")),
        (("--gpus", "9"), ("gres=gpu:9", "gpu:2")),
        (("--slurm", "cpus-per-task=9"), ("cpus-per-task=9", "8 CPUs")),
    ):
        done = laptop.lab("run", *words, "--", "true", check=False)
        *_, said = done.stderr.splitlines()
        assert done.returncode == 1 and said.startswith("lab: "), done.stderr
        assert all(word in said for word in told), said
    assert not laptop.hosts.slurm("squeue", "-h").strip()


def test_a_lost_answer_of_sbatch_leaves_one_job_that_is_known(laptop):
    program = '#!/bin/sh\n/usr/bin/sbatch "$@" >/dev/null\necho Socket timed out >&2\nexit 1\n'
    for host in (laptop.hosts.login1, laptop.hosts.login2):
        host.program("sbatch", program)
    id = start(laptop, "--", *ENDLESS)
    assert laptop.hosts.slurm("squeue", "-h", "-n", f"lab-{id}", "-o", "%A").split() == [
        number(laptop, id)
    ]


def test_a_shell_is_on_a_compute_node_and_nothing_of_it_stays_on_a_login_node(laptop):
    shell = in_terminal(laptop, "lab shell")
    show = "echo $(cat /proc/sys/kernel/hostname) $CUDA_VISIBLE_DEVICES ${VIRTUAL_ENV##*/}"
    type_in(shell, f"{show}; exit 7\n")
    shown, _ = shell.communicate(timeout=100)
    assert shell.returncode == 7 and re.search(r"^n[12] [01] \.venv\r?$", shown, re.M), shown
    until(lambda: not lines_of(laptop.hosts.login1), what="an empty login node")


def test_two_login_nodes_behind_one_name_are_one_machine(laptop):
    laptop_host = laptop.hosts.laptop
    id = count(laptop, "two", "two")
    until(lambda: points(laptop, "two"))
    known = laptop_host._sh("cat /etc/hosts")
    try:
        laptop_host._sh("sed -i '/ cluster$/{/0.11 /d}' /etc/hosts")
        laptop_host._ask("clear")  # and with it the connection to the first
        assert state(laptop, id) == "running"
        assert (
            "login2"
            in laptop.run("lab", "run", "--time", "9:00:00", "--", "true", check=False).stderr
        )
        assert laptop.lab("stop", id).split() == [id, "stopped"]
    finally:
        laptop_host._sh(f"cat >/etc/hosts <<'END'\n{known}END")
    assert laptop.lab("wait", id, check=False).returncode == 143


def test_a_stop_ends_what_waits_what_runs_and_what_was_requeued(laptop):
    waits = start(laptop, "--slurm", "begin=now+1hour", "--", "true")
    runs = start(laptop, "--gpus", "0", "--", *ENDLESS)
    again = count(laptop, "again", "again")
    until(lambda: points(laptop, "again"))
    laptop.hosts.slurm("scontrol", "requeue", number(laptop, again))
    for id in (waits, again, runs):
        assert laptop.lab("stop", "--grace", "1", id).split() == [id, "stopped"]
    assert not [
        line
        for line in laptop.hosts.slurm("squeue", "-h", "-o", "%T").split()
        if line != "COMPLETING"
    ]


def test_every_end_is_told_apart_and_what_was_interrupted_goes_on(laptop):
    """Everything at once, as each of these takes Slurm half a minute and more."""
    hosts = laptop.hosts
    # an attempt whose node has failed goes on beside the next one
    failed = count(laptop, "failed", "failed")
    until(lambda: points(laptop, "failed"))
    _, lost, _ = points(laptop, "failed")[-1]
    {"n1": hosts.n1, "n2": hosts.n2}[lost].lose_slurm()
    there = ("--gpus", "0", "--slurm", "nodelist=" + {"n1": "n2", "n2": "n1"}[lost])
    limited = count(laptop, "limited", "limited", "--time", "1", *there)
    # where requeue is off, another job goes on
    anew = count(laptop, "anew", "anew", "--time", "1", "--slurm", "no-requeue", *there)
    eater = "x = bytearray(900 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\n"
    eater += "__import__('time').sleep(100)"
    ends = {
        "timeout": start(laptop, *there, "--time", "1", "--", *ENDLESS),
        "cancelled": start(laptop, *there, "--", *ENDLESS),
        "out_of_memory": start(laptop, *there, "--", "python", "-c", eater),
        "finished(3)": start(laptop, *there, "--", "sh", "-c", "exit 3"),
        "killed(SIGKILL)": start(laptop, *there, "--", "sh", "-c", "kill -9 $$"),
    }
    until(lambda: state(laptop, ends["cancelled"]) == "running")
    hosts.slurm("scancel", number(laptop, ends["cancelled"]))
    for file in ("limited", "anew", "failed"):
        until(lambda file=file: 2 in attempts(laptop, file), seconds=300, what=f"{file}, again")
    logged(laptop, failed, "attempt 1 is over")
    for file in ("limited", "anew"):
        numbers = [n for _, _, n in points(laptop, file)]
        assert numbers == [*range(1, len(numbers) + 1)], "no point is missing, none is there twice"
    for expected, id in ends.items():
        until(lambda id=id, wanted=expected: state(laptop, id) == wanted, 300, expected)
    for id in (limited, anew, failed):
        assert laptop.lab("stop", id).split() == [id, "stopped"]
    assert {node for attempt, node, _ in points(laptop, "failed") if attempt == 2} != {lost}
    {"n1": hosts.n1, "n2": hosts.n2}[lost]._serve()
    until(lambda: "idle" in hosts.slurm("sinfo", "-h", "-n", lost, "-o", "%T"), what="the node")


def test_preemption_tells_the_command_in_time_and_it_goes_on(laptop):
    hosts = laptop.hosts
    id = count(laptop, "preempted", "preempted", "--slurm", "exclusive")
    until(lambda: points(laptop, "preempted"))
    _, node, _ = points(laptop, "preempted")[-1]
    urgent = "printf '#!/bin/sh\\nsleep 2\\n' | sbatch -p urgent --exclusive -o /dev/null -w "
    hosts.login1.run("sh", "-c", f"{urgent}{node}", user="bob", cwd="/tmp")
    logged(laptop, id, "attempt 1 writes its checkpoint, told by [15]")
    until(lambda: 2 in attempts(laptop, "preempted"), seconds=200)
    numbers = [n for _, _, n in points(laptop, "preempted")]
    assert numbers == [*range(1, len(numbers) + 1)]
    # lab logs -f goes on from one attempt to the next
    following = laptop.popen("lab", "logs", "-f", id)
    laptop.lab("stop", id)
    shown, _ = following.communicate(timeout=100)
    assert "attempt 1 writes" in shown and "attempt 2 writes" in shown
    assert following.returncode == 143


# --- the test that matters ------------------------------------------------------------------------

READ = """
import json, sys
from lab import project, records
for folder in sorted(project.runs_folder().glob("2*")):
    about = json.loads((folder / "run.json").read_text())
    points = [one[:3] for one in records.points(folder / "metrics.jsonl")]  # without the time
    print(json.dumps([about["job"]["lab"], about["status"], points]))
"""


FEW = {"requeue": 2, "preemption": 1, "connection": 1}
THIRTY = {"requeue": 17, "preemption": 3, "node": 2, "connection": 4}  # and four time limits


@pytest.mark.parametrize(
    ("steps", "limits", "jobs", "cuts"),
    [
        pytest.param(250, 0, 2, FEW, id="few"),
        pytest.param(1200, 4, 4, THIRTY, id="thirty", marks=pytest.mark.cuts),
    ],
)
def test_after_cuts_the_points_are_those_of_a_run_that_nothing_has_cut(
    laptop, steps, limits, jobs, cuts
):
    draw = random.Random(1)
    place = laptop.path / "src/my_experiment/experiment.py"
    before = place.read_text()
    shutil.copy(EXPERIMENT, place)
    with_steps = ("with", f"steps={steps}")
    try:
        whole = start(laptop, "--gpus", "0", *with_steps, "pause=0")
        limited = [start(laptop, "--gpus", "0", "--time", "2", *with_steps) for _ in range(limits)]
        waits = ("until=all-cut",)
        others = [start(laptop, "--gpus", "0", *with_steps, *waits) for _ in range(jobs)]
    finally:
        place.write_text(before)
    kinds = [kind for kind, number in cuts.items() for _ in range(number)]
    draw.shuffle(kinds)
    told, going = [], list(others)
    while len(told) < len(kinds) and going:
        id = going.pop(0)
        if cut(laptop, id, kinds[len(told)], draw):
            told.append(kinds[len(told)])
            going.append(id)
    laptop.there("data/all-cut").touch()
    ids = [whole, *limited, *others]
    codes = laptop.lab("wait", *ids, check=False, timeout=600)
    ended = [laptop.there(f"jobs/{id}/output.log").read_text()[-2000:] for id in ids]
    assert codes.returncode == 0, (codes.stdout, ended)
    tries = [int(laptop.there(f"jobs/{id}/attempt").read_text()) for id in ids]
    shutil.rmtree(laptop.path / "runs", ignore_errors=True)
    laptop.lab("fetch")
    lines = laptop.run("python", "-c", READ).stdout.splitlines()
    found = {job: (status, points) for job, status, points in map(json.loads, lines) if job in ids}
    assert len([job for job, _, _ in map(json.loads, lines) if job in ids]) == len(ids), "one each"
    assert [step for _, step, _ in found[whole][1]] == [*range(1, steps + 1)]
    for id in ids:
        assert found[id] == found[whole], (id, tries, told)
    assert len(told) == len(kinds), (tries, told)
    assert tries[0] == 1 and all(number > 1 for number in tries[1:]), (tries, told)


def cut(laptop, id: str, kind: str, draw: random.Random) -> bool:
    """Cut a job in the middle of its steps; False if it has ended before."""
    hosts, folder = laptop.hosts, laptop.there(f"jobs/{id}")

    def steps() -> int:
        return (folder / "output.log").read_text().count("step ")

    def runs() -> bool:
        attempt = (folder / "attempt").read_text().strip() if (folder / "attempt").exists() else ""
        return (folder / f"listens.{attempt}").exists() and not (
            folder / f"ended.{attempt}"
        ).exists()

    until(lambda: runs() or (folder / "exit_code").exists(), 200, f"an attempt of {id}")
    enough = steps() + draw.randint(1, 25)
    until(lambda: steps() >= enough or (folder / "exit_code").exists(), 200, f"steps of {id}")
    if (folder / "exit_code").exists():
        return False
    attempt = (folder / "attempt").read_text().strip()
    node = (folder / f"began.{attempt}").read_text().split()[1]
    if kind == "requeue":
        hosts.slurm("scontrol", "requeue", number(laptop, id), check=False)
    elif kind == "preemption":
        urgent = f"printf '#!/bin/sh\n' | sbatch -p urgent --exclusive -o /dev/null -w {node}"
        hosts.login1.run("sh", "-c", urgent, user="bob", cwd="/tmp")
    elif kind == "node":
        lost = {"n1": hosts.n1, "n2": hosts.n2}[node]
        lost.lose_slurm()
        # unless it comes to its end first, the attempt goes on beside the next one
        following = folder / f"listens.{int(attempt) + 1}"
        until(lambda: following.exists() or (folder / "exit_code").exists(), 200, "the next one")
        lost._serve()
    else:
        following = laptop.popen("lab", "logs", "-f", id, env={"LAB_PATIENCE": "2"})
        hosts.cut()
        until(lambda: steps() > enough + 5 or (folder / "exit_code").exists(), 100)
        hosts.heal()
        following.kill()
        following.communicate()
    return True
