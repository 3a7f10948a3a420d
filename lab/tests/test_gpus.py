"""Which GPUs are free: one shell function tells runner.sh and lab doctor."""

import os
import subprocess

import pytest

from lab.doctor import machine_checks
from lab.ssh import framing
from lab.ssh.machines import Machine

CARDS = "0, GPU-a, 4, 40960, NVIDIA A100\n1, GPU-b, 9000, 40960, NVIDIA A100\n"
SMI = """#!/bin/sh
case "$*" in
*--query-gpu*) printf '{cards}'; exit {cards_code} ;;
*--query-compute-apps*) printf '{apps}'; exit {apps_code} ;;
*) echo '| Driver Version: 550.54   CUDA Version: 12.4 |' ;;
esac
"""


@pytest.fixture
def machine(tmp_path):
    """A function that runs list_gpus beside such an nvidia-smi: (exit code, lines)."""

    def list_gpus(cards=CARDS, apps="", cards_code=0, apps_code=0):
        text = SMI.format(cards=cards, apps=apps, cards_code=cards_code, apps_code=apps_code)
        program = tmp_path / "nvidia-smi"
        program.write_text(text.replace("\n'", "\\n'"))
        program.chmod(0o755)
        source = framing.read_script("gpus.sh") + "\nlist_gpus"
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["sh", "-uc", source], env=environment, capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    return list_gpus


def test_memory_in_use_without_a_process_belongs_to_somebody(machine):
    code, lines = machine()
    assert code == 0
    assert lines == ["0||4|40960|NVIDIA A100", "1|somebody|9000|40960|NVIDIA A100"]


def test_a_gpu_belongs_to_the_user_of_its_process_and_to_somebody_if_that_has_ended(machine):
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    _, lines = machine(apps=f"GPU-a, {os.getpid()}\nGPU-b, 999999999\n")
    assert [line.split("|")[1] for line in lines] == [user, "somebody"]


def test_unknown_memory_leaves_a_gpu_without_users(machine):
    _, lines = machine(cards="0, GPU-a, [Not Supported], [N/A], Tesla K80\n")
    assert lines == ["0||[Not Supported]|[N/A]|Tesla K80"]


def test_a_gpu_that_does_not_tell_its_processes_is_judged_by_its_memory(machine):
    code, lines = machine(apps="Not supported on this device.\n", apps_code=3)
    assert (code, [line.split("|")[1] for line in lines]) == (0, ["", "somebody"])


@pytest.mark.parametrize(
    ("which", "number"), [("cards_code", 9), ("apps_code", 9), ("cards_code", 3)]
)
def test_a_failure_has_its_code_and_its_message(machine, which, number):
    code, lines = machine(cards="it failed\n", apps="it failed\n", **{which: number})
    assert (code, lines) == (number, ["it failed"])


def test_what_the_function_prints_is_what_the_doctor_reads(machine):
    _, lines = machine()
    facts = {"gpus": ["ok", *(f"gpu {line}" for line in lines), "cuda 12.4"]}
    checks = {check.check: check.remote for check in machine_checks.check_gpus(facts)}
    assert checks["GPUs"] == "1 of 2 free"
    assert checks["GPU 1"] == "NVIDIA A100, 9000 of 40960 MiB, somebody"


def test_the_question_of_the_doctor_fits_into_one_packet():
    machine = Machine(name="gpu", ssh="worker", folder="lab/my-experiment")
    variables = {"environment": "3.11-0123456789ab", "dataset": "digits", "term": "xterm-256color"}
    source = framing.frame_script(
        framing.assemble_script("facts.sh", variables, machine), "0" * 16, False
    )
    assert len(framing.pack_command(source)) < 4600
