"""machines.toml: what may stand in it, how mistakes are named; nothing in it becomes a command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lab
from lab.cli import main as cli
from lab.ground import project as current
from lab.ground.errors import UsageError
from lab.jobs import launch
from lab.ssh import connection, framing, machines

GOOD = '[machines.gpu]\nssh = "gpu1"\nfolder = "lab/x"\n'


@pytest.fixture
def run(project, capfd):
    """A function that runs lab with these machine files; it returns what lab printed."""

    def run(*words, shared=None, local=None, code=1) -> str:
        write(project, shared, local)
        assert cli.main(list(words)) == code
        printed = capfd.readouterr()
        return printed.out + printed.err

    return run


def write(project, shared: str | None = None, local: str | None = None) -> None:
    for name, text in (("machines.toml", shared), ("machines.local.toml", local)):
        if text is not None:
            (project / name).write_text(text, "utf-8")
    current.reload()


def resolve(name: str | None = None) -> str:
    """What our own configuration makes of a machine, as ssh itself tells it."""
    command = connection.Connection(machines.get(name)).ssh_command("-G")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_everything_can_be_spelt_out(project):
    shared = GOOD + 'gateway = "gate"\ngateway_port = 2022\nport = 2200\n'
    local = '[machines.gpu]\nuser = "ada"\ngateway_user = "eve"\nkey = "~/.ssh/my key"\n'
    write(project, shared, local)
    found = resolve()
    for line in ("hostname gpu1", "user ada", "port 2200", "proxyjump gate"):
        assert f"{line}\n" in found
    assert "identityfile ~/.ssh/my key\n" in found
    for line in ("connecttimeout 15", "serveraliveinterval 15", "serveralivecountmax 3"):
        assert f"{line}\n" in found
    assert "clearallforwardings yes\n" in found


def test_the_personal_file_overrides_the_shared_one_and_may_add_machines(project):
    local = '[machines.gpu]\nssh = "mine"\n[machines.own]\nssh = "own-host"\nfolder = "x"\n'
    write(project, GOOD, local)
    assert "hostname mine\n" in resolve()
    assert "hostname own-host\n" in resolve("own")


def test_variables_of_a_machine_are_overridden_one_by_one_and_its_prelude_as_a_whole(project):
    shared = (
        GOOD
        + 'prelude = ["module load a", "module load b"]\n[machines.gpu.env]\nA = "1"\nB = "2"\n'
    )
    write(project, shared, '[machines.gpu]\nenv = { B = "it\'s", C = "3" }\n')
    found = machines.get()
    assert dict(found.env) == {"A": "1", "B": "it's", "C": "3"}
    assert list(found.prelude) == ["module load a", "module load b"]
    write(project, shared, '[machines.gpu]\nprelude = ["module load c"]\n')
    assert list(machines.get().prelude) == ["module load c"]


def test_without_a_machine_every_remote_command_says_what_to_fill_in(run):
    for command in (["jobs"], ["setup"], ["run"], ["logs"], ["stop", "x"], ["sync"]):
        message = run(*command, shared="", local="")
        assert message.startswith("lab: no machine yet: fill in [machines.gpu] in "), message


def test_an_unknown_machine_is_answered_with_the_known_ones(run):
    two = GOOD + '[machines.big]\nssh = "b"\nfolder = "x"\n'
    for words in (["-m", "gpo", "jobs"], ["jobs", "-m", "gpo"]):
        message = run(*words, shared=two, local="")
        assert message == "lab: there is no machine gpo; machines.toml has gpu, big.\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('hots = "x"\n', 4, "unknown key hots"),
        ('usr = "x"\n', 4, "unknown key usr; did you mean user?"),
        ("port = 99999\n", 4, "port = 99999: a port is between 1 and 65535"),
        ('port = "22"\n', 4, "port must be a whole number"),
        ("user = 5\n", 4, "user must be text in quotes"),
        ('gateway = "a b"\n', 4, "a host or an alias"),
        ('gateway = "eve@gate"\n', 4, "user and port have keys"),
        ('gateway = "-oProxyCommand=id"\n', 4, "a host or an alias"),
        ('user = "-l"\n', 4, "a user name"),
        ('user = "$(id)"\n', 4, "a user name"),
        ('key = "a\\"b"\n', 4, "cannot contain quotes"),
        ('key = "a\\nProxyCommand id"\n', 4, "printable text"),
        ('[machines."x;id"]\nssh = "a"\nfolder = "b"\n', 4, "cannot be a name"),
        ('[machines.two]\nssh = "a"\n', 4, "machine two has no folder. Allowed: ssh, folder,"),
        ("[here]\n", 4, "unknown table here"),
        ('prelude = "module load cuda"\n', 4, "prelude must be lines in quotes"),
        ('prelude = ["module load cuda", 5]\n', 4, "lines in quotes"),
        ('prelude = ["a\\nb"]\n', 4, "lines in quotes"),
        ('env = "A=1"\n', 4, "env must be a table of its own: [machines.NAME.env]"),
        ("[machines.gpu.env]\nA = 1\n", 5, "A = 1: text in quotes"),
        ("[machines.gpu.env]\nA = '1'\n\"B C\" = '1'\n", 6, "only letters, digits and _"),
        ("[machines.gpu.env]\nCUDA_VISIBLE_DEVICES = '1'\n", 5, "lab run --gpus"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(run, text, line, message):
    printed = run("jobs", shared=GOOD + text, local="")
    assert printed.startswith(f"lab: machines.toml:{line}: "), printed
    assert message in printed and len(printed.splitlines()) == 1


@pytest.mark.parametrize("folder", ["", " ", ".", "~", "~/", "/", "a/../..", "a\\nb"])
def test_the_folder_of_a_project_is_one_of_its_own(run, folder):
    shared = f'[machines.gpu]\nssh = "gpu1"\nfolder = "{folder}"\n'
    assert "machines.toml:3: folder = " in run("jobs", shared=shared, local="")


@pytest.mark.parametrize("path", ["a:b", 'a"b', "a\\b", "a\tb", "$SCRATCH/x", "~bob/x", "~"])
def test_what_no_remote_path_can_contain_is_refused(run, path):
    for key, text in (("folder", '[machines.gpu]\nssh = "gpu1"\n'), ("data", GOOD)):
        message = run("jobs", shared=f"{text}{key} = {json.dumps(path)}\n", local="")
        assert (
            f":{len(text.splitlines()) + 1}: {key} = " in message and len(message.splitlines()) == 1
        )
        assert "~ only as in ~/" in message or "printable" in message


def test_a_remote_path_may_have_spaces_quotes_and_any_character(project):
    paths = "folder = \"~/it's my ü; x~1/-y\"\ndata = '/big disk/ü'\n"
    write(project, f'[machines.gpu]\nssh = "gpu1"\n{paths}')
    assert machines.get().folder == "~/it's my ü; x~1/-y"
    assert "hostname gpu1\n" in resolve()


def test_a_file_that_is_not_toml_is_named(run):
    message = run("jobs", shared="[machines.gpu\n", local="")
    assert "machines.toml cannot be read" in message and "line 1" in message
    message = run("jobs", shared=GOOD, local='machines = "x"\n')
    assert message.startswith("lab: machines.local.toml:1: a machine is a table")


@pytest.mark.parametrize("host", ["-oProxyCommand=touch${IFS}evil", "a;b", "a b", "$(id)", "a\\tb"])
def test_no_host_name_becomes_an_option_or_a_command(run, host):
    shared = f'[machines.gpu]\nssh = "{host}"\nfolder = "x"\n'
    assert "machines.toml:2: ssh = " in run("jobs", shared=shared, local="")


def test_a_gateway_without_the_rest_keeps_the_users_own_settings(project, home):
    (home / ".ssh").mkdir(mode=0o700)
    lines = "Host gpu1\n  Port 4444\n  ServerAliveInterval 99\nHost gate\n  User known\n"
    (home / ".ssh/config").write_text(lines)
    shared = GOOD + 'gateway = "gate"\n'
    write(project, shared)
    found = resolve()
    assert "port 4444\n" in found and "serveraliveinterval 15\n" in found


@pytest.mark.parametrize("words", [["--follow"], ["--gpus=2"], ["-m", "gpu"]])
def test_an_option_of_lab_run_that_stands_behind_the_experiments_is_named(run, words):
    message = run("run", "with", "lr=0.1", *words, shared=GOOD, local="", code=2)
    name = words[0].partition("=")[0]
    assert message == f"lab: {name} is an option of lab run: it comes before with.\n"


def test_a_setting_without_with_is_named_before_anything_is_sent(run):
    message = run("run", "lr=0.1", "seed=1", shared=GOOD, local="", code=2)
    assert message == "lab: lr=0.1 is a setting: use lab run with lr=0.1 seed=1.\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--"], "there is no command: lab run -- COMMAND, or lab run for the experiment."),
        (["--gpus", "²"], "--gpus ²: expected a number, as in --gpus 2."),
        (["--gpus", "-1", "--", "true"], "--gpus -1: expected a number, as in --gpus 2."),
    ],
)
def test_what_cannot_be_run_is_named_before_anything_is_sent(run, words, message):
    assert run("run", *words, shared=GOOD, local="", code=2) == f"lab: {message}\n"


def test_a_number_of_gpus_is_the_same_however_it_is_written():
    found = [launch.check_gpus(number) for number in ("02", "2", "0", "some")]
    assert found == ["2", "2", "0", "some"]


@pytest.mark.parametrize("patience", ["long", "inf", "nan", "0", "-3"])
def test_a_patience_that_is_not_a_number_is_named(monkeypatch, patience):
    monkeypatch.setenv("LAB_PATIENCE", patience)
    with pytest.raises(UsageError) as caught:
        framing.read_patience()
    assert str(caught.value) == f"LAB_PATIENCE={patience}: expected a number of seconds."


def run_python(*words: str) -> subprocess.CompletedProcess:
    """Run Python on this package, in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(Path(lab.__file__).parents[1])}
    return subprocess.run(words, env=env, capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy(project):
    code = "import sys; sys.argv = ['lab', '--help']\nfrom lab.cli import main as cli\n"
    code += "try: cli.main()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('asyncio', 'numpy', 'sacred', 'subprocess') if m in sys.modules])"
    assert run_python(sys.executable, "-c", code).stdout.splitlines()[-1] == "[]"


def test_a_closed_input_or_output_is_named(project):
    lab_runs = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "lab.cli", "runs"]
    done = run_python(*lab_runs)
    assert done.returncode == 1
    assert done.stderr.startswith("lab: standard input, output or error is closed: use /dev/null")


@pytest.mark.parametrize(("value", "good"), [("true", True), ("false", True), ('"yes"', False)])
def test_that_folders_are_shared_is_true_or_false(run, project, value, good):
    text = f"{GOOD}shared = {value}\n"
    if good:
        write(project, text)
        assert machines.get().shared == (value == "true")
    else:
        assert "machines.toml:4: shared" in run("jobs", shared=text)
