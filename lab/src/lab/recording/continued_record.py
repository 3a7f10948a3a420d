"""One record for all attempts of a job: the next attempt finds it and goes on in it.

The job's folder has the file `runs`, with a line for each run that its command has recorded:
ATTEMPT WORDS ID, where WORDS is a hash of what was run. A command may record several runs.
"""

import hashlib
import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from lab.ground import attempts, files
from lab.ground.ids import new_id
from lab.recording.ranks import is_main_process

RUN = "([0-9]{1,9}) ([0-9a-f]{16}) ([^ /]+)"  # a line of the file `runs`


def find_earlier(words: Any) -> str:
    """Return the id of the run that an earlier attempt recorded for the same words; "" if none.

    A run that has ended counts, too: a command that records several runs is run again as a whole.
    """
    if not attempts.number():
        return ""
    lines = _read_runs()
    taken = {id for attempt, _, id in lines if attempt == attempts.number() and is_main_process()}
    for attempt, key, id in lines:
        if key == _hash(words) and attempt < attempts.number() and id not in taken:
            return id
    return ""


def read_config(words: Any, runs: Path) -> dict[str, Any]:
    """Read the settings of the run that an earlier attempt recorded for these words; {} if none."""
    id = find_earlier(words)
    return _read_json(runs / id / "config.json") if id else {}


def choose_id(words: Any, wanted: str | None = None) -> str | None:
    """Choose and note the id for a run of this attempt: that of an earlier attempt's run, if any.

    Outside of an attempt it is `wanted`.
    """
    if not attempts.number():
        return wanted
    id = wanted or find_earlier(words) or new_id()
    line = f"{attempts.number()} {_hash(words)} {id}\n".encode()
    file = os.open(attempts.path("runs"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    with os.fdopen(file, "wb") as runs_of_job:
        runs_of_job.write(line)
    attempts.check()  # a newer one has looked before the line was there, and has chosen another id
    return id


def is_from_earlier(id: str) -> bool:
    """Whether an earlier attempt of this job has made the record of that id."""
    if not attempts.number():
        return False
    return any(attempt < attempts.number() and one == id for attempt, _, one in _read_runs())


def read_entry(folder: Path) -> dict[str, Any]:
    """Read a record's run.json; {} if there is none."""
    return _read_json(folder / "run.json")


def begin(entry: dict[str, Any], earlier: dict[str, Any], start: datetime) -> dict[str, Any]:
    """Return run.json for an attempt that begins: `entry`, with what earlier attempts noted."""
    listed = [dict(one) for one in earlier.get("attempts", [])]
    if listed and not listed[-1].get("end"):  # it was killed, or its computer failed
        listed[-1] |= {"end": earlier.get("heartbeat"), "state": "LOST"}
    listed.append(
        {
            "attempt": attempts.number(),
            "host": entry["process"]["host"],
            "commit": entry["code"].get("commit"),
            "start": start.isoformat(),
            "end": None,
            "state": "RUNNING",
        }
    )
    kept = ("experiment", "command", "meta", "start_time", "code", "resources", "artifacts")
    return entry | {one: earlier[one] for one in kept if one in earlier} | {"attempts": listed}


def end(entry: dict[str, Any]) -> None:
    """Note in run.json when and how this attempt has ended."""
    if entry.get("attempts"):
        entry["attempts"][-1] |= {"end": entry["stop_time"], "state": entry["status"]}


def judge_end(status: str) -> str:
    """Return the state of a run that has ended.

    In an attempt, a run that a signal ended is INTERRUPTED, as the next attempt goes on with it;
    it is TERMINATED if somebody stopped the job.
    """
    if not attempts.number() or status not in ("INTERRUPTED", "TERMINATED"):
        return status
    return "TERMINATED" if attempts.is_stopped() else "INTERRUPTED"


def _read_runs() -> list[tuple[int, str, str]]:
    """Read the job's runs: attempt, hash of the words, id; invalid lines are left out."""
    try:
        lines = files.read_text(attempts.path("runs"), "replace").splitlines()
    except OSError:
        return []
    found = filter(None, (re.fullmatch(RUN, line) for line in lines))
    return [(int(one[1]), one[2], one[3]) for one in found if files.is_plain_path(one[3])]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _hash(words: Any) -> str:
    text = json.dumps(words, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
