"""Both sides of a job name the same files and the same fields; an unknown format is said."""

import json
import re
from pathlib import Path

from lab.jobs import control, job_format, runner_scripts
from lab.ssh import framing

ROOM = Path(control.__file__).parent


def line(**told) -> str:
    about = {name: "" for name in job_format.FIELDS} | {"id": "20261122-101530-k7xq2a"} | told
    return "\t".join(about[name] for name in job_format.FIELDS)


def test_describe_prints_as_many_fields_as_the_laptop_reads():
    script = (ROOM / "jobs.sh").read_text("utf-8")
    (printed,) = re.findall(r"printf '((?:%s\\t)+%s)\\n'", script)
    assert printed.count("%s") == len(job_format.FIELDS)


def test_every_file_of_a_job_that_is_named_is_one_of_the_scripts():
    scripts = "".join(path.read_text("utf-8") for path in ROOM.glob("*.sh"))
    names = re.findall(r"^    ([\w.]+)  ", job_format.__doc__, re.M)
    assert len(names) == 12
    for name in names:
        assert re.search(rf"\b{re.escape(name)}\b", scripts), name


def test_a_job_of_a_newer_lab_is_unknown_and_says_which_side_to_update():
    newer = json.dumps({"format": job_format.FORMAT + 1, "name": "from tomorrow"})
    (job,) = control.parse(f"1000\n{line(code='0', start='1', end='2', spec=newer)}\n")
    assert job.state == "unknown" and "lab update" in job.detail


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
    monkeypatch.setattr(runner_scripts, "read_scripts", lambda: changed)
    assert runner_scripts.make_variables()["scripts"] != first


def test_each_script_is_found_in_one_room_alone():
    names = [path.name for path in framing.PACKAGE.rglob("*.sh")]
    assert len(names) == len(set(names)) > 20
