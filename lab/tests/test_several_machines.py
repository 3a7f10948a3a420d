"""Several machines at once: each is a row, even one that is down; a job starts on one, once."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_machine import FakeMachine, start_time, until

from lab.cli.main import main
from lab.ground import project as current
from lab.jobs import choice, control, launch
from lab.ssh import machines as machines_file
from lab.ssh.connection import Connection
from lab.ssh.ssh_errors import ConnectionLost, HostUnreachable

NAMES = ("first", "down", "second")
# Runs the command, its last argument, in the home of the host, the one before. With a file `lose`
# there the answer is lost.
SSH = """
case " $* " in
*" -O exit "*) exit ;;
*" -G "*) exec '{ssh}' "$@" ;;
esac
for word; do host=$command command=$word; done
HOME='{homes}'/$host
export HOME
cd || exit 255
unset LAB_PROJECT LAB_JOB
sh -c "$command" >"$HOME/answer.$$" || exit
[ ! -e lose ] || exit 255
cat "answer.$$"
"""
FREE = "0, GPU-a, 4, 40960, NVIDIA A100"
BUSY = "0, GPU-a, 30000, 40960, NVIDIA A100"
REAL_SSH, SETSID = shutil.which("ssh"), shutil.which("setsid")
RAN = ["sh", "-c", "echo ran >>$HOME/ran"]


def card(line: str) -> str:
    """A program nvidia-smi that knows this card."""
    return f"case $* in *query-gpu*) echo '{line}' ;; esac"


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The machines to which a connection was opened, in order; the one called `down` is."""
    names: list[str] = []

    def open_(self):
        names.append(self.name)
        if self.name == "down":
            raise HostUnreachable("down: it is down.")

    monkeypatch.setattr(Connection, "open", open_)
    return names


@pytest.fixture
def three(project, repository, tmp_path, program, opened):
    """Three machines in machines.toml, one of them down, each with a home of its own."""
    homes = tmp_path / "homes"
    program("ssh", SSH.format(homes=homes, ssh=REAL_SSH))
    tables = [f'[machines.{name}]\nssh = "{name}"\nfolder = "lab/x"\n' for name in NAMES]
    (project / "machines.toml").write_text("\n".join(tables))
    current.reload()
    fakes = {}
    for name, machine in machines_file.read_all().items():
        (homes / name).mkdir(parents=True)
        fakes[name] = FakeMachine(Connection(machine), homes / name, Path(tmp_path))
        fakes[name].set_up()
        fakes[name].program("nvidia-smi", card(FREE))
    yield fakes
    for fake in fakes.values():
        fake.end_all()


def start(gpus: str = "1", queue: bool = False):
    """What lab run -m any does with a command that says that it ran."""
    return choice.start_on_any(
        machines_file.read_all().values(),
        gpus,
        queue,
        lambda connection, may_wait: launch.start(connection, RAN, gpus=gpus, queue=may_wait),
    )


def ran(fake: FakeMachine) -> int:
    """Wait for the end of all jobs; return how often the command has run on the machine."""
    for job in fake.folder.glob("jobs/*/job.json"):
        until((job.parent / "exit_code").exists)
    file = fake.home / "ran"
    return len(file.read_text().splitlines()) if file.exists() else 0


# --- looking --------------------------------------------------------------------------------------


def test_lab_jobs_lists_all_machines_and_one_that_is_down_is_a_row(three, opened, capsys):
    for name in ("first", "second"):
        three[name].job(f"20260101-000000-{name[0] * 6}", exit_code="0 5\n", pid="1 b 1 2 h\n")
    assert main(["jobs", "--all-machines"]) == 1
    head, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head[:3] == ["machine", "job", "state"]
    assert [row[0] for row in rows] == list(NAMES)
    assert rows[0][1:3] == ["20260101-000000-ffffff", "finished(0)"]
    assert opened.count("down") == 1, "its time-out is waited for once"
    main(["jobs", "--all-machines", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert [(job["machine"], job["state"]) for job in listed] == [
        ("first", "finished(0)"),
        ("down", "unreachable"),
        ("second", "finished(0)"),
    ]
    assert main(["jobs", "--all-machines", "-m", "first"]) == 2


@pytest.mark.slow
def test_lab_doctor_asks_all_machines_side_by_side(three, opened, capsys):
    three["first"].program("nvidia-smi", "exit 9")
    assert main(["doctor", "--all-machines"]) == 1
    head, *rows = capsys.readouterr().out.splitlines()
    assert [word for word in head.split() if word in NAMES] == list(NAMES)
    assert any(row.startswith("GPUs ") and "1 of 1 free" in row for row in rows)
    assert opened.count("down") == 1
    main(["doctor", "--all-machines", "--json"])
    checks = json.loads(capsys.readouterr().out)
    verdicts = {(check["machine"], check["check"]): check["verdict"] for check in checks}
    assert verdicts["down", "connection"] == "failed"
    assert (verdicts["first", "GPUs"], verdicts["second", "GPUs"]) == ("failed", "ok")
    for more in (["--fix"], ["-m", "first"]):
        assert main(["doctor", "--all-machines", *more]) == 2


# --- starting on any ------------------------------------------------------------------------------


def test_the_first_machine_with_a_free_gpu_gets_the_job(three):
    connection, job = start()
    assert (connection.name, job.gpus) == ("first", "0")
    assert (ran(three["first"]), ran(three["second"])) == (1, 0)


def test_a_machine_without_a_free_gpu_and_one_that_is_down_are_passed_over(three, capsys):
    three["first"].program("nvidia-smi", card(BUSY))
    assert main(["-m", "any", "run", "--", *RAN]) == 0
    assert (ran(three["first"]), ran(three["second"])) == (0, 1)
    (job,) = control.list_jobs(three["second"].connection)
    assert capsys.readouterr().out.startswith(job.id)


def test_any_refuses_slurm_machines_which_have_a_queue_of_their_own(three, project, opened, capsys):
    """`second` is free, but a job there would wait in Slurm's queue, or not, as Slurm likes."""
    file = project / "machines.toml"
    file.write_text(file.read_text() + 'scheduler = "slurm"\n')
    current.reload()
    three["first"].program("nvidia-smi", card(BUSY))
    assert main(["-m", "any", "run", "--", *RAN]) == 1
    said = capsys.readouterr().err
    assert said.startswith("lab: no machine has enough free GPUs: first: ")
    assert said.endswith(". Slurm has its own queue: choose second with -m.\n")
    assert "second" not in opened and ".;" not in said
    file.write_text('[machines.second]\nssh = "second"\nfolder = "lab/x"\nscheduler = "slurm"\n')
    current.reload()
    assert main(["-m", "any", "run", "--", *RAN]) == 2
    assert "second" not in opened


def test_with_any_a_job_that_waits_already_comes_first(three):
    waits = three["first"].ours / f"waits-{FakeMachine.hostname}"
    waits.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as process:
        born = start_time(process.pid)
        (waits / "other").write_text(f"{process.pid} {FakeMachine.boot} {born} other 1\n")
        try:
            assert start()[0].name == "second"
        finally:
            process.kill()


@pytest.mark.slow
def test_where_somebody_was_faster_the_next_machine_gets_the_job(three):
    first = three["first"]
    # start.sh calls setsid for the runner: from then on the GPU is somebody's
    first.program("setsid", f'touch $HOME/taken\nexec {SETSID} "$@"')
    taken = f"if [ -e $HOME/taken ]; then set -- '{BUSY}'; else set -- '{FREE}'; fi"
    query = "case $* in *query-gpu*) ;; *) exit ;; esac"
    first.program("nvidia-smi", f'{query}\n{taken}\necho "$1"')
    connection, _ = start()
    assert connection.name == "second"
    assert (ran(first), ran(three["second"])) == (0, 1)
    assert not list(first.folder.glob("jobs/2*")), "and it has left nothing"


def test_where_it_is_open_whether_the_job_started_it_stays_with_that_machine(three):
    three["first"].program("setsid", f'touch $HOME/lose\nexec {SETSID} "$@"')
    with pytest.raises(ConnectionLost, match="may have started"):
        start()
    assert (ran(three["first"]), ran(three["second"])) == (1, 0)


@pytest.mark.slow
def test_with_queue_it_waits_on_the_first_machine_with_enough_gpus(three):
    for name in ("first", "second"):
        three[name].program("nvidia-smi", card(BUSY))
    with pytest.raises(choice.NoneFree) as caught:
        start()
    assert all(name in str(caught.value) for name in NAMES), "and why"
    with pytest.raises(choice.NoneFree):
        start("2", queue=True)  # no machine ever has two
    two = card(f"{BUSY}\n1, GPU-b, 30000, 40960, NVIDIA A100")
    three["second"].program("nvidia-smi", two)
    connection, job = start("2", queue=True)
    assert (connection.name, job.state) == ("second", "queued")
    assert not list(three["first"].folder.glob("jobs/2*"))
