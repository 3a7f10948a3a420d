"""Both sides of a job name the same files and the same fields; an unknown format is said."""

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


def test_describe_prints_as_many_fields_as_the_laptop_reads():
    script = (ROOM / "jobs.sh").read_text("utf-8")
    (printed,) = re.findall(r"printf '((?:%s\\t)+%s)\\n'", script)
    assert printed.count("%s") == len(job_format.FIELDS)


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
