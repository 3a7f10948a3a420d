"""machines.toml: what may stand in it, how mistakes are named; nothing in it becomes a command."""

import json
import subprocess
import sys

import pytest

from helpers.projects import LAB


@pytest.fixture
def lab(bake, home):
    """A project without an environment; runs lab in it with the machines that a test writes."""
    project = bake(remote="ada@gpu1.example.org", remote_gateway="eve@gate.example.org")
    env = {"PYTHONPATH": str(LAB)}

    def run(*arguments, shared=None, local=None, code=1) -> str:
        for name, text in (("machines.toml", shared), ("machines.local.toml", local)):
            if text is not None:
                (project.path / name).write_text(text, "utf-8")
        words = [sys.executable, "-m", "lab.cli", *arguments]
        done = project.run(*words, env=env, check=False)
        assert done.returncode == code, done.stdout
        return done.stdout

    run.project, run.env = project, env
    return run


def config(lab, name: str | None = None) -> str:
    """What our own configuration makes of a machine, as ssh itself tells it."""
    code = f"from lab.ssh import connection, machines; m = machines.get({name!r});"
    code += "c = connection.Connection(m); print(*c.ssh_command('-G'), sep='\\n')"
    words = [sys.executable, "-c", code]
    command = lab.project.run(*words, env=lab.env).stdout.splitlines()
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


GOOD = '[machines.gpu]\nssh = "gpu1"\nfolder = "lab/x"\n'


def test_the_answers_of_the_creation_lead_to_the_machine(lab):
    found = config(lab)
    for line in ("hostname gpu1.example.org", "user ada", "proxyjump gate.example.org"):
        assert f"{line}\n" in found


def test_everything_can_be_spelt_out(lab):
    shared = GOOD + 'gateway = "gate"\ngateway_port = 2022\nport = 2200\n'
    local = '[machines.gpu]\nuser = "ada"\ngateway_user = "eve"\nkey = "~/.ssh/my key"\n'
    lab("jobs", shared=shared, local=local)
    found = config(lab)
    for line in ("hostname gpu1", "user ada", "port 2200", "proxyjump gate"):
        assert f"{line}\n" in found
    assert "identityfile ~/.ssh/my key\n" in found
    for line in ("connecttimeout 15", "serveraliveinterval 15", "serveralivecountmax 3"):
        assert f"{line}\n" in found
    assert "clearallforwardings yes\n" in found


def test_the_personal_file_goes_before_the_shared_one_and_may_add_machines(lab):
    local = '[machines.gpu]\nssh = "mine"\n[machines.own]\nssh = "own-host"\nfolder = "x"\n'
    lab("jobs", shared=GOOD, local=local)
    assert "hostname mine\n" in config(lab)
    assert "hostname own-host\n" in config(lab, "own")


def test_without_a_machine_every_remote_command_says_what_to_fill_in(lab):
    for command in (["jobs"], ["setup"], ["run"], ["logs"], ["stop", "x"], ["sync"]):
        said = lab(*command, shared="", local="")
        assert said.startswith("lab: no machine yet: fill in [machines.gpu] in "), said


def test_a_machine_that_is_not_there_is_answered_with_those_that_are(lab):
    two = GOOD + '[machines.big]\nssh = "b"\nfolder = "x"\n'
    for words in (["-m", "gpo", "jobs"], ["jobs", "-m", "gpo"]):
        said = lab(*words, shared=two, local="")
        assert said == "lab: there is no machine gpo; machines.toml has gpu, big.\n"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('hots = "x"\n', 4, "there is no key hots"),
        ('usr = "x"\n', 4, "there is no key usr; did you mean user?"),
        ("port = 99999\n", 4, "port = 99999: a port is between 1 and 65535"),
        ('port = "22"\n', 4, "port is a whole number"),
        ("user = 5\n", 4, "user is text in quotes"),
        ('gateway = "a b"\n', 4, "a host or an alias"),
        ('gateway = "eve@gate"\n', 4, "without user and port"),
        ('gateway = "-oProxyCommand=id"\n', 4, "a host or an alias"),
        ('user = "-l"\n', 4, "a user name"),
        ('user = "$(id)"\n', 4, "a user name"),
        ('key = "a\\"b"\n', 4, "no quotes"),
        ('key = "a\\nProxyCommand id"\n', 4, "printable letters"),
        ('[machines."x;id"]\nssh = "a"\nfolder = "b"\n', 4, "is no name"),
        ('[machines.two]\nssh = "a"\n', 4, "machine two has no folder. Allowed: ssh, folder,"),
        ("[here]\n", 4, "there is no here here"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(lab, text, line, said):
    shown = lab("jobs", shared=GOOD + text, local="")
    assert shown.startswith(f"lab: machines.toml:{line}: "), shown
    assert said in shown and len(shown.splitlines()) == 1


@pytest.mark.parametrize("folder", ["", " ", ".", "~", "~/", "/", "a/../..", "a\\nb"])
def test_a_folder_is_one_of_its_own(lab, folder):
    shared = f'[machines.gpu]\nssh = "gpu1"\nfolder = "{folder}"\n'
    assert "machines.toml:3: folder = " in lab("jobs", shared=shared, local="")


@pytest.mark.parametrize("path", ["a:b", 'a"b', "a\\b", "a\tb", "$SCRATCH/x", "~bob/x", "~"])
def test_what_no_path_there_can_hold_is_refused(lab, path):
    for key, text in (("folder", '[machines.gpu]\nssh = "gpu1"\n'), ("data", GOOD)):
        said = lab("jobs", shared=f"{text}{key} = {json.dumps(path)}\n", local="")
        assert f":{len(text.splitlines()) + 1}: {key} = " in said and len(said.splitlines()) == 1
        assert "~ only as in ~/" in said or "printable" in said


def test_a_path_there_may_have_spaces_quotes_and_foreign_letters(lab):
    paths = "folder = \"~/it's my ü; x~1/-y\"\ndata = '/big disk/ü'\n"
    lab("ide", shared=f'[machines.gpu]\nssh = "gpu1"\n{paths}', local="")
    assert "hostname gpu1\n" in config(lab)


def test_a_file_that_is_no_toml_is_named(lab):
    said = lab("jobs", shared="[machines.gpu\n", local="")
    assert "machines.toml cannot be read" in said and "line 1" in said
    said = lab("jobs", shared=GOOD, local='machines = "x"\n')
    assert said.startswith("lab: machines.local.toml:1: a machine is a table")


@pytest.mark.parametrize("host", ["-oProxyCommand=touch${IFS}evil", "a;b", "a b", "$(id)", "a\\tb"])
def test_no_host_name_becomes_an_option_or_a_command(lab, host):
    shared = f'[machines.gpu]\nssh = "{host}"\nfolder = "x"\n'
    assert "machines.toml:2: ssh = " in lab("jobs", shared=shared, local="")


def test_a_gateway_without_the_rest_keeps_the_users_own_settings(lab, home):
    (home / ".ssh").mkdir(mode=0o700)
    lines = "Host gpu1\n  Port 4444\n  ServerAliveInterval 99\nHost gate\n  User known\n"
    (home / ".ssh/config").write_text(lines)
    shared = GOOD + 'gateway = "gate"\n'
    lab("jobs", shared=shared, local="")
    found = config(lab)
    assert "port 4444\n" in found and "serveraliveinterval 15\n" in found


@pytest.mark.parametrize("words", [["--follow"], ["--gpus=2"], ["-m", "gpu"]])
def test_an_option_of_lab_run_that_stands_behind_the_experiments_is_named(lab, words):
    said = lab("run", "with", "lr=0.1", *words, shared=GOOD, local="", code=2)
    name = words[0].partition("=")[0]
    assert said == f"lab: {name} is an option of lab run: it comes before with.\n"


def test_a_setting_without_with_is_named_before_anything_is_sent(lab):
    said = lab("run", "lr=0.1", "seed=1", shared=GOOD, local="", code=2)
    assert said == "lab: lr=0.1 is a setting: lab run with lr=0.1 seed=1.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--"], "there is no command: lab run -- COMMAND, or lab run for the experiment."),
        (["--gpus", "²"], "--gpus ²: a number, as in --gpus 2."),
        (["--gpus", "-1", "--", "true"], "--gpus -1: a number, as in --gpus 2."),
    ],
)
def test_what_cannot_be_run_is_named_before_anything_is_sent(lab, words, said):
    assert lab("run", *words, shared=GOOD, local="", code=2) == f"lab: {said}\n"


def test_a_number_of_gpus_is_the_same_however_it_is_written(lab):
    code = "from lab.jobs.launch import check_gpus as count;"
    code += "print([count(n) for n in ('02', '2', '0', 'some')])"
    said = lab.project.run(sys.executable, "-c", code, env=lab.env).stdout
    assert said == "['2', '2', '0', 'some']\n"


@pytest.mark.parametrize("patience", ["long", "inf", "nan", "0", "-3"])
def test_a_patience_that_is_no_number_is_named(lab, patience):
    lab.env["LAB_PATIENCE"] = patience
    said = lab("jobs", shared=GOOD, local="", code=2)
    assert said == f"lab: LAB_PATIENCE={patience}: a number of seconds.\n"


def test_help_imports_nothing_heavy(lab):
    code = "import sys; sys.argv = ['lab', '--help']\nfrom lab.cli import main as cli\n"
    code += "try: cli.main()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('asyncio', 'numpy', 'sacred', 'subprocess') if m in sys.modules])"
    shown = lab.project.run(sys.executable, "-c", code, env=lab.env).stdout
    assert shown.splitlines()[-1] == "[]"


def test_a_closed_input_or_output_is_named(lab):
    command = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "lab.cli", "runs"]
    done = lab.project.run(*command, env=lab.env, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("lab: standard input, output or error is closed: use /dev/null")
