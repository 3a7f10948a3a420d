"""What recording costs, per step and per run: no tracking, plain Sacred, and lab.tracking.

    python benchmarks/tracking.py PROJECT [--points 1000000]

PROJECT is a baked project with its environment (`make demo` leaves build/demo/my-experiment). Every
number is CPU time of all processes of a run, the median of several runs that take turns, so that it
depends little on other work on this computer.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import tempfile
from pathlib import Path

STEP = "sum(range(1000))"  # the work of a step, about 20 microseconds

PLAIN = """
def run(log):
    LOOP
run(lambda step, value: None)
"""
SACRED = """
import os, sys
from sacred import Experiment
from sacred.observers import FileStorageObserver
ex = Experiment("bench", save_git_info=False)
ex.observers.append(FileStorageObserver(os.environ["LAB_RUNS"]))
@ex.config
def config():
    seed = 0
@ex.main
def run(_run):
    log = lambda step, value: _run.log_scalar("loss", value, step)
    LOOP
ex.run_commandline()
"""
OURS = """
from dataclasses import dataclass
from lab import tracking
@dataclass(frozen=True)
class Config:
    seed: int = 0
ex = tracking.Experiment(Config)
@ex.main
def run(_run):
    with tracking.metrics(_run) as metrics:
        log = lambda step, value: metrics(step, {"loss": value})
        LOOP
ex.run_commandline()
"""
LOOP = """
for step in range(POINTS):
    STEP
    log(step, step / 7)
"""


def measure(python: Path, template: str, points: int) -> float:
    """Return the CPU seconds of a run with this many steps."""
    head, _, tail = template.partition("LOOP")
    indent = head[head.rindex("\n") + 1 :]
    loop = LOOP.replace("POINTS", str(points)).replace("STEP", STEP)
    code = head.rstrip(" ") + "".join(f"{indent}{line}\n" for line in loop.splitlines()) + tail
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "bench.py")
        script.write_text(code)
        environment = {**os.environ, "LAB_RUNS": f"{folder}/runs"}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([python, script], env=environment, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON")
    wanted = parser.parse_args()
    python = wanted.project.resolve() / ".venv" / "bin" / "python"
    kinds = {"no tracking": PLAIN, "plain Sacred": SACRED, "lab.tracking": OURS}

    empty = {name: [] for name in kinds}  # a run without a step
    full = {name: [] for name in kinds}  # a run with all of them
    for _ in range(wanted.repeat):
        for name, template in kinds.items():
            empty[name].append(measure(python, template, 0))
    for _ in range(max(1, wanted.repeat // 2)):
        for name, template in kinds.items():
            full[name].append(measure(python, template, wanted.points))
    rows = []
    for name in kinds:
        run = statistics.median(empty[name])
        step = (statistics.median(full[name]) - run) / wanted.points
        rows.append({"name": name, "run_s": run, "step_us": step * 1e6})
    for row in rows:
        row["more_per_run_s"] = row["run_s"] - rows[0]["run_s"]
        row["more_per_step_us"] = row["step_us"] - rows[0]["step_us"]
    if wanted.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{wanted.points} steps of `{STEP}`, one point logged in each; CPU time\n")
    print(f"{'':20}{'empty run':>12}{'more':>10}{'per step':>12}{'more':>12}{'ratio':>8}")
    for row in rows:
        ratio = row["step_us"] / rows[0]["step_us"]
        print(
            f"{row['name']:20}{row['run_s']:>10.2f} s{row['more_per_run_s']:>8.2f} s"
            f"{row['step_us']:>9.2f} µs{row['more_per_step_us']:>9.2f} µs{ratio:>8.2f}"
        )


if __name__ == "__main__":
    main()
