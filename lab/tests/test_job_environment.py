"""A job's environment: what machines.toml, lab run and lab itself give, and which of them wins."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import pytest
from fake_machine import start_time, until

from lab.browser import notebook
from lab.cli import main, remote
from lab.doctor.facts import parse_facts
from lab.ground import project as current
from lab.ground.errors import UsageError
from lab.jobs import launch, runner_scripts
from lab.ssh import framing, variables
from lab.ssh.connection import Connection
from lab.ssh.ssh_errors import ConnectionLost, RemoteError

CARD = "0, GPU-a, 4, 40960, NVIDIA A100"


@pytest.fixture
def run(machine, repository):
    """A function that runs a bash command as a job; the state of the job, and what it printed."""

    def run(*command: str, prelude=(), machine_env=None, **options) -> tuple[str, str, Path]:
        about = machine.connection.machine._replace(prelude=prelude, env=machine_env or {})
        job = launch.start(Connection(about), list(command), **options)
        folder = machine.folder / "jobs" / job.id
        return machine.wait_for(job.id).state, (folder / "output.log").read_text(), folder

    return run


@pytest.mark.slow
def test_what_lab_gives_wins_over_the_profile_in_a_login_shell(machine, run):
    machine.program("nvidia-smi", f"case $* in *query-gpu*) echo '{CARD}' ;; esac")
    profile = "export CUDA_VISIBLE_DEVICES=7 VIRTUAL_ENV=/opt/conda PATH=/opt/conda/bin:$PATH A=1\n"
    for name in (".profile", ".bashrc"):
        (machine.home / name).write_text(profile)
    (machine.home / ".bash_env").write_text("module() { echo module $1; }\n")
    show = 'echo "$CUDA_VISIBLE_DEVICES ${PATH%%:*} $VIRTUAL_ENV $A $B"; module x'
    given = {"A": "of the job", "B": 'it\'s "$x"\nü'}
    modules = [f"export BASH_ENV={machine.home}/.bash_env"]
    state, output, _ = run("bash", "-lc", show, prelude=modules, env=given)
    environment = f"{machine.folder}/envs/3.11-e3b0c44298fc"
    wanted = f"0 {environment}/bin {environment} of the job {given['B']}\nmodule x\n"
    assert (state, output) == ("finished(0)", wanted)
    # but what a command says itself is not taken back
    own = "for gpu in 3 4; do CUDA_VISIBLE_DEVICES=$gpu bash -c 'echo $CUDA_VISIBLE_DEVICES'; "
    own += "CUDA_VISIBLE_DEVICES=$gpu bash -lc 'echo $CUDA_VISIBLE_DEVICES'; done"
    assert run("sh", "-c", own)[1].split() == ["3", "3", "4", "4"]


def test_the_prelude_is_bash_and_the_jobs_own_variables_win_over_it(machine, run):
    (machine.home / ".bash_profile").write_text("load() { export LOADED=$1 C=3; }; echo noise\n")
    lines = ['load "$A"', "export A=prelude D=\"it's\"$'\\nü'", "[[ -v LOADED ]]"]
    show = 'echo "$LOADED $A $C $D"'
    state, output, _ = run("sh", "-c", show, prelude=lines, machine_env={"A": "machine"})
    assert state == "finished(0)"
    assert output == "noise\nmachine machine 3 it's\nü\n"


@pytest.mark.parametrize("line", ["false", "nonsense x", "exit 0", "if"])
def test_a_prelude_that_fails_is_named_by_its_line_and_the_job_does_not_start(machine, run, line):
    state, output, folder = run("echo", "ran", prelude=["true", line, "true"])
    assert state == "finished(1)"
    assert "lab logs" in machine.get(folder.name).detail, "lab jobs says that it did not start"
    assert f": {line}\n" in output and "ran\n" not in output


def test_a_profile_that_becomes_another_shell_fails_the_job(machine, run):
    (machine.home / ".bash_profile").write_text("exec cat\n")
    state, output, _ = run("echo", "ran", prelude=["true"])
    assert state == "finished(1)" and ".bash_profile" in output and "ran\n" not in output


def names_in_scripts() -> list[str]:
    """The names of the variables of lab's own scripts, which users may have as well."""
    texts = map(framing.read_script, framing.find_scripts())
    found = {name for text in texts for name in re.findall(r"\b([a-z][a-z_]*)=", text)}
    found -= {"lab_mark", "lab_quote"}  # lab's even by their names
    return sorted({*found, "job", "id", "project", "command", "record", "queue", "given", "inside"})


@pytest.mark.parametrize("way", ["env", "secrets", "prelude"])
def test_a_job_may_have_variables_that_have_the_names_of_the_scripts_own(machine, run, way):
    names = names_in_scripts()
    given = dict.fromkeys(names, "/of the user")
    show = "env | grep -c ^[a-z_]*=/of; echo $LAB_DATA $LAB_JOB"
    if way == "prelude":
        exports = "".join(f"export {name}='{value}'\n" for name, value in given.items())
        (machine.home / ".bash_profile").write_text(exports)
        state, output, job = run("sh", "-c", show, prelude=["true"])
    else:
        state, output, job = run("sh", "-c", show, **{way: given})
    assert (state, output) == (
        "finished(0)",
        f"{len(names)}\n{machine.folder}/data {job.name}\n",
    )


def test_what_the_profile_leaves_running_does_not_keep_the_job_waiting(machine, run):
    (machine.home / ".bash_profile").write_text("sleep 1000 & echo $! >>$HOME/left\n")
    try:
        assert run("echo", "ran", prelude=["true"])[:2] == ("finished(0)", "ran\n")
    finally:
        for pid in (machine.home / "left").read_text().split():
            subprocess.run(["kill", pid], check=False)


def test_variables_of_lab_run_win_over_those_of_the_machine_and_are_recorded(run, monkeypatch):
    monkeypatch.setenv("HERE", "from this computer")
    given = variables.parse(["HERE", "B=x=y", "EMPTY="])
    show = 'echo "$HERE|$B|$EMPTY|$C"'
    _, output, job = run("sh", "-c", show, machine_env={"B": "1", "C": "2"}, env=given)
    assert output == "from this computer|x=y||2\n"
    spec = json.loads((job / "job.json").read_text())
    assert spec["env"] == {"HERE": "from this computer", "B": "x=y", "EMPTY": ""}


@pytest.mark.parametrize(
    "word",
    ["1A=x", "A B=x", "=x", "CUDA_VISIBLE_DEVICES=3", "PATH=/x", "LAB_JOB=x", "NOT_SET_HERE"],
)
def test_a_variable_that_cannot_be_given_is_refused(word):
    with pytest.raises(UsageError, match=f"^--env {word.partition('=')[0]}: "):
        variables.parse([word])


# --- shells and notebooks -------------------------------------------------------------------------

SHOW = """#!/bin/sh
printf '%s|' "$LOADED" "$A" "$D" "$VIRTUAL_ENV" "$LAB_RUNS" "${PATH%%:*}" >$HOME/seen
"""
ANSWER = {"token": "ab" * 24, "started": True, "socket": "/run/x", "port": 0}


@pytest.fixture
def furnished(machine, monkeypatch) -> Connection:
    """A connection to a machine with a working copy, a prelude and variables of its own."""
    (machine.home / ".bash_profile").write_text("load() { export LOADED=$1 A=3; }; echo noise\n")
    (machine.folder / "work/.venv/bin").mkdir(parents=True)
    (machine.folder / "work/.venv/bin/jupyter-lab").symlink_to("/bin/false")  # it is there
    lines = ('load "$A"', "export D=\"it's\"$'\\nü'")
    about = machine.connection.machine._replace(prelude=list(lines), env={"A": "machine's"})
    subprocess.run(["git", "init", "-q"], cwd=current.root(), check=True)
    shutil.rmtree(machine.folder / "lab")  # this lab's scripts have not been there yet
    connection = Connection(about)
    monkeypatch.setattr(remote, "connect", lambda _: connection)
    monkeypatch.setattr(remote, "require_terminal", lambda *_: None)
    return connection


def seen(machine) -> list[str]:
    return (machine.home / "seen").read_text().split("|")


@pytest.mark.parametrize("tmux", [True, False])
def test_a_shell_has_what_the_prelude_and_machines_toml_give(machine, furnished, monkeypatch, tmux):
    shell = machine.home / "shell"
    shell.write_text(SHOW)
    shell.chmod(0o755)
    monkeypatch.setenv("SHELL", str(shell))
    if tmux:
        machine.program(
            "tmux",
            "case $* in *has-session*) exit 1 ;; esac\n"
            'for last; do :; done; exec env -i HOME="$HOME" SHELL="$SHELL" sh -c "$last"',
        )
    else:
        monkeypatch.setenv("PATH", hide(machine, "tmux"))
    assert main.main(["shell"]) == 0
    work = machine.folder / "work"
    wanted = ["machine's", "machine's", "it's\nü", f"{work}/.venv", f"{machine.folder}/runs"]
    assert seen(machine)[:-1] == [*wanted, f"{work}/.venv/bin"]
    (opens,) = machine.ours.glob("open-*")
    assert opens.stat().st_mode & 0o777 == 0o600, "machines.toml may hold what others must not see"


def test_a_shell_and_a_notebook_take_variables_as_a_job_does(machine, furnished, monkeypatch):
    """--env wins over machines.toml; a shell that is already open takes none, and says so."""
    first, _, show = SHOW.partition("\n")
    shell, python = machine.home / "shell", machine.folder / "work/.venv/bin/python"
    shell.write_text(SHOW)
    python.write_text(f"{first}\n{show}echo '{json.dumps(ANSWER)}'\n")
    for path in (shell, python):
        path.chmod(0o755)
    monkeypatch.setenv("SHELL", str(shell))
    monkeypatch.setenv("D", "from this computer")
    monkeypatch.setenv("PATH", hide(machine, "tmux"))
    given = ["--env", "A=given", "--env", "D"]
    assert main.main(["shell", *given]) == 0
    assert seen(machine)[:3] == ["given", "given", "from this computer"]
    (machine.home / "seen").unlink()
    notebook.start_server(furnished, {"A": "given"})
    assert seen(machine)[1] == "given"
    machine.program("tmux", "exit 0")
    assert main.main(["shell", *given]) == 1, "it is open already"
    assert main.main(["shell"]) == 0


def hide(machine, name: str) -> str:
    """A PATH in which a program is missing."""
    (machine.home / ".local/bin" / name).unlink()
    folder = machine.home / "all"
    folder.mkdir()
    for path in map(Path, reversed(os.environ["PATH"].split(":"))):
        for file in path.glob("*"):
            if file.name != name:
                (folder / file.name).unlink(missing_ok=True)
                (folder / file.name).symlink_to(file)
    return str(folder)


def test_a_notebook_whose_prelude_fails_does_not_start(machine, furnished):
    about = furnished.machine._replace(prelude=["nonsense x"])
    (machine.folder / "work/.venv/bin/python").symlink_to("/bin/true")
    with pytest.raises(RemoteError, match=": nonsense x"):
        notebook.start_server(Connection(about))


def test_the_kernels_of_a_notebook_have_what_the_prelude_and_machines_toml_give(machine, furnished):
    python = machine.folder / "work/.venv/bin/python"
    first, _, show = SHOW.partition("\n")
    asked = f"{first}\n{show}echo '{json.dumps(ANSWER)}'\n"
    python.write_text(asked)
    python.chmod(0o755)
    assert notebook.start_server(furnished).token == ANSWER["token"]
    assert seen(machine)[:3] == ["machine's", "machine's", "it's\nü"]
    calls = machine.count_calls()
    plain = Connection(furnished.machine._replace(prelude=[]))
    notebook.start_server(plain)
    assert seen(machine)[:2] == ["", "machine's"] and machine.count_calls() == calls + 1


@pytest.mark.parametrize("prelude", [(), ("true",)])
def test_a_notebook_and_a_shell_may_have_the_scripts_own_names_too(
    machine, furnished, monkeypatch, prelude
):
    given = dict.fromkeys(names_in_scripts(), "/of the user")
    shell, python = machine.home / "shell", machine.folder / "work/.venv/bin/python"
    count = '#!/bin/sh\nenv | grep -c ^[a-z_]*=/of >$HOME/seen\necho "$@" >>$HOME/seen\n'
    shell.write_text(count)
    python.write_text(f"{count}echo '{json.dumps(ANSWER)}'\n")
    for path in (shell, python):
        path.chmod(0o755)
    monkeypatch.setenv("SHELL", str(shell))
    monkeypatch.setenv("PATH", hide(machine, "tmux"))
    connection = Connection(furnished.machine._replace(prelude=list(prelude), env=given))
    monkeypatch.setattr(remote, "connect", lambda _: connection)
    assert main.main(["shell"]) == 0
    assert (machine.home / "seen").read_text() == f"{len(given)}\n-i\n"
    notebook.start_server(connection)
    seen, words = (machine.home / "seen").read_text().splitlines()
    assert int(seen) == len(given) and words.startswith("-I - start /")
    facts = parse_facts(
        connection.run("facts.sh", environment="x", torch="", dataset="d", term="dumb")
    )
    assert facts["folder"] == [str(machine.folder)] and facts["host"] == [machine.hostname]
    assert facts["data"] == [f"{machine.folder}/data"]


@pytest.mark.parametrize("prelude", [(), ("true",)])
def test_what_makes_the_environment_may_have_the_scripts_own_names_too(machine, prelude):
    work, given = machine.folder / "work", dict.fromkeys(names_in_scripts(), "/of the user")
    work.mkdir()
    (work / "pyproject.toml").write_text('[tool.lab]\npython = "3.11"\n')
    (work / "requirements.txt").touch()
    (work / "bootstrap.py").write_text(
        "import os, sys\n"
        "print(sum(text == '/of the user' for text in os.environ.values()), *sys.argv)\n"
    )
    about = machine.connection.machine._replace(prelude=list(prelude), env=given)
    scripts = runner_scripts.make_variables()
    told = Connection(about).run("setup.sh", project=".", plain="", brought="", **scripts)
    environment = machine.folder / "envs/3.11-e3b0c44298fc"
    assert told == f"{len(given)} ./bootstrap.py --venv {environment} --no-git\n"
    assert (work / ".venv").readlink() == environment


# --- secrets --------------------------------------------------------------------------------------

SECRET = "s3cret-" + 'it\'s "$HOME" `id` \\ü\n-end'
PART = b"s3cret-"  # what a search looks for


def find_leaks(*folders: Path) -> list[str]:
    """The files, names of files and command lines that contain the secret."""
    paths = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    found = [str(path) for path in paths if PART in path.read_bytes()]
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if PART in line.read_bytes():
                found.append(line.read_text(errors="replace"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("queue", [False, True])
def test_a_secret_reaches_the_job_and_nothing_else(machine, run, tmp_path, queue):
    waits, go = machine.home / "waits", machine.home / "go"
    machine.program("nvidia-smi", f"case $* in *query-gpu*) echo '{CARD}' ;; esac")
    other = machine.ours / f"gpu-{machine.hostname}-0"
    sleeper = subprocess.Popen(["sleep", "1000"])
    if queue:  # the GPU is another job's
        born = start_time(sleeper.pid)
        other.write_text(f"{sleeper.pid} {machine.boot} {born} 20260101-000000-aaaaaa\n")
    show = f'printf %s "$TOKEN" | sha256sum; touch {waits}; until [ -e {go} ]; do sleep 0.02; done'
    try:
        job = launch.start(
            machine.connection,
            ["bash", "-lc", show],
            gpus="1",
            queue=queue,
            secrets={"TOKEN": SECRET},
        )
        assert job.state == ("queued" if queue else "running")
        assert not find_leaks(tmp_path)
    finally:
        sleeper.kill()
        sleeper.wait()
    until(waits.exists)
    assert not find_leaks(tmp_path)
    go.touch()
    machine.wait_for(job.id)
    assert not find_leaks(tmp_path)
    folder = machine.folder / "jobs" / job.id
    assert (folder / "output.log").read_text().split()[0] == sha256(SECRET.encode()).hexdigest()
    assert json.loads((folder / "job.json").read_text())["secrets"] == ["TOKEN"]
    assert not (folder / "secrets").exists()


def test_a_job_whose_secret_does_not_arrive_does_not_start(machine, run, monkeypatch):
    def lose(*_, **__):
        raise ConnectionLost("gpu: connection lost.")

    machine.program("timeout", 'case $* in *"cat secrets") exit 124 ;; esac\nexec_real')
    monkeypatch.setattr(launch, "bring_secrets", lose)
    with pytest.raises(ConnectionLost, match="may have started"):
        launch.start(machine.connection, ["echo", "ran"], secrets={"TOKEN": "x"})
    (folder,) = (machine.folder / "jobs").glob("2*")
    assert machine.wait_for(folder.name).state == "finished(1)"
    assert "ran\n" not in (folder / "output.log").read_text()


def test_a_secret_that_comes_too_late_is_not_written_to_a_file(machine, run):
    state, _, folder = run("true")
    with pytest.raises(RemoteError, match="no longer waits"):
        launch.bring_secrets(machine.connection, folder.name, {"TOKEN": SECRET}, False)
    assert not find_leaks(machine.home)


def test_a_job_with_a_secret_that_is_refused_leaves_nothing(machine, run):
    machine.program("nvidia-smi", "exit 9")
    with pytest.raises(RemoteError, match="nvidia-smi on"):
        launch.start(machine.connection, ["true"], gpus="1", secrets={"TOKEN": SECRET})
    assert not list((machine.folder / "jobs").glob("2*"))


def test_where_there_is_no_gpu_nobody_waits_for_one(machine, run):
    with pytest.raises(RemoteError, match="only 0 GPUs"):
        launch.start(machine.connection, ["true"], gpus="1", queue=True)
    assert not list((machine.folder / "jobs").glob("2*"))


def test_a_secret_is_taken_from_the_environment_or_else_from_the_keyring(monkeypatch):
    kept = {("lab", "B"): "from the keyring", ("lab", "A"): "not this"}
    keyring = ModuleType("keyring")
    keyring.get_password = lambda service, name: kept.get((service, name))
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    monkeypatch.setenv("A", "from the environment")
    found = variables.read_secrets(["A", "B"])
    assert found == {"A": "from the environment", "B": "from the keyring"}
    with pytest.raises(UsageError, match="^--secret C: it has no value"):
        variables.read_secrets(["C"])
    with pytest.raises(UsageError, match="^--secret C: ") as caught:
        variables.read_secrets(["C=typed"])
    assert "typed" not in str(caught.value)
