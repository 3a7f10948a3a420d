"""Both sides of a job name the same files and fields; an unknown format is reported."""

import json
import re
from pathlib import Path

import pytest

from lab.jobs import control, job_format, runner_scripts
from lab.ssh import framing

ROOM = Path(control.__file__).parent


def line(**told) -> str:
    about = dict.fromkeys(job_format.FIELDS, "") | {"id": "20261122-101530-k7xq2a"} | told
    return "\t".join(about[name] for name in job_format.FIELDS)


def test_describe_prints_the_fields_that_the_laptop_reads():
    script = (ROOM / "jobs.sh").read_text("utf-8")
    (printed,) = re.findall(r"print \$1, (.*)", script)
    assert tuple(printed.split(", ")) == job_format.FIELDS[1:]


ALL = {"pid": "7 b 8 1000 h\n", "phase": "running 1010\n", "gpus": "0,1\n", "wrote": "2\n"}


@pytest.mark.parametrize(
    ("files", "state", "waited", "seconds", "gpus"),
    [
        ({"exit_code": "3 1100      \n", **ALL}, "finished(3)", 10, 90, "0,1"),
        ({"exit_code": "143 1100\n", **ALL, "stop": ""}, "stopped", 10, 90, "0,1"),
        (
            {"exit_code": "137 1100\n", **ALL, "phase": "queued x"},
            "killed(SIGKILL)",
            100,
            None,
            "0,1",
        ),
        ({"exit_code": "0 5\n"}, "finished(0)", None, None, ""),
        ({"exit_code": "168 5\n"}, "killed(signal 40)", None, None, ""),
        (
            {"exit_code": "0\n", "pid": "7 b x 1000 h\n", "wrote": "some\n"},
            "finished(0)",
            None,
            None,
            "",
        ),
        ({"exit_code": "\0\0\n", **ALL}, "lost", 10, None, "0,1"),
        ({"exit_code": "", **ALL, "stop": ""}, "stopped", 10, None, "0,1"),
    ],
)
def test_a_job_that_has_ended_stands_as_its_files_say(machine, files, state, waited, seconds, gpus):
    """Also an older one that lacks some, and one with damaged ones."""
    id, other = "20260101-000000-aaaaaa", "20260102-000000-aaaaaa"
    machine.job(id, **files)
    machine.job(other, exit_code="1 7\n")
    (machine.folder / "jobs/20260103-000000-aaaaaa").mkdir()  # it is just being created
    job, last = control.list_jobs(machine.connection)
    assert (job.state, job.waited, job.seconds, job.gpus) == (state, waited, seconds, gpus)
    counted = "wrote" in files and state in ("finished(3)", "stopped", "killed(SIGKILL)")
    assert ("2" in job.detail) == counted
    assert control.get(machine.connection, id) == job and last.state == "finished(1)"


def test_every_file_of_a_job_that_is_named_is_one_of_the_scripts():
    scripts = "".join(path.read_text("utf-8") for path in ROOM.glob("*.sh"))
    names = re.findall(r"^    ([\w.]+)  ", job_format.__doc__, re.M)
    assert len(names) == 13
    for name in names:
        assert re.search(rf"\b{re.escape(name)}\b", scripts), name


def test_a_job_of_a_newer_lab_is_unknown_and_says_which_side_to_update():
    newer = json.dumps({"format": job_format.FORMAT + 1, "name": "from tomorrow"})
    (job,) = control.parse(f"1000\n{line(code='0', start='1', end='2', spec=newer)}\n")
    assert job.state == "unknown" and "lab update" in job.detail


@pytest.mark.parametrize("spec", ["[]", "3", "null", '"x"', "{broken", "", '{"format": "x"}'])
def test_a_damaged_job_json_hides_neither_the_job_nor_the_others(spec):
    good = line(code="0", spec='{"name": "good"}')
    damaged, other = control.parse(f"1000\n{line(code='0', spec=spec)}\n{good}\n")
    assert (damaged.state, other.spec["name"]) == ("finished(0)", "good")
    assert damaged.row()["what"] == ""


@pytest.mark.parametrize(
    "spec", ['{"command": 3, "by": [1], "name": {}}', '{"command": [1, null]}']
)
def test_any_value_in_a_job_json_is_shown_as_text(spec):
    (job,) = control.parse(f"1000\n{line(code='0', spec=spec)}\n")
    assert all(isinstance(cell, str) for cell in job.row().values())


def test_a_job_of_an_older_lab_is_read():
    (job,) = control.parse(f"1000\n{line(code='0', start='1', end='2', spec='{}')}\n")
    assert (job.state, job.seconds) == ("finished(0)", 1)


def test_the_scripts_of_the_runner_have_one_hash_for_one_text(monkeypatch):
    first = runner_scripts.make_variables()["scripts"]
    assert (
        first == runner_scripts.make_variables(send=True)["scripts"]
        and runner_scripts.make_variables()["archive"] == ""
    )
    changed = {**runner_scripts.read_scripts(), "view.sh": "# another\n"}
    monkeypatch.setattr(runner_scripts, "read_scripts", lambda scheduler: changed)
    assert runner_scripts.make_variables()["scripts"] != first


def test_each_script_is_found_in_one_room_alone():
    names = [path.name for path in framing.PACKAGE.rglob("*.sh")]
    assert len(names) == len(set(names)) > 20
