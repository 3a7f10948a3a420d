"""lab wait ends as the job does; lab jobs tells waiting from running, and what it hides."""

import json
from pathlib import Path

import pytest
from fake_machine import UNIQUE, until

from lab.cli.main import main
from lab.ground import project as current
from lab.jobs import control, job_format

IDS = [f"2026010{day}-000000-{UNIQUE}" for day in range(1, 5)]


@pytest.fixture
def there(machine, project):
    """The machine, which is in machines.toml."""
    (project / "machines.toml").write_text('[machines.gpu]\nssh = "worker"\nfolder = "lab/x"\n')
    current.reload()
    machine.program("sleep", '[ "$1" = 1 ] && set -- 0.02\nexec_real')  # who waits looks sooner
    return machine


def run_job(there, id: str, command: str) -> Path:
    """Start a job; once its runner runs, lab wait does not find that it never started."""
    job = there.run_job(id, command)
    until((job / "pid").exists)
    return job


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 7", 7), (r"kill -9 \$\$", 137), (r"kill -15 \$\$", 143)],
)
def test_wait_and_follow_end_with_the_code_of_the_job(there, command, code):
    run_job(there, IDS[0], f"while ! [ -e $HOME/go ]; do sleep 0.02; done; {command}")
    (there.home / "go").touch()
    assert main(["wait", IDS[0]]) == code
    assert main(["logs", "-f", IDS[0]]) == code


def test_wait_waits_for_all_and_ends_with_the_first_code_that_is_not_0(there, capsys):
    for id, code in zip(IDS[:3], (0, 4, 5), strict=True):
        run_job(there, id, f"sleep 0.{code}; exit {code}")
    assert main(["wait", *IDS[:3]]) == 4
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == IDS[:3]


def test_with_any_one_end_is_enough(there, capsys):
    run_job(there, IDS[0], "exec sleep 1000")
    run_job(there, IDS[1], "exit 6")
    assert main(["wait", "--any", *IDS[:2]]) == 6
    assert capsys.readouterr().out.split()[0] == IDS[1]
    assert there.get(IDS[0]).state == "running"


def test_what_was_stopped_or_lost_never_ends_with_0(there):
    job = run_job(there, IDS[0], r"trap \"exit 0\" TERM; echo up; while :; do sleep 0.02; done")
    until(lambda: "up" in (job / "output.log").read_text())
    control.stop(there.connection, IDS[0])
    assert main(["wait", IDS[0]]) == 143
    there.job(IDS[1], pid=f"1 an-earlier-boot 1 1 {there.hostname}\n", phase="running\n")
    assert main(["wait", IDS[1]]) == 1
    assert main(["wait", IDS[2]]) == 1, "there is none"


@pytest.mark.parametrize("command", [["wait"], ["wait", "--any"], ["fetch", "--watch"]])
def test_nobody_waits_for_a_job_of_a_newer_lab_which_cannot_be_read(there, capsys, command):
    newer = json.dumps({"format": job_format.FORMAT + 1, "id": IDS[0]}) + "\n"
    there.job(IDS[0], **{"job.json": newer, "exit_code": "0 5\n"})
    before = there.count_calls()
    code = main([*command, IDS[0]])
    assert there.count_calls() < before + 4
    if command[0] == "wait":
        assert code == 1 and "lab update" in capsys.readouterr().err


def test_lab_jobs_says_how_many_it_hides(there, capsys):
    for number in range(control.NEWEST + 7):
        there.job(f"20260101-0000{number:02}-aaaaaa", exit_code="0 5\n")
    there.job("20250101-000000-aaaaaa", phase="queued for long\n")
    for old, hidden in (("20260101-000006-aaaaaa", 7), ("20260101-000007-aaaaaa", 7)):
        jobs = control.list_jobs(there.connection)
        assert jobs.hidden == hidden
        assert (old in [job.id for job in jobs]) == (old[14] == "7")
    assert jobs[0].id == "20250101-000000-aaaaaa", (
        "what has not ended is always shown, in its order"
    )
    main(["jobs"])
    assert "7" in capsys.readouterr().err.split()
    main(["jobs", "--all"])
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1 + control.NEWEST + 8 and shown.err == ""


def line(**told: str) -> str:
    about = dict.fromkeys(job_format.FIELDS, "") | {"id": IDS[0], "start": "100"} | told
    return "1000\n" + "\t".join(about[name] for name in job_format.FIELDS)


@pytest.mark.parametrize(
    ("told", "waited", "ran"),
    [
        ({"alive": "yes", "phase": "queued for a GPU"}, 900, None),
        ({"alive": "yes", "phase": "running 400"}, 300, 600),
        ({"code": "0", "end": "700", "phase": "running 400"}, 300, 300),
        ({"code": "143", "end": "700", "stopped": "yes", "phase": "queued x"}, 600, None),
        ({"alive": "no", "phase": "running 400"}, 300, None),
        ({"alive": "no", "phase": "queued x"}, None, None),
        ({"code": "0", "end": "700", "phase": "running"}, 0, 600),
    ],
)
def test_waiting_and_running_are_told_apart(told, waited, ran):
    (job,) = control.parse(line(**told))
    assert (job.waited, job.seconds) == (waited, ran)


def test_a_queued_job_keeps_its_name(there):
    spec = json.dumps({"name": "baseline", "command": ["python", "x"]})
    (job,) = control.parse(line(alive="yes", phase="queued GPU 0: job 7", spec=spec))
    assert "baseline" in job.row()["what"] and "GPU 0: job 7" in job.row()["what"]


def test_the_runner_says_since_when_the_command_runs(there):
    job = run_job(there, IDS[0], "exec sleep 1000")
    until(lambda: (job / "phase").exists() and "running" in (job / "phase").read_text())
    assert (job / "phase").read_text().split()[1].isdecimal()
    seen = there.get(IDS[0])
    assert seen.state == "running" and seen.waited is not None and seen.seconds is not None
