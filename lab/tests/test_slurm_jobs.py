"""Jobs of Slurm: what is made of its answers, and when it is asked."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from fake_machine import UNIQUE, until

from lab.browser import notebook
from lab.cli import remote
from lab.cli.main import main
from lab.doctor.facts import parse_facts
from lab.ground.errors import LabError, UsageError
from lab.jobs import control, launch, runner_scripts
from lab.ssh.connection import Connection

ID, OTHER = f"20260101-000000-{UNIQUE}", f"20260101-000001-{UNIQUE}"
ABOUT = "JobId=7 JobState={} Reason={} Requeue=1 Restarts=0 ExitCode={} RunTime=00:01:00"


class Cluster:
    """The fake machine as a login node; its Slurm is what a test says it is."""

    def __init__(self, machine, log: Path):
        self.machine, self.log = machine, log
        for name in ("sbatch", "scancel", "sinfo", "squeue", "sacct", "scontrol", "srun"):
            self.program(name, "exit 1")

    def __getattr__(self, name):
        return getattr(self.machine, name)

    def program(self, name: str, script: str) -> None:
        self.machine.program(name, f'echo "{name} $*" >>{self.log}\n{script}')

    def calls(self, name: str) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(f"{name} ")]

    def queue(self, *lines: str) -> None:
        """Let squeue list these, and forget what it listed before."""
        text = "\n".join(lines)
        self.program("squeue", f"cat <<'END'\n{text}\nEND")
        (self.ours / "slurm/queue").unlink(missing_ok=True)

    def submitted(self, id: str = ID, **files: str) -> Path:
        """A job that was submitted long ago, as number 7."""
        job = self.machine.job(id, **{"submitted": "1000\n", "slurm_id": "7\n", **files})
        for name, text in runner_scripts.read_scripts("slurm").items():
            (job / name).write_text(text)
        os.utime(job / "slurm_id", (1000, 1000))
        return job


@pytest.fixture
def cluster(machine, tmp_path):
    slurm = machine.connection.machine._replace(scheduler="slurm")
    object.__setattr__(machine, "connection", Connection(slurm))
    return Cluster(machine, tmp_path / "slurm.log")


# --- how a job stands -----------------------------------------------------------------------------


def test_slurm_is_asked_once_a_minute_whatever_asks(cluster):
    for id in (ID, OTHER):
        cluster.submitted(id)
    cluster.queue(*(f"{n}|lab-{id}|RUNNING|None|N/A|gpu" for n, id in enumerate((ID, OTHER), 7)))
    for _ in range(3):
        assert [job.state for job in control.list_jobs(cluster.connection)] == ["queued"] * 2
        control.get(cluster.connection, ID)
    assert len(cluster.calls("squeue")) == 1


def test_a_job_whose_files_say_how_it_ended_needs_no_answer_of_slurm(cluster):
    cluster.submitted(exit_code="3 1100\n", phase="running 1010\n", **{"began.1": "1010 n1 7\n"})
    job = cluster.get(ID)
    assert (job.state, job.waited, job.seconds) == ("finished(3)", 10, 90)
    assert not cluster.calls("squeue") and not cluster.calls("scontrol")


def test_an_unanswered_slurm_makes_a_job_unknown_and_is_not_asked_again_at_once(cluster):
    cluster.submitted()
    for _ in range(2):
        job = cluster.get(ID)
        assert job.state == "unknown" and not job.ended
    assert len(cluster.calls("squeue")) == 1 and not cluster.calls("scontrol")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Resources|2026-11-29T17:00:00", ["gpu: 3 nodes, 1 allocated, 2 down", "17:00:00"]),
        ("PartitionTimeLimit|N/A", ["never starts"]),
        ("QOSMaxJobsPerUserLimit|N/A", ["QOSMaxJobsPerUserLimit"]),
        ("SomethingNew|N/A", ["SomethingNew"]),
    ],
)
def test_why_a_job_waits_is_in_words(cluster, line, words):
    cluster.submitted()
    cluster.queue(f"7|lab-{ID}|PENDING|{line}|gpu")
    cluster.program("sinfo", "echo 'nodes|gpu|1|allocated'; echo 'nodes|gpu|2|down'")
    job = cluster.get(ID)
    assert job.state == "queued" and all(word in job.detail for word in words)
    assert "estimate" in job.detail or "N/A" in line


@pytest.mark.parametrize(
    ("state", "exit", "expected", "code"),
    [
        ("COMPLETED", "0:0", "lost", 1),  # it says nothing of the command
        ("FAILED", "3:0", "finished(3)", 3),
        ("FAILED", "0:9", "killed(SIGKILL)", 137),
        ("TIMEOUT", "0:15", "timeout", 143),
        ("CANCELLED", "0:15", "cancelled", 143),
        ("PREEMPTED", "0:0", "preempted", 1),
        ("NODE_FAIL", "0:0", "node_fail", 1),
        ("OUT_OF_MEMORY", "0:125", "out_of_memory", 253),
        ("SOMETHING", "1:0", "lost", 1),
    ],
)
def test_an_end_that_the_job_could_not_write_is_taken_from_slurm_and_asked_once(
    cluster, state, exit, expected, code
):
    cluster.submitted()
    cluster.queue()
    cluster.program("scontrol", f"echo '{ABOUT.format(state, 'None', exit)}'")
    for _ in range(2):
        job = cluster.get(ID)
        assert job.state == expected and job.ended
        assert job.exit_code == code
    assert len(cluster.calls("scontrol")) == 1


def test_an_end_that_a_shared_file_system_shows_late_is_waited_for(cluster):
    job = cluster.submitted(attempt="1\n")
    cluster.queue()
    completed = f"{ABOUT.format('COMPLETED', 'None', '0:0')} EndTime="
    cluster.program("scontrol", f'echo "{completed}$(date +%Y-%m-%dT%H:%M:%S) x"')
    assert not cluster.get(ID).ended
    (job / "ended.1").write_text("3 1100 \n")
    cluster.program("scontrol", f"echo '{completed}2026-01-01T00:00:00 x'")
    assert cluster.get(ID).state == "finished(3)"
    assert (job / "exit_code").read_text().split()[0] == "3"


def test_a_job_that_was_requeued_meanwhile_has_not_ended(cluster):
    cluster.submitted()
    cluster.queue()
    cluster.program("scontrol", f"echo '{ABOUT.format('PENDING', 'BeginTime', '0:0')}'")
    assert not cluster.get(ID).ended


@pytest.mark.parametrize(("ended", "expected"), [("", "lost"), ("143 1100\n", "killed(SIGTERM)")])
def test_what_slurm_has_forgotten_is_not_guessed(cluster, ended, expected):
    attempt = {"attempt": "2\n", "ended.1": "0 1\n", **({"ended.2": ended} if ended else {})}
    cluster.submitted(**attempt)
    cluster.queue()
    cluster.program("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified'; exit 1")
    job = cluster.get(ID)
    assert job.state == expected and "no longer knows" in job.detail


def test_with_accounting_it_tells_what_the_controller_has_forgotten(cluster):
    cluster.submitted()
    cluster.queue()
    cluster.program("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified'; exit 1")
    cluster.program("sacct", "echo 'CANCELLED by 0|0:15'")
    assert cluster.get(ID).state == "cancelled"


def test_a_job_that_was_submitted_after_slurm_was_asked_is_not_lost(cluster):
    cluster.queue()
    cluster.submitted(OTHER)
    cluster.get(OTHER)
    job = cluster.submitted()
    os.utime(job / "slurm_id")
    assert cluster.get(ID).state == "queued"


# --- stopping -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stop_leaves_its_mark_first_and_looks_again_after_a_requeue(cluster):
    job = cluster.submitted()
    # a requeue beats the first scancel
    cancelled = f"grep -c ^scancel {cluster.log}"
    cluster.program("squeue", f"case $({cancelled}) in 0 | 1) echo '7|PENDING' ;; esac")
    cluster.program("scancel", f"[ -e {job}/stop ]")
    assert control.stop(cluster.connection, ID)[0].state == "stopped"
    assert len(cluster.calls("scancel")) == 2 and cluster.get(ID).ended


def test_a_stop_that_slurm_does_not_answer_says_so_and_leaves_its_mark(cluster):
    job = cluster.submitted()
    with pytest.raises(LabError):
        control.stop(cluster.connection, ID)
    assert (job / "stop").exists() and not (job / "exit_code").exists()


# --- one attempt ----------------------------------------------------------------------------------


def attempt(cluster, job: Path, number: str = "7", near: str = "") -> subprocess.Popen:
    """The batch script of Slurm's job of that number."""
    settings = f"id={job.name} folder={cluster.folder} hostname=x lab=lab\n"
    (job / "job.sh").write_text(settings)
    path = f"{cluster.home}/.local/bin:{os.environ['PATH']}"
    return subprocess.Popen(
        ["sh", "-c", f"{near}. ./slurm_batch.sh"],
        cwd=job,
        env={**os.environ, "PATH": path, "SLURM_JOB_ID": number},
    )


def run_attempt(cluster, job: Path, srun: str, **options) -> None:
    """Run one to its end; `srun` is what it calls, its last argument the attempt's number."""
    cluster.program("srun", f"for n; do :; done\n{srun}")
    assert attempt(cluster, job, **options).wait(60) in (0, 1)


def end(job: Path) -> str:
    return (job / "exit_code").read_text().split()[0] if (job / "exit_code").exists() else ""


def test_an_attempt_writes_its_number_its_start_and_the_end_of_the_job(cluster):
    job = cluster.submitted()
    (job / "exit_code.new").touch()
    run_attempt(cluster, job, "echo 3 1 >ended.$n")
    assert (end(job), (job / "attempt").read_text()) == ("3", "1\n")
    assert (job / "began.1").read_text().split()[1:] == [cluster.hostname, "7"]


def test_of_a_job_that_was_submitted_twice_one_runs(cluster):
    job = cluster.submitted()
    run_attempt(cluster, job, "exit 0", number="8")
    assert not (job / "attempt").exists() and not cluster.calls("srun")


def test_a_stopped_job_does_not_begin(cluster):
    job = cluster.submitted(stop="")
    run_attempt(cluster, job, "exit 0")
    assert end(job) == "143" and not cluster.calls("srun")


GOES_ON = ">listens.$n; echo 75 1 >ended.$n"


@pytest.mark.parametrize(
    ("state", "reason", "goes_on"),
    [
        ("RUNNING", "None", True),
        ("COMPLETING", "TimeLimit", True),
        ("COMPLETING", "None", False),  # somebody has cancelled it
        ("PENDING", "BeginTime", False),  # Slurm itself has requeued it
    ],
)
def test_a_job_that_wrote_a_checkpoint_is_requeued_unless_somebody_cancelled_it(
    cluster, state, reason, goes_on
):
    job = cluster.submitted()
    about = ABOUT.format(state, reason, "0:0")
    cluster.program("scontrol", f"case $1 in show) echo '{about}' ;; esac")
    run_attempt(cluster, job, GOES_ON)
    assert ("scontrol requeue 7" in cluster.calls("scontrol")) == goes_on
    assert end(job) == ""


@pytest.mark.parametrize(
    ("ended", "state", "more", "goes_on", "code"),
    [
        ("143 1 heard", "RUNNING", "PreemptTime=2026-01-01T00:00:00", True, ""),
        ("143 1", "RUNNING", "PreemptTime=2026-01-01T00:00:00", True, ""),
        ("1 1 heard", "RUNNING", "PreemptTime=2026-01-01T00:00:00", True, ""),
        ("143 1 heard", "RUNNING", "PreemptTime=None", True, ""),  # srun of an older attempt, say
        ("143 1", "PENDING", "PreemptTime=None", False, ""),  # Slurm itself has requeued it
        ("143 1", "RUNNING", "PreemptTime=None", False, "143"),  # somebody has killed the command
        ("1 1 heard", "RUNNING", "PreemptTime=None", False, "1"),
    ],
)
def test_a_command_that_slurm_ends_before_it_listens_has_not_ended(
    cluster, ended, state, more, goes_on, code
):
    job = cluster.submitted()
    about = f"{ABOUT.format(state, 'None', '0:0')} {more}"
    cluster.program("scontrol", f"case $1 in show) echo '{about}' ;; esac")
    run_attempt(cluster, job, f"echo {ended} >ended.$n")
    assert ("scontrol requeue 7" in cluster.calls("scontrol")) == goes_on
    assert end(job) == code


@pytest.mark.parametrize(
    ("srun", "code"), [("echo 143 1 heard >ended.$n", "143"), ("exit 3", "3"), ("exit 0", "1")]
)
def test_a_failed_attempt_is_repeated_but_not_forever(cluster, srun, code):
    job = cluster.submitted()
    about = ABOUT.format("RUNNING", "None", "0:0")
    cluster.program("scontrol", f"case $1 in show) echo '{about}' ;; esac")
    for _ in range(2):
        run_attempt(cluster, job, srun)
        assert end(job) == ""
    assert cluster.calls("scontrol").count("scontrol requeue 7") == 2
    run_attempt(cluster, job, srun)
    assert end(job) == code


def test_a_step_that_began_and_left_no_exit_code_has_that_of_srun(cluster):
    job = cluster.submitted()
    cluster.program("scontrol", f"echo '{ABOUT.format('RUNNING', 'None', '0:0')}'")
    run_attempt(cluster, job, ">step.$n; exit 137")
    assert end(job) == "137" and "scontrol requeue 7" not in cluster.calls("scontrol")


@pytest.mark.parametrize("srun", [GOES_ON, "echo 143 1 heard >ended.$n", "exit 1"])
def test_what_slurm_has_requeued_meanwhile_is_left_to_its_next_attempt(cluster, srun):
    """It may be running already, elsewhere, and not have written its number yet."""
    job = cluster.submitted()
    about = ABOUT.format("RUNNING", "None", "0:0").replace("Restarts=0", "Restarts=1")
    cluster.program("scontrol", f"echo '{about}'")
    run_attempt(cluster, job, srun)
    assert end(job) == "" and "scontrol requeue 7" not in cluster.calls("scontrol")


def test_a_requeue_is_not_ended_by_the_signal_that_it_sends(cluster):
    job = cluster.submitted()
    about = ABOUT.format("RUNNING", "None", "0:0")
    # Slurm sends it to all of the batch script's processes
    requeued = "kill -s TERM $PPID $$; echo requeued"
    cluster.program("scontrol", f"case $1 in show) echo '{about}' ;; *) {requeued} ;; esac")
    run_attempt(cluster, job, GOES_ON)
    assert end(job) == "" and not cluster.calls("sbatch")


def run_step(cluster, job: Path, command: str, prelude: str = "") -> str:
    """Run the step of attempt 1, in a process group of its own; return what it wrote of its end."""
    project = job / "code" / "project"
    project.mkdir(parents=True)
    (project / "pyproject.toml").write_text('[tool.lab]\npython = "3.11"\n')
    (project / "requirements.txt").touch()
    told = {"id": job.name, "folder": cluster.folder, "data": cluster.folder / "data"}
    told |= {"hostname": "x", "lab": "lab", "project": "project", "exports": "", "given": ""}
    told |= {"secrets": "", "command": f"sh -c {shlex.quote(command)}"}
    told |= {"prelude": shlex.quote(prelude) if prelude else ""}
    lines = [f"{name}={shlex.quote(str(value))}\n" for name, value in told.items()]
    (job / "job.sh").write_text("".join(lines))
    step = ["sh", str(job / "slurm_step.sh"), "1"]
    subprocess.run(step, start_new_session=True, timeout=60, check=True)
    return (job / "ended.1").read_text()


@pytest.mark.parametrize(
    ("command", "prelude", "ended"),
    [
        ("exit 3", "", ["3"]),
        ("kill -s TERM $$", "", ["143"]),
        ("kill -s TERM 0; sleep 30", "", ["143", "heard"]),
        ("trap 'exit 5' TERM; kill -s TERM 0; sleep 30", "", ["5", "heard"]),
        ("exit 3", "kill -s TERM 0; sleep 30", ["143", "heard"]),
    ],
)
def test_a_step_writes_its_exit_code_and_whether_it_got_a_signal_even_before_its_command_begins(
    cluster, command, prelude, ended
):
    words = run_step(cluster, cluster.submitted(), command, prelude).split()
    assert [words[0], *words[2:]] == ended


def test_a_stop_mark_wins_over_a_requeue(cluster):
    job = cluster.submitted()
    cluster.program(
        "scontrol", f"echo '{ABOUT.format('RUNNING', 'None', '0:0')}'; touch {job}/stop"
    )
    run_attempt(cluster, job, GOES_ON)
    assert end(job) == "143" and "scontrol requeue 7" not in cluster.calls("scontrol")


def test_where_requeue_is_off_the_job_is_sent_anew_and_goes_on_as_another_number(cluster):
    job = cluster.submitted()
    about = ABOUT.format("RUNNING", "None", "0:0")
    cluster.program("scontrol", f"case $1 in show) echo '{about}' ;; *) exit 1 ;; esac")
    cluster.program("sbatch", "env | grep ^SLURM_ || :; echo 8")
    run_attempt(cluster, job, GOES_ON)
    assert (job / "slurm_id").read_text() == "8\n"
    assert "afterany:7" in cluster.calls("sbatch")[0]
    run_attempt(cluster, job, "echo 0 1 >ended.$n", number="8")
    assert (end(job), (job / "attempt").read_text()) == ("0", "2\n")


def test_a_command_that_ends_with_75_and_writes_no_checkpoint_has_failed(cluster):
    job = cluster.submitted()
    run_attempt(cluster, job, "echo 75 1 >ended.$n")
    assert end(job) == "75"


def test_an_older_attempt_decides_nothing(cluster):
    job = cluster.submitted()
    run_attempt(cluster, job, "echo 2 >attempt; echo 1 1 >ended.$n")
    assert end(job) == ""


def test_the_failure_of_a_node_is_no_end_of_the_command(cluster):
    job = cluster.submitted()
    cluster.program("scontrol", f"echo '{ABOUT.format('PENDING', 'BeginTime', '0:0')}'")
    for code in (0, 1):  # of srun, which has lost the node
        run_attempt(cluster, job, f"exit {code}")
    assert end(job) == ""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("slurmstepd-n2: error: Exceeded job memory limit", "out_of_memory"),
        ("I am out of memory limit", "killed(SIGKILL)"),
    ],
)
def test_memory_is_the_cause_where_slurm_says_so(cluster, said, expected):
    job = cluster.submitted()
    run_attempt(cluster, job, f"echo '{said}' >>output.log; echo 137 1 >ended.$n")
    assert cluster.get(ID).state == expected


@pytest.mark.slow
def test_a_signal_that_comes_before_the_command_listens_is_kept_for_it(cluster):
    job = cluster.submitted()
    listening = "trap 'echo told >told; echo 0 1 >ended.1; exit' USR1; touch ready"
    listening += "; until [ -e told ]; do sleep 0.05; done"
    command = f'LAB_JOB={job.name} LAB_ATTEMPT=1 exec sh -c "{listening}"'
    cluster.program("srun", f"cd {job}; {command}")
    process = attempt(cluster, job, near="near=yes; ")
    until((job / "ready").exists)
    assert not (job / "told").exists()
    (job / "listens.1").touch()
    assert process.wait(60) == 0 and (job / "told").exists() and end(job) == "0"


# --- starting -------------------------------------------------------------------------------------


@pytest.fixture
def ready(cluster, repository):
    """A cluster that has the environment of the project, which is a repository."""
    scripts = cluster.folder / "lab" / runner_scripts.make_variables("slurm")["scripts"]
    scripts.mkdir(parents=True)
    for name, text in runner_scripts.read_scripts("slurm").items():
        (scripts / name).write_text(text)
    cluster.program("squeue", "exit 0")
    return cluster


def test_a_submission_whose_answer_was_lost_is_found_by_its_name(ready, monkeypatch):
    monkeypatch.setattr(launch, "new_id", lambda: ID)
    ready.program("squeue", 'case "$*" in *"-t all"*) echo "12|PENDING" ;; esac')
    launch.start(ready.connection, ["true"])
    assert (ready.folder / "jobs" / ID / "slurm_id").read_text() == "12\n"
    assert any(f"-n lab-{ID}" in call for call in ready.calls("squeue"))
    launch.start(ready.connection, ["true"])  # as after a lost connection
    assert len(ready.calls("sbatch")) == 1


def test_a_submission_with_an_unknown_outcome_is_not_repeated(ready, monkeypatch):
    monkeypatch.setattr(launch, "new_id", lambda: ID)
    ready.program("squeue", "exit 1")
    for _ in range(2):
        with pytest.raises(LabError):
            launch.start(ready.connection, ["true"])
    assert len(ready.calls("sbatch")) == 1
    assert (ready.folder / "jobs" / ID).exists()


def test_variables_of_slurm_in_a_profile_reach_neither_sbatch_nor_srun(ready, monkeypatch):
    monkeypatch.setattr(launch, "new_id", lambda: ID)
    for name in ("SLURM_NTASKS", "SBATCH_PARTITION", "SRUN_CPUS_PER_TASK"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/x")
    seen = ready.home / "seen"
    shown = f"env | grep -E '^(SLURM|SBATCH|SRUN)_' | cut -d = -f 1 >>{seen}"
    ready.program("sbatch", f"{shown}; echo 7")
    launch.start(ready.connection, ["true"])
    ready.program("srun", f"{shown}; for n; do :; done; echo 0 1 >ended.$n")
    attempt(ready, ready.folder / "jobs" / ID).wait(60)
    assert set(seen.read_text().split()) == {"SLURM_CONF"}


def test_a_refusal_is_one_line_with_what_was_sent_and_what_there_is(ready):
    ready.program("sbatch", "echo 'sbatch: error: invalid partition specified: foo' >&2; exit 1")
    ready.program("sinfo", "echo 'gpu|1:00:00|2|4|4000|gpu:2'")
    with pytest.raises(LabError) as refused:
        launch.start(ready.connection, ["true"], slurm={"partition": "foo"})
    said = str(refused.value)
    assert "partition=foo" in said and "gpu (" in said and "1:00:00" in said and "\n" not in said
    assert not list((ready.folder / "jobs").glob("2*"))


PARTITION = "PartitionName={} AllowAccounts={} Default={} MaxTime={} State={}"


@pytest.mark.parametrize(
    ("partition", "options", "refused"),
    [
        (("gpu", "ALL", "YES", "02:00:00", "UP"), {"time": "3:00:00"}, True),
        (("gpu", "ALL", "YES", "02:00:00", "UP"), {"time": "2:00:00"}, False),
        (("gpu", "ALL", "YES", "1-00:00:00", "UP"), {"time": "1441"}, True),
        (("gpu", "ALL", "YES", "1-00:00:00", "UP"), {"time": "1-0"}, False),
        (("gpu", "ALL", "YES", "UNLIMITED", "UP"), {"time": "99-00:00:00"}, False),
        (("gpu", "ALL", "NO", "00:10:00", "UP"), {"time": "20"}, False),  # another one is taken
        (("gpu", "ALL", "NO", "00:10:00", "UP"), {"time": "20", "partition": "gpu"}, True),
        (("gpu", "a,b", "YES", "UNLIMITED", "UP"), {"account": "c"}, True),
        (("gpu", "a,b", "YES", "UNLIMITED", "UP"), {"account": "b"}, False),
        (("gpu", "ALL", "YES", "UNLIMITED", "DOWN"), {}, True),
    ],
)
def test_what_slurm_would_accept_and_never_start_is_not_sent(ready, partition, options, refused):
    ready.program("scontrol", f"echo '{PARTITION.format(*partition)}'")
    ready.program("sbatch", "echo 7")
    if refused:
        with pytest.raises(LabError):
            launch.start(ready.connection, ["true"], slurm=options)
    else:
        launch.start(ready.connection, ["true"], slurm=options)
    assert len(ready.calls("sbatch")) == (not refused)


def test_what_a_job_of_slurm_cannot_have_is_refused_before_anything_is_sent(cluster, project):
    for given in ({"interactive": True}, {"secrets": {"A": "b"}}, {"time": "a b"}):
        with pytest.raises(UsageError):
            launch.start(cluster.connection, ["true"], **given)
    plain = Connection(cluster.connection.machine._replace(scheduler=""))
    for given in ({"time": "10"}, {"slurm": {"mem": "1G"}}):
        with pytest.raises(UsageError):
            launch.start(plain, ["true"], **given)
    with pytest.raises(UsageError):
        control.attach(cluster.connection, ID)
    assert cluster.count_calls() == 0


# --- what else there is ---------------------------------------------------------------------------


def test_stopping_a_job_that_has_ended_asks_slurm_nothing(cluster):
    cluster.submitted(exit_code="3 1100\n", **{"began.1": "1010 n1 7\n"})
    job, before = control.stop(cluster.connection, ID)
    assert (job.state, before) == ("finished(3)", True)
    assert not cluster.calls("squeue") and not cluster.calls("scancel")


def test_the_end_of_its_output_is_shown_as_on_any_machine(cluster):
    job = cluster.submitted(exit_code="0 1100\n")
    (job / "output.log").write_text("one\ntwo\n10%\r99%\r100%\nfour\n")
    received: list[bytes] = []
    assert control.write_logs(cluster.connection, ID, received.append, last=2) == 8
    assert b"".join(received) == b"100%\nfour\n"


DF = "printf 'Filesystem x\\n{} 1 1 1 1 /\\n'"
QUOTA = """printf 'Disk quotas for user ada (uid 5):\\n Filesystem blocks quota limit grace\\n'
printf '/dev/sda1 7 0 0 0 7 0 0 0\\nfs:/scratch 2048* 1024 4096 1796000000 30 50 0 0\\n'"""
LFS = "printf '/a/long/path\\n 2048 0 4096 - 30 50 0 -\\n'"


@pytest.mark.parametrize(
    ("programs", "told"),
    [
        ({"df": DF.format("fs:/scratch"), "quota": f"{QUOTA}; exit 1"}, "2048 4096 30 50"),
        ({"df": DF.format("fs:/other"), "quota": QUOTA}, "0 0 0 0"),
        ({"df": DF.format("x"), "quota": "exit 9"}, ""),
        ({"df": DF.format("x"), "stat": "echo lustre", "lfs": LFS}, "2048 4096 30 50"),
    ],
)
def test_the_doctor_asks_for_the_quota_of_folder(cluster, programs, told):
    for name, script in programs.items():
        cluster.program(name, script)
    facts = parse_facts(cluster.connection.run("cluster_facts.sh"))
    assert facts["folder_quota"] == ([told] if told else [])


def test_the_doctor_asks_for_the_limits_that_accounting_has(cluster):
    cluster.program("sacctmgr", "echo 'physics|gpu|normal||gres/gpu=4|2|10|1-00:00:00'")
    facts = parse_facts(cluster.connection.run("cluster_facts.sh"))
    (line,) = facts["limits"]
    assert {"account=physics", "MaxTRES=gres/gpu=4", "MaxJobs=2"} <= {*line.split()}
    assert "GrpTRES" not in line


SHELL = """#!/bin/sh
echo "$PWD|$VIRTUAL_ENV|$LAB_RUNS|$*" >"$HOME/seen"
"""
SRUN = """[ -z "$SLURM_NTASKS" ] || exit 9
while [ "$1" != --pty ]; do shift; done
shift
exec "$@"
"""


def test_a_shell_is_opened_in_an_allocation_with_the_options_of_the_machine(ready, monkeypatch):
    options = {"partition": "long", "nodelist": "n[1-2]", "exclusive": True, "no-requeue": True}
    machine = ready.connection.machine._replace(slurm=options)
    monkeypatch.setattr(remote, "connect", lambda _: Connection(machine))
    monkeypatch.setattr(remote, "require_terminal", lambda *_: None)
    (ready.home / "shell").write_text(SHELL)
    (ready.home / "shell").chmod(0o755)
    monkeypatch.setenv("SHELL", str(ready.home / "shell"))
    monkeypatch.setenv("SLURM_NTASKS", "7")
    work = ready.folder / "work"
    work.mkdir()
    ready.program("sinfo", "echo 'long|gpu:2'")
    ready.program("srun", SRUN)
    assert main(["shell"]) == 0
    (call,) = ready.calls("srun")
    given = call.partition(" --pty ")[0].split()
    assert {"--partition=long", "--nodelist=n[1-2]", "--exclusive", "--gres=gpu:1"} <= {*given}
    assert "--no-requeue" not in given
    seen = (ready.home / "seen").read_text().strip().split("|")
    assert seen == [str(work), f"{work}/.venv", f"{ready.folder}/runs", "-i"]
    assert not ready.calls("tmux")


def test_nothing_of_jupyter_stays_on_a_login_node(cluster, capsys):
    with pytest.raises(UsageError):
        notebook.start(cluster.connection, None)
    assert cluster.count_calls() == 0
    assert capsys.readouterr() == ("", ""), "it does not say that it starts"
