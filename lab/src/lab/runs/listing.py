"""The quick listing of all records, without pandas: 10,000 of them in a fraction of a second."""

import json
import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.ground import files, garbage, project
from lab.runs.reading import (
    get_commit,
    get_dict,
    get_state,
    get_text,
    parse_object,
    read_text,
    run_ids,
    to_fingerprint,
)

Row = dict[str, Any]  # run, state, start, ...: see list_rows()

FINAL = {"COMPLETED", "FAILED", "INTERRUPTED", "TERMINATED"}  # states that never change
CACHE = "_cache/listing.json"  # in the runs folder: the rows of the runs that have ended
OLD_CACHE = "_listing.json"  # of an earlier lab: Sacred takes every file there for a run
FORMAT = 3  # of the cache; a cache of another format is not read
TEXT = (str, type(None))
TYPES: dict[str, Any] = {  # of the values in a row
    **dict.fromkeys(("run", "state"), str),
    **dict.fromkeys(("name", "command", "start", "dataset", "machine", "commit"), TEXT),
    "duration": (float, type(None)),
    **dict.fromkeys(("result", "changed", "config"), dict),
}
# Ranges of entries of run.json that the listing does not use: from one entry up to another.
UNUSED = (("determinism", "heartbeat"), ("host", "meta"), ("seeds", "start_time"))


def list_rows() -> list[Row]:
    """List all records, newest first, damaged ones included; one row each.

    A row has run, name, command, state, start (ISO 8601, UTC), duration (seconds), dataset,
    machine, commit, and as dictionaries result, changed (the settings that differ from their
    defaults) and config; what is unknown is None. The records of runs that have ended are read
    once: their rows are cached in the runs folder, with the fingerprints of their files.
    """
    with garbage.pause_collection():
        rows = _list_rows(str(project.runs_folder()))
    return sorted(rows, key=lambda row: (row["start"] or _start_of(row["run"]), row["run"]))[::-1]


def _list_rows(base: str) -> list[Row]:
    cached, ended, rows = _read_cache(base), {}, []
    for name in run_ids():
        record, config = f"{base}/{name}/run.json", f"{base}/{name}/config.json"
        entry = cached.get(name, [])
        if not _is_entry(entry, [_fingerprint(record), _fingerprint(config)], name):
            (text, of_record), (settings, of_config) = read_text(record), read_text(config)
            row = make_row(name, parse_object(_cut_unused(text)), parse_object(settings))
            entry = [[of_record, of_config], row]
        rows.append(entry[1])
        if entry[1]["state"] in FINAL:
            ended[name] = entry
    if len(ended) != len(cached) or any(cached.get(name) is not ended[name] for name in ended):
        _write_cache(base, ended)
    return rows


def _is_entry(entry: Any, fingerprints: list[Any], name: str) -> bool:
    """Whether an entry of the cache has these fingerprints, and the form that we write."""
    if not isinstance(entry, list) or len(entry) != 2 or entry[0] != fingerprints:
        return False
    row = entry[1]
    return (
        isinstance(row, dict)
        and row.get("run") == name
        and row.keys() == TYPES.keys()
        and all(isinstance(row[key], kinds) for key, kinds in TYPES.items())
    )


def make_row(name: str, record: dict[str, Any], config: dict[str, Any]) -> Row:
    """Make the row of a record in the listing."""
    result, meta = record.get("result"), get_dict(record, "meta")
    duration = get_dict(record, "usage").get("wall_time_s")
    return {
        "run": name,
        "name": get_text(get_dict(meta, "options"), "--name"),
        "command": get_text(record, "command"),
        "state": get_state(record),
        "start": get_text(record, "start_time"),
        "duration": duration if isinstance(duration, float) and 0 <= duration < 1e9 else None,
        "dataset": get_text(get_dict(record, "data"), "dataset"),
        "machine": get_text(get_dict(record, "process"), "host"),
        "commit": get_commit(record),
        "result": result if isinstance(result, dict) else {} if result is None else {"": result},
        "changed": get_dict(meta, "changed"),
        "config": config,
    }


def name_result(name: str, columns: Collection[str]) -> str:
    """Name the column of a result in a table that has these columns, too."""
    return f"result.{name}" if name in columns else name or "result"


def _start_of(run_id: str) -> str:
    """When a run started, from its id, in the form of run.json's start_time."""
    found = re.match(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)", run_id)
    return found.expand(r"\1-\2-\3T\4:\5:\6") if found else ""


def _fingerprint(path: str) -> list[int] | None:
    """The fingerprint of a file; None if it is missing."""
    try:
        return to_fingerprint(os.stat(path))
    except OSError:
        return None


def _cut_unused(text: str) -> str:
    """Cut most of what the listing does not use out of a run.json.

    It is written sorted and indented: only its own entries begin with two spaces, so that all
    between two of them can be cut out. Text in another form stays as it is.
    """
    if text.startswith('{\n  "'):
        for first, next_used in UNUSED:
            start = text.find(f'\n  "{first}": ')
            end = text.find(f'\n  "{next_used}": ', start)
            if 0 <= start < end:
                text = text[:start] + text[end:]
    return text


def _read_cache(base: str) -> dict[str, list[Any]]:
    """Read [fingerprints, row] of every run that had ended by the last listing; {} if no cache."""
    content = parse_object(read_text(f"{base}/{CACHE}")[0])
    return get_dict(content, "rows") if content.get("format") == FORMAT else {}


def _write_cache(base: str, rows: dict[str, Any]) -> None:
    """Save the rows for the next listing, if the folder can be written; it is only for speed."""
    text = json.dumps({"format": FORMAT, "rows": rows}, separators=(",", ":"))
    if files.find_link(Path(base), CACHE):
        return  # a link in somebody else's repository may lead anywhere
    with suppress(OSError):
        Path(base, CACHE).parent.mkdir(exist_ok=True)
        files.write(Path(base, CACHE), text, durable=False)
        Path(base, OLD_CACHE).unlink(missing_ok=True)
