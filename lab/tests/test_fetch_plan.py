"""What a fetch decides, from listings and fingerprints as values."""

import pytest

from lab.transfer import fetch_plan, rsync_copy, staging

ENTRY = [[1, 1], [[5, 5], [1, 2]]]  # in the state: the remote fingerprint, the local ones


@pytest.mark.parametrize(
    ("remote", "entry", "local", "action"),
    [
        ((1, 1), None, None, "new"),
        ((1, 1), ENTRY, None, "new"),  # it was removed here
        ((1, 1), ENTRY, (1, 2), "same"),
        ((2, 1), ENTRY, (1, 2), "update"),
        ((2, 1), ENTRY, (5, 5), "update"),  # of a fetch before the last one
        ((1, 1), ENTRY, (5, 5), "update"),  # of a fetch that was interrupted
        ((1, 1), ENTRY, (9, 9), "same"),  # edited here, and not there
        ((2, 1), ENTRY, (9, 9), "compare"),
        ((1, 1), None, (1, 1), "compare"),
    ],
)
def test_what_a_fetch_does_depends_on_what_an_earlier_one_brought(remote, entry, local, action):
    assert fetch_plan.decide(remote, entry, local) == action


@pytest.mark.parametrize(
    "path",
    [
        "f",
        "../f",
        "r/../../f",
        "/etc/f",
        "r//f",
        "r/./f",
        ".fetched-gpu.json/x",
        "r/",
        "",
        "r/a\0b",
        ".git/config",
        "r/.git/config",
        "r/a/.envrc",
        "r/\u200c.git/config",
        "r/HEAD",
        "r/a/head",
        "_cache/listing.json",
    ],
)
def test_no_path_leads_out_of_the_folder_of_a_run(path):
    assert fetch_plan.is_expected("runs", "r/f")
    assert not fetch_plan.is_expected("runs", path)


@pytest.mark.parametrize(
    "path",
    ["d/models/r", "-d/models/r/f", "d/train/r/f", "d/models/../x/y", "/d/models/r/f", "d", ""],
)
def test_only_the_models_of_the_data_folder_are_fetched(path):
    assert fetch_plan.is_expected("data", "d/models/r/f")
    assert not fetch_plan.is_expected("data", path)


def test_a_listing_has_regular_files_by_kind_and_names_the_rest():
    entries = [
        "runs f 3 5.25 ./a/b",
        "runs f 3 5 ./../b",
        "data f 4 5.1234567891 ./d/models/r/x y\n",
    ]
    entries += ["jobs f 2 5 ./j/code/result"]
    entries += ["runs l 0 0.0 ./a/l", "runs d 0 0.0 ./shut"]
    output = "\0".join(["/R", "/D", "rsync  version 3.2.7  protocol", *entries, ""])
    listing = fetch_plan.parse_listing(output)
    assert listing.base == {"runs": "/R", "data": "/D", "jobs": "/jobs"}
    assert listing.files == {
        "runs": {"a/b": (3, 5_250_000_000)},
        "data": {"d/models/r/x y\n": (4, 5_123_456_789)},
        "jobs": {"j/code/result": (2, 5_000_000_000)},
    }
    assert listing.special == ["../b", "a/l"]
    assert listing.closed == ["runs/shut"]


def test_a_checkpoint_folder_is_one_unit_and_records_come_file_by_file():
    assert fetch_plan.unit_of("data", "d/models/r/e/x/y") == "d/models/r/e"
    assert fetch_plan.unit_of("runs", "r/a/b") == "r/a/b"


def test_a_unit_that_loses_files_between_two_rounds_is_being_removed():
    memory = fetch_plan.Memory()
    whole = ["d/models/r/e/a", "d/models/r/e/b", "d/models/r/f/a"]
    assert memory.find_shrunk("data", whole) == set()
    assert memory.find_shrunk("data", whole[1:]) == {"d/models/r/e"}
    assert memory.find_shrunk("data", [*whole, "d/models/r/f/b"]) == set()


def test_a_damaged_state_is_as_good_as_none(tmp_path):
    path = tmp_path / "state.json"
    for text in ("{", "[]"):
        path.write_text(text)
        assert fetch_plan.FetchState(path).files == {}


@pytest.mark.parametrize(
    ("version", "good"),
    [("2.6.9", False), ("3.0.9", False), ("3.1.0", True), ("3.10.1", True), ("v3.5.0", True)],
)
def test_an_old_rsync_is_not_used(monkeypatch, tmp_path, version, good):
    program = tmp_path / "rsync"
    program.write_text("#!/bin/sh\necho 'rsync  version 3.2.7  protocol version 31'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert rsync_copy.can_rsync(f"rsync  version {version}  protocol version 29") == good
    assert not rsync_copy.can_rsync("")
    program.unlink()
    assert not rsync_copy.can_rsync("rsync  version 3.2.7  protocol version 31")


def test_names_begin_so_that_no_program_takes_them_for_options():
    assert staging.list_names(["-e", "#x", "\udcff"]) == b"./-e\0./#x\0./\xff\0"


def test_a_time_keeps_its_nanoseconds():
    assert staging.parse_time("1700000000.1234567891") == 1_700_000_000_123_456_789
    assert staging.parse_time("5") == 5_000_000_000


def test_what_came_from_elsewhere_opens_no_folder_of_another_kind():
    state = {"runs/a/f": 1, "jobs/b/code/f": 1, "data/d/models/c/f": 1}

    def find(kind, *names):
        return fetch_plan.find_strange(kind, names, state)

    assert find("runs", "a/x", "b/x", "c/x", "_sources/x") == {"b", "c"}
    assert find("jobs", "a/code/x", "b/code/x") == {"a"}
    assert find("data", "d/models/a/x", "d/models/b/x", "d/models/c/x", "e/models/c/x") == {
        "d/models/b",
        "e/models/c",
    }
