"""Files that somebody else may have written: any bytes give a value, or the parser's error."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from any_text import outside, quickly, spoil_each
from hypothesis import given
from hypothesis import strategies as st

from lab.environment import installed, lock, markers, notebook_filter
from lab.ground import plain_json
from lab.jobs import job_cache
from lab.recording import metrics_file
from lab.runs import listing, records
from lab.ssh.machines import Machine

LOCK = (
    "torch==2.1 ; python_full_version < '3.11' and sys_platform == 'linux'\n./vendor/x.whl\na==1\n"
)
LINES = '{"metric": "a/b", "step": 1, "value": "NaN", "time": 1.5}\n' * 2
NOTEBOOK = {"cells": [{"cell_type": "code", "metadata": {"tags": []}}], "metadata": {}}
JOBS = "20260101-000000-a\tfinished(0)\tname\t1\n"
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["status", "result", "meta", "code", "commit", "data", "usage", "json://[1]"]
            ),
            inside,
            max_size=4,
        )
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("any") / "metrics.jsonl"


@quickly
@given(outside(LOCK))
def test_of_a_lock(text):
    assert all(isinstance(version, str) for version in installed.read_pins(text).values())
    lock.extract_pins(text)
    lock.SOURCE.findall(text)


def test_an_invalid_marker_ends_no_run():
    for text in spoil_each(LOCK):
        installed.read_pins(text)
    for text in ("x" * 5000, f"python_version < '{'9' * 5000}'", "'x' < '3.11'", "\0 < '3.11'"):
        assert markers.holds(text)


@quickly
@given(outside(LINES))
def test_of_points(path, text):
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for metric, step, _, _ in records.points(path):
        assert isinstance(metric, str) and isinstance(step, int)
    metrics_file.parse_lines(path.read_bytes().splitlines(keepends=True))


@quickly
@given(ANY, ANY)
def test_of_a_record(record, config):
    of_record, of_config = (one if isinstance(one, dict) else {} for one in (record, config))
    row = listing.make_row("x", of_record, of_config)
    assert row.keys() == listing.TYPES.keys()
    assert all(isinstance(row[name], kinds) for name, kinds in listing.TYPES.items())
    with suppress(ValueError):
        plain_json.restore(config)


@quickly
@given(outside(json.dumps(NOTEBOOK)))
def test_of_a_notebook(text):
    content = text.encode("utf-8", "surrogatepass")
    assert isinstance(notebook_filter.strip(content, "x"), bytes)


@quickly
@given(outside(JOBS))
def test_of_jobs_as_they_were_last_seen(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_cache, "cache_file", lambda machine: Path("/nowhere"))
        patch.setattr(job_cache.files, "read_text", lambda path: text)
        for job in job_cache.load(Machine("gpu", ssh="a", folder="b")):
            assert isinstance(job.ended, bool)
