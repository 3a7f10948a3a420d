"""The quick listing of all records, without pandas: 10,000 of them in a fraction of a second."""

import gc
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.ground import files, project
from lab.runs.reading import as_object, commit, identity, part, read_text, run_ids, state

FINAL = {"COMPLETED", "FAILED", "INTERRUPTED", "TERMINATED"}  # states that nothing changes any more
LISTING = "_listing.json"  # in the runs folder: what is known of records that have ended
FORMAT = 1  # of that file; another one is not read
# Entries of run.json, in its order, that the listing does not show: from one, up to another.
BULK = (("determinism", "heartbeat"), ("host", "process"), ("seeds", "start_time"))


def rows() -> list[dict[str, Any]]:
    """One row per record, newest first, broken ones included.

    run, state, start (ISO 8601, UTC), duration (seconds), dataset, machine, commit, result and
    config, the last two as dictionaries; what is not known is None. Records that have ended are
    read once: their rows are kept in the runs folder, beside the times and sizes of their files.
    """
    collecting = gc.isenabled()
    gc.disable()  # nothing here is garbage, and looking for it takes a third of the time
    try:
        found = _rows(str(project.runs_folder()))
    finally:
        if collecting:
            gc.enable()
    return sorted(found, key=lambda row: (row["start"] or _begun(row["run"]), row["run"]))[::-1]


def _rows(base: str) -> list[dict[str, Any]]:
    known, kept, rows = _read_listing(base), {}, []
    for name in run_ids():
        record, config = f"{base}/{name}/run.json", f"{base}/{name}/config.json"
        entry = known.get(name)
        if not entry or entry[0] != [_stamp(record), _stamp(config)]:
            (text, of_record), (settings, of_config) = read_text(record), read_text(config)
            row = summary(name, as_object(_without_bulk(text)), as_object(settings))
            entry = [[of_record, of_config], row]
        rows.append(entry[1])
        if entry[1]["state"] in FINAL:
            kept[name] = entry
    if len(kept) != len(known) or any(known.get(name) is not kept[name] for name in kept):
        _write_listing(base, kept)
    return rows


def summary(name: str, record: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The row of a record in the listing."""
    result, start = record.get("result"), record.get("start_time")
    duration = part(record, "usage").get("wall_time_s")
    return {
        "run": name,
        "state": state(record),
        "start": start if isinstance(start, str) else None,
        "duration": duration if isinstance(duration, float) and duration < 1e9 else None,  # no NaN
        "dataset": part(record, "data").get("dataset"),
        "machine": part(record, "process").get("host"),
        "commit": commit(record),
        "result": result if isinstance(result, dict) else {} if result is None else {"": result},
        "config": config,
    }


def _begun(name: str) -> str:
    """When a run began, from its id, in the form of run.json's start_time."""
    found = re.match(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)", name)
    return found.expand(r"\1-\2-\3T\4:\5:\6") if found else ""


def _stamp(path: str) -> list[int] | None:
    """What changes when a file is written again; None if it is missing."""
    try:
        return identity(os.stat(path))
    except OSError:
        return None


def _without_bulk(text: str) -> str:
    """A run.json without most of what the listing does not show.

    In the form in which it is written, sorted and indented, only its own entries begin with two
    spaces; from one to another of them can be cut out. Anything else stays as it is.
    """
    if text.startswith('{\n  "'):
        for first, behind in BULK:
            start = text.find(f'\n  "{first}": ')
            end = text.find(f'\n  "{behind}": ', start)
            if 0 <= start < end:
                text = text[:start] + text[end:]
    return text


def _read_listing(base: str) -> dict[str, list[Any]]:
    """[stamp, row] of every record that had ended the last time; {} if that is not known."""
    content = as_object(read_text(f"{base}/{LISTING}")[0])
    return part(content, "rows") if content.get("format") == FORMAT else {}


def _write_listing(base: str, rows: dict[str, Any]) -> None:
    """Keep the rows for the next listing, if the folder can be written; it is only for speed."""
    text = json.dumps({"format": FORMAT, "rows": rows}, separators=(",", ":"))
    with suppress(OSError):
        files.write(Path(base, LISTING), text, durable=False)
