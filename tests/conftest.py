"""Baking projects for tests, away from the developer's home, Jupyter and git configuration."""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import hosts as bed
import pytest

TEMPLATE = Path(__file__).resolve().parents[1]
EVERY_STEP = "venv,kernel,git"
LAB = TEMPLATE / "lab/src"  # the package, for tests that need no environment
# The uv cache stays the developer's, so that packages are fetched once and not for each run.
UV_CACHE = subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True).stdout.strip()
PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")  # before HOME is isolated


@dataclass(frozen=True)
class Project:
    """A baked project, and commands run in it."""

    path: Path
    output: str = ""  # what its creation printed

    def run(self, *command, check=True, **options) -> subprocess.CompletedProcess:
        """Run a command in the project, with its environment first in PATH; output as text."""
        environment = {**os.environ, **options.pop("env", {})}
        environment["PATH"] = f"{self.path}/.venv/bin:{environment['PATH']}"
        options = {"cwd": self.path, "text": True, "encoding": "utf-8", **options}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
        done = subprocess.run([str(word) for word in command], env=environment, **options)
        if check:
            assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done

    def bootstrap(self, *arguments, python=sys.executable, **options):
        """Run the project's bootstrap.py."""
        return self.run(python, "bootstrap.py", *arguments, **options)

    def check(self, **options):
        """What lab check says, of the environment that is there."""
        return self.run("lab", "check", **options)

    def lock(self, *arguments, **options):
        """Run lab lock, without an environment."""
        command = [sys.executable, "-m", "lab.cli", "lock", *arguments]
        return self.run(*command, env={"PYTHONPATH": str(LAB)}, **options)

    def git(self, *arguments) -> str:
        return self.run("git", *arguments).stdout.strip()

    @property
    def package(self) -> str:
        return self.path.name.replace("-", "_")

    def texts(self) -> list[str]:
        """Every file but the wheel."""
        return [name for name in self.files() if not name.endswith(".whl")]

    def files(self) -> list[str]:
        """Every file of the project that git would not ignore, and machines.local.toml."""
        names = (path.relative_to(self.path).as_posix() for path in self.path.rglob("*"))
        skipped = (".venv", ".git/")
        return sorted(n for n in names if (self.path / n).is_file() and not n.startswith(skipped))


def pytest_configure():
    """What nohup or a shell's & made every process ignore: tests send these signals."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def isolate(home: Path, setenv) -> None:
    """A home of its own: no kernel, git or pip setting of the developer is read or changed."""
    home.mkdir(parents=True, exist_ok=True)
    (home / ".gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.org\n")
    setenv("HOME", str(home))
    setenv("JUPYTER_DATA_DIR", str(home / "jupyter"))
    setenv("GIT_CONFIG_NOSYSTEM", "1")
    setenv("UV_CACHE_DIR", UV_CACHE)
    setenv("OMP_NUM_THREADS", "1")  # the networks are tiny, and threads would fight for the cores


@pytest.fixture(scope="session", autouse=True)
def isolated_session(tmp_path_factory):
    """The home of everything that lives as long as the session."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            foreign = name.startswith(("GIT_", "XDG_", "JUPYTER", "SSH_", "LAB_", "DL_TEMPLATE_"))
            if foreign or name in ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH"):
                patch.delenv(name)
        isolate(tmp_path_factory.mktemp("home"), patch.setenv)
        yield


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A fresh home for one test."""
    isolate(tmp_path / "home", monkeypatch.setenv)
    return tmp_path / "home"


def cookiecutter(output_dir: Path, *options, skip="", env=None, **answers):
    """Run the cookiecutter command itself; returns the finished process, output as text."""
    command = [sys.executable, "-m", "cookiecutter", "--no-input", TEMPLATE, "-o", output_dir]
    answered = [f"{name}={value}" for name, value in answers.items()]
    return subprocess.run(
        [str(word) for word in [*command, *options, *answered]],
        env={**os.environ, "DL_TEMPLATE_SKIP": skip, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


@pytest.fixture
def bake(cookies, monkeypatch):
    """Bake a project with pytest-cookies; no step of the set-up unless `skip` leaves one."""

    def baked(skip=EVERY_STEP, **answers) -> Project:
        monkeypatch.setenv("DL_TEMPLATE_SKIP", skip)
        result = cookies.bake(extra_context=answers)
        assert result.exception is None, result.exception
        return Project(result.project_path)

    return baked


@pytest.fixture(scope="session")
def project(isolated_session, tmp_path_factory) -> Project:
    """One project with everything set up, with the default answers; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("baked")
    done = cookiecutter(folder)
    assert done.returncode == 0, done.stdout
    return Project(folder / "my-experiment", done.stdout)


@pytest.fixture
def clone(project, tmp_path) -> Project:
    """A colleague's fresh clone of the project: no environment, no filter, no data."""
    path = tmp_path / "clone" / "my-experiment"
    subprocess.run(["git", "clone", "--quiet", project.path, path], check=True)
    return Project(path)


@pytest.fixture
def template_copy(tmp_path) -> Project:
    """A copy of the template as a git repository of its own, so that it can be changed."""
    names = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=TEMPLATE
    )
    copy = Project(tmp_path / "template")
    for name in filter(None, names.decode().split("\0")):
        if (TEMPLATE / name).exists():
            (copy.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TEMPLATE / name, copy.path / name)
    copy.git("init", "--quiet")
    copy.git("add", "--all", "--force")
    copy.git("commit", "--quiet", "--message", "template")
    return copy


def python_of(version: str) -> str | None:
    """An interpreter of that version on this machine: in PATH, of pyenv, or of uv."""
    pyenv = sorted(PYENV.glob(f"versions/{version}.*"))
    uv = subprocess.run(["uv", "python", "find", version], capture_output=True, text=True)
    candidates = [shutil.which(f"python{version}"), *(p / "bin/python" for p in pyenv)]
    for candidate in [*candidates, uv.stdout.strip()]:
        if candidate:
            tell = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
            if subprocess.run(tell, capture_output=True, text=True).stdout.strip() == version:
                return str(candidate)
    return None


# What a project needs for its kernel and the lab command: a lock that installs in a moment, and on
# a Python for which this machine has no torch.
FEW = ("ipykernel", "jupyter-core", "tomli")


def shorten(project: Project, names: tuple[str, ...] = FEW) -> None:
    """Leave only these packages in pyproject.toml and in the lock."""
    settings = project.path / "pyproject.toml"
    lines = settings.read_text("utf-8").splitlines(keepends=True)
    dependencies = [line for line in lines if line.startswith('    "')]
    wanted = [line for line in dependencies if line.strip(' "').startswith(names)]
    lines = [line for line in lines if line not in dependencies or line in wanted]
    lines = [line for line in lines if not line.startswith("dev = ")]
    settings.write_text("".join(lines), "utf-8")
    of_lab = (LAB.parent / "pyproject.toml").read_text("utf-8").splitlines(keepends=True)
    wanted += [line for line in of_lab if line.strip(' "').startswith(names)]
    lock = project.path / "requirements.txt"
    all_of_it = lock.read_text("utf-8").splitlines(keepends=True)
    own = [line for line in all_of_it if line.startswith(("./", "-e"))]
    pins = "".join(line for line in all_of_it if line not in own)
    lock.write_text(own[0] + short_lock("".join(wanted), pins) + own[1], "utf-8")


@functools.cache
def short_lock(wanted: str, lock: str) -> str:
    """The part of the lock that is wanted; compiled once, as uv asks the registry for it."""
    command = ["uv", "pip", "compile", "-", "--quiet", "--universal", "--python-version=3.10"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write(lock)
        constraints.flush()
        command += ["--no-annotate", "--no-header", "--constraint", constraints.name]
        return subprocess.run(
            command,
            input="\n".join(re.findall(r'"([^"]+)"', wanted)),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout


def three(folder: Path) -> bed.Hosts:
    """The three hosts, in that folder, with the uv and the Python of the tests."""
    python = os.path.realpath(sys.executable) if sys.version_info[:2] == (3, 11) else None
    return bed.Hosts(folder, shutil.which("uv"), UV_CACHE, python or python_of("3.11"))


@pytest.fixture(scope="session")
def hosts_session(isolated_session, tmp_path_factory):
    """Laptop, gateway and worker, started once; a test takes `hosts`, which is always fresh."""
    if reason := bed.why_impossible():
        pytest.skip(reason)
    missing = bed.missing_programs()
    assert not missing, f"make test installs what is missing here: {', '.join(missing)}"
    with bed.folder_in_memory(tmp_path_factory.mktemp("hosts")) as folder, three(folder) as hosts:
        yield hosts


@pytest.fixture
def hosts(hosts_session):
    """The test bed as it was at its beginning: lines, homes, accounts, programs, no processes."""
    hosts_session.clean()  # before, not after: the next test may want other homes
    hosts_session.traffic()
    return hosts_session


# What the experiment of remote tests needs: everything of a recorded run but torch.
RECORDED = (*FEW, "annotated-types", "numpy", "pydantic", "sacred", "setuptools", "tqdm")
EXPERIMENT = Path(__file__).with_name("small_experiment.py")


@dataclass(frozen=True)
class Laptop(Project):
    """The project on the test bed's laptop; `path` is where it lies on the real machine."""

    hosts: bed.Hosts = None
    inside: str = "/home/ada/my-experiment"

    def run(self, *command, check=True, **options) -> subprocess.CompletedProcess:
        """Run a command on the laptop, in the project, with its environment first in PATH."""
        return self.hosts.laptop.run(*command, check=check, **self._options(options))

    def popen(self, *command, **options) -> subprocess.Popen:
        return self.hosts.laptop.popen(*command, **self._options(options))

    def _options(self, options: dict) -> dict:
        environment = self.hosts.laptop.environment()
        path = f"{self.inside}/.venv/bin:{environment['PATH']}"
        env = {"PATH": path, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
        return {"cwd": self.inside, "env": env, **options}

    def lab(self, *arguments, **options) -> str:
        """What a lab command printed; with check=False the finished process."""
        done = self.run("lab", *arguments, **options)
        return done if options.get("check") is False else done.stdout

    def there(self, name: str) -> Path:
        """A file in the project's folder on the worker."""
        return self.hosts.worker.home / "lab/my-experiment" / name


def settle(hosts: bed.Hosts, folder: Path, names=RECORDED, snapshot="ready") -> Laptop:
    """Put the small project on the laptop and set it up on the worker; as that snapshot."""
    answers = {"remote": "ada@worker", "remote_gateway": "ada@gateway"}
    done = cookiecutter(folder, skip=EVERY_STEP, **answers)
    assert done.returncode == 0, done.stdout
    small = Project(folder / "my-experiment")
    shorten(small, names)
    shutil.copy(EXPERIMENT, small.path / "src/my_experiment/experiment.py")
    small.bootstrap("--no-kernel")
    shutil.move(small.path, hosts.laptop.home)
    laptop = Laptop(hosts.laptop.home / "my-experiment", hosts=hosts)
    laptop.lab("setup")
    hosts.snapshot(snapshot)
    return laptop


@pytest.fixture(scope="session")
def ready(hosts_session, tmp_path_factory) -> Laptop:
    """The laptop of the remote tests, before a test has touched it."""
    hosts_session.clean()
    return settle(hosts_session, tmp_path_factory.mktemp("small"))


@pytest.fixture
def laptop(ready) -> Laptop:
    """A laptop whose project is set up on the worker."""
    ready.hosts.clean("ready")
    ready.hosts.traffic()
    return ready


@pytest.fixture(scope="module")
def ready_once(ready) -> Laptop:
    """Like `laptop`, but once for a whole file; its tests put back what they change."""
    ready.hosts.clean("ready")
    return ready


@pytest.fixture
def swept(ready_once) -> Laptop:
    """Like `laptop`, in a tenth of the time: of the homes only runs, jobs and data are made new."""
    hosts = ready_once.hosts
    hosts.traffic()
    yield ready_once
    for host in hosts.all:
        host.clean()
    hosts.heal()
    for place in (ready_once.path, ready_once.there("")):
        for name in ("runs", "data", "jobs"):
            shutil.rmtree(place / name, ignore_errors=True)
    (ready_once.path / "data").mkdir()
    for name in (".bashrc", ".tcshrc", ".config/fish/config.fish"):
        (hosts.worker.home / name).unlink(missing_ok=True)
