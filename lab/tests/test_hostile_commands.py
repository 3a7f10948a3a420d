"""What a recorded command, a job's folder or Slurm say is read by a schema: it may be anything."""

import os
from contextlib import suppress

import pytest
from any_text import NASTY, outside, quickly
from hypothesis import given
from test_attempts import job, points_of  # noqa: F401 - a fixture
from test_recorded_command import record  # noqa: F401 - a fixture
from test_slurm_jobs import ABOUT, ID, cluster  # noqa: F401 - a fixture

from lab.cli import main
from lab.ground import files
from lab.jobs import control
from lab.recording import continued_record, metrics_file
from lab.recording.command import outputs, points
from lab.ssh.ssh_errors import BadAnswer

LINES = (
    b"[" * 100_000 + b"\n"
    b"[1]\n5\nnull\n\n\xff\xfe\n"
    b'{"metric": 5, "step": 1, "value": 1, "time": 1}\n'
    b'{"metric": "a", "step": "x", "value": 1, "time": 1}\n'
    b'{"metric": "a", "step": 1e400, "value": 1, "time": 1}\n'
    b'{"step": 1}\n'
)
FACTS = b'{"settings": 5}\n{"settings": {"lr": %s}}\n' % (b"[" * 500 + b"]" * 500)
EVIL = f"""
import os, sys, wandb
lines, facts = {LINES!r}, {FACTS!r}
for name, data in (("LAB_METRICS", lines), ("LAB_REPORT", lines + facts)):
    with open(os.environ[name], "ab") as file:
        file.write(data)
loop = {{}}
loop["loop"] = loop
wandb.log({{"a\\x1b[2J": 1, "b": 10**400, 5: 2, "d": "9", "e": object(), "c": loop}}, step=3)
wandb.log({{"loss": 1}}, step=10**30)
wandb.log({{"loss": 0.5}}, step=4)
print("\\x1b]52;c;eA==\\x07\\x1b[2J" + "x" * 100_000, flush=True)
sys.exit(3)
"""


@pytest.mark.parametrize("attempt", [0, 2])
def test_a_command_that_writes_anything_leaves_a_record_that_can_be_read(
    record,  # noqa: F811
    job,  # noqa: F811
    attempt,
    capfd,
):
    if attempt:
        job(attempt)
    record.write("evil.py", EVIL)
    folder, said = record("--", "python", "evil.py", code=3)
    assert "Traceback" not in said
    assert record.entry(folder)["status"] == "FAILED"
    assert {one for one in points_of(folder) if one[0] in ("5", "loss")} == {
        ("5", 3, 2.0),
        ("loss", 4, 0.5),
    }
    for words in (["show", folder.name], ["runs"], ["compare", folder.name, folder.name]):
        assert main.main(words) == 0
    shown = "".join(capfd.readouterr())
    assert shown.replace("\n", "").isprintable() and "loss" in shown


def test_points_of_a_later_attempt_are_those_that_are_points(job, tmp_path):  # noqa: F811
    folder = tmp_path / "runs/x"
    folder.mkdir(parents=True)
    line = metrics_file.format_lines([("a", 1, 0.5, 1.0)])
    (folder / "metrics.jsonl").write_bytes(line)
    job(2)
    later = points.LaterPoints(folder)
    later.path.write_bytes(LINES + metrics_file.format_lines([("a", 1, 0.25, 1.0)]))
    later.merge()
    assert points_of(folder) == [("a", 1, 0.25)]


@quickly
@given(outside(f"1 {'ab' * 8} 20260101-000000-aaaaaa\n2 {'cd' * 8} b\n"))
def test_of_the_runs_of_a_job(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_JOB_FOLDER", "/nowhere")
        patch.setenv("LAB_ATTEMPT", "2")
        patch.setattr(files, "read_text", lambda path, *_: text)
        for _, _, id in continued_record._read_runs():
            assert files.is_plain_path(id) and "/" not in id
        continued_record.find_earlier(["x"])


@pytest.mark.parametrize("number", ["9" * 200, "²", "-1", "x"])
def test_an_attempt_that_is_not_a_number_is_ignored(monkeypatch, number):
    monkeypatch.setenv("LAB_JOB_FOLDER", "/nowhere")
    monkeypatch.setenv("LAB_ATTEMPT", number)
    assert continued_record.choose_id(["x"], "wanted") == "wanted"


def test_outputs_of_an_earlier_run_are_its_files_alone(project):
    left = project / "data/digits/models/r/out"
    left.mkdir(parents=True)
    (left / "kept").write_text("kept")
    os.mkfifo(left / "pipe")
    (left / "endless").symlink_to("/dev/zero")
    (left / "link").symlink_to(project / "pyproject.toml")
    outputs.restore("r", ["out"])
    assert [path.name for path in (project / "out").iterdir()] == ["kept"]


HOSTILE = [
    "\x1b]52;c;eA==\x07\x1b[2J",
    "a\tb\t\tc",
    "|" * 50,
    "9" * 5000,
    "$(touch PWNED)`id`",
    "%s%n",
]


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_slurm_says_of_a_job_is_data(cluster, text):  # noqa: F811
    cluster.submitted()
    said = f"cat <<'END'\n{text}\nEND"
    answers = {
        "squeue": f"7|lab-{ID}|PENDING|{text}|{text}|gpu\n7|lab-{ID}|{text}|x|y|{text}\n{text}",
        "scontrol": ABOUT.format(text, text, text),
    }
    cluster.program("sinfo", said)
    cluster.program("sacct", said)
    for name, answer in answers.items():
        cluster.program(name, f"cat <<'END'\n{answer}\nEND")
        (cluster.ours / "slurm/queue").unlink(missing_ok=True)
        with suppress(BadAnswer):
            (found,) = control.list_jobs(cluster.connection)
            assert found.id == ID and not found.state.startswith("finished")
        cluster.queue()
    assert not list(cluster.home.rglob("PWNED"))


@pytest.mark.slow
def test_what_a_jobs_folder_says_on_a_machine_is_data(machine):
    """Each file that holds its state; where a team shares the folder, others may write there."""
    folder = machine.job(ID)
    names = ("exit_code", "pid", "phase", "gpus", "wrote", "job.json")
    for text in (one for one in NASTY if "\0" not in one):
        for name in names:
            (folder / name).write_bytes(text.encode("utf-8", "replace"))
        with suppress(BadAnswer):
            (found,) = control.list_jobs(machine.connection)
            assert found.id == ID and found.state.isprintable()
    (folder / "pid").unlink()
