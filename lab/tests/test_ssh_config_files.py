"""lab ssh-config: ~/.ssh stays the user's, byte for byte, and everything of ours can be removed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.cli import main as cli
from lab.ground import project as current
from lab.ssh import machines, shared

LINE = "Include lab/*.conf\n"
MACHINES = '[machines.gpu]\nssh = "worker"\nfolder = "lab/x"\n'


@pytest.fixture
def config(project, program) -> Path:
    """~/.ssh/config, which does not exist yet; ssh itself would look in another home for it."""
    ssh = shutil.which("ssh")
    with_file = f'exec {ssh} -F "$HOME/.ssh/config" "$@"'
    program("ssh", f'case " $* " in *" -F "*) exec {ssh} "$@" ;; esac\n{with_file}')
    (project / "machines.toml").write_text(MACHINES)
    path = Path.home() / ".ssh/config"
    path.parent.mkdir(mode=0o700)
    return path


@pytest.fixture
def run(capfd):
    """A function that runs lab ssh-config; it returns what was printed."""

    def run(*words: str, code: int = 0) -> str:
        current.reload()
        assert cli.main(["ssh-config", *words]) == code
        printed = capfd.readouterr()
        return printed.out + printed.err

    return run


def options(name: str = "my-experiment-gpu") -> dict[str, list[str]]:
    """What ssh -G says of a host: the values of each option."""
    found: dict[str, list[str]] = {}
    done = subprocess.run(["ssh", "-G", name], check=True, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        option, _, value = line.partition(" ")
        found.setdefault(option, []).append(value)
    return found


@pytest.mark.parametrize(
    "original",
    [
        b"Host a\r\n\tHostName b\r\n# no newline at the end",
        b"",
        b"\n\n  Include other\n\nHost *\n  User x\n",
        b"# caf\xe9 \xff\n",
    ],
)
def test_the_users_own_lines_stay_byte_for_byte_and_remove_brings_the_file_back(
    config, run, original
):
    config.write_bytes(original)
    config.chmod(0o644)
    run("--install")
    assert config.read_bytes() == LINE.encode() + original
    assert config.stat().st_mode & 0o777 == 0o644
    backup = config.with_name("config.before-lab")
    assert backup.read_bytes() == original
    again = run("--install")
    assert again.count("unchanged") == 2
    run("--remove")
    assert config.read_bytes() == original
    left = sorted(path.name for path in config.parent.iterdir())
    assert not [name for name in left if "lab" in name]
    assert "nothing of this project" in run("--remove")


def test_it_works_without_any_ssh_folder_and_remove_leaves_none_of_its_files(config, run):
    ssh = config.parent
    shutil.rmtree(ssh)
    run("--install")
    assert config.read_text() == LINE
    modes = {p: p.stat().st_mode & 0o777 for p in (ssh, ssh / "lab", config)}
    assert list(modes.values()) == [0o700, 0o700, 0o600]
    assert (ssh / "lab/my-experiment.conf").stat().st_mode & 0o777 == 0o600
    run("--remove")
    assert list(ssh.iterdir()) == []


def test_a_config_that_is_a_link_into_a_dotfiles_repository_stays_one(config, run):
    dotfiles = config.parents[1] / "dotfiles/ssh_config"
    dotfiles.parent.mkdir()
    dotfiles.write_text("Host a\n    HostName b\n")
    config.symlink_to("../dotfiles/ssh_config")
    run("--install")
    assert config.is_symlink()
    assert dotfiles.read_text() == LINE + "Host a\n    HostName b\n"
    run("--remove")
    assert config.is_symlink()
    assert dotfiles.read_text() == "Host a\n    HostName b\n"


def test_an_older_backup_with_other_content_is_kept(config, run):
    config.write_text("Host now\n")
    old = config.with_name("config.before-lab")
    old.write_text("Host then\n")
    run("--install")
    assert old.read_text() == "Host then\n"
    assert old.with_name("config.before-lab-2").read_text() == "Host now\n"
    run("--remove")
    assert old.read_text() == "Host then\n"


def test_an_include_that_slipped_below_a_host_line_is_brought_to_the_front(config, run):
    run("--install")
    config.write_text(f"Host a\n    User b\n{LINE}")
    run("--install")
    assert config.read_text() == f"{LINE}Host a\n    User b\n"


def test_a_jump_that_an_alias_switches_off_and_an_address_with_a_zone_stay_so(config, run, project):
    text = (
        "Host near\n    HostName fe80::1%%lo\n    ProxyJump none\n\nHost *\n    ProxyJump gateway\n"
    )
    config.write_text(text)
    (project / "machines.toml").write_text(MACHINES.replace("worker", "near"))
    run("--install")
    found, theirs = options(), options("near")
    assert found["hostname"] == theirs["hostname"] == ["fe80::1%lo"]
    assert "proxyjump" not in found and "proxyjump" not in theirs


def test_where_hosts_are_known_to_ask_there_is_no_way_but_the_shared_connection(
    config, run, project, monkeypatch, tmp_path
):
    monkeypatch.setattr(shared, "make_socket_folder", lambda _: tmp_path)
    (project / "machines.toml").write_text(MACHINES + 'gateway = "gate"\n')
    run("--install")
    connection = shared.SharedConnection(machines.get())
    before = options()
    assert before["controlpath"] == [str(connection.socket)]
    assert before["proxyjump"] == ["gate"] and "proxycommand" not in before
    connection.asks.touch()
    found, own = options(), options("my-experiment-gpu-own")
    assert "proxyjump" not in found and found["batchmode"] == ["yes"]
    said = subprocess.run(found["proxycommand"][0], shell=True, capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (1, "") and "lab login" in said.stderr
    assert own["proxyjump"] == ["gate"] and own["batchmode"] == ["no"]
    assert "controlpath" not in own


def test_two_projects_live_side_by_side(config, run, project):
    config.write_text("Host a\n")
    run("--install")
    settings = project / "pyproject.toml"
    text = settings.read_text()
    settings.write_text(text.replace('name = "my-experiment"', 'name = "other"', 1))
    run("--install")
    assert config.read_text() == f"{LINE}Host a\n"
    assert options()["hostname"] == options("other-gpu")["hostname"] == ["worker"]
    run("--remove")
    assert config.read_text() == f"{LINE}Host a\n"
    assert options()["hostname"] == ["worker"]
    settings.write_text(text)
    run("--remove")
    assert config.read_text() == "Host a\n"


def test_two_folders_of_one_project_do_not_overwrite_each_others_file(
    config, run, project, monkeypatch
):
    run("--install")
    ours = config.with_name("lab") / "my-experiment.conf"
    before = ours.read_text()
    clone = project.with_name("clone")
    shutil.copytree(project, clone)
    monkeypatch.setenv("LAB_PROJECT", str(clone))
    assert run("--install").count("unchanged") == 2, "the same machines are no conflict"
    assert f"kept, as it belongs to {project}" in run("--remove")
    with (clone / "machines.toml").open("a") as machines:
        machines.write('[machines.second]\nssh = "elsewhere"\nfolder = "x"\n')
    message = run("--install", code=1)
    assert message.count("\n") == 1
    assert f"belongs to {project}, with other machines" in message
    assert ours.read_text() == before
    monkeypatch.setenv("LAB_PROJECT", str(project))
    run("--remove")
    monkeypatch.setenv("LAB_PROJECT", str(clone))
    assert "written" in run("--install")
    shutil.rmtree(clone)
    monkeypatch.setenv("LAB_PROJECT", str(project))
    run("--install")
    assert ours.read_text() == before, "a folder that is gone owns nothing"


def test_a_broken_config_is_named_in_one_line(config, run):
    config.write_text("Host a\n    Nonsense yes\n")
    message = run(code=1)
    assert message.count("\n") == 1 and "line 2" in message and "nonsense" in message
