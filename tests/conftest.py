"""Baking projects for tests, isolated from the developer's home, Jupyter and git settings."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import hosts as bed
from helpers import slurm_bed
from helpers.laptop import Laptop, settle, start_hosts
from helpers.once import once, run_pid
from helpers.projects import EVERY_STEP, TEMPLATE, UV_CACHE, Project, cookiecutter, isolate


def pytest_configure():
    """Handle the signals that tests send, which nohup or a shell's & makes every process ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


# the developer's own, and COLUMNS, which pytest-xdist sets for its workers
FOREIGN = ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "COLUMNS", "LINES")
MARKS = {"hosts_session": "hosts", "cluster": "hosts", "project": "environment"}
LONG = ("hosts", "environment", "slow")
# What a training, a plot and a Jupyter kernel import; an optimizer imports torch._dynamo.
IMPORT_SLOW = """
import gc; gc.disable()
import accelerate, matplotlib.pyplot, pandas, safetensors.torch, sklearn.datasets, torch._dynamo
import ipykernel.kernelapp, matplotlib_inline.backend_inline, torch.distributed.run
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark tests by what they use, for make test-fast and for the distribution over workers."""
    for item in items:
        definitions = getattr(item, "_fixtureinfo", None) and item._fixtureinfo.name2fixturedefs
        if Path(__file__).parent not in item.path.parents or not definitions:
            continue
        for fixture in MARKS.keys() & definitions.keys():
            item.add_marker(MARKS[fixture])
        if "cluster" in definitions:  # one worker has it
            item.add_marker(pytest.mark.xdist_group("slurm"))
        # what is made once for a file is made by one worker; all else goes where there is time
        files = [one for found in definitions.values() for one in found if one.scope == "module"]
        if any(one.baseid.endswith(item.path.name) for one in files):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    # short tests come last, so that all workers end at the same time
    items.sort(key=lambda item: not any(map(item.get_closest_marker, LONG)))


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """The folder of what all workers use."""
    own = tmp_path_factory.getbasetemp()
    return own if os.getpid() == run_pid() else own.parent


@pytest.fixture(scope="session", autouse=True)
def isolated_session(run_folder):
    """The home of everything that lives as long as the session."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            foreign = name.startswith(("GIT_", "XDG_", "JUPYTER", "SSH_", "LAB_", "DL_TEMPLATE_"))
            if foreign or name in FOREIGN:
                patch.delenv(name)
        # uv asks pyenv's shim of a Python, which is a dozen of shells, for each environment
        folders = os.environ["PATH"].split(os.pathsep)
        shims = (at for at, one in enumerate(folders) if one.endswith("/.pyenv/shims"))
        folders.insert(next(shims, len(folders)), os.path.dirname(os.path.realpath(sys.executable)))
        patch.setenv("PATH", os.pathsep.join(folders))
        isolate(run_folder / "home", patch.setenv)
        yield


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A fresh home for one test."""
    isolate(tmp_path / "home", monkeypatch.setenv)
    return tmp_path / "home"


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
def project(isolated_session, run_folder) -> Project:
    """One project with everything set up, with the default answers; tests leave it as it is."""
    folder, printed = run_folder / "baked", run_folder / "baked.output"
    with once(folder) as ours:
        if ours:
            done = cookiecutter(folder)
            assert done.returncode == 0, done.stdout
            printed.write_text(done.stdout, "utf-8")
    return Project(folder / "my-experiment", printed.read_text("utf-8"))


@pytest.fixture(scope="session")
def compiled(project) -> Project:
    """The same, whose first training and first notebook need not compile what they import."""
    with once(project.path.parent.with_name("compiled")) as ours:
        if ours:
            project.run("python", "-c", IMPORT_SLOW)
    return project


@pytest.fixture(scope="session")
def digits(project) -> Path:
    """A data folder with the example's dataset; tests leave it as it is."""
    folder = project.path.parent.with_name("digits")
    with once(folder) as ours:
        if ours:
            prepare = ["python", "-m", "my_experiment.data", "prepare"]
            project.run(*prepare, env={"LAB_DATA": str(folder)})
    return folder


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


@pytest.fixture(scope="session")
def hosts_session(isolated_session, run_folder, tmp_path_factory):
    """Laptop, gateway and worker, started once; a test takes `hosts`, which is always fresh."""
    if reason := bed.why_impossible(UV_CACHE):
        pytest.skip(reason)
    missing = bed.missing_programs()
    assert not missing, f"make test installs what is missing here: {', '.join(missing)}"
    with (
        bed.folder_in_memory(tmp_path_factory.mktemp("hosts")) as folder,
        bed.shared_folder(run_folder / "hosts") as shared,
        start_hosts(folder, shared) as hosts,
    ):
        yield hosts


@pytest.fixture
def hosts(hosts_session):
    """The test bed as it was when it started: lines, homes, accounts, programs, no processes."""
    hosts_session.clean()  # before, not after: the next test may want other homes
    hosts_session.traffic()
    return hosts_session


@pytest.fixture(scope="session")
def ready(hosts_session) -> Laptop:
    """The laptop of the remote tests, before a test has touched it."""
    return settle(hosts_session, "ready")


@pytest.fixture(scope="session")
def served(hosts_session) -> Laptop:
    """The same with Jupyter and TensorBoard."""
    return settle(hosts_session, "served")


@pytest.fixture
def laptop(ready) -> Laptop:
    """A laptop whose project is set up on the worker."""
    ready.hosts.clean("ready")
    ready.hosts.traffic()
    return ready


@pytest.fixture(scope="session")
def cluster(isolated_session, tmp_path_factory):
    """A laptop whose project is set up on the Slurm bed; once for all of its tests."""
    if reason := bed.why_impossible(UV_CACHE):
        pytest.skip(reason)
    missing = [*bed.missing_programs(), *slurm_bed.missing_programs()]
    assert not missing, f"make test installs what is missing here: {', '.join(missing)}"
    with (
        bed.folder_in_memory(tmp_path_factory.mktemp("slurm"), name="slurm-of") as folder,
        slurm_bed.start(folder) as started,
    ):
        yield slurm_bed.settle(started, tmp_path_factory.mktemp("small"))


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
