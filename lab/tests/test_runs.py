"""Records are listed, found, shown and compared, also damaged ones, and nothing is guessed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from written_records import COMMIT, CONFIG, MIDDLE, NEWEST, OLDEST, write_record, write_three

from lab.cli import main as cli
from lab.ground import project as current
from lab.runs import comparison, listing, reading, records, reproduce

SRC = Path(__file__).resolve().parents[1] / "src"


class Lab:
    """The `lab` command, in this process, on records that a test wrote."""

    def __init__(self, runs: Path, capsys, monkeypatch):
        self.runs, self.capsys, self.monkeypatch = runs, capsys, monkeypatch

    def record(self, name, metrics=(), config=None, **changes) -> Path:
        return write_record(self.runs, name, metrics, config, **changes)

    def __call__(self, *words, code=0, **env) -> str:
        """What a command prints; it has to end with this exit code."""
        self.capsys.readouterr()
        with self.monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            try:
                ended = cli.main([str(word) for word in words])
            except SystemExit as exit:
                ended = exit.code
        printed = "".join(self.capsys.readouterr())
        assert ended == code, printed
        return printed

    def refused(self, *words, code=1) -> str:
        """The one line in which a command says why it cannot be done."""
        (line,) = self(*words, code=code).splitlines()
        assert line.startswith("lab: ")
        return line

    def rows(self, *words) -> list[dict]:
        return json.loads(self("runs", "--json", *words))

    def ids(self, *words) -> list[str]:
        return [row["run"] for row in self.rows(*words)]

    def run(self, *command, **env) -> str:
        """What a command prints in a process of its own."""
        return subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": str(SRC), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        ).stdout


@pytest.fixture
def lab(project, capsys, monkeypatch) -> Lab:
    return Lab(project / "runs", capsys, monkeypatch)


@pytest.fixture
def three(lab) -> Lab:
    """Three runs: the newest failed, the middle one has another machine and learning rate."""
    write_three(lab.runs)
    return lab


# --- the listing ---------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_with_all_that_matters(three):
    assert three("runs").splitlines() == [
        "run              state      data    changed  accuracy  loss  time  machine  commit",
        "20261103-120000  FAILED     digits  seed=2                   2m05  gpu1     0123456",
        "20261102-120000  COMPLETED  digits  lr=0.01  0.8             2m05  gpu2     0123456",
        "20261101-120000  COMPLETED  digits           0.9       0.1   2m05  gpu1     0123456",
    ]


def test_the_listing_shows_the_newest_twenty_and_how_many_others_there_are(lab):
    for number in range(25):
        lab.record(f"20261101-1200{number:02}-0000{number:02}", config={"seed": number})
    lines = lab("runs").splitlines()
    assert len(lines) == 22 and lines[-1] == "and 5 more; -n 0 lists all"
    assert len(lab("runs", "-n", "0").splitlines()) == 26
    assert len(lab.rows()) == 25


def test_what_a_run_changed_does_not_depend_on_other_runs(lab):
    lab.record(OLDEST, config={"lr": 0.01})
    alone = lab("runs").splitlines()[1]
    for number in range(3):
        lab.record(f"2026110{number + 2}-120000-00000{number}", config={"lr": 0.01})
    assert "lr=0.01" in alone and lab("runs").splitlines()[-1].split() == alone.split()


def test_a_run_with_a_name_or_another_command_says_so(lab):
    lab.record(OLDEST, command="evaluate", meta={"options": {"--name": "baseline"}})
    lab.record(NEWEST, command="run")
    head, newest, oldest = lab("runs").splitlines()
    assert head.split()[:4] == ["run", "name", "state", "command"]
    assert "baseline" in oldest and "evaluate" in oldest and "run" not in newest.split()[1:]


def test_the_last_runs_need_no_id(three):
    ids = [json.loads(three("show", name, "--json"))["row"]["run"] for name in ("last", "last~1")]
    assert ids == [NEWEST, MIDDLE]
    assert "3 runs are recorded" in three.refused("show", "last~3")


def test_runs_without_a_dataset_fit_a_narrow_terminal(lab):
    for name in (NEWEST, OLDEST):
        lab.record(name, config={"text": "a long text " * 9}, data={})
    assert max(map(len, lab("runs", COLUMNS="80").splitlines())) <= 80


def test_times_are_local_with_their_zone(three):
    assert "2026-11-04 01:00:00 +1300" in three.run(
        sys.executable, "-m", "lab.cli", "show", "last", TZ="Pacific/Auckland"
    )


def test_without_records_the_listing_says_so(lab):
    assert lab("runs") == "no runs yet\n"
    assert lab.rows() == []


def test_every_run_of_a_sweep_shows_its_value(lab):
    for number in range(4):
        lab.record(f"2026110{number}-120000-gpu1-0000000{number}", config={"lr": 10.0**-number})
    changed = [line.split()[3] for line in lab("runs").splitlines()[1:]]
    assert changed == ["lr=0.001", "lr=0.01", "lr=0.1", "lr=1.0"]


def test_two_runs_of_one_second_are_shown_by_their_whole_ids(lab):
    names = ["20261101-120000-gpu1-00000001", "20261101-120000-gpu1-00000002"]
    for name in names:
        lab.record(name)
    assert [line.split()[0] for line in lab("runs").splitlines()[1:]] == names[::-1]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--where", "lr=0.01"], [MIDDLE]),
        (["--where", "lr=1e-2"], [MIDDLE]),
        (["--where", "lr=0.003", "--where", "seed=2"], [NEWEST]),
        (["--where", "opt.name=adamw"], [NEWEST, MIDDLE, OLDEST]),
        (["--where", "opt.name=sgd"], []),
        (["--where", "machine=gpu1"], [NEWEST, OLDEST]),
        (["--where", "commit=0123"], [NEWEST, MIDDLE, OLDEST]),
        (["--where", "state=FAILED"], [NEWEST]),
        (["--state", "completed"], [MIDDLE, OLDEST]),
        (["--state", "completed", "--where", "seed=2"], []),
        (["--reverse"], [OLDEST, MIDDLE, NEWEST]),
        (["--sort", "accuracy"], [OLDEST, MIDDLE, NEWEST]),
        (["--sort", "accuracy", "--reverse"], [MIDDLE, OLDEST, NEWEST]),
        (["--sort=-accuracy"], [MIDDLE, OLDEST, NEWEST]),
        (["-n", "2"], [NEWEST, MIDDLE]),
        (["--sort", "val/loss"], [MIDDLE, OLDEST, NEWEST]),
        (["--sort", "val/loss", "--reverse"], [OLDEST, MIDDLE, NEWEST]),
    ],
)
def test_runs_are_chosen_and_sorted(three, options, found):
    assert three.ids(*options) == found


def test_a_result_or_setting_with_the_name_of_a_column_hides_nothing(lab):
    lab.record(OLDEST, config={"state": "CA"}, result={"run": 1, "state": "good", "time": 5})
    head, line = (line.split() for line in lab("runs").splitlines())
    assert head == [
        *("run", "state", "data", "changed", "result.run", "result.state", "result.time"),
        *("time", "machine", "commit"),
    ]
    assert line == [
        *("20261101-120000", "COMPLETED", "digits", "state=CA", "1", "good", "5"),
        *("2m05", "gpu1", COMMIT[:7]),
    ]
    assert lab("runs", "--sort", "time").split()[4] == "result.time"
    assert lab.ids("--state", "completed") == [OLDEST]


@pytest.mark.parametrize(
    ("metric", "higher_is_better"),
    [
        *((name, True) for name in ("val/top5", "kappa", "mean_return", "mAP50-95", "val_map")),
        *((name, False) for name in ("accumulated_loss", "f1_error", "heatmap_mse", "perplexity")),
    ],
)
def test_the_best_comes_first_by_the_name_of_the_metric(lab, metric, higher_is_better):
    low, high = "20261122-101530-low", "20261122-101530-high"
    for name, value in ((low, 1.0), (high, 2.0)):
        lab.record(name, result={metric: value})
    assert lab.ids("--sort", metric) == ([high, low] if higher_is_better else [low, high])


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "--where", "learning_rate=1"],
        ["runs", "--sort", "val/nothing"],
    ],
)
def test_a_name_that_no_run_knows_is_wrong_usage(three, words):
    said = three.refused(*words, code=2)
    assert "; there are" in said or "; results are accuracy, loss" in said
    assert "not of the form" in three("runs", "--where", "lr", code=2)


def test_where_no_run_has_a_result_no_name_is_proposed(lab):
    lab.record(OLDEST, result=None)
    assert lab.refused("runs", "--sort", "loss", code=2).endswith("; results are none.")


def test_json_and_csv_have_every_run_whole(three):
    (row,) = three.rows("--where", "lr=0.01")
    assert row == {
        "run": MIDDLE,
        "name": None,
        "command": None,
        "state": "COMPLETED",
        "start": "2026-11-02T12:00:00",
        "duration": 125.4,
        "dataset": "digits",
        "machine": "gpu2",
        "commit": COMMIT,
        "result": {"accuracy": 0.8},
        "changed": {"lr": 0.01},
        "config": CONFIG | {"lr": 0.01},
    }
    head, *lines = three("runs", "--csv").splitlines()
    assert head.startswith("run,state,start,duration,dataset,machine,commit,result.accuracy,")
    assert lines[1].startswith(f"{MIDDLE},COMPLETED,2026-11-02T12:00:00,125.4,digits,gpu2,{COMMIT}")
    assert len(lines) == 3


@pytest.mark.parametrize("columns", [80, 60, 40])
def test_tables_fit_the_terminal(lab, columns):
    scores = {f"score_{number}": 0.12345678 for number in range(6)}
    long = {"dataset": "a-dataset-with-a-long-name", "lr": 0.0123, "width": 1024}
    for name in (NEWEST, MIDDLE, OLDEST):
        process = {"host": "a-machine-with-a-long-name"}
        data = {"dataset": long["dataset"]}
        lab.record(name, result=scores, data=data, process=process, config=long | {"seed": 7})
    runs = lab("runs", COLUMNS=str(columns)).splitlines()
    compared = lab("compare", NEWEST, MIDDLE, OLDEST, COLUMNS=str(columns)).splitlines()
    shown = lab("show", NEWEST, COLUMNS=str(columns)).splitlines()
    assert max(map(len, [*runs, *compared, *shown])) <= columns
    assert len(runs) == 4
    if columns == 80:
        assert "score_0" in runs[0], "numbers are left out, or shown whole"
        assert "0.1235" in runs[1] and "lr=0.0123 seed=7 width=1024" in runs[1]
        assert "a-machine" not in runs[1], "what all have in common yields first"


def test_a_reader_that_has_seen_enough_causes_no_complaint(lab):
    for number in range(400):  # more than a pipe holds
        (lab.runs / f"{'a-long-name' * 20}-{number}").mkdir(parents=True)
    words = ["sh", "-c", '"$@" | head -n 1', "sh", sys.executable, "-m", "lab.cli", "runs", "--csv"]
    printed = lab.run(*words)
    assert printed.count("\n") == 1


# --- damaged records ---------------------------------------------------------------------------

DAMAGE = {
    "nothing": lambda folder: (folder / "run.json").unlink(),
    "empty": lambda folder: (folder / "run.json").write_text(""),
    "half": lambda folder: (folder / "run.json").write_text(
        (folder / "run.json").read_text()[:500]
    ),
    "list": lambda folder: (folder / "run.json").write_text("[1, 2]"),
    "bytes": lambda folder: (folder / "run.json").write_bytes(b"\xff\xfe\x00"),
    "deep": lambda folder: (folder / "run.json").write_text("[" * 100_000),
    "folder": lambda folder: ((folder / "run.json").unlink(), (folder / "run.json").mkdir()),
    "pipe": lambda folder: ((folder / "run.json").unlink(), os.mkfifo(folder / "run.json")),
}
WRONG = {"code": 1, "data": [], "process": "x", "result": [1], "usage": None, "start_time": 5}


def test_damaged_and_incomplete_records_are_marked_in_the_listing(three):
    for name, harm in DAMAGE.items():
        harm(three.record(f"20261104-120000-broken-{name}"))
    three.record("20261104-120000-wrong-types", **WRONG, meta=3, software="?", fail_trace="?")
    three.record(
        "20261104-120000-odd-numbers", usage={"wall_time_s": float("nan")}, result="\ud800"
    )
    folder = three.record("20261104-120000-no-config")
    (folder / "config.json").write_text("{")
    (folder / "metrics.jsonl").write_text(
        '{"metric": "val/loss", "step": 1, "value": 2, "time": 3}\n{"m'
    )
    states = {row["run"]: row["state"] for row in three.rows()}
    assert len(states) == 3 + len(DAMAGE) + 3
    assert {states[f"20261104-120000-broken-{name}"] for name in DAMAGE} == {"UNREADABLE"}
    assert states[OLDEST] == "COMPLETED"
    assert "UNREADABLE" in three("runs")
    assert three("runs", "--csv").count("\n") > len(states)
    assert len(three.ids("--sort", "accuracy")) == len(states)
    for run in states:
        assert run in three("show", run)
        three("show", run, "--json")
        three("compare", run, OLDEST)
    assert sum(len(records.points(path / "metrics.jsonl")) for path in three.runs.iterdir()) == 5


def test_a_record_cannot_steer_the_terminal(lab):
    lab.record(OLDEST, process={"host": "\x1b[2Jgone"}, config={"name": "\x1b]0;title\x07"})
    for words in (["runs"], ["show", OLDEST], ["compare", OLDEST, OLDEST]):
        assert "\x1b" not in lab(*words)


def test_characters_that_the_terminal_does_not_have_are_no_error(lab):
    lab.record(OLDEST, data={"dataset": "größe"}, config={"name": "日本"})
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    commands = (["runs"], ["runs", "--csv"], ["show", OLDEST])
    code = "from lab.cli.main import main\n" + "".join(f"main({words})\n" for words in commands)
    assert lab.run(sys.executable, "-c", code, **plain).count(r"gr\xf6\xdfe") == 3


def test_a_run_that_says_running_and_is_not_is_lost(lab):
    lab.record(OLDEST, status="RUNNING")
    assert lab.rows()[0]["state"] == "LOST"


@pytest.mark.parametrize("columns", ["1", "2", "-5"])
def test_the_narrowest_terminal_is_wide_enough(three, columns):
    assert three("runs", COLUMNS=columns)


# --- the cache between two listings ---------------------------------------------------------------


@pytest.fixture
def list_counting(monkeypatch):
    """A function that lists the runs; returns how many files of records it read, and the rows."""
    read, files = listing.read_text, []

    def read_counting(path):
        if path.endswith(("/run.json", "/config.json")):
            files.append(path)
        return read(path)

    def list_rows():
        files.clear()
        rows = listing.list_rows()
        return len(files), rows

    monkeypatch.setattr(listing, "read_text", read_counting)
    return list_rows


def test_the_second_listing_reads_no_record_that_has_ended(three, list_counting):
    three.record("20261104-120000-gpu1-00000004", status="RUNNING")
    first, rows = list_counting()
    second, again = list_counting()
    assert (first, second) == (8, 2)
    assert rows == again


@pytest.mark.parametrize("file", ["run.json", "config.json"])
def test_a_record_that_changed_is_read_again_even_with_the_same_size_and_time(
    three, list_counting, file
):
    list_counting()
    path = three.runs / MIDDLE / file
    times = path.stat()
    new = path.with_name("new")
    new.write_text(path.read_text().replace("COMPLETED", "COMPLATED").replace("0.01", "0.02"))
    new.replace(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    (row,) = [row for row in list_counting()[1] if row["run"] == MIDDLE]
    assert row["state"] == "COMPLATED" or row["config"]["lr"] == 0.02


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"format": 0, "rows": {"x": 1}}'])
def test_the_cache_may_be_deleted_or_damaged(three, list_counting, content):
    _, rows = list_counting()
    cache = three.runs / listing.CACHE
    cache.unlink() if content is None else cache.write_text(content)
    assert list_counting() == (6, rows)
    assert list_counting() == (0, rows)


def test_a_record_that_was_removed_is_not_listed(three, list_counting):
    list_counting()
    shutil.rmtree(three.runs / MIDDLE)
    assert [row["run"] for row in list_counting()[1]] == [NEWEST, OLDEST]
    assert MIDDLE not in (three.runs / listing.CACHE).read_text()


def test_where_no_cache_can_be_written_the_listing_works(three, list_counting):
    (three.runs / "_cache").write_text("no folder")
    assert list_counting() == list_counting()
    assert not list(three.runs.glob(".*"))


def test_reading_listing_comparing_and_reproducing_import_no_sacred(three, tmp_path):
    """Simulate the day when Sacred no longer installs: whatever imports it fails."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sacred.py").write_text("raise ImportError('Sacred is gone')")
    path = {"PYTHONPATH": f"{tmp_path / 'without'}:{SRC}"}

    code = "try: import sacred\nexcept ImportError as error: print(error)\n"
    code += "from lab.cli.main import main\n"
    for words in (["runs"], ["show", NEWEST], ["compare", NEWEST, MIDDLE]):
        code += f"print('next'); main({words})\n"
    code += f"main(['note', {NEWEST!r}, 'still', 'readable'])\n"
    code += "import lab.records, lab.remote, lab.runs.reproduce, lab.runs.export\n"
    gone, *shown = three.run(sys.executable, "-c", code, **path).split("next\n")
    assert "is gone" in gone
    assert len(shown) == 3 and all(NEWEST[:15] in text for text in shown)


def test_only_folders_are_in_runs_where_sacreds_tools_take_a_file_for_a_run(three):
    (three.runs / "_listing.json").write_text("the cache of an earlier lab")
    three.rows()
    assert all(path.is_dir() for path in three.runs.iterdir())


def test_a_run_json_in_another_form_gives_the_same_row(three):
    before = three.rows()
    for path in three.runs.glob("*/run.json"):
        path.write_text(json.dumps(json.loads(path.read_text())))
    assert three.rows() == before


# --- one run, and several -------------------------------------------------------------------------


def test_a_run_is_found_by_the_beginning_of_its_id_or_by_its_folder(three):
    for wanted in (OLDEST, "20261101", f"{three.runs}/{OLDEST}/", f"runs/{OLDEST}"):
        assert three("show", wanted).startswith(f"run              {OLDEST}\n")
    said = three.refused("show", "202611")
    assert said == f"lab: 3 run ids begin with 202611; there are: {NEWEST}, {MIDDLE}, {OLDEST}."
    assert "no run id begins with 1999; there are: " + NEWEST in three.refused("show", "1999")
    three.record(OLDEST[:8])
    assert three("show", OLDEST[:8]).startswith(f"run              {OLDEST[:8]}\n")


def test_show_tells_settings_results_last_values_and_why_it_failed(three):
    shown = three("show", MIDDLE)
    for words in ("lr 0.01", "accuracy 0.8", "val/loss 0.25", f"commit {COMMIT}", "duration 2m05"):
        assert re.search("^" + words.replace(" ", " +") + "$", shown, re.M), words
    assert "ValueError: nan" in three("show", NEWEST)
    shown = json.loads(three("show", MIDDLE, "--json"), parse_constant=pytest.fail)
    assert shown["metrics"] == {"val/loss": 0.25, "val/accuracy": "NaN"}


def test_show_names_artifacts_what_is_repeated_and_no_number_of_sixteen_digits(three):
    name = "20261105-120000-gpu1-00000005"
    about = {"meta": {"comment": f"reproduces {OLDEST}"}, "job": {"lab": None, "processes": 1}}
    three.record(name, [("loss", 1, 0.1 + 0.2)], artifacts=["figure.png", "a.csv"], **about)
    shown = three("show", name)
    assert "figure.png, a.csv" in shown and f"reproduces {OLDEST}" in shown
    assert "0.3\n" in shown and "None" not in shown


def test_other_data_another_lock_and_other_packages_are_told_by_compare(three):
    software = {"lock_sha256": "bb", "not_as_locked": ["numpy is 1.0, not 2.4.6"]}
    name = "20261105-120000-gpu1-00000005"
    data = {"dataset": "digits", "manifest_sha256": "bb"}
    three.record(name, [("val/loss", 10, 0.75)], data=data, software=software)
    rows = {row["what"]: row for row in json.loads(three("compare", name, OLDEST, "--json"))}
    assert {"data manifest", "lock", "packages"} <= rows.keys()
    assert "numpy" in rows["packages"][name]


def test_notes_are_appended_and_shown(three):
    assert three("note", OLDEST, "the baseline", "of the paper").strip(), "it says that it is done"
    three("note", OLDEST, "two\nlines")
    assert "needs some text" in three.refused("note", OLDEST, " ", code=2)
    lines = (three.runs / OLDEST / "notes.txt").read_text().splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == ["the baseline of the paper", "two lines"]
    shown = three("show", OLDEST).splitlines()
    assert shown[-2:] == lines
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d  ", line) for line in lines)


def test_a_note_has_a_line_of_its_own_whatever_an_editor_left(three):
    file = three.runs / OLDEST / "notes.txt"
    file.write_text("one\ntwo")
    three("note", OLDEST, "three")
    three("note", OLDEST, "four")
    one, two, third, fourth = file.read_text().splitlines()
    assert (one, two) == ("one", "two") and third.endswith("  three") and fourth.endswith("  four")


def test_compare_shows_only_what_differs_and_the_last_metrics_side_by_side(three):
    assert three("compare", MIDDLE, OLDEST).splitlines() == [
        "              20261102-120000  20261101-120000",
        "lr            0.01             0.003",
        "machine       gpu2             gpu1",
        "accuracy      0.8              0.9",
        "val/loss      0.25             0.75",
        "val/accuracy  nan",
        "loss                           0.1",
    ]
    rows = json.loads(three("compare", MIDDLE, OLDEST, "--json"))
    assert rows[0] == {"kind": "setting", "what": "lr", MIDDLE: 0.01, OLDEST: 0.003}


def verdicts(old: Path, new: Path, tolerance=0.0) -> dict[str, str]:
    return {row.metric: row.verdict for row in comparison.compare(old, new, tolerance)}


def test_numbers_are_compared_point_by_point(lab):
    curve = [("loss", 1, 0.5), ("loss", 2, 0.25), ("nan", 1, "NaN"), ("gone", 1, 1.0), ("at", 1, 1)]
    other = [("loss", 1, 0.5000001), ("loss", 2, 0.25), ("nan", 1, "NaN"), ("new", 1, 1.0)]
    other.append(("at", 2, 1))
    old, new = lab.record(OLDEST, curve), lab.record(NEWEST, other)
    found = verdicts(old, new)
    assert found["loss"] == "differs from step 1 on, by 1e-07 at most"
    assert found["nan"] == found["result accuracy"] == found["state"] == "identical"
    assert found["gone"] == "differs: 1 points recorded, 0 now"
    assert found["new"] == "differs: 0 points recorded, 1 now"
    assert found["at"] == "differs: the points are at other steps"
    assert verdicts(old, new, 1e-6)["loss"] == "within the tolerance, by 1e-07 at most"
    assert verdicts(old, new, 1e-8)["loss"].startswith("differs")


def test_of_a_run_that_was_ended_the_points_until_then_count(lab):
    long = [("loss", 1, 0.5), ("loss", 2, 0.25), ("test", 2, 0.1)]
    old = lab.record(OLDEST, long[:1], status="TERMINATED", result=None)
    assert verdicts(old, lab.record(NEWEST, long)) == {"loss": "identical"}


def test_another_device_is_named(lab):
    gpu = {"usage": {"gpus": [{"name": "NVIDIA H200"}]}, "machine": {"driver": "550.1"}}
    folders = [lab.record(OLDEST, **gpu), lab.record(NEWEST)]
    contents = [reading.read_json(folder / "run.json") for folder in folders]
    assert comparison.describe_surroundings(*contents) == [
        "GPUs: NVIDIA H200 when it was recorded, none now",
        "driver: 550.1 when it was recorded, None now",
    ]


@pytest.mark.parametrize(
    ("metric", "is_clock"),
    [
        ("train/time", True),
        ("train_runtime", True),
        ("train_samples_per_second", True),
        ("tokens/s", True),
        ("result seconds", True),
        ("fps", True),
        ("perf/gpu", True),
        ("loss", False),
        ("timesteps", False),
        ("val/items", False),
        ("result accuracy", False),
    ],
)
def test_times_and_rates_do_not_decide_a_comparison(project, metric, is_clock):
    assert comparison.is_clock(metric, ["perf/*"]) == is_clock
    for name, value in ((OLDEST, 1.0), (NEWEST, 2.0)):
        bare = metric.removeprefix("result ")
        result = {bare: value} if bare != metric else {}
        points = [] if result else [(metric, 1, value)]
        write_record(project / "runs", name, points, result=result)
    (project / "pyproject.toml").write_text(
        (project / "pyproject.toml")
        .read_text()
        .replace("[tool.lab]", '[tool.lab]\nclocks=["perf/*"]')
    )
    current.reload()
    rows = comparison.compare(project / "runs" / OLDEST, project / "runs" / NEWEST, 0.0)
    (row,) = [row for row in rows if row.metric == metric]
    assert row.same == is_clock and (row.recorded, row.now) == (1.0, 2.0)


def test_what_two_runs_printed_is_compared_byte_by_byte(tmp_path):
    for name, text in (("a", "loss 1"), ("b", "loss 1"), ("c", "loss 2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cout.txt").write_text(text)
    assert reproduce.have_same_output(tmp_path / "a", tmp_path / "b")
    assert not reproduce.have_same_output(tmp_path / "a", tmp_path / "c")
    assert not reproduce.have_same_output(tmp_path / "a", tmp_path / "nothing")


def test_runs_without_a_number_to_compare_are_not_called_the_same(project):
    """Neither two failures nor two times are numbers that came out once more."""
    runs = project / "runs"
    for name in (OLDEST, MIDDLE):
        write_record(runs, name, [("eval/time", 1, 2.5)], status="FAILED", result=None)
    rows = comparison.compare(runs / OLDEST, runs / MIDDLE, 0.0)
    assert all(row.same for row in rows) and len(rows) == 2
    assert not comparison.has_number(rows)
    write_record(runs, NEWEST, [("state", 1, 2.5)], result=None)
    assert comparison.has_number(comparison.compare(runs / NEWEST, runs / NEWEST, 0.0))
