"""Records, files and archives that somebody else wrote: they are data, whatever is in them."""

import io
import json
import os
import re
import sys
import zipfile
from pathlib import Path

import pytest
from git_helper import run_git
from written_records import write_record

from lab.cli import main as cli
from lab.ground import files, plain_json, terminal
from lab.ground import project as current
from lab.ground.errors import LabError
from lab.runs import archive, listing, recorded_code, reproduce

ESCAPES = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b2J\u202e\ud800\x7f"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
ONE, TWO = "20260101-000001-a-1", "20260101-000002-a-2"


class Desk:
    """The command `lab` in a project; nothing that it prints has a control character."""

    def __init__(self, project: Path, capsys):
        self.project, self.capsys = project, capsys
        self.runs = project / "runs"

    def __call__(self, *words: object, code: int | None = 0) -> str:
        found = cli.main(list(map(str, words)))
        out, err = self.capsys.readouterr()
        assert not CONTROL.search(out + err), (words, out, err)
        assert code in (None, found), (words, err)
        if found and code:
            assert err.startswith("lab: ") and err.count("\n") == 1, err
        return out + err

    def write(self, name: str, run: object, config: object = None, metrics: bytes = b"") -> Path:
        folder = self.runs / name
        folder.mkdir(parents=True)
        for file, content in (("run.json", run), ("config.json", config or {"seed": 1})):
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / file).write_text(text)
        (folder / "metrics.jsonl").write_bytes(metrics)
        return folder


@pytest.fixture
def desk(project, capsys) -> Desk:
    return Desk(project, capsys)


@pytest.fixture
def repository(desk) -> Desk:
    """A project with a commit; it has an experiment."""
    package = desk.project / "src/my_experiment"
    package.mkdir(parents=True)
    (package / "experiment.py").write_text("print('ran')\n")
    (desk.project / "requirements.txt").write_text("# a lock\n")
    run_git(desk.project, "init", "--quiet", "--initial-branch=main")
    run_git(desk.project, "add", "-A")
    run_git(desk.project, "commit", "--quiet", "-m", "first")
    return desk


# --- what records say -----------------------------------------------------------------------------

GOOD = {"status": "COMPLETED", "start_time": "2026-01-01T00:00:00", "usage": {"wall_time_s": 1.0}}
HOSTILE = {
    "escapes": {
        **GOOD,
        "status": ESCAPES,
        "start_time": ESCAPES,
        "command": ESCAPES,
        "result": {"acc" + ESCAPES: ESCAPES},
        "process": {"host": ESCAPES},
        "data": {"dataset": ESCAPES},
        "code": {"commit": ESCAPES * 9},
        "meta": {"comment": ESCAPES, "changed": {ESCAPES: ESCAPES}, "options": {"--name": ESCAPES}},
        "software": {"python": ESCAPES, "not_as_locked": [ESCAPES]},
        "fail_trace": [ESCAPES],
        "artifacts": [ESCAPES],
        "usage": {"wall_time_s": 1.0, "gpus": [{"name": ESCAPES}]},
    },
    "types": {
        **GOOD,
        "result": [1],
        "process": 5,
        "data": {"dataset": [1], "manifest_sha256": {}},
        "code": "x",
        "meta": 7,
        "software": {"not_as_locked": 7, "lab": 1},
        "usage": {"wall_time_s": -float("inf"), "gpus": 5},
        "fail_trace": {},
        "artifacts": 3,
        "status": "RUNNING",
        "heartbeat": 5,
    },
    "deep": "[" * 200_000,
    "deeper": '{"status": "COMPLETED", "result": ' + '{"a":' * 500 + "1" + "}" * 501,
    "huge": {**GOOD, "result": 10**400, "start_time": "9999-12-31T23:59:59", "meta": [1]},
    "numbers": {**GOOD, "result": {"acc": 10**400}, "process": {"host": 1, "pid": "x", "boot": 1}},
    "null": "null",
    "empty": "",
}
METRICS = (
    json.dumps({"metric": "m" + ESCAPES, "step": 1, "value": 1.0, "time": 1.0}).encode()
    + b'\n{"metric": "acc", "step": 1, "value": 0.5, "time": 1.0}\n'
    + b'{"metric": 5, "step": "x", "value": "nan", "time": null}\n'
    + b'{"metric": ["a"], "step": 1, "value": 1, "time": 1}\n'
    + b'{"metric": "acc", "step": ' + b"9" * 400 + b', "value": 1e999, "time": 1e400}\n'
    + b'{"metric": "acc", "step": 2, "value": ' + b"9" * 5000 + b', "time": 1}\n'
    + b'{"metric": "acc", "step": 2, "value": 1' + b"0" * 400 + b', "time": 1}\n'
    + b'{"metric": "$\\\\frac{$", "step": 1, "value": 1.0, "time": 1.0}\n'
    + b"[" * 100_000
    + b"\n\xff\xfe\n"
)  # fmt: skip


@pytest.fixture
def hostile(desk) -> Desk:
    for number, (name, run) in enumerate(HOSTILE.items()):
        config = {"lr" + ESCAPES: ESCAPES, "$\\frac{$": name, "seed": [number, {}]}
        desk.write(f"2026010{number}-{name}", run, config, METRICS)
    desk.write("20260201-a" + ESCAPES[:9].replace("/", ""), GOOD)
    pipes = desk.runs / "20260202-pipes"
    pipes.mkdir()
    for name in ("run.json", "config.json", "metrics.jsonl", "notes.txt"):
        os.mkfifo(pipes / name)
    endless = desk.runs / "20260203-endless"
    endless.mkdir()
    for name in ("run.json", "config.json", "metrics.jsonl", "notes.txt"):
        (endless / name).symlink_to("/dev/zero")
    return desk


def test_a_record_that_cannot_be_read_is_one_row_and_stops_nothing(hostile):
    for _ in range(2):  # the second listing takes them from its cache
        rows = json.loads(hostile("runs", "--json"))
        assert len(rows) == len(HOSTILE) + 3
        lines = hostile("runs", "-n", "0").splitlines()
        assert len(lines) == len(rows) + 1
        states = {row["run"].partition("-")[2]: row["state"] for row in rows}
        for name in ("deep", "deeper", "null", "empty", "pipes", "endless"):
            assert states[name] == "UNREADABLE"
    assert len(hostile("runs", "--csv").splitlines()) == len(rows) + 1
    for options in (["--sort", "acc"], ["--where", "seed=1"], ["--state", "completed"]):
        hostile("runs", *options)
    names = [row["run"] for row in rows if row["run"].isascii() and row["run"].isprintable()]
    for name in names:
        hostile("show", name)
        hostile("show", name, "--json")
    hostile("compare", *names)


def test_a_note_goes_into_no_fifo_and_no_file_elsewhere(desk):
    write_record(desk.runs, ONE)
    notes, other = desk.runs / ONE / "notes.txt", desk.project / "other"
    os.mkfifo(notes)
    desk("note", ONE, "text", code=1)
    notes.unlink()
    other.write_text("")
    notes.symlink_to(other)
    desk("note", ONE, "text", code=1)
    assert other.read_text() == ""


def test_points_of_an_endless_file_are_none(desk):
    folder = write_record(desk.runs, ONE)
    with (folder / "metrics.jsonl").open("wb") as file:
        file.truncate(1 << 40)
    assert "0.9" in desk("show", ONE)


@pytest.mark.parametrize("entry", [5, [], [[], {}], "x", [[None, None], {"run": "x"}]])
def test_a_cache_of_wrong_types_is_not_used(desk, entry):
    write_record(desk.runs, ONE)
    rows = listing.list_rows()
    cache = desk.runs / listing.CACHE
    content = json.loads(cache.read_text())
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], dict) and entry[1]:
        entry[0] = content["rows"][ONE][0]
        entry[1] = content["rows"][ONE][1] | {"changed": 5}
    cache.write_text(json.dumps(content | {"rows": {ONE: entry}}))
    assert listing.list_rows() == rows


def test_a_spreadsheet_takes_no_text_of_a_record_for_a_formula(desk):
    config = {"a": "=cmd|' /C calc'!A0", "b": "@SUM(1)", "c": "-1e-3", "d": -1}
    write_record(desk.runs, ONE, config=config)
    line = desk("runs", "--csv").splitlines()[1]
    assert ",'=cmd|" in line and ",'@SUM(1)" in line and ",-1e-3," in line and ",-1," in line


# --- where text leaves ----------------------------------------------------------------------------


def test_nothing_that_lab_prints_steers_a_terminal(desk, monkeypatch, capsys):
    """Errors, tracebacks and wrong usage included, without any care taken by new code."""

    def fail(*_: object) -> None:
        print(ESCAPES)
        sys.stderr.writelines([ESCAPES, "\n"])
        raise ValueError(ESCAPES + r"\x1b")

    monkeypatch.setattr("lab.cli.records.list_runs", fail)
    monkeypatch.setattr(cli, "COMMANDS", (cli.Command("runs", "", fail),))
    with pytest.raises(ValueError, match="x1b") as caught:
        cli.main(["runs"])
    sys.excepthook(caught.type, caught.value, caught.tb)
    with pytest.raises(SystemExit):
        cli.main([ESCAPES])
    print(ESCAPES, file=sys.stderr)
    out, err = capsys.readouterr()
    assert out and err and not CONTROL.search(out + err)


def test_text_stays_as_it_is_where_it_steers_nothing():
    for text in ("Größe 中文 😀\u00a0x", "two\nlines\tand a tab"):
        assert terminal.escape_text(text) == text
    assert terminal.escape("a\nb\x1b") == "a\\nb\\x1b"
    assert "\x1b" not in LabError("\x1b[2J")._render_traceback_()[0]


def test_an_error_that_quotes_much_is_short(desk):
    assert len(desk("show", "x" * 100_000, code=1)) < 4000


# --- files in place of which something else lies --------------------------------------------------


@pytest.mark.parametrize("name", ["machines.toml", "machines.local.toml", "requirements.txt"])
@pytest.mark.parametrize("kind", ["fifo", "endless", "folder", "deep", "binary", "big"])
def test_a_configuration_that_is_not_a_file_is_one_line(desk, name, kind):
    path = desk.project / name
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        content = {"deep": b"x = " + b"[" * 10_000, "binary": b"\xff\x00\x1b[2J"}
        path.write_bytes(content.get(kind, b"# " + b"a" * 2_000_000))
    assert "Traceback" not in desk("jobs", code=1)
    desk("doctor", code=None)


def test_a_pyproject_that_never_ends_is_no_project(desk):
    (desk.project / "pyproject.toml").unlink()
    (desk.project / "pyproject.toml").symlink_to("/dev/zero")
    desk("runs", code=1)


def test_files_are_read_within_limits(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 11)
    assert files.read(path, 11) == b"x" * 11
    os.mkfifo(tmp_path / "fifo")
    for wrong, limit in ((path, 10), ("/dev/zero", 10), (tmp_path, 10), (tmp_path / "fifo", 10)):
        with pytest.raises(OSError, match="regular|more than|directory"):
            files.read(wrong, limit)
    with pytest.raises(OSError, match="regular"):
        files.sha256(Path("/dev/zero"))
    for text in ("[" * 10_000, '{"a":' * 200 + "1" + "}" * 200, b"[" * 150 + b"]" * 150):
        with pytest.raises(ValueError, match="deep"):
            files.parse_json(text)
    assert files.parse_json("[" * 100 + "]" * 100)
    for text in ("x = " + "[" * 10_000, "x = " + "[" * 150 + "]" * 150):
        with pytest.raises(ValueError, match="deep"):
            current.parse_toml(text)


# --- which code runs ------------------------------------------------------------------------------


def record_of(commit: object, **code: object) -> dict[str, object]:
    experiment = {"mainfile": "my_experiment/experiment.py"}
    return {**GOOD, "command": "run", "experiment": experiment, "code": {"commit": commit, **code}}


def commit_evil(desk: Desk) -> str:
    """Make a commit that no ref holds, as a machine or a stranger would."""
    (desk.project / "evil.py").write_text("")
    run_git(desk.project, "add", "evil.py")
    tree = run_git(desk.project, "write-tree")
    run_git(desk.project, "reset", "--quiet")
    (desk.project / "evil.py").unlink()
    return run_git(desk.project, "commit-tree", "-p", "HEAD", "-m", f"evil{ESCAPES[:9]}", tree)


def test_only_code_that_a_branch_or_snapshot_of_mine_holds_is_repeated(repository, monkeypatch):
    desk = repository
    commit, head = commit_evil(desk), run_git(desk.project, "rev-parse", "HEAD")
    desk.write(ONE, record_of(commit))
    for ref in ("refs/lab/edits/gpu/x", "refs/heads/edits/gpu-x", "refs/remotes/gpu/main"):
        run_git(desk.project, "update-ref", ref, commit)
    assert commit[:12] in desk("reproduce", ONE, code=1)
    with pytest.raises(recorded_code.Untrusted):
        reproduce.reproduce(ONE)
    recorded_code.require_own(ONE, head)
    for ref in (f"refs/lab/snapshots/{commit}", "refs/heads/mine"):
        run_git(desk.project, "update-ref", ref, commit)
        recorded_code.require_own(ONE, commit)
        run_git(desk.project, "update-ref", "-d", ref)
    run_git(desk.project, "checkout", "--quiet", "--detach", commit)
    recorded_code.require_own(ONE, commit)
    assert not list(desk.project.parent.glob("*-reproduce-*"))


@pytest.mark.parametrize(
    "commit", ["--", "--output=PWNED", "HEAD", "main", "x:refs/heads/main", ["x"], 5, "f" * 39]
)
def test_a_commit_is_a_hash_and_never_an_option_of_git(repository, commit):
    repository.write(ONE, record_of(commit))
    repository.write(TWO, record_of(run_git(repository.project, "rev-parse", "HEAD")))
    repository("compare", "--code", ONE, TWO, code=1)
    repository("compare", "--code", TWO, ONE, code=1)
    repository("reproduce", ONE, code=1)
    repository("export", ONE, "x.zip", code=1)
    assert not list(repository.project.rglob("PWNED"))


def test_what_a_record_names_lies_inside_the_checkout(repository):
    head = run_git(repository.project, "rev-parse", "HEAD")
    for folder in ("..", "../../x", "/tmp", "a/../../b", "x\x1b[2J"):
        with pytest.raises(LabError):
            reproduce.make_plan(ONE, head, record_of(head, folder=folder), {})
    for change in (
        {"command": "--pdb"},
        {"command": ["run"]},
        {"command": "run\n"},
        {"job": {"processes": 10**9}},
        {"job": {"processes": "9 --x"}},
    ):
        with pytest.raises(LabError):
            reproduce.make_plan(ONE, head, {**record_of(head), **change}, {})
    for main in ("../runs/evil.py", "/tmp/evil.py", "-c.py", "my_experiment/../x.py", 5):
        with pytest.raises(LabError):
            reproduce.make_plan(
                ONE, head, {**record_of(head), "experiment": {"mainfile": main}}, {}
            )
    for meta in (
        {"words": "sh -c evil"},
        {"words": [["sh"]]},
        {"words": ["ls"], "folder": "../.."},
        {"words": ["ls"], "folder": "/"},
    ):
        with pytest.raises(LabError):
            reproduce.make_plan(ONE, head, {**record_of(head), "meta": meta}, {})


def test_a_recorded_command_runs_only_when_somebody_agrees(repository):
    head = run_git(repository.project, "rev-parse", "HEAD")
    record = {**record_of(head), "meta": {"words": ["touch", str(repository.project / "PWNED")]}}
    repository.write(ONE, record)
    assert "touch" in repository("reproduce", ONE, code=None), "it is shown"
    assert not list(repository.project.rglob("PWNED"))


def test_a_file_with_code_of_my_own_and_a_command_of_a_stranger_asks(repository):
    head = run_git(repository.project, "rev-parse", "HEAD")
    words = ["touch", str(repository.project / "PWNED"), "x\nlab: all is well"]
    file = make_archive(repository, head, {**record_of(head), "meta": {"words": words}})
    for wanted in (file, ONE):
        said = []
        with pytest.raises(LabError):
            reproduce.reproduce(str(wanted), agree=said.append)
        assert len(said) == 1 and "touch" in said[0]
        assert "\nlab: all" not in said[0], "no line of it can be forged"
    assert not list(repository.project.rglob("PWNED"))


def test_variables_of_a_record_are_numbers(desk):
    record = {
        "determinism": {"threads": "1\0", "CUBLAS_WORKSPACE_CONFIG": "x;y"},
        "seeds": {"PYTHONHASHSEED": "²"},
    }
    made = reproduce.make_variables(desk.project, record)
    for name in ("OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "PYTHONHASHSEED"):
        assert made.get(name) == os.environ.get(name)
    record = {"determinism": {"threads": 2, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}}
    made = reproduce.make_variables(desk.project, record)
    assert (made["OMP_NUM_THREADS"], made["CUBLAS_WORKSPACE_CONFIG"]) == ("2", ":4096:8")


def test_settings_of_a_record_make_no_objects(repository):
    """Sacred reads JSON with jsonpickle, which calls what the file names."""
    head = run_git(repository.project, "rev-parse", "HEAD")
    for evil in (
        {"py/reduce": [{"py/type": "os.system"}, {"py/tuple": ["touch PWNED"]}]},
        {"py/object": "subprocess.Popen", "py/newargs": {"py/tuple": ["x"]}},
        {'json://{"py/type": "antigravity"}': 1},
    ):
        for config in (evil, {"a": [evil]}, {"a": {"py/tuple": [evil]}}):
            with pytest.raises(LabError):
                reproduce.make_plan(ONE, head, record_of(head), config)
    plain = {"a": {"py/tuple": [1, {"py/set": [2]}]}, "json://3": None}
    assert plain_json.restore(plain) == {"a": (1, {2}), 3: None}


# --- a file of a stranger -------------------------------------------------------------------------


def make_archive(desk: Desk, commit: str, record: object = None, /, **more: bytes) -> Path:
    """Write what lab export writes, with this commit as its code."""
    file, bundle = desk.project.parent / "stranger.zip", desk.project.parent / "bundle"
    ref = f"refs/lab/snapshots/{commit}"
    run_git(desk.project, "update-ref", ref, commit)
    run_git(desk.project, "bundle", "create", "--quiet", str(bundle), ref)
    run_git(desk.project, "update-ref", "-d", ref)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr(f"record/{ONE}/run.json", json.dumps(record or record_of(commit)))
        pack.writestr(f"record/{ONE}/config.json", '{"seed": 1}')
        pack.write(bundle, "code.bundle")
        for name, text in more.items():
            pack.writestr(name, text)
    return file


def test_a_strangers_file_says_what_it_would_run_and_nothing_of_it_stays(repository, monkeypatch):
    commit = commit_evil(repository)
    file = make_archive(repository, commit)
    before = run_git(repository.project, "for-each-ref")
    for answer in ("", "n\n", "\n"):
        stdin = io.StringIO(answer)
        monkeypatch.setattr(stdin, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli.main(["reproduce", str(file)]) == 1
        said = repository.capsys.readouterr().err
        assert commit[:12] in said and "my_experiment.experiment" in said
        assert not CONTROL.search(said)
    assert run_git(repository.project, "for-each-ref") == before
    assert not repository.runs.exists() or not list(repository.runs.iterdir())
    agreed = []
    assert archive.unpack(file, lambda text: not agreed.append(text)).name == ONE
    recorded_code.require_own(ONE, commit)
    archive.unpack(file, lambda text: not agreed.append(text))
    assert len(agreed) == 1, "what somebody has agreed to is not asked again"


def test_a_file_with_code_of_my_own_asks_nothing(repository):
    head = run_git(repository.project, "rev-parse", "HEAD")
    file = make_archive(repository, head)
    assert archive.unpack(file, pytest.fail).name == ONE


def test_a_file_whose_code_is_not_what_its_record_names_is_refused(repository):
    commit, head = commit_evil(repository), run_git(repository.project, "rev-parse", "HEAD")
    file = make_archive(repository, commit)
    bundle = zipfile.ZipFile(file).read("code.bundle")
    other = re.sub(commit.encode(), head.encode(), bundle.split(b"\n\n")[0].split(b"\n")[1][41:])
    assert head.encode() in other
    text = bundle.replace(b"refs/lab/snapshots/" + commit.encode(), other)
    with zipfile.ZipFile(file, "w") as pack:
        pack.writestr(f"record/{ONE}/run.json", json.dumps(record_of(head)))
        pack.writestr("code.bundle", text)
    repository("reproduce", file, "--yes", code=1)
    assert not list(repository.runs.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "record/x/../../outside",
        "/record/x/run.json",
        "record/../run.json",
        "record//run.json",
        "record/.git/config",
        f"record/{ONE}/.git/config",
        f"record/{ONE}/a\\b",
        "record/-x/run.json",
        "record/a b/run.json",
        "record/x\x1b[2J/run.json",
        f"record/{ONE}/x\x1b[2J",
        "other",
        "record",
        "record/second/run.json",
    ],
)
def test_names_in_a_file_are_plain(repository, name):
    file = make_archive(repository, commit_evil(repository), **{name: b"{}"})
    repository("reproduce", file, "--yes", code=1)
    assert not list(repository.runs.iterdir())


@pytest.mark.parametrize("pack", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_file_is_refused_however_it_is_packed(repository, pack):
    pytest.importorskip({zipfile.ZIP_LZMA: "lzma", zipfile.ZIP_BZIP2: "bz2"}.get(pack, "zlib"))
    file = repository.project / "damaged.zip"
    with zipfile.ZipFile(file, "w", pack) as archive:
        archive.writestr(f"record/{ONE}/run.json", os.urandom(1000).hex())
    content = file.read_bytes()
    start = content.index(b"run.json") + 60
    file.write_bytes(content[:start] + bytes(100) + content[start + 100 :])
    repository("reproduce", file, "--yes", code=1)
    assert not list(repository.runs.iterdir())


@pytest.mark.slow
def test_a_file_is_measured_before_it_is_unpacked(repository):
    file = make_archive(
        repository, commit_evil(repository), **{f"record/{ONE}/x": bytes(200 << 20)}
    )
    assert file.stat().st_size < 1 << 20
    repository("reproduce", file, "--yes", code=1)
    assert not list(repository.runs.iterdir())
    os.mkfifo(file.with_name("fifo.zip"))
    repository("reproduce", file.with_name("fifo.zip"), code=1)


def test_an_exported_run_has_no_hidden_files(repository):
    head = run_git(repository.project, "rev-parse", "HEAD")
    folder = repository.write(ONE, record_of(head))
    (folder / ".git").mkdir()
    (folder / ".git/config").write_text("x")
    (folder / "key").symlink_to(repository.project / "requirements.txt")
    repository("export", ONE, "out.zip")
    assert not [n for n in zipfile.ZipFile("out.zip").namelist() if "/." in n or "key" in n]


def test_a_name_that_no_zip_can_have_is_an_error_of_export(repository):
    head = run_git(repository.project, "rev-parse", "HEAD")
    folder = repository.write(ONE, record_of(head))
    Path(os.fsdecode(bytes(folder) + b"/\xff.png")).touch()
    assert "rename that file" in repository("export", ONE, "out.zip", code=1)
    assert not Path("out.zip").exists()
