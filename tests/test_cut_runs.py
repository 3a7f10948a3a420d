"""A run that is cut anywhere and continued by another attempt is as if nothing had cut it.

Without Slurm: helpers/cut_attempts.py plays its batch script.
"""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

HELPER = Path(__file__).parent / "helpers/cut_attempts.py"
CUTS = 30
SEED = 20261130  # of where they are cut


class Cut:
    """A project's run, and jobs with the same run, in which attempts were cut at random points."""

    def __init__(self, project, folder: Path):
        self.project, self.folder, self.seed = project, folder, SEED
        project.run("python", HELPER, folder, self.seed, CUTS, env={"PYTHONHASHSEED": "9"})
        self.report = json.loads((folder / "report.json").read_text())
        self.whole = folder / "runs" / self.report["run"]
        self.env = {"LAB_RUNS": str(folder / "runs"), "LAB_DATA": str(folder / "data")}

    def records(self) -> list[Path]:
        return [self.folder / "runs" / run for job in self.report["jobs"] for run in job["runs"]]


@pytest.fixture(scope="module")
def cut(compiled, tmp_path_factory) -> Cut:
    return Cut(compiled, tmp_path_factory.mktemp("cut"))


def points(record: Path) -> list[tuple]:
    lines = map(json.loads, (record / "metrics.jsonl").read_text().splitlines())
    return [(point["metric"], point["step"], point["value"]) for point in lines]


def columns(record: Path) -> dict:
    """Steps and values in Sacred's metrics.json."""
    metrics = json.loads((record / "metrics.json").read_text())
    return {name: (one["steps"], one["values"]) for name, one in metrics.items()}


def test_thirty_cuts_leave_the_points_of_a_run_that_nothing_has_cut(cut):
    assert len(points(cut.whole)) > 40
    assert [len(job["runs"]) for job in cut.report["jobs"]] == [1] * len(cut.report["jobs"])
    for record in cut.records():
        why = f"seed {cut.seed}, {record}"
        assert points(record) == points(cut.whole), why
        assert columns(record) == columns(cut.whole), why
        entries = [json.loads((one / "run.json").read_text()) for one in (record, cut.whole)]
        assert entries[0]["result"] == entries[1]["result"], why
        weights = [
            cut.folder / "data/digits/models" / one.name / "best.safetensors"
            for one in (record, cut.whole)
        ]
        assert weights[0].read_bytes() == weights[1].read_bytes(), why


def test_an_attempt_that_is_told_to_end_can_go_on_and_an_older_one_ends(cut):
    told = [one for job in cut.report["jobs"] for one in job["told"]]
    assert len(told) >= CUTS
    for _, name, _, end in told:  # an attempt may have been at its end before its cut
        wanted = {"0", "SIGKILL" if name == "SIGKILL" else "75"}
        assert end in wanted, f"seed {cut.seed}: {told}"


def test_tensorboard_shows_each_point_once(cut):
    script = """
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
for folder in sys.argv[1:]:
    found = EventAccumulator(folder + "/tensorboard").Reload()
    print({tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]})
"""
    done = cut.project.run("python", "-c", script, cut.whole, *cut.records(), stderr=None)
    lines = done.stdout.splitlines()
    assert len(lines) > 1 and len(set(lines)) == 1, f"seed {cut.seed}"


def test_the_record_names_its_attempts(cut):
    record = max(
        cut.records(), key=lambda one: len(json.loads((one / "run.json").read_text())["attempts"])
    )
    listed = json.loads((record / "run.json").read_text())["attempts"]
    assert len(listed) > 2 and listed[-1]["state"] == "COMPLETED"
    assert all(one["start"] and one["end"] and one["host"] for one in listed)
    numbers = [one["attempt"] for one in listed]
    assert numbers == sorted(set(numbers))
    shown = cut.project.run("lab", "show", record.name, env=cut.env).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("attempts")]
    assert "COMPLETED" in line
    compared = cut.project.run("lab", "compare", record.name, cut.whole.name, env=cut.env).stdout
    (line,) = [line for line in compared.splitlines() if line.startswith("attempts")]
    assert str(len(listed)) in line


def test_signals_to_all_processes_end_a_run_at_a_step_and_it_is_repeated_in_one_go(cut):
    signalled = cut.report["signalled"]
    assert signalled["ends"] == ["75", "75", "0"], signalled["output"]
    assert len(list(cut.folder.glob("jobs/signalled/listens.[123]"))) == 3
    record = cut.folder / "runs" / signalled["run"]
    entry = json.loads((record / "run.json").read_text())
    assert [one["state"] for one in entry["attempts"]] == [
        "INTERRUPTED",
        "INTERRUPTED",
        "COMPLETED",
    ]
    for metric in {point[0] for point in points(record)}:
        steps = [step for name, step, _ in points(record) if name == metric]
        assert steps == sorted(set(steps))
    assert [name for name, *_ in points(record)].count("val/loss") == 3
    before = {*cut.folder.glob("runs/2*")}
    other = {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "5"}  # it takes those of the record
    cut.project.run("lab", "reproduce", record.name, env=cut.env | other)  # 0: the same numbers
    (again,) = {*cut.folder.glob("runs/2*")} - before
    repeated = json.loads((again / "run.json").read_text())
    assert "attempts" not in repeated
    for name in ("determinism", "seeds"):
        assert repeated[name] == entry[name]


PLAIN = """
import sys, time
from dataclasses import dataclass
from lab import records, tracking

@dataclass(frozen=True)
class Config:
    resume: str = ""
    seed: int = 0

def inherit(typed, defaults):
    return {"resume": records.find(typed["resume"]).name} if typed.get("resume") else {}

ex = tracking.Experiment(Config, inherit="plain:inherit")

@ex.main
def run(_config, _run):
    with tracking.metrics(_run) as log:
        log(1, {"loss": 0.5})
    print("resumes", _config["resume"], flush=True)
    while "--comment=cut" in sys.argv:
        time.sleep(0.01)

if __name__ == "__main__":
    ex.run_commandline()
"""


def test_resume_means_in_each_attempt_what_it_meant_in_the_first(project, tmp_path):
    """Of an experiment that does not ask whether it should stop: a signal ends it at once."""
    (tmp_path / "plain.py").write_text(PLAIN)
    job = tmp_path / "job"
    job.mkdir()
    env = {"LAB_RUNS": str(tmp_path / "runs"), "LAB_PROJECT": str(project.path)}
    words = ["python", tmp_path / "plain.py"]
    project.run(*words, env=env)
    (first,) = (tmp_path / "runs").glob("2*")
    env |= {"LAB_JOB_FOLDER": str(job), "LAB_ATTEMPT": "1"}
    (job / "attempt").write_text("1\n")
    process = subprocess.Popen(
        [project.path / ".venv/bin/python", *words[1:], "--comment=cut", "with", "resume=last"],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        text=True,
    )
    while (line := process.stdout.readline()) != f"resumes {first.name}\n":
        assert line
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=120)
    assert process.returncode == 75
    (job / "attempt").write_text("2\n")
    said = project.run(*words, "with", "resume=last", env=env | {"LAB_ATTEMPT": "2"}).stdout
    assert f"resumes {first.name}\n" in said
    (second,) = set((tmp_path / "runs").glob("2*")) - {first}
    assert points(second) == [("loss", 1, 0.5)]
    entry = json.loads((second / "run.json").read_text())
    assert [one["state"] for one in entry["attempts"]] == ["INTERRUPTED", "COMPLETED"]
