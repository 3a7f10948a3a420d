"""On a terminal, tables fit and bars show progress; elsewhere `lab` prints plain lines."""

import os
import re
import shutil
import subprocess
import unicodedata

import pytest

from helpers.files import dataset
from helpers.jobs import ended, start
from helpers.terminal import in_terminal, read_until, type_in

STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # all but tab and line feed
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def on_terminal(laptop, command: str, columns=80, **env) -> subprocess.CompletedProcess:
    """Run a command in a terminal to its end; return what it showed, and its exit code."""
    wrapped = f"stty rows 40 cols {columns}; {command}"
    words = ["script", "-qec", wrapped, "/dev/null"]
    # errors="replace": a bar may be cut within a character
    options = {"stderr": subprocess.STDOUT, "errors": "replace", "timeout": 60}
    return laptop.run(*words, check=False, env=env, **options)


def columns_of(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def worked(laptop) -> list[str]:
    """Make jobs and records with long and wide names; the ids of the local runs."""
    start(laptop, "--name", "日本語の長い名前" * 8, "--", "true")
    for number in (1, 2):
        text = f"text={'a long text ' * 9}{number}"
        laptop.lab("run", "--follow", "--gpus", "0", "with", text, f"lr=0.{number}")
    ended(laptop, start(laptop, "--", "sh", "-c", "kill -TERM $$"))
    laptop.lab("fetch")
    return sorted(path.parent.name for path in laptop.path.glob("runs/*/run.json"))


def test_every_table_fits_a_terminal_of_80_columns(laptop):
    first, second = worked(laptop)
    laptop.lab("kernel", "install")
    commands = ["jobs", "runs", "runs --sort loss", f"compare {first} {second}", "kernel list"]
    for command in [*commands, f"show {first}", "doctor", "jobs --all"]:
        shown = on_terminal(laptop, f"lab {command}").stdout.replace("\r", "")
        table = shown.split("\n\n")[0] if command == "doctor" else shown
        assert len(table.splitlines()) > 1, shown
        for line in table.splitlines():
            assert columns_of(line) <= 80, f"{command}: {line}"
    assert "日本語" in on_terminal(laptop, "lab jobs").stdout


def test_without_a_terminal_there_are_plain_lines_and_no_bars(laptop):
    first, second = worked(laptop)
    shutdown = ["run", "--name", "x", "--", "sleep", "100"]
    commands = [["setup"], ["sync"], ["jobs"], ["logs"], shutdown, ["stop", "x"], ["fetch"]]
    commands += [["runs"], ["show", first], ["compare", first, second], ["doctor"], ["--help"]]
    commands += [["kernel", "list"], ["ide"], ["ssh-config"], ["run", "--follow", "with", "lr=1"]]
    for command in commands:
        done = laptop.lab(*command, check=False)
        assert done.stdout + done.stderr
        found = STEERING.search(done.stdout + done.stderr)
        assert not found, f"{command}: {found}"


def test_lab_prints_no_color_and_uv_respects_no_color(laptop):
    first, second = worked(laptop)
    for command in ("jobs", "runs", f"show {first}", f"compare {first} {second}", "doctor"):
        assert not COLOUR.search(on_terminal(laptop, f"lab {command}").stdout)
    rebuild = "rm -rf lab/my-experiment/envs"
    laptop.hosts.worker.run("sh", "-c", rebuild)
    assert not COLOUR.search(on_terminal(laptop, "lab setup", NO_COLOR="1").stdout)
    laptop.hosts.worker.run("sh", "-c", rebuild)
    done = on_terminal(laptop, "lab setup")
    assert COLOUR.search(done.stdout), "otherwise this test has not seen uv at all"
    assert "Installed" in done.stdout and "gpu is ready" in done.stdout


def test_sending_much_shows_a_bar_on_a_terminal_alone_and_sending_little_none(laptop):
    big = laptop.path / "big"

    def make_big():
        big.write_bytes(subprocess.check_output(["head", "-c12M", "/dev/urandom"]))
        laptop.hosts.delay(0.1)

    make_big()
    done = on_terminal(laptop, "lab sync")
    assert done.returncode == 0, done.stdout
    seen = re.findall(r"sending: +(\d+)%.*?/12\.6M", done.stdout)
    assert len(seen) > 3 and seen == sorted(seen, key=int) and int(seen[-1]) > 50
    assert done.stdout.rstrip().endswith("work/ on gpu: synced")
    make_big()
    plain = laptop.lab("sync", check=False)
    assert plain.stdout == "work/ on gpu: synced\n" and plain.stderr.count("\n") == 1
    laptop.hosts.delay(0)
    big.write_text("little\n")
    assert "sending" not in on_terminal(laptop, "lab sync").stdout


def test_a_dataset_sent_by_tar_shows_how_much_has_arrived(laptop):
    laptop.hosts.worker.program("rsync", None)
    dataset(laptop.path / "data", **{"train/cat/big": os.urandom(12_000_000)})
    laptop.hosts.delay(0.1)
    for command, what in (("push-data", "sending"), ("fetch-data", "receiving")):
        shown = on_terminal(laptop, f"lab {command} pets").stdout
        assert len(re.findall(rf"{what}: [\d.]+MB? ", shown)) > 2, shown
        assert "12.0 MB copied" in shown
        shutil.rmtree(laptop.path / "data/pets")


@pytest.mark.parametrize("fault", ["lock", "line"])
def test_a_setup_that_fails_on_a_terminal_ends_with_one_line_and_exit_code_1(laptop, fault):
    if fault == "lock":
        with (laptop.path / "requirements.txt").open("a") as lock:
            lock.write("there-is-no-such-package==1\n")
        done = on_terminal(laptop, "lab setup")
        assert "there-is-no-such-package" in done.stdout
        assert done.stdout.rstrip().endswith("lab: gpu is not ready: the cause is above.")
    else:
        laptop.hosts.worker.program("sha256sum", "#!/bin/sh\nkill -9 $(pgrep -x sshd)\n")
        done = on_terminal(laptop, "lab setup")
        assert re.search(r"lab: gpu: .*connection was lost.*same command", done.stdout)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout


def test_ctrl_c_in_a_setup_interrupts_it(laptop):
    waiting = "#!/bin/sh\necho waiting >/dev/tty\nexec sleep 1000\n"
    laptop.hosts.worker.program("sha256sum", waiting)
    with in_terminal(laptop, "lab setup") as session:
        read_until(session, "waiting")
        type_in(session, "\x03")
        shown, _ = session.communicate(timeout=120)
    assert shown.rstrip().endswith("lab: interrupted") and session.returncode == 130
    assert not [line for _, _, line in laptop.hosts.worker.processes() if "sleep 1000" in line]
