"""A run's record is complete and true, whatever happens to it: real kills, full disks, races."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest
from asked_settings import SETTINGS

from helpers.preloaded import Fork, Preloaded

SCRIPT = """
import ctypes, json, os, shutil, signal, subprocess, sys, time
from dataclasses import dataclass
from pathlib import Path
from lab import project, records, tracking
from lab.ground import interrupts
from lab.ground import project as the_project
from lab.recording import ranks

@dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    seed: int = 0

ex = tracking.Experiment(Config)

def wait_for_a_signal():
    while True:  # signal.pause() would miss one that arrives just before it
        time.sleep(0.05)

@ex.main
def run(_config, _run):
    folder = tracking.record_folder(_run)
BODY

if __name__ == "__main__":
    ex.run_commandline()
"""
TALK = """
    print("from python")
    sys.stderr.write("to stderr\\n")
    os.write(1, b"to the descriptor\\n")
    subprocess.run(["sh", "-c", "echo from a subprocess; echo its errors >&2"])
    ctypes.CDLL(None).puts(b"from C, in its buffer")
    for number in range(500):
        print("line", number)
    print("the last words", end="")
    os.write(2, b"ready\\n")
"""
SAID = [
    "from python",
    "to stderr",
    "to the descriptor",
    "from a subprocess",
    "its errors",
    "from C, in its buffer",
    *(f"line {number}" for number in range(500)),
    "the last words",
]


class Tiny:
    """A small experiment, run in the project's environment with data and records of its own."""

    def __init__(self, project, preloaded: Preloaded, folder: Path):
        self.project, self.preloaded, self.folder = project, preloaded, folder
        self.runs = folder / "runs"
        self.env = {"LAB_RUNS": str(self.runs), "LAB_DATA": str(folder / "data")}
        self.env["LAB_PROJECT"] = str(project.path)
        self.started: list[subprocess.Popen | Fork] = []

    def script(self, body: str) -> Path:
        path = self.folder / "tiny.py"
        path.write_text(SCRIPT.replace("BODY", body))
        return path

    def run(self, body: str, *arguments, **options) -> subprocess.CompletedProcess:
        """Run an experiment with this body to its end."""
        return self.run_script(self.script(body), *arguments, **options)

    def run_script(
        self, script: Path, *arguments, check=True, cwd=None, input=None, env=None
    ) -> subprocess.CompletedProcess:
        """Run a script to its end, in the project's folder by default."""
        options = {"cwd": cwd or self.project.path, "stdin": input and subprocess.PIPE}
        process = self.start_script(script, *arguments, env=env, **options)
        shown, _ = process.communicate(input)
        assert not (check and process.returncode), shown
        return subprocess.CompletedProcess(process.args, process.returncode, shown)

    def run_code(self, code: str, **options) -> str:
        """Run code that is no experiment; what it printed."""
        script = self.folder / "code.py"
        script.write_text(code)
        return self.run_script(script, **options).stdout

    def start(self, body: str, *arguments, before=(), **options) -> subprocess.Popen | Fork:
        """Start an experiment, by another program in a Python of its own."""
        if not before:
            return self.start_script(self.script(body), *arguments, **options)
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
        command = [*before, "python", str(self.script(body)), *arguments]
        process = subprocess.Popen(
            command, env=self.environment({}), cwd=self.folder, text=True, **options
        )
        self.started.append(process)
        return process

    def start_script(self, script: Path, *arguments, env=None, **options) -> Fork:
        """Start a script, in the tests' own folder; its output goes to a pipe by default."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
        options = {"cwd": self.folder, "env": self.environment(env or {}), **options}
        process = self.preloaded.start([script, *arguments], **options)
        self.started.append(process)
        return process

    def environment(self, more: dict[str, str]) -> dict[str, str]:
        found = {**os.environ, **self.env, **more}
        return found | {"PATH": f"{self.project.path}/.venv/bin:{found['PATH']}"}

    def close(self) -> None:
        """End what was started, and close its pipes."""
        for process in self.started:
            process.kill()
            process.wait()
            for stream in filter(None, (process.stdin, process.stdout)):
                with suppress(BrokenPipeError):  # of what a test wrote to a run that had ended
                    stream.close()

    def records(self) -> list[Path]:
        return sorted(self.runs.glob("2*"))

    @property
    def record(self) -> Path:
        """The folder of the only run."""
        (folder,) = self.records()
        return folder

    def json(self, name="run.json"):
        return json.loads((self.record / name).read_text())

    @property
    def output(self) -> str:
        return (self.record / "cout.txt").read_text()

    def state(self) -> str:
        """The state of the only run, as lab.records tells it."""
        shown = self.run_code("from lab import records; print('state', *records.runs()['state'])")
        return shown.split("state ")[-1].strip()


@pytest.fixture(scope="session")
def preloaded(project):
    env = os.environ | {"LAB_PROJECT": str(project.path)}
    preloaded = Preloaded(project.path / ".venv/bin/python", env)
    yield preloaded
    preloaded.stop()


@pytest.fixture(scope="module")
def preloaded_with_torch(project):
    env = os.environ | {"LAB_PROJECT": str(project.path)}
    modules = ["torch.distributed", "torch.utils.data"]
    preloaded = Preloaded(project.path / ".venv/bin/python", env, *modules)
    yield preloaded
    preloaded.stop()


@pytest.fixture
def tiny(project, preloaded, tmp_path):
    tiny = Tiny(project, preloaded, tmp_path)
    yield tiny
    tiny.close()


@pytest.fixture
def tiny_with_torch(project, preloaded_with_torch, tmp_path):
    tiny = Tiny(project, preloaded_with_torch, tmp_path)
    yield tiny
    tiny.close()


def wait_for(condition, what: str):
    """Poll a condition until it is true, and return its value; a failing test ends, too."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what} did not happen")


def read_until(process, line: str) -> str:
    """Return what the process prints, up to this line."""
    text = ""
    for got in process.stdout:
        text += got
        if got.strip() == line:
            return text
    raise AssertionError(f"{line} was never printed:\n{text}")


# --- ids -----------------------------------------------------------------------------------------


def test_forty_runs_started_at_one_instant_leave_forty_complete_records(tiny):
    """Real processes: forked when everything is imported, started together by closing a pipe."""
    body = """
    with tracking.metrics(_run) as log:
        log(1, {"loss": 0.5})
    print("I am", _config["seed"])

start, gate = os.pipe()
for number in range(40):
    if not os.fork():
        os.close(gate)
        os.read(start, 1)
        code = 1
        try:
            ex.run(config_updates={"seed": number})
            code = 0
        finally:
            os._exit(code)
os.close(gate)
codes = [os.wait()[1] for number in range(40)]
sys.exit(any(codes))
"""
    before = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    tiny.run(body)
    folders = tiny.records()
    seeds = {json.loads((folder / "config.json").read_text())["seed"] for folder in folders}
    assert seeds == set(range(40))
    for folder in folders:
        seed = json.loads((folder / "config.json").read_text())["seed"]
        assert json.loads((folder / "run.json").read_text())["status"] == "COMPLETED"
        assert f"I am {seed}\n" in (folder / "cout.txt").read_text()
        assert json.loads((folder / "metrics.jsonl").read_text())["value"] == 0.5
        assert re.fullmatch(r"\d{8}-\d{6}-[2-9a-z]{6}", folder.name)
        assert before <= folder.name
    for source in (tiny.runs / "_sources").iterdir():
        assert source.read_bytes() or source.name.startswith("__init__"), f"{source} is truncated"


def test_an_id_that_is_taken_is_refused_and_its_record_stays(tiny):
    tiny.run("    print('the first')", "--id", "20261122-mine")
    before = (tiny.record / "run.json").read_bytes()
    done = tiny.run("    print('the second')", "--id", "20261122-mine", check=False)
    assert done.returncode == 1
    assert "error: there is already a run 20261122-mine: choose another --id.\n" in done.stdout
    assert (tiny.record / "run.json").read_bytes() == before


WRONG = {
    "another kind of record": (["-F", "elsewhere"], "error: wrong usage: see --help."),
    "an unfinished option": (["--id"], "error: wrong usage: see --help."),
    "an id in another folder": (["--id", "../x"], "error: --id '../x' is not valid"),
    "an id that the listing hides": (["--id", "_x"], "error: --id '_x' is not valid"),
    "an id with a space": (["--id", "my run"], "error: --id 'my run' is not valid"),
    "an id that no archive takes": (["--id", "läuft"], "error: --id 'läuft' is not valid"),
    "a heartbeat that is no number": (["-b", "x"], "error: --beat-interval x is not valid"),
    "a heartbeat that never comes": (["-b", "0"], "error: --beat-interval 0 is not valid"),
    "a log level": (["-l", "loud"], "error: Unknown level: 'loud'"),
    "a command": (["rnu"], "error: there is no command rnu: did you mean run?"),
    "help for a command": (["help", "rnu"], "error: there is no command rnu: did you mean run?"),
    "a named configuration": (["with", "lr"], 'error: Named config not found: "lr"'),
    "a file of settings": (["with", "no.json"], "error: Ingredient for named config"),
}


def test_wrong_usage_is_one_line_exit_code_2_and_no_record(tiny):
    for case, (words, said) in WRONG.items():
        done = tiny.run("    pass", *words, cwd=tiny.folder, check=False)
        assert (done.returncode, done.stdout.count("\n")) == (2, 1), (case, done.stdout)
        assert done.stdout.startswith(said), case
    assert sorted(path.name for path in tiny.folder.iterdir()) == ["tiny.py"]


def test_a_mongodb_without_its_package_is_said_before_a_run_relies_on_it(tiny):
    env = {"SACRED_MONGO_URL": "mongodb://127.0.0.1:9"}
    done = tiny.run("    pass", cwd=tiny.folder, env=env, check=False)
    assert done.returncode and done.stdout.count("\n") == 1 and "pymongo" in done.stdout
    assert sorted(path.name for path in tiny.folder.iterdir()) == ["tiny.py"]


KINDS = """    seed: int = 0
    betas: tuple[float, float] = (0.9, 0.99)
    place: Path = Path("here")
    most: int | None = None
    part: Part = Part()
"""


def test_settings_may_be_tuples_paths_optional_and_nested(tiny):
    part = "@dataclass(frozen=True)\nclass Part:\n    name: str = 'adam'\n\n"
    body = "    print(Config(**tracking.check(Config, _config)))"
    script = tiny.script(body)
    text = script.read_text().replace("    seed: int = 0\n", KINDS)
    script.write_text(text.replace("@dataclass", part + "@dataclass", 1))
    words = ["with", "betas=(0.5,1)", "place=there", "part.name=sgd"]
    said = [tiny.run_script(script, *words[:given], check=False).stdout for given in (0, 4)]
    assert "betas=(0.9, 0.99), place=PosixPath('here'), most=None, part=Part(name='adam'" in said[0]
    assert "betas=(0.5, 1.0), place=PosixPath('there'), most=None, part=Part(name='sgd'" in said[1]
    config = json.loads((tiny.records()[1] / "config.json").read_text())
    assert (config["place"], config["part"]) == ("there", {"name": "sgd"})
    done = tiny.run_script(script, "with", "part.nam=x", check=False)
    assert done.returncode == 2 and "part.nam" in done.stdout


PACKAGES = """
    from lab.recording.installed_packages import WorkingSet, find_resource
    assert "pkg_resources" not in sys.modules, "its import takes 0.1 s"
    ours = {one.project_name: one for one in WorkingSet()}
    keys = WorkingSet().by_key
    import warnings
    warnings.simplefilter("ignore")
    import pkg_resources
    real = {one.project_name: one for one in pkg_resources.working_set}
    of_setuptools = {name for name, one in real.items() if "_vendor" in one.location}
    assert len(ours) > 50 and ours.keys() == real.keys() - of_setuptools
    for name, one in ours.items():
        assert (one.version, keys[real[name].key]) == (real[name].version, one)
        if real[name].has_metadata("top_level.txt"):
            names = [list(found._get_metadata("top_level.txt")) for found in (one, real[name])]
            assert names[0] == names[1], name
    file = "data/mime.types"
    assert find_resource("sacred", file) == pkg_resources.resource_filename("sacred", file)
"""


def test_sacred_finds_the_packages_that_pkg_resources_finds(tiny):
    tiny.run(PACKAGES)
    named = tiny.json()["experiment"]["dependencies"]
    assert "sacred" in {one.partition("==")[0] for one in named}


INGREDIENT = """    print("batches of", load())

import sacred
data = sacred.Ingredient("data")
data.add_config(batch=3, kind="text")

@data.capture
def load(batch):
    return batch
"""


def test_ingredients_have_settings_like_others(tiny):
    script = tiny.script(INGREDIENT)
    head, body = script.read_text().split("\nex = ")
    body, ingredient = body.split("\nimport sacred\n")
    ingredient, end = ingredient.split("\nif __name__")
    body = body.replace("Experiment(Config)", "Experiment(Config, ingredients=[data])")
    imported = "\nfrom lab.recording.sacred_import import sacred\n"
    script.write_text(f"{head}{imported}{ingredient}\nex = {body}\nif __name__{end}")
    words = ["with", "data.batch=4"]
    assert "batches of 4" in tiny.run_script(script, *words).stdout
    entry = json.loads((tiny.record / "run.json").read_text())
    assert entry["meta"]["changed"] == {"data.batch": 4}
    done = tiny.run_script(script, "with", "data.bat=4", check=False)
    assert done.returncode == 2 and "data.bat" in done.stdout.splitlines()[-1]


HABITS = """    pass

@ex.named_config
def tiny():
    "A docstring, which print_named_configs shows."
    seed = 5

def refused(**options):
    try:
        ex.run(**options)
    except Exception as error:
        print([one.__name__ for one in type(error).__mro__], error)

if len(sys.argv) == 1:
    import numpy
    import sacred
    done = ex.run(config_updates={"seed": numpy.int64(3), "lr": numpy.float32(0.5)})
    updates = json.dumps(done.meta_info["config_updates"])
    print("config", json.dumps(done.config, sort_keys=True), updates)
    print("named", json.dumps(ex.run(named_configs=["tiny"]).config, sort_keys=True))
    refused(config_updates={"sed": 1})
    refused(config_updates={"seed": "x"})
    refused(named_configs=["nothing"])
    refused(command_name="nothing")
    raise SystemExit
"""


def test_sacreds_habits_in_configurations_and_errors_hold(tiny):
    script = tiny.script(HABITS)
    text = script.read_text().replace(
        "    seed: int = 0\n", "    seed: int = 0\n    lr: float = 0.1\n"
    )
    script.write_text(text)

    def run(*words, check=True):
        return tiny.run_script(script, *words, check=check).stdout

    lines = run().splitlines()
    config = '{"dataset": "digits", "lr": 0.5, "seed": 3}'
    assert f'config {config} {{"seed": 3, "lr": 0.5}}' in lines
    assert 'named {"dataset": "digits", "lr": 0.1, "seed": 5}' in lines
    added, wrong, named, command = [line for line in lines if "'LabError'" in line]
    assert "'ConfigAddedError'" in added and "no setting sed: did you mean seed?" in added
    assert "'SacredError'" in wrong and "seed='x' is not valid" in wrong
    assert "'NamedConfigNotFoundError'" in named
    assert "'KeyError'" in command
    assert "seed = 5" in run("print_config", "with", "tiny")
    assert "A docstring" in run("print_named_configs")


def test_a_seed_that_sacred_has_drawn_is_that_of_each_attempt_and_repetition(tiny):
    """The configuration has no seed, so Sacred draws one."""
    script = tiny.script(
        "    print('drawn', _config['seed'], tracking.make_config(Config, _config))"
    )
    script.write_text(script.read_text().replace("    seed: int = 0\n", ""))
    job = tiny.folder / "job"
    job.mkdir()

    def run(*words, attempt=""):
        env = tiny.env
        if attempt:
            (job / "attempt").write_text(attempt)
            env = env | {"LAB_JOB_FOLDER": str(job), "LAB_ATTEMPT": attempt}
        said = tiny.run_script(script, *words, env=env).stdout
        (seed,) = re.findall(r"(?m)^drawn (\d+) Config\(dataset='digits'\)$", said)
        return int(seed)

    seed = run(attempt="1")
    assert run(attempt="2") == seed == tiny.json("config.json")["seed"]
    assert run("with", tiny.record / "config.json") == seed, "as lab reproduce does"
    assert run("with", "seed=7") == 7


def test_an_id_that_a_setting_cannot_name_is_refused(tiny):
    body = "    print(_config['dataset'])"
    for name in ("2026_11_29", "1e5", "1.50", "True", "None"):
        done = tiny.run(body, f"--id={name}", check=False)
        assert (done.returncode, done.stdout.count("\n")) == (2, 1), done.stdout
        assert f"run-{name}" in done.stdout
    assert not tiny.runs.exists()
    tiny.run(body, "--id=20261129")
    assert "20261129" in tiny.run(body, "with", "dataset=20261129").stdout.splitlines()


def test_the_options_of_help_are_those_that_work(tiny):
    shown = tiny.run("    pass", "--help").stdout
    options = re.findall(r"^  -\w (?:VALUE )?(--[\w-]+)", shown, re.M)
    values = {"--beat-interval": "5", "--comment": "a", "--id": "a.b-1", "--loglevel": "DEBUG"}
    values |= {"--name": "b"}
    words = [f"{one}={values[one]}" if one in values else one for one in options if one != "--help"]
    assert len(words) == 10
    tiny.run("    pass", *words)
    assert not tiny.runs.exists()


# --- output --------------------------------------------------------------------------------------

OUTCOMES = {
    "completed": ("", None, "COMPLETED", 0),
    "exception": ("    raise ValueError('it broke')", None, "FAILED", 1),
    "SIGTERM": ("    wait_for_a_signal()", signal.SIGTERM, "TERMINATED", 143),
    "SIGHUP": ("    wait_for_a_signal()", signal.SIGHUP, "TERMINATED", 129),
    "SIGINT": ("    wait_for_a_signal()", signal.SIGINT, "INTERRUPTED", 130),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_output_is_complete_and_the_state_true_after(tiny, outcome):
    end, number, status, code = OUTCOMES[outcome]
    process = tiny.start(TALK + end, new_session=True)
    shown = read_until(process, "ready")
    if number:
        os.killpg(process.pid, number)  # as a terminal, tmux and Slurm do it
    shown += process.stdout.read()
    assert process.wait() == code
    assert tiny.json()["status"] == status
    for line in SAID:
        assert f"{line}\n" in tiny.output or line == SAID[-1], f"{line!r} is not in the record"
        assert line in shown
    assert "the last words" in tiny.output
    if outcome == "exception":
        assert "ValueError: it broke" in tiny.output
        assert "ValueError: it broke" in "".join(tiny.json()["fail_trace"])


def test_output_is_in_the_record_as_soon_as_the_run_has_ended(tiny):
    """Afterwards stdout is as before: later output belongs to no run."""
    body = """
    pass

run_once = ex.run
def run(*arguments, **options):
    done = run_once(*arguments, **options)
    print("afterwards")
    subprocess.run(["echo", "afterwards"])
    text = (tracking.record_folder(done) / "cout.txt").read_text()
    assert "line 499\\nready\\n" in text and "the last words" in text, text
    assert "afterwards" not in text, text
    return done
ex.run = run
ex.run()
ex.run()
sys.exit()
"""
    tiny.run(TALK + body)
    assert len(tiny.records()) == 2


def test_output_of_dataloader_workers_is_recorded(tiny_with_torch):
    tiny = tiny_with_torch
    body = """
    from torch.utils.data import DataLoader
    class Numbers(list):
        def __getitem__(self, index):
            sys.stdout.write(f"worker loads {index}\\n")  # one write: print() makes several
            sys.stdout.flush()
            return index
    list(DataLoader(Numbers(range(8)), num_workers=2))
"""
    tiny.run(body)
    loaded = [line for line in tiny.output.splitlines() if line.startswith("worker loads")]
    assert sorted(loaded) == [f"worker loads {number}" for number in range(8)]


def test_output_until_a_sigkill_is_recorded(tiny):
    process = tiny.start(TALK + "    print(flush=True); wait_for_a_signal()")
    read_until(process, "the last words")
    process.kill()
    process.stdout.read()  # until the helper has ended as well
    assert "the last words\n" in tiny.output


def test_a_child_that_lives_on_does_not_keep_the_run_from_ending(tiny):
    body = """
    child = subprocess.Popen(["sh", "-c", "echo begun; exec sleep 1000"])
    print(f"child {child.pid}")
    wait = subprocess.run(["true"])
"""
    with open(tiny.folder / "shown", "w") as shown:
        process = tiny.start(body, stdout=shown)
        assert process.wait() == 0
    assert tiny.json()["status"] == "COMPLETED"
    os.kill(int(re.search(r"child (\d+)", tiny.output)[1]), signal.SIGKILL)


def test_c_code_that_prints_a_lot_while_it_holds_pythons_lock_does_not_hang(tiny):
    tiny.run("    ctypes.PyDLL(None).write(1, b'0123456\\n' * 100_000, 800_000)")
    assert tiny.output.count("0123456\n") == 100_000


def in_terminal(tiny, body) -> bytes:
    """What a run writes to a terminal of 90 columns and 30 rows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    process = tiny.start(body, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # everybody has closed it
            break
    os.close(ours)
    assert process.wait() == 0, shown
    return shown


def test_progress_bars_are_live_in_a_terminal_and_one_line_in_the_record(tiny):
    body = """
    from tqdm import tqdm
    print("terminal", sys.stdout.isatty(), os.get_terminal_size(2).columns)
    for epoch in tqdm(range(3), desc="outer", disable=None):
        for step in tqdm(range(50), desc="inner", leave=False, mininterval=0):
            pass
        tqdm.write(f"epoch {epoch}")
    print("done")
"""
    shown = in_terminal(tiny, body)
    assert b"terminal True 90" in shown
    assert shown.count(b"inner") > 100
    assert b"\r" in shown
    lines = tiny.output.splitlines()
    assert b"\r" not in (tiny.record / "cout.txt").read_bytes()
    # a first drawing more, if it was written out before the first "cursor up" came
    assert 1 <= sum("outer" in line for line in lines) <= 2
    assert sum("inner" in line for line in lines) <= 1
    assert [line for line in lines if line.startswith("epoch")] == ["epoch 0", "epoch 1", "epoch 2"]


def test_a_progress_bar_in_a_pipe_is_one_line_in_the_record(tiny):
    tiny.run("    from tqdm import tqdm\n    for _ in tqdm(range(100), mininterval=0): pass\n")
    assert sum("it/s" in line for line in tiny.output.splitlines()) == 1
    assert "100/100" in tiny.output


# --- states --------------------------------------------------------------------------------------


def test_a_second_signal_does_not_break_the_record(tiny):
    """The second comes while the run cleans up after the first."""
    body = """
    try:
        print("ready", flush=True)
        wait_for_a_signal()
    finally:
        print("cleaning", flush=True)
        sys.stdin.readline()
        print("cleaned")
"""
    process = tiny.start(body, stdin=subprocess.PIPE)
    read_until(process, "ready")
    process.send_signal(signal.SIGTERM)
    read_until(process, "cleaning")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process.send_signal(number)
    process.stdin.write("\n")
    process.stdin.close()
    process.stdout.read()
    assert process.wait() == 143
    assert tiny.json()["status"] == "TERMINATED"
    assert "cleaned\n" in tiny.output


def test_nohup_is_respected(tiny):
    body = '    print("ready", flush=True); sys.stdin.readline()'
    process = tiny.start(body, before=["nohup"], stdin=subprocess.PIPE)
    read_until(process, "ready")
    process.send_signal(signal.SIGHUP)
    process.communicate("\n")
    assert process.returncode == 0
    assert tiny.json()["status"] == "COMPLETED"


def test_an_experiment_that_catches_every_exception_is_still_ended_by_sigterm(tiny):
    body = """
    while True:
        try:
            print("ready", flush=True)
            wait_for_a_signal()
        except Exception:
            pass
"""
    process = tiny.start(body)
    read_until(process, "ready")
    process.terminate()
    process.communicate()
    assert tiny.json()["status"] == "TERMINATED"


def test_a_run_is_running_while_it_lives_and_lost_after_sigkill(tiny):
    process = tiny.start('    print("ready", flush=True); wait_for_a_signal()')
    read_until(process, "ready")
    assert tiny.state() == "RUNNING"
    process.kill()
    process.communicate()
    assert tiny.json()["status"] == "RUNNING"  # as Sacred would tell it
    assert tiny.state() == "LOST"


# --- a record that cannot be written -------------------------------------------------------------


def test_on_a_full_disk_the_run_fails_in_one_line_and_what_was_recorded_stays_readable(tiny):
    body = """
    with tracking.metrics(_run) as log:
        log(1, {"loss": 0.5})
        print("before", flush=True)
        seen = lambda: "before" in (folder / "cout.txt").read_text()
        while not (seen() and (folder / "metrics.jsonl").read_text()):
            time.sleep(0.01)  # until the beat has written it
        with open(folder.parent / "ballast", "wb", buffering=0) as ballast:
            try:
                while ballast.write(bytes(512)):
                    pass
            except OSError:
                pass
        log(2, {"loss": 0.25})
        print("after" * 2000)
"""
    kept = tiny.folder / "kept"
    mounted = f"""
mkdir -p {tiny.runs} && mount -t tmpfs -o size=1m tiny {tiny.runs} || exit 77
"$@"; code=$?
rm {tiny.runs}/ballast; cp -r {tiny.runs} {kept}; exit $code
"""
    before = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "sh"]
    process = tiny.start(body, "-b", "0.05", before=before)
    shown, _ = process.communicate()
    if process.returncode == 77 or "unshare failed" in shown:
        pytest.skip("this machine allows no private mount")
    assert process.returncode == 1
    tiny.runs = kept
    (said,) = [line for line in shown.splitlines() if line.startswith("error:")]
    assert "is incomplete" in said and "No space left" in said
    assert "Traceback" not in shown
    assert tiny.json()["status"] != "COMPLETED"
    assert tiny.json("config.json")["seed"] == 0
    assert "before\n" in tiny.output
    first = (tiny.record / "metrics.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["value"] == 0.5


def test_a_run_that_a_full_disk_refused_leaves_no_truncated_source(tiny):
    """Records share copies of sources: a truncated one would stay in every later record."""
    kept = tiny.folder / "kept"
    mounted = f"""
mkdir -p {tiny.runs} && mount -t tmpfs -o size=40k tiny {tiny.runs} || exit 77
"$@" && exit 1
mount -o remount,size=4m {tiny.runs}; "$@"; code=$?
cp -r {tiny.runs} {kept}; exit $code
"""
    before = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "sh"]
    process = tiny.start("    pass", before=before)
    shown, _ = process.communicate()
    if process.returncode == 77 or "unshare failed" in shown:
        pytest.skip("this machine allows no private mount")
    assert process.returncode == 0, shown
    assert "error: no record can be written" in shown and "No space left" in shown
    tiny.runs = kept
    assert tiny.json()["status"] == "COMPLETED"  # the only one: the first left nothing
    for name, kept_as in tiny.json()["experiment"]["sources"]:
        assert (kept / kept_as).read_bytes() == (tiny.project.path / "src" / name).read_bytes()


def test_a_record_removed_during_the_run_is_reported_and_the_run_fails(tiny):
    done = tiny.run("    shutil.rmtree(folder)", check=False)
    assert done.returncode == 1
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("error:")]
    assert "is incomplete" in said and "No such file" in said


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-"])
def test_a_run_with_a_closed_standard_stream_does_not_start(tiny, closed):
    """Its descriptor would be given to a file of ours, and the record would be damaged."""
    command = ["sh", "-c", f'"$@" {closed}', "sh", "python", tiny.script("    pass")]
    done = tiny.project.run(*command, env=tiny.env, check=False)
    assert done.returncode == 1
    said = "error: standard input, output or error is closed: use /dev/null instead of >&-.\n"
    assert done.stdout == (said if closed != ">&- 2>&-" else "")
    assert not tiny.runs.exists()


def test_a_run_that_cannot_have_a_record_does_not_start(tiny):
    tiny.runs.write_text("a file where the folder should be")
    done = tiny.run('    print("it ran")', check=False)
    assert done.returncode == 1
    assert "error: no record can be written in" in done.stdout
    assert "it ran" not in done.stdout


def test_a_missing_artifact_or_metric_fails_the_run_at_its_end_and_the_rest_is_recorded(tiny):
    body = """
    _run.add_artifact("nowhere.png")
    _run.log_scalar("bad", "no number", 1)
    with tracking.metrics(_run) as log:
        log(1, {"loss": 0.5})
    print("on we go")
"""
    done = tiny.run(body, check=False)
    assert done.returncode == 1
    assert "error: the record in" in done.stdout and "nowhere.png" in done.stdout
    assert "the metric bad at step 1 (could not convert" in done.stdout
    assert tiny.json()["status"] == "FAILED"
    assert "on we go\n" in tiny.output
    assert (tiny.record / "metrics.jsonl").read_text()


def test_what_cannot_be_recorded_is_named_and_the_rest_of_the_record_is_whole(tiny):
    body = """
    with tracking.metrics(_run) as log:
        log(1, {"loss": 0.5, chr(0xD800) + "x" * 10_000: 1.0})
    cycle = [1]
    cycle.append(cycle)
    _run.info |= {"huge": 10**5000, "fine": 1, "cycle": cycle, "odd": chr(0xD800)}
    _run.log_scalar("step", 1, 10**5000)
    _run.log_scalar("word", 1, "one")
    _run.log_scalar("after", 1)
    import numpy
    return {"accuracy": numpy.float32(0.5), "cycle": cycle, "set": {1}, "deep": {"huge": Deep()}}
class Deep:
    def __getstate__(self):
        raise KeyError("it does not like that")
"""
    done = tiny.run(body, "-b", "0.05", check=False)
    (line,) = [one for one in done.stdout.splitlines() if one.startswith("error:")]
    assert done.returncode == 1 and "info['huge'] (Exceeds the limit" in line, done.stdout
    assert "result['deep']['huge'] (" in line and "it does not like that" in line
    record, info = tiny.json(), tiny.json("info.json")
    assert "the metric step (" in line and "the metric word at step one (" in line
    assert (record["status"], record["result"]["accuracy"]) == ("FAILED", 0.5)
    assert record["result"]["set"] == {"py/set": [1]} and "py/id" in json.dumps(info["cycle"])
    assert record["stop_time"]
    assert (info["fine"], info["odd"]) == (1, chr(0xD800))
    assert (tiny.record / "metrics.jsonl").read_text().count("\n") == 3
    assert len(tiny.json("metrics.json")) == 3
    tiny.project.run("lab", "show", "last", env=tiny.env)


def test_what_a_forked_child_logs_is_refused_and_nothing_is_recorded_twice(tiny):
    body = """
    with tracking.metrics(_run) as log:
        log(1, {"loss": 0.5})
        child = os.fork()
        if not child:
            for one in (lambda: log(2, {"loss": 1}), lambda: _run.log_scalar("loss", 1, 2)):
                try:
                    one()
                except tracking.RecordError as error:
                    print("refused:", error, flush=True)
            raise ValueError("of the child")
        os.waitpid(child, 0)
        time.sleep(0.5)
        log(3, {"loss": 0.25})
"""
    done = tiny.run(body, "-b", "0.1")
    assert done.stdout.count("refused: metrics cannot be recorded in a forked process") == 2
    lines = (tiny.record / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 3]
    assert tiny.json()["status"] == "COMPLETED"


# --- files ---------------------------------------------------------------------------------------


def test_a_reader_never_sees_a_part_of_a_file(tiny):
    """run.json and info.json are read as fast as possible while they are written so."""
    body = """
    _run.info["text"] = "x" * 100_000
    print("ready", flush=True)
    sys.stdin.readline()
"""
    process = tiny.start(body, "-b", "0.001", stdin=subprocess.PIPE)
    read_until(process, "ready")
    wait_for(lambda: tiny.json("info.json"), "the first beat")
    beats = set()
    while len(beats) < 30:
        beats.add(tiny.json()["heartbeat"])
        assert len(tiny.json("info.json")["text"]) == 100_000
    process.communicate("\n")
    assert not list(tiny.record.glob(".*"))


def test_metrics_are_appended_and_never_rewritten_or_kept_in_memory(tiny):
    body = """
    observer = tracking.find_recorder(_run)
    path, most = folder / "metrics.jsonl", 0
    with tracking.metrics(_run) as log:
        inode, before = path.stat().st_ino, b""
        for step in range(50_000):
            log(step, {"loss": step / 7})
            most = max(most, len(observer.metrics.points))
            if step % 10_000 == 0:
                now = path.read_bytes()
                assert now.startswith(before) and path.stat().st_ino == inode
                before = now
    assert most <= 10_000, most
    assert before
"""
    tiny.run(body)
    lines = (tiny.record / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["value"] for line in lines] == [step / 7 for step in range(50_000)]


def test_sacreds_own_file_tools_can_read_what_is_in_runs(tiny):
    """They list the folders in runs/ and read the four files of Sacred in each with a run.json."""
    body = """
    with tracking.metrics(_run) as log:
        log(1, {"loss": 0.5})
        log(2, {"loss": 0.25})
    _run.log_scalar("own", 7, 3)
"""
    tiny.run(body)
    tiny.project.run("lab", "runs", env=tiny.env)
    assert all(path.is_dir() for path in tiny.runs.iterdir())
    (record,) = [path.parent for path in tiny.runs.glob("*/run.json")]
    assert json.loads((record / "info.json").read_text()) == {}
    metrics = json.loads((record / "metrics.json").read_text())
    assert {name: (one["steps"], one["values"]) for name, one in metrics.items()} == {
        "loss": ([1, 2], [0.5, 0.25]),
        "own": ([3], [7.0]),
    }
    assert [len(one["timestamps"]) for one in metrics.values()] == [2, 1]


def test_nan_and_infinity_are_valid_json_and_tensorboard_has_the_same_numbers(tiny_with_torch):
    tiny = tiny_with_torch
    body = """
    with tracking.metrics(_run) as log:
        for step, value in enumerate([0.1, float("nan"), float("inf"), -float("inf"), 1e-300]):
            log(step, {"val/loss": value, "größe " + "x" * 200: step})
        try:
            log(2**63, {"val/loss": 1})
        except ValueError as error:
            print(error)
    _run.log_scalar("sacred's own", 7, 3)
    import numpy, torch
    return {"loss": float("nan"), "each": (numpy.float32(0.5), torch.tensor(2))}
"""
    tiny.run(body)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    for line in (tiny.record / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    record = json.loads((tiny.record / "run.json").read_text(), parse_constant=refuse)
    assert record["result"] == {"loss": "NaN", "each": [0.5, 2]}
    assert "step 9223372036854775808 does not fit" in tiny.output
    code = f"""
import math
from collections import defaultdict
import numpy as np
from lab import records
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator({str(tiny.record / "tensorboard")!r}, {{"scalars": 0}})
events.Reload()
table = records.metrics()
assert set(table["metric"]) == set(events.Tags()["scalars"]), events.Tags()
assert len(table) == 11
for metric, rows in table.groupby("metric"):
    scalars = events.Scalars(metric)
    assert [one.step for one in scalars] == list(rows["step"])
    np.testing.assert_allclose([one.wall_time for one in scalars], rows["time"], atol=0.001)
    np.testing.assert_array_equal(
        np.float32([one.value for one in scalars]), rows["value"].astype("float32")
    )
values = list(table[table["metric"] == "val/loss"]["value"])
assert math.isnan(values[1]) and values[2:] == [math.inf, -math.inf, 1e-300]
"""
    tiny.run_code(code)


# --- provenance ----------------------------------------------------------------------------------


def nvidia_smi(folder: Path, script: str) -> str:
    """A folder for PATH with a fake nvidia-smi in it."""
    folder = folder / "bin"
    folder.mkdir()
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    return str(folder)


def test_code_environment_machine_job_data_seeds_and_usage_are_recorded(tiny_with_torch):
    tiny = tiny_with_torch
    manifest = tiny.folder / "data" / "digits" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    environment = {"SLURM_JOB_ID": "77", "LAB_JOB": "job-5", "CUDA_VISIBLE_DEVICES": ""}
    body = """
    import torch
    torch.set_deterministic_debug_mode("error")
    torch.manual_seed(9)
"""
    tiny.run(body, "with", "seed=9", env=environment)
    record = tiny.json()
    project = tiny.project
    digest = {
        name: subprocess.run(["sha256sum", path], capture_output=True, text=True).stdout[:64]
        for name, path in {"data": manifest, "lock": project.path / "requirements.txt"}.items()
    }
    code = record["code"]
    assert code["parent"] == project.git("rev-parse", "HEAD")
    assert code["dirty"] is bool(project.git("status", "--porcelain"))
    assert project.git("diff", "--quiet", code["commit"]) == ""
    assert record["software"]["lock_sha256"] == digest["lock"]
    assert record["software"]["python"] == record["host"]["python_version"]
    assert record["software"]["torch"].startswith("2.")
    assert set(record["torch"]) >= {"version", "cuda_build"}
    assert record["job"] == {"lab": "job-5", "slurm": {"SLURM_JOB_ID": "77"}, "processes": 1}
    assert record["data"] == {"dataset": "digits", "manifest_sha256": digest["data"]}
    assert record["machine"]["cuda_visible_devices"] == ""
    assert record["seeds"] == {"sacred": 9, "torch": 9, "PYTHONHASHSEED": "random"}
    assert record["determinism"]["deterministic_algorithms"] is True
    assert record["usage"]["wall_time_s"] > 0
    assert record["usage"]["peak_memory_mib"] > 50


PACKAGE = {
    "experiment.py": SCRIPT.replace("(Config)", "(Config, modules=['.slow', '.part'])").replace(
        "BODY",
        """
    from . import part
    print("part is", part.TEXT)
    print("ready", flush=True)
    sys.stdin.readline()
    from . import late
""",
    ),
    "slow.py": "print('loading', flush=True); import sys; sys.stdin.readline()",
    "part.py": "TEXT = 'old'",
    "late.py": "",
}


@pytest.fixture
def package(clone, tiny):
    """An experiment of several modules, which waits while it loads and while it runs."""
    for file, content in PACKAGE.items():
        (clone.path / "src/my_experiment" / file).write_text(content)
    environment = {**os.environ, **tiny.env, "PYTHONPATH": f"{clone.path}/src"}
    environment["LAB_PROJECT"] = str(clone.path)

    def start(*arguments, script=("-m", "my_experiment.experiment")):
        command = [f"{tiny.project.path}/.venv/bin/python", *script]
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=clone.path,
            env=environment,
            stderr=subprocess.STDOUT,
            **options,
        )
        tiny.started.append(process)
        return process

    return start


def test_what_is_edited_after_it_was_loaded_is_not_run(package, clone, tiny):
    process = package()
    read_until(process, "loading")
    (clone.path / "src/my_experiment/experiment.py").write_text("TEXT = 'new'")
    shown, _ = process.communicate("\n")
    assert process.returncode == 1
    said = "error: edited while the run was starting or, in a notebook, since the import:"
    assert f"{said} src/my_experiment/experiment.py; start it again." in shown
    assert not tiny.records()


def test_what_is_edited_before_it_is_loaded_is_in_the_commit_as_it_ran(package, clone, tiny):
    process = package()
    read_until(process, "loading")
    (clone.path / "src/my_experiment/part.py").write_text("TEXT = 'edited before'")
    shown, _ = process.communicate("\n\n")
    assert process.returncode == 0 and "part is edited before" in shown
    kept = clone.git("show", f"{tiny.json()['code']['commit']}:src/my_experiment/part.py")
    assert kept == "TEXT = 'edited before'" and "part.py" not in tiny.json()["code"].get(
        "problem", ""
    )


def test_the_recorded_commit_holds_what_was_loaded_and_a_later_import_is_looked_at(
    package, clone, tiny
):
    process = package()
    read_until(process, "loading")
    (clone.path / "src/my_experiment/unused.py").write_text("")
    process.stdin.write("\n")
    process.stdin.flush()
    read_until(process, "ready")
    for name in ("experiment.py", "part.py", "late.py"):
        (clone.path / "src/my_experiment" / name).write_text("TEXT = 'new'")
    shown, _ = process.communicate("\n")
    assert process.returncode == 0, shown
    code = tiny.json()["code"]
    assert tiny.json()["experiment"]["mainfile"] == "my_experiment/experiment.py"
    for name in ("experiment.py", "part.py"):
        kept = clone.git("show", f"{code['commit']}:src/my_experiment/{name}")
        assert kept == PACKAGE[name].strip()
    said = "imported after the snapshot and edited since: src/my_experiment/late.py; the commit"
    assert code["problem"].startswith(said)
    assert f"warning: {said}" in tiny.output


RUN = "import my_experiment.experiment as E; E.ex.run()"
EDIT = "from pathlib import Path; Path(E.__file__).with_name('part.py').write_text('TEXT = 1234')"


def test_the_second_run_of_one_process_is_recorded_with_the_code_that_it_runs(package, clone, tiny):
    """In a loop nothing is imported again after an edit; in a notebook autoreload does it."""
    process = package(script=["-c", "\n".join([RUN, EDIT, RUN])])
    shown, _ = process.communicate("\n\n\n")
    assert process.returncode == 0, shown
    for record in tiny.records():
        assert "part is old\n" in (record / "cout.txt").read_text()
        commit = json.loads((record / "run.json").read_text())["code"]["commit"]
        assert clone.git("show", f"{commit}:src/my_experiment/part.py") == "TEXT = 'old'"
    assert len(tiny.records()) == 2


def test_a_wrong_setting_is_refused_before_the_modules_are_loaded(package, tiny):
    shown, _ = package("with", "seed=x").communicate()
    assert "error: seed='x' is not valid" in shown
    assert "loading" not in shown


ASKED = f"""
from annotated_types import Ge
from dataclasses import dataclass
from typing import Annotated, Literal
from lab import tracking
{SETTINGS}
@ex.main
def run(_config):
    raise SystemExit("it must not run")
"""
JUDGE = """
import json, sys
from pathlib import Path
from lab.jobs import settings
sys.path.insert(0, ".")
from asked import ex
for words in json.load(sys.stdin):
    plain = settings.are_surely_right(words, Path("asked.py"))
    print(json.dumps([plain, ex.find_problem(words)]))
"""
TAKEN = [
    [],
    ["with", "lr=1", "seed=3", "mode=slow", "quick"],
    ["with", "sizes=(3, 4)", "resume=20260101-000000-elsewhere"],
    ["print_config", "with", "lr=0.5"],
    ["with", "/on/the/machine.json"],
    ["--help"],
]
REFUSED = [["with", "lrr=0.1"], ["with", "sizes=3"], ["with", "quikc"], ["prnt_config"], ["--no"]]
REFUSED += [["with", "decay=1e400"]]  # infinity
VALUES = ["1", "0", "-1", "2.5", "True", "None", "abc", "fast", "'1'", "[1]", "nan", "1_0", "1e400"]


def test_what_lab_run_refuses_before_sending_is_what_the_run_refuses(tiny):
    (tiny.folder / "asked.py").write_text(ASKED)
    names = ("lr", "seed", "mode", "resume", "sizes", "decay")
    words = [["with", f"{name}={value}"] for name in names for value in VALUES]
    asked = json.dumps([*TAKEN, *REFUSED, *words])
    said = tiny.run_code(JUDGE, cwd=tiny.folder, input=asked)
    answers = [json.loads(line) for line in said.splitlines() if line.startswith("[")]
    taken, refused, rest = answers[:6], answers[6:12], answers[12:]
    assert [problem for _, problem in taken] == [""] * 6
    assert all(problem and "\n" not in problem and not plain for plain, problem in refused)
    # the text alone passes nothing that the experiment refuses
    assert not [found for found in zip(words, rest, strict=True) if found[1][0] and found[1][1]]
    assert sum(plain for plain, _ in rest) > 10
    assert not tiny.runs.exists()


def test_uncommitted_changes_are_recorded_and_no_git_or_no_commit_harms_nothing(tiny):
    body = """
repository = Path(os.environ["REPOSITORY"])
the_project.root = lambda: repository
ex.root = repository
for step in ("no-git", "no-commit", "clean", "dirty"):
    if step == "no-commit":
        subprocess.run(["git", "init", "-q", repository], check=True)
        (repository / "model.py").write_text("one\\n")
    if step == "clean":
        subprocess.run("git add . && git commit -qm one", shell=True, cwd=repository, check=True)
    if step == "dirty":
        (repository / "model.py").write_bytes(b"two \\xff\\n")
    ex.run(options={"--id": "20-" + step})
"""
    repository = tiny.folder / "repository"
    repository.mkdir()
    tiny.run("    pass\n" + body, env={"REPOSITORY": str(repository)})

    def code(step):
        return json.loads((tiny.runs / f"20-{step}" / "run.json").read_text())["code"]

    assert code("no-git")["commit"] is code("no-git")["dirty"] is None
    assert "is not in a git repository" in code("no-git")["problem"]
    assert "problem" not in code("clean")
    assert code("no-commit")["dirty"] is True and code("no-commit")["parent"] is None
    assert code("clean")["dirty"] is False and code("clean")["commit"] == code("clean")["parent"]
    assert code("dirty")["dirty"] is True and code("dirty")["parent"] == code("clean")["commit"]
    assert "+two \\xff\n" in (tiny.runs / "20-dirty" / "uncommitted.diff").read_text()
    assert not (tiny.runs / "20-clean" / "uncommitted.diff").exists()


def test_no_secret_is_recorded(tiny):
    """Neither the environment nor the password in a git remote, nor one in an option."""
    environment = {
        "API_TOKEN": "hunter2-token",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "remote.origin.url",
        "GIT_CONFIG_VALUE_0": "https://me:hunter2-password@example.org/team/project.git",
    }
    comment = "data from ftp://me:hunter2-comment@example.org/data"
    tiny.run("    pass", "--comment", comment, env=environment)
    assert tiny.json()["code"]["remotes"] == {"origin": "https://example.org/team/project.git"}
    for path in tiny.record.rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes(), path


GPUS = """echo '0, GPU-aaaa, 81559, 570.1, NVIDIA H100'
echo '1, GPU-bbbb, [N/A], 570.1, NVIDIA H100'"""
SMI = {
    "answers": (GPUS, ["GPU-aaaa", "GPU-bbbb"], None),
    "one of two is visible": (GPUS, ["GPU-bbbb"], "1"),
    "visible by uuid": (GPUS, ["GPU-bbbb", "GPU-aaaa"], "GPU-b,GPU-a"),
    "none is visible": (GPUS, [], "-1"),
    "hides what follows -1": (GPUS, ["GPU-bbbb"], "1,-1,0"),
    "fails": ("echo 'NVIDIA-SMI has failed'; exit 9", None, None),
    "prints something else": ("echo 'No devices were found'", None, None),
    "hangs": ("echo $$ >$0.pid; exec sleep 1000", None, None),
}


def test_nvidia_smi_is_asked_and_harms_nothing_whatever_it_does(tiny):
    """One process of its own for each case, forked when everything is imported."""
    body = """
    pass

from lab.recording import provenance
for case, (fake, visible) in json.loads(os.environ["CASES"]).items():
    if not (child := os.fork()):
        os.environ["PATH"] = fake + ":" + os.environ["PATH"]
        if visible:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
        provenance.TIMEOUT = 5 if case == "hangs" else 60
        code = 1
        try:
            ex.run(options={"--id": "20-" + case.replace(" ", "-")})
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0, case
sys.exit()
"""
    folders = {case: tiny.folder / str(number) for number, case in enumerate(SMI)}
    cases = {}
    for case, (script, _, visible) in SMI.items():
        folders[case].mkdir()
        cases[case] = nvidia_smi(folders[case], script), visible
    tiny.run(body, env={"CASES": json.dumps(cases)})
    (pid,) = [path.read_text().strip() for path in tiny.folder.glob("*/bin/*.pid")]
    wait_for(lambda: not Path("/proc", pid).exists(), "its end")
    for case, (_, uuids, visible) in SMI.items():
        record = json.loads((tiny.runs / f"20-{case.replace(' ', '-')}/run.json").read_text())
        assert record["status"] == "COMPLETED", case
        machine = record["machine"]
        assert machine["cuda_visible_devices"] == visible, case
        found = machine["gpus"]
        assert (None if found is None else [gpu["uuid"] for gpu in found]) == uuids, case
        if uuids and "GPU-bbbb" in uuids:
            broken = next(gpu for gpu in machine["gpus"] if gpu["uuid"] == "GPU-bbbb")
            assert broken["memory_mib"] is None, case  # "[N/A]"
            assert machine["driver"] == "570.1"


# --- where it runs -------------------------------------------------------------------------------


def test_print_config_records_nothing_and_does_not_import_torch(tiny):
    done = tiny.run(
        "    pass\nimport atexit; atexit.register(lambda: print('torch' in sys.modules))",
        "print_config",
    )
    assert "seed = 0" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"
    assert not tiny.runs.exists()


def test_in_a_notebook_output_is_recorded_and_autoreload_works(package, clone, tiny):
    """Each cell's run is recorded with its output and with the code that it runs."""
    code = clone.path / "src/my_experiment"
    body = TALK.replace("from python", "the first version")
    body += "    from . import part\n    print('part is', part.TEXT)\n    return 1"
    (code / "experiment.py").write_text(SCRIPT.replace("BODY", body))
    cells = [
        "%load_ext autoreload\n%autoreload 2",
        "import my_experiment.experiment as E\nprint('result', E.ex.run().result)",
        "path = E.Path(E.__file__)\n"
        "text = path.read_text().replace('the first version', 'the second one')\n"
        "path.write_text(text.replace('return 1', 'return 22'))\n" + EDIT,
        "print('result', E.ex.run().result)",
        "print('not recorded')",
    ]
    script = f"""
import nbformat
from nbclient import NotebookClient
cells = [nbformat.v4.new_code_cell(cell) for cell in {cells!r}]
notebook = nbformat.v4.new_notebook(cells=cells)
NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
for cell in cells:
    for output in cell.outputs:
        print(output.get("text", ""), end="")
"""
    process = package(script=["-c", script])
    shown, _ = process.communicate()
    assert process.returncode == 0, shown
    assert "result 1\n" in shown and "result 22\n" in shown
    assert "the first version" in shown and "line 499" in shown
    versions = (("the first version", "'old'"), ("the second one", "1234"))
    for folder, (line, text) in zip(tiny.records(), versions, strict=True):
        output = (folder / "cout.txt").read_text()
        assert line in output and f"part is {text}\n".replace("'", "") in output
        for said in ("to stderr\n", "line 0\n", "line 499\n", "the last words"):
            assert said in output
        assert "not recorded" not in output
        record = json.loads((folder / "run.json").read_text())
        assert record["status"] == "COMPLETED"
        commit = record["code"]["commit"]
        assert clone.git("show", f"{commit}:src/my_experiment/part.py") == f"TEXT = {text}"
        assert line in clone.git("show", f"{commit}:src/my_experiment/experiment.py")


def test_in_a_distributed_run_rank_0_records_also_the_errors_of_the_others(tiny):
    """Real torchrun: rank 1 fails, torchrun then ends rank 0."""
    body = """
    with tracking.metrics(_run) as log:
        log(1, {"loss": 0.5})
    flag = Path(os.environ["FLAG"])
    if tracking.is_main_process():
        flag.touch()
        wait_for_a_signal()
    while not flag.exists():
        time.sleep(0.01)
    raise ValueError("rank 1 has no data")
"""
    torchrun = ["python", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = tiny.env | {"FLAG": str(tiny.folder / "flag")}
    done = tiny.project.run(*torchrun, tiny.script(body), env=environment, check=False)
    assert done.returncode != 0
    assert tiny.json()["status"] == "FAILED"
    assert "ValueError: rank 1 has no data" in tiny.output
    assert tiny.json()["fail_trace"][-1] == "ValueError: rank 1 has no data\n"
    assert not list((tiny.runs / "_ranks").iterdir())
    assert (tiny.record / "metrics.jsonl").read_text().count("loss") == 1


CHOOSING = """
import os
from dataclasses import dataclass
from lab import records, tracking

@dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    resume: tracking.Model = ""

def inherit(typed, defaults):
    return {"resume": records.find(typed["resume"]).name} if typed.get("resume") else {}

ex = tracking.Experiment(Config, inherit="__main__:inherit")

@ex.main
def run(_config):
    print("resume", _config["resume"], flush=True)
    if os.environ.get("RANK") == "0":
        input()

ex.run_commandline()
"""


def test_a_slow_rank_resumes_the_run_that_rank_0_has_chosen(tiny):
    """By then, the last run is that of rank 0 itself."""
    (tiny.folder / "choosing.py").write_text(CHOOSING)
    tiny.run_script(tiny.folder / "choosing.py")
    first = tiny.record.name
    weights = tiny.folder / "data/digits/models" / first / "best.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_text("numbers")
    words = ["with", "resume=last"]
    script, environment = tiny.folder / "choosing.py", {"WORLD_SIZE": "2"}
    rank_0 = tiny.start_script(
        script, *words, env=environment | {"RANK": "0"}, stdin=subprocess.PIPE
    )
    lines = iter(rank_0.stdout.readline, "")
    assert next(line for line in lines if line.startswith("resume")) == f"resume {first}\n"
    assert len(list(tiny.runs.glob("2*"))) == 2
    rank_1 = tiny.run_script(script, *words, env=environment | {"RANK": "1"}, cwd=tiny.folder)
    assert f"resume {first}\n" in rank_1.stdout
    rank_0.communicate("\n")
    assert rank_0.returncode == 0 and not list((tiny.runs / "_ranks").iterdir())
    record = json.loads((tiny.records()[-1] / "run.json").read_text())
    assert record["meta"]["files"][0]["path"] == f"data/digits/models/{first}/best.safetensors"


def test_the_failure_of_a_distributed_run_is_the_first_one_not_a_closed_connection(tiny_with_torch):
    """Rank 0 waits for rank 1, which fails: "Connection closed by peer" is what it is told."""
    tiny = tiny_with_torch
    body = """
    import torch.distributed as dist
    from lab.recording import ranks as messages
    messages.WAIT = 60
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", os.environ["STORE"], rank=rank, world_size=ranks)
    if not tracking.is_main_process():
        dist.destroy_process_group()
        time.sleep(0.3)
        raise ValueError("rank 1 has no data")
    dist.barrier()
"""
    launch = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "STORE": f"file://{tiny.folder}/store"}
    ranks = [tiny.start(body, env=launch | {"RANK": number}) for number in "01"]
    assert all(rank.communicate() and rank.returncode for rank in ranks)
    assert tiny.json()["status"] == "FAILED"
    assert tiny.json()["fail_trace"][-1] == "ValueError: rank 1 has no data\n"
    shown = tiny.project.run("lab", "show", "last", env=tiny.env).stdout
    assert re.search("failure +ValueError: rank 1 has no data", shown)


# --- observers that a user adds ------------------------------------------------------------------

OBSERVED = """
    print("says", _config["dataset"])
    _run.info["seen"] = _config["dataset"]
    with tracking.metrics(_run) as log:
        log(1, {"loss": 0.5})
    print("the last words", end="")
    return ENDS[_config["dataset"]]()

from sacred.observers import FileStorageObserver, RunObserver

def fail():
    raise ValueError("it broke")

def be_ended():
    os.kill(os.getpid(), signal.SIGTERM)
    wait_for_a_signal()

ENDS = {"completed": lambda: 0.25, "failed": fail, "ended": be_ended}
ENDS |= {"huge": lambda: 10**5000, "deep": lambda: {"accuracy": 0.5, "huge": 10**5000}}

class Mine(RunObserver):
    priority = 50
    def started_event(self, _id, **arguments):
        self.told = [("started", _id)]
        return "an id of its own"
    def heartbeat_event(self, info, captured_out, result, beat_time):
        self.told.append(("beat", info, captured_out))
    def log_metrics(self, metrics_by_name, info):
        values = {name: one["values"] for name, one in metrics_by_name.items()}
        self.told.append(("metrics", values))
    def completed_event(self, stop_time, result):
        self.told.append(("COMPLETED", result))
    def failed_event(self, fail_time, fail_trace):
        self.told.append(("FAILED", fail_trace[-1]))
    def interrupted_event(self, interrupt_time, status):
        self.told.append((status, ""))

@ex.config
def defaults():
    "A docstring, which is no setting."
    seed = 7

ex.observers += [Mine(), FileStorageObserver("theirs")]
for name in ENDS:
    try:
        ex.run(config_updates={"dataset": name})
    except BaseException as error:
        print("raised", type(error).__name__)
    with open("told.jsonl", "a") as file:
        print(json.dumps(ex.observers[1].told), file=file)
sys.exit()
"""


def test_observers_that_a_user_adds_get_all_output_and_the_end_that_the_record_has(tiny):
    """What cannot be printed, and makes Sacred raise, fails the run and is named."""
    done = tiny.run(OBSERVED, cwd=tiny.folder)
    raised = re.findall(r"raised (\w+)", done.stdout)
    assert raised == ["ValueError", "Terminated", "RecordError", "RecordError"], done.stdout
    told = [json.loads(line) for line in (tiny.folder / "told.jsonl").read_text().splitlines()]
    states = ["COMPLETED", "FAILED", "TERMINATED", "FAILED", "FAILED"]
    for record, events, state in zip(tiny.records(), told, states, strict=True):
        theirs = tiny.folder / "theirs" / record.name
        of_record, of_theirs = (
            json.loads((one / "run.json").read_text()) for one in (record, theirs)
        )
        assert of_record["status"] == of_theirs["status"] == events[-1][0] == state
        assert of_record["experiment"]["name"] and of_record["stop_time"] == of_theirs["stop_time"]
        assert json.loads((theirs / "config.json").read_text())["seed"] == 7
        output = (record / "cout.txt").read_text()
        assert "the last words" in output
        assert output.startswith(events[-2][2]) and "the last words" in events[-2][2]
        assert (theirs / "cout.txt").read_text() == events[-2][2]
        assert events[0] == ["started", record.name]
        assert ["metrics", {"loss": [0.5]}] in events
        assert events[-2][1] == json.loads((record / "info.json").read_text())
    assert told[0][-1][1] == 0.25 and "it broke" in told[1][-1][1]
    assert "result (Exceeds" in told[3][-1][1] and "result['huge'] (Exceeds" in told[4][-1][1]
    assert json.loads((tiny.records()[4] / "run.json").read_text())["result"]["accuracy"] == 0.5


# --- MongoDB -------------------------------------------------------------------------------------


@pytest.fixture
def mongo(tmp_path):
    """A real server on a free port of this machine: its process, its URL, and where pymongo is."""
    uv = ["uv", "pip", "install", "--quiet"]
    links = os.environ.get("PIP_FIND_LINKS")
    if links:
        uv += ["--find-links", links]
    server = tmp_path / "server"
    subprocess.run(["uv", "venv", "--quiet", server], check=True)
    install = [*uv, "--python", str(server), "secantusdb", "pymongo"]
    if subprocess.run(install).returncode:
        pytest.skip("the package secantusdb cannot be installed on this machine")
    subprocess.run([*uv, "--target", str(tmp_path / "pymongo"), "pymongo"], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--host", "127.0.0.1", "--port", str(port), "--storage-path", ":memory:"]
    with open(tmp_path / "server.log", "w") as log:
        process = subprocess.Popen(
            [server / "bin" / "python", "-m", "secantus", *where],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )

    def listens():
        assert process.poll() is None, (tmp_path / "server.log").read_text()
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(listens, "the server's start")
        yield process, f"mongodb://127.0.0.1:{port}/team", str(tmp_path / "pymongo")
    finally:
        process.kill()
        process.wait()


FACTS = ["code", "data", "determinism", "job", "machine", "process", "seeds", "software", "usage"]
MONGO = """
    with tracking.metrics(_run) as log:
        log(1, {"loss": 0.5})
        print("ready", flush=True)
        sys.stdin.readline()
        log(2, {"loss": 0.25})
    print("the last words")
    return 0.25
"""


def test_mongodb_gets_the_run_and_its_death_is_reported_and_harms_nothing(tiny, mongo):
    server, url, pymongo = mongo
    environment = {"SACRED_MONGO_URL": url, "PYTHONPATH": pymongo}
    tiny.run(MONGO, input="\n", env=environment)
    code = f"""
import pymongo
database = pymongo.MongoClient({url!r}).get_default_database()
(run,), (loss,) = database.runs.find(), database.metrics.find()
print(run["_id"], run["status"], run["result"], loss["values"], "last words" in run["captured_out"])
print(sorted(run.keys() & set({FACTS})), run["code"]["commit"], run["seeds"]["sacred"])
"""
    done = tiny.project.run("python", "-c", code, env=environment)
    said = [f"{tiny.record.name} COMPLETED 0.25 [0.5, 0.25] True"]
    said.append(f"{sorted(FACTS)} {tiny.json()['code']['commit']} 0")
    assert done.stdout.splitlines() == said
    shutil.rmtree(tiny.record)

    process = tiny.start(MONGO, "-b", "0.1", stdin=subprocess.PIPE, env=environment)
    read_until(process, "ready")
    server.kill()
    server.wait()
    shown = read_until(process, "the run and its record in runs/ go on")
    assert "warning: MongoDB does not record this run" in shown
    shown, _ = process.communicate("\n")
    assert process.returncode == 0, shown
    assert tiny.json()["status"] == "COMPLETED"
    assert "the last words\n" in tiny.output
    lines = (tiny.record / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["value"] for line in lines] == [0.5, 0.25]


def test_a_file_of_settings_makes_no_objects(tiny, tmp_path):
    """A record's config.json, perhaps of a machine: Sacred would let jsonpickle make them."""
    mark, file = tmp_path / "PWNED", tmp_path / "config.json"
    evil = {"py/reduce": [{"py/type": "os.system"}, {"py/tuple": [f"touch {mark}"]}]}
    for content in ({"seed": evil}, {"py/object": "subprocess.Popen"}, "[" * 10_000):
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        done = tiny.run("    return 1", "with", file, check=False)
        assert done.returncode == 1 and "Traceback" not in done.stdout
        assert done.stdout.splitlines()[-1].startswith("error: ")
    (tmp_path / "config.pickle").write_bytes(b"cos\nsystem\n(S'touch PWNED'\ntR.")
    tiny.run("    return 1", "with", tmp_path / "config.pickle", check=False)
    assert not mark.exists() and not list(tiny.folder.rglob("PWNED")) and not tiny.records()
    file.write_text('{"seed": 7}')
    tiny.run("    return _config['seed']", "with", file)
    assert tiny.json()["result"] == 7
