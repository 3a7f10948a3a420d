"""Records for tests, written as lab.recording writes them, without running anything."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {"dataset": "digits", "lr": 0.003, "seed": 0, "width": 32, "opt": {"name": "adamw"}}
NEWEST = "20261103-120000-gpu1-00000003"
MIDDLE = "20261102-120000-gpu2-00000002"
OLDEST = "20261101-120000-gpu1-00000001"


def write_record(
    runs: Path,
    name: str,
    metrics: Iterable[tuple[str, int, Any]] = (),
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write a record with these points and settings; `changes` go into run.json."""
    folder = runs / name
    folder.mkdir(parents=True)
    day = f"{name[:4]}-{name[4:6]}-{name[6:8]}"
    content = {
        "code": {"commit": COMMIT, "dirty": False},
        "data": {"dataset": "digits", "manifest_sha256": "aa"},
        "determinism": {"threads": 2},
        "experiment": {"sources": [["a.py", "b"]], "status": "nested"},
        "heartbeat": f"{day}T12:10:00",
        "host": {"cpu": "fast", "status": "nested"},
        "meta": {"result": {"accuracy": "nested"}, "comment": None, "changed": config or {}},
        "process": {"host": "gpu1", "boot": "another", "pid": 1, "started": "1"},
        "result": {"accuracy": 0.9, "loss": 0.1},
        "seeds": {"sacred": 0},
        "software": {"python": "3.11.7", "torch": "2.13.0"},
        "start_time": f"{day}T12:00:00",
        "status": "COMPLETED",
        "usage": {"wall_time_s": 125.4},
        **changes,
    }
    for file, value in (("run.json", content), ("config.json", CONFIG | (config or {}))):
        (folder / file).write_text(json.dumps(value, sort_keys=True, indent=2) + "\n")
    lines = (
        json.dumps({"metric": metric, "step": step, "value": value, "time": 1.0})
        for metric, step, value in metrics
    )
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def write_three(runs: Path) -> None:
    """Write three runs: the newest failed, the middle one has another machine and learning rate."""
    trace = {"status": "FAILED", "result": None, "fail_trace": ["Trace\n", "ValueError: nan\n"]}
    write_record(runs, NEWEST, **trace, config={"seed": 2})
    curve = [("val/loss", 10, 0.5), ("val/loss", 20, 0.25), ("val/accuracy", 20, "NaN")]
    process = {"host": "gpu2"}
    result = {"accuracy": 0.8}
    write_record(runs, MIDDLE, curve, config={"lr": 0.01}, process=process, result=result)
    write_record(runs, OLDEST, [("val/loss", 10, 0.75)])
