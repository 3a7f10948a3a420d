"""The options of sbatch: which may be given, how they are merged, and the batch script of them."""

from pathlib import Path

import pytest

from lab.ground.errors import UsageError
from lab.slurm import options

GOLDEN = Path(__file__).with_name("slurm_batch.golden")
MACHINE = {"partition": "gpu", "account": "abc123", "time": "04:00:00", "mem": "32G"}
ID = "20260101-000000-k7xq2a"


def test_the_batch_script_is_the_golden_file():
    chosen = options.choose(MACHINE, {"exclusive": True, "qos": "long"}, time="00:30:00", gpus="2")
    assert options.make_batch_script(ID, chosen) == GOLDEN.read_text("utf-8")


def test_what_lab_run_gives_overrides_the_machine_option_by_option():
    chosen = options.choose({**MACHINE, "exclusive": True}, {"mem": "8G", "exclusive": False})
    assert chosen == {"partition": "gpu", "account": "abc123", "time": "04:00:00", "mem": "8G"}


@pytest.mark.parametrize(
    ("standing", "gpus", "expected"),
    [
        ({}, "some", {}),
        ({}, "2", {"gres": "gpu:2"}),
        ({"gres": "gpu:a100:1,license:3"}, "4", {"gres": "gpu:a100:4,license:3"}),
        ({"gpus": "h100:1"}, "2", {"gres": "gpu:h100:2"}),
        ({"gpus-per-node": 1}, "2", {"gres": "gpu:2"}),
        ({"gres": "gpu:1"}, "some", {"gres": "gpu:1"}),
        ({"gres": "gpu:1", "gpus": 1}, "0", {}),
        ({"gres": "tmp:1,gpu"}, "0", {"gres": "tmp:1"}),
    ],
)
def test_gpus_replace_the_machines_number_and_keep_its_type(standing, gpus, expected):
    assert options.choose(standing, {}, gpus=gpus) == expected
    assert options.asks_for_gpus(expected) == ("gpu" in str(expected))


@pytest.mark.parametrize(
    "word",
    [
        "output=/tmp/x",
        "job-name=x",
        "wrap=ls",
        "array=0-3",
        "export=ALL",
        "nodes=2",
        "ntasks=4",
        "signal=TERM@9",
        "p=gpu\n#SBATCH --uid=0",
        "comment=a b",
        "comment=$(id)",
        "Partition=x",
        "partition=",
        "mem='3'",
    ],
)
def test_an_sbatch_option_that_lab_sets_or_that_could_become_another_one_is_refused(word):
    with pytest.raises(UsageError):
        options.parse([word])


def test_unknown_options_are_passed_on_as_they_are():
    found = options.parse(["--some-new-option=a:b,c@d", "nice", "signal=B:USR1@300", "nodes=1"])
    script = options.make_batch_script(ID, options.choose({}, found))
    assert "\n#SBATCH --some-new-option=a:b,c@d\n#SBATCH --nice\n" in script
    assert script.count("--signal=") == script.count("--nodes=") == 1 and "B:USR1@300" in script
