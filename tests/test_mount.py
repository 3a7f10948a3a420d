"""lab mount and lab ide: the remote folder as a local one, and what editors ask for."""

import subprocess

import pytest

ENV = {"LAB_PATIENCE": "4"}
PLACE = "/home/ada/lab/my-experiment/work"


@pytest.fixture
def laptop(ready_once):
    """Connections, programs and mounts are put back after each test."""
    laptop = ready_once
    yield laptop
    for host in laptop.hosts.all:
        host.clean()
    laptop.hosts.heal()


def lab(laptop, *arguments, code=0, **env) -> str:
    """Return what it printed on both streams; with a timeout, as nothing here may hang."""
    done = laptop.run("lab", *arguments, env={**ENV, **env}, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def sh(laptop, script: str) -> str:
    """A script on the laptop, in the project: the mount is only seen there."""
    return laptop.run("sh", "-ec", script).stdout


def test_the_remote_folder_is_a_local_one_until_it_is_unmounted(laptop):
    config = laptop.hosts.laptop.write(".ssh/config", "Host *\n    RequestTTY force\n")
    said = lab(laptop, "mount")
    assert "remote/gpu" in said and "/home/ada/lab/my-experiment" in said
    assert "work" in sh(laptop, "ls remote/gpu").split()
    sh(laptop, "echo written here >remote/gpu/runs/note")
    assert laptop.there("runs/note").read_text() == "written here\n"
    assert "already mounted" in lab(laptop, "mount")
    assert sh(laptop, "git status --porcelain") == ""  # git does not take it for code
    assert "remote/gpu: unmounted" in lab(laptop, "unmount")
    assert sh(laptop, "ls -d remote 2>/dev/null || echo gone") == "gone\n"
    assert "nothing is mounted" in lab(laptop, "unmount")
    laptop.there("runs/note").unlink()
    config.unlink()


def test_another_folder_may_be_chosen_with_a_space_in_its_name(laptop):
    lab(laptop, "mount", "/home/ada/my  machine")
    assert "work" in sh(laptop, "ls '/home/ada/my  machine'").split()
    lab(laptop, "unmount", "/home/ada/my  machine")
    assert not (laptop.hosts.laptop.home / "my  machine").exists()


def test_a_folder_with_content_and_one_that_git_sees_are_refused(laptop):
    sh(laptop, "mkdir -p remote/gpu; echo mine >remote/gpu/file")
    assert "remote/gpu is not empty" in lab(laptop, "mount", code=1)
    assert sh(laptop, "cat remote/gpu/file; rm -r remote") == "mine\n"
    assert "git does not ignore there" in lab(laptop, "mount", "there", code=1)
    assert not (laptop.path / "there").exists()


def test_without_sshfs_it_says_how_to_get_it(laptop):
    laptop.hosts.laptop.program("sshfs", None)
    assert "sshfs is not installed: apt-get install sshfs" in lab(laptop, "mount", code=1)


def test_a_machine_that_cannot_be_reached_leaves_no_mount_point(laptop):
    laptop.hosts.refuse()
    said = lab(laptop, "mount", code=1)
    assert said.count("\n") == 1 and "gateway cannot be reached" in said
    assert not (laptop.path / "remote").exists()


def test_a_mount_that_does_not_end_is_given_up_and_undone(laptop):
    laptop.hosts.laptop.program("sshfs", '#!/bin/sh\n/usr/bin/sshfs "$@"\nexec sleep 100\n')
    laptop.lab("jobs")  # opens the connection, which may take longer
    assert "sshfs could not mount" in lab(laptop, "mount", code=1, LAB_PATIENCE="3")
    assert "remote/gpu" not in sh(laptop, "cat /proc/mounts")
    assert not (laptop.path / "remote").exists()


def test_after_a_lost_connection_nothing_hangs_and_unmount_still_works(laptop):
    lab(laptop, "mount")
    inside = laptop.popen("sh", "-c", "cd remote/gpu && echo ready && exec sleep 100")
    assert inside.stdout.readline() == "ready\n"  # so that it is in use, as by a file manager
    laptop.hosts.drop()
    said = lab(laptop, "mount", code=1)
    assert "does not answer: lab unmount" in said
    assert "unmounted" in lab(laptop, "unmount")
    assert "remote/gpu" not in sh(laptop, "cat /proc/mounts")
    assert sh(laptop, "ls -d remote 2>/dev/null || echo gone") == "gone\n"
    inside.kill()
    inside.communicate()


# --- lab ide --------------------------------------------------------------------------------------


@pytest.fixture
def installed(laptop):
    lab(laptop, "ssh-config", "--install")
    yield laptop
    lab(laptop, "ssh-config", "--remove")


def test_ide_prints_values_that_ssh_and_the_machine_confirm(installed):
    said = lab(installed, "ide")
    assert f"VS Code: code --remote ssh-remote+my-experiment-gpu {PLACE}\n" in said
    python = f"{PLACE}/.venv/bin/python"
    assert f"interpreter: {python}\n" in said and f"Existing interpreter  {python}\n" in said
    assert f"Path mapping          /home/ada/my-experiment -> {PLACE}\n" in said
    assert "lab sync" in lab(installed, "ide", "pycharm")
    check = f"cd {PLACE} && {python} -c 'import sacred; print(sacred.__name__)'"
    done = installed.run("ssh", "my-experiment-gpu", check, stderr=subprocess.PIPE)
    assert done.stdout == "sacred\n"


def test_ide_vscode_starts_code_where_there_is_one_and_else_prints_the_command(installed):
    said = lab(installed, "ide", "vscode")
    assert f"code --remote ssh-remote+my-experiment-gpu {PLACE}\n" in said
    assert "`code` is not in PATH" in said
    installed.hosts.laptop.program("code", '#!/bin/sh\nprintf "%s|" "$@" >~/code-was-told\n')
    lab(installed, "ide", "vscode")
    told = installed.hosts.laptop.read("code-was-told")
    assert told == f"--remote|ssh-remote+my-experiment-gpu|{PLACE}|"


def test_ide_needs_ssh_config_first_and_a_working_copy(laptop):
    assert "lab ssh-config --install" in lab(laptop, "ide", code=1)
    lab(laptop, "ssh-config", "--install")
    local = laptop.path / "machines.local.toml"
    text = local.read_text()
    local.write_text(text + 'folder = "lab/nowhere"\n')
    assert "not on worker yet: lab setup" in lab(laptop, "ide", code=1)
    local.write_text(text)
    lab(laptop, "ssh-config", "--remove")
