"""Both sides of a job name the same files and the same fields; an unknown format is said."""

import json
import re
from pathlib import Path

from lab.jobs import control, paths, runner
from lab.ssh import framing

ROOM = Path(control.__file__).parent


def line(**told) -> str:
    about = {name: "" for name in paths.FIELDS} | {"id": "20261122-101530-k7xq2a"} | told
    return "\t".join(about[name] for name in paths.FIELDS)


def test_describe_prints_as_many_fields_as_the_laptop_reads():
    script = (ROOM / "jobs.sh").read_text("utf-8")
    (printed,) = re.findall(r"printf '((?:%s\\t)+%s)\\n'", script)
    assert printed.count("%s") == len(paths.FIELDS)


def test_the_scripts_write_every_file_that_is_named_and_no_other():
    scripts = "".join(path.read_text("utf-8") for path in ROOM.glob("*.sh"))
    files = {str(file.name) for name, file in vars(paths.JobPaths("", "x")).items()} - {"x"}
    for name in files:
        assert re.search(rf"\b{re.escape(name)}\b", scripts), name


def test_a_job_of_a_newer_lab_is_unknown_and_says_which_side_to_update():
    newer = json.dumps({"format": paths.FORMAT + 1, "name": "from tomorrow"})
    (job,) = control.parse(f"1000\n{line(code='0', start='1', end='2', spec=newer)}\n")
    assert job.state == "unknown" and "lab update" in job.detail


def test_a_job_of_an_older_lab_is_read():
    (job,) = control.parse(f"1000\n{line(code='0', start='1', end='2', spec='{}')}\n")
    assert (job.state, job.seconds) == ("finished(0)", 1)


def test_the_scripts_of_the_runner_have_one_hash_for_one_text(monkeypatch):
    first = runner.variables()["scripts"]
    assert first == runner.variables(sent=True)["scripts"] and runner.variables()["archive"] == ""
    changed = {**runner.contents(), "view.sh": "# another\n"}
    monkeypatch.setattr(runner, "contents", lambda: changed)
    assert runner.variables()["scripts"] != first


def test_each_script_is_found_in_one_room_alone():
    names = [path.name for path in framing.PACKAGE.rglob("*.sh")]
    assert len(names) == len(set(names)) > 20
