"""lab setup on a machine that reaches no package index: real scripts, uv, pip and rsync."""

import ensurepip
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_copying import Silent

from lab.ground import project as current
from lab.ground.errors import LabError
from lab.ssh.connection import Connection
from lab.ssh.ssh_errors import SshError
from lab.transfer import copying
from lab.workcopy import wheels, workspace

pytestmark = pytest.mark.slow
BOOTSTRAP = Path(__file__).parents[2] / "{{cookiecutter.project_slug}}/bootstrap.py"
BUILD = '\n[build-system]\nrequires = ["uv_build>=0.9,<1"]\nbuild-backend = "uv_build"\n'
# the kernel is registered by lab; here this package is all of lab that there is
FILES = {"lab/__init__.py": "", "lab/cli.py": "print('skipped: a test')\n", "tiny.py": "x = 1\n"}


def make_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """Write a wheel of these files."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {**files, f"{about}/METADATA": head}
    files[f"{about}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{file},,\n" for file in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{about}/RECORD": record}.items():
            archive.writestr(file, text)
    return path


@pytest.fixture(scope="session")
def found(tmp_path_factory) -> Path:
    """The folder of wheels that the laptop has."""
    bundled = [*Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl")]
    bundled += Path("/usr/share/python-wheels").glob("pip-*.whl")
    if not bundled:
        pytest.skip("this Python brings no wheel of pip")
    found = tmp_path_factory.mktemp("found")
    shutil.copy(bundled[0], found)
    make_wheel(found, "tiny", "1.0", FILES)
    make_wheel(found, "uv", "0.99.0", {"uv-0.99.0.data/scripts/uv": "#!/bin/sh\n"})
    return found


@pytest.fixture
def offline(machine, project, found, uv_cache, tmp_path, monkeypatch) -> Connection:
    """A connection to a machine whose package index refuses; the laptop has a folder of wheels."""
    index, none = tmp_path / "index", tmp_path / "none"
    for folder in (index, none):
        folder.mkdir()
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_FIND_LINKS", str(found))
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"file://{index}")
    monkeypatch.setenv("UV_CACHE_DIR", str(uv_cache))
    (project / "src/my_experiment").mkdir(parents=True)
    (project / "src/my_experiment/__init__.py").touch()
    shutil.copy(BOOTSTRAP, project)
    with (project / "pyproject.toml").open("a") as settings:
        settings.write(BUILD)
    (project / "requirements.txt").write_text("tiny==1.0\n-e .\n")
    for words in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=project, check=True)
    current.reload()
    shutil.rmtree(machine.folder / "envs")
    env = {
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
        "UV_FIND_LINKS": str(none),
        "UV_CACHE_DIR": str(tmp_path / "remote cache"),
    }
    return Connection(machine.connection.machine._replace(env=env))


@pytest.mark.parametrize("rsync", [True, False])
def test_the_wheels_of_the_lock_are_brought_once_and_the_environment_needs_no_network(
    offline, machine, monkeypatch, capfd, rsync
):
    if not rsync:  # then tar brings them
        machine.program("rsync", "exit 127")
        monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=Silent))
    sent = []
    push = copying.push

    def watch(connection, base, names, stage, **options):
        sent.append(sorted(names))
        push(connection, base, names, stage, **options)

    monkeypatch.setattr(copying, "push", watch)
    workspace.setup(offline)
    assert sent == [["tiny-1.0-py3-none-any.whl", "uv-0.99.0-py3-none-any.whl"]]
    printed = capfd.readouterr().out
    assert "http://127.0.0.1:9/simple does not answer" in printed and " MB" in printed
    (python,) = machine.folder.glob("envs/3.11-*/bin/python")
    assert subprocess.run([python, "-c", "import tiny, my_experiment"], check=False).returncode == 0
    assert not (machine.folder / "wheels/incoming").exists()
    # made again, as a job would do it: nothing is brought
    shutil.rmtree(machine.folder / "envs")
    shutil.rmtree(machine.home.parent / "remote cache")
    workspace.setup(offline)
    assert len(sent) == 1 and python.exists()


def test_a_wheel_that_arrives_damaged_is_refused_and_one_that_has_arrived_is_not_sent_again(
    offline, machine, monkeypatch, tmp_path
):
    push, sent = copying.push, []

    def damage(connection, base, names, stage, **options):
        sent.append(sorted(names))
        push(connection, base, names, stage, **options)
        if len(sent) == 1:
            (Path(stage) / "files" / names[0]).write_text("damaged")

    monkeypatch.setattr(copying, "push", damage)
    with pytest.raises(LabError, match="damaged"):
        wheels.bring(offline)
    assert not list((machine.folder / "wheels").glob("*.whl"))
    wheels.bring(offline)
    assert [len(names) for names in sent] == [2, 1]
    assert len(list((machine.folder / "wheels").glob("*.whl"))) == 2


def test_a_connection_lost_while_the_wheels_are_taken_is_said_and_the_next_setup_goes_on(
    offline, machine, monkeypatch
):
    push = copying.push

    def lose_the_next_answer(*arguments, **options):
        push(*arguments, **options)
        machine.next_call('sh -c "$command" >/dev/null 2>&1; exit 255')

    monkeypatch.setattr(copying, "push", lose_the_next_answer)
    with pytest.raises(SshError):
        wheels.bring(offline)
    monkeypatch.setattr(copying, "push", lambda *_, **__: pytest.fail("all are there"))
    wheels.bring(offline)
    assert len(list((machine.folder / "wheels").glob("*.whl"))) == 2


def test_a_machine_without_that_python_is_named_before_anything_is_brought(
    offline, machine, monkeypatch
):
    settings = current.root() / "pyproject.toml"
    settings.write_text(settings.read_text().replace('"3.11"', '"3.99"'))
    monkeypatch.setattr(wheels, "bring", lambda _: pytest.fail("nothing is to be brought"))
    with pytest.raises(LabError, match=r"no Python 3\.99"):
        workspace.setup(offline)


def test_in_a_terminal_what_uv_says_is_shown_while_it_tries_alone(offline, machine, monkeypatch):
    sync = workspace.sync

    def sync_then_have_a_terminal(connection):
        synced = sync(connection)
        terminal = 'printf %s "$command" >cmd; script -qec "sh cmd >out" /dev/null >seen </dev/null'
        machine.next_call(f"{terminal}; code=$?; cat out; exit $code")
        return synced

    monkeypatch.setattr(workspace, "sync", sync_then_have_a_terminal)
    monkeypatch.setattr(wheels, "bring", lambda _: None)
    with pytest.raises(LabError):  # nothing was brought
        workspace.setup(offline)
    assert "tiny" in (machine.home / "seen").read_text()
