"""The listing of 10,000 records against a bare loop; what `lab record` adds to a bare command.

    PROJECT/.venv/bin/python benchmarks/records.py [COUNT]

Times are seconds of the clock and, in brackets, of the processor. Ours and the loop take turns; the
ratio is the median over the rounds. "command" is a whole `lab runs` against a whole process of the
loop. Exit code 1 if the first listing takes more than 3 times the loop, or the second one more than
the first; or if `lab record -- python train.py`, for a script that does nothing, takes over 0.3 s
more than that command alone.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

ROUNDS = 7
PROMISED = 3.0
RECORDING = 0.3  # seconds that lab record may add to a command
LOOP = """
import os, sys
for entry in os.scandir(sys.argv[1]):
    if entry.is_dir() and entry.name != "_cache":
        for name in ("run.json", "config.json"):
            with open(f"{entry.path}/{name}", encoding="utf-8") as file:
                file.read()
"""


def write_records(folder: Path, count: int) -> None:
    """Write records of the size that the default experiment leaves, 5 kB each."""
    start = datetime(2026, 1, 1)
    sources = [[f"my_experiment/module_{n}.py", f"_sources/module_{n:032}.py"] for n in range(22)]
    options = {f"--option-{number}": None for number in range(24)}
    settings = {f"setting_{number}": number for number in range(12)}
    for number in range(count):
        began = start + timedelta(minutes=number)
        record = {
            "artifacts": [],
            "code": {"commit": f"{number:040x}", "dirty": False, "remote": None},
            "command": "run",
            "data": {"dataset": "digits", "manifest_sha256": "0" * 64},
            "determinism": {"threads": 2, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
            "experiment": {"mainfile": "lab/tracking.py", "sources": sources},
            "heartbeat": began.isoformat(),
            "host": {"cpu": "a processor", "hostname": "gpu1", "os": ["Linux", "Linux-6.1"]},
            "machine": {"cpus": 2, "gpus": []},
            "meta": {"command": "run", "options": options},
            "process": {"boot": "0" * 50, "host": "gpu1", "pid": number, "started": "1"},
            "result": {"accuracy": 1 / (number + 1), "loss": 0.25},
            "seeds": {"sacred": 0, "torch": 0},
            "software": {"lock_sha256": "0" * 64, "python": "3.11.7", "torch": "2.13.0"},
            "start_time": began.isoformat(),
            "status": "COMPLETED",
            "usage": {"peak_memory_mib": 381, "wall_time_s": 11.2},
        }
        config = settings | {"dataset": "digits", "lr": 10.0 ** -(number % 3), "seed": number % 5}
        run = folder / f"{began:%Y%m%d-%H%M%S}-gpu1-{number:08x}"
        run.mkdir()
        for name, content in (("run.json", record), ("config.json", config)):
            text = json.dumps(content, sort_keys=True, indent=2) + "\n"
            (run / name).write_text(text, "utf-8")


def measure(action) -> tuple[float, float]:
    """Return the seconds of the clock and of the processor, children included."""
    clock, cpu = time.perf_counter(), sum(os.times()[:4])
    action()
    return time.perf_counter() - clock, sum(os.times()[:4]) - cpu


def measure_recording() -> bool:
    """Print what `lab record` adds to a command, in pairs; return whether it is as promised."""
    bare = [sys.executable, "train.py"]
    recorded = [sys.executable, "-m", "lab.cli", "record", "--", *bare]
    root = Path(sys.prefix).parent  # the project, which has committed all that runs
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "project")
        subprocess.run(["git", "clone", "--quiet", root, folder], check=True)
        (folder / "train.py").write_text("pass\n")
        quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "check": True}
        subprocess.run(recorded, **quiet)  # compiles what is imported
        pairs = [
            [
                measure(lambda words=words: subprocess.run(words, **quiet))
                for words in (bare, recorded)
            ]
            for _ in range(3 * ROUNDS)
        ]
    added = [[ours[kind] - its[kind] for its, ours in pairs] for kind in (0, 1)]
    clock, cpu = map(statistics.median, added)
    print(
        f"lab record adds   {clock:6.3f} ({cpu:.3f}) s to a command; at least {min(added[0]):.3f} s"
    )
    return clock <= RECORDING


def main() -> int:
    # with it, each start would compile all of lab again
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    recording = measure_recording()
    with tempfile.TemporaryDirectory() as runs:
        write_records(Path(runs), int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
        os.environ.update(LAB_RUNS=runs, LAB_PROJECT=str(Path(sys.prefix).parent))
        from lab.runs import listing

        cache = Path(runs, listing.CACHE)
        loop = compile(LOOP, "loop", "exec")
        sys.argv[1:] = [runs]
        quiet = {"stdout": subprocess.DEVNULL, "check": True}
        command = [sys.executable, "-m", "lab.cli", "runs"]
        work = {
            "the loop": lambda: exec(loop, {}),
            "first listing": listing.list_rows,
            "second listing": listing.list_rows,
            "command: the loop": lambda: subprocess.run(
                [sys.executable, "-c", LOOP, runs], **quiet
            ),
            "command: first": lambda: subprocess.run(command, **quiet),
            "command: second": lambda: subprocess.run(command, **quiet),
        }
        times = {name: [] for name in work}
        for _ in range(ROUNDS):
            for name, action in work.items():
                if "first" in name:
                    cache.unlink(missing_ok=True)
                times[name].append(measure(action))
    ratios = {}
    for name, found in times.items():
        rival = times["command: the loop" if name.startswith("command") else "the loop"]
        ratio = [
            statistics.median(
                ours[kind] / its[kind] for ours, its in zip(found, rival, strict=True)
            )
            for kind in (0, 1)
        ]
        ratios[name] = ratio[0]
        clock, cpu = (statistics.median(kind) for kind in zip(*found, strict=True))
        print(f"{name:<18} {clock:6.3f} ({cpu:.3f}) s   ratio {ratio[0]:.2f} ({ratio[1]:.2f})")
    holds = (
        ratios["first listing"] <= PROMISED and ratios["second listing"] < ratios["first listing"]
    )
    print("as promised" if holds else f"NOT as promised: at most {PROMISED}, and the second faster")
    if not recording:
        print(f"NOT as promised: lab record adds at most {RECORDING} s")
    holds = holds and recording
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
