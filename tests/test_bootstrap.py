"""bootstrap.py ends in a working state, whatever interrupted it before, on every Python we name."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.hosts.homes import Homes
from helpers.laptop import EXPERIMENT
from helpers.projects import (
    EVERY_STEP,
    RECORDED,
    TEMPLATE,
    TREE,
    Project,
    ask_hook,
    cookiecutter,
    edit,
    isolate,
    python_of,
    run_uv,
    shorten,
    stub,
)

pytestmark = pytest.mark.environment


@pytest.fixture
def small(bake, home) -> Project:
    """A project with a short lock that bootstrap.py has not set up."""
    project = bake()
    shorten(project)
    return project


@pytest.fixture(scope="module")
def kept(isolated_session, tmp_path_factory) -> Homes:
    """A small project that bootstrap.py set up, beside its home."""
    folder = tmp_path_factory.mktemp("kept")
    homes = Homes(folder / "now", folder / "kept")
    with pytest.MonkeyPatch.context() as patch:
        isolate(homes.folder / "home", patch.setenv)
        project = Project(homes.folder / "my-experiment")
        done = cookiecutter(homes.folder, skip=EVERY_STEP)
        assert done.returncode == 0, done.stdout
        shorten(project)
        # a link into uv's cache changes whenever somebody else links the same file
        project.bootstrap(env={"UV_LINK_MODE": "copy"})
        assert_works(project)
    homes.save("up")
    return homes


@pytest.fixture
def up(kept, home, monkeypatch) -> Project:
    """A small project that bootstrap.py has set up, as it was then, whatever other tests did."""
    kept.restore("up")
    isolate(kept.folder / "home", monkeypatch.setenv)
    return Project(kept.folder / "my-experiment")


def assert_works(project: Project) -> None:
    """All is up to date, nothing unfinished is left, and the kernel's Python has the package."""
    table = project.check().stdout
    assert up_to_date(table) == 5, table
    assert not list(project.path.glob(".venv?*")), "unfinished folders are left"
    # of ipykernel the part in C: all of it takes a second
    find = "from importlib.util import find_spec; assert find_spec('ipykernel')"
    project.run(".venv/bin/python", "-c", f"import lab, {project.package}, zmq; {find}")


def copy(project: Project, path: Path, name: str = "my-experiment") -> Project:
    """Copy a project with its environment, maybe under another name, as mv would leave it."""
    subprocess.run(["cp", "-a", project.path, path], check=True)
    edit(path / "pyproject.toml", 'name = "my-experiment"', f'name = "{name}"')
    return Project(path)


def up_to_date(table: str) -> int:
    """How many rows of what lab check printed are up to date."""
    return sum(line.startswith("  ok ") for line in table.splitlines())


def test_the_environment_has_the_python_and_the_packages_of_the_lock(project):
    version = project.run("python", "-c", "import sys; print(sys.version_info[:2])").stdout
    assert version.strip() == "(3, 11)"
    listed = project.run("uv", "pip", "list", "--format=json", "-p", project.path / ".venv").stdout
    installed = {one["name"]: one["version"].split("+")[0] for one in json.loads(listed)}
    locked = {}
    for line in (project.path / "requirements.txt").read_text().splitlines():
        name, _, rest = line.partition("==")
        locked.setdefault(name, set()).add(rest.split(" ")[0])
    for name, version in installed.items():
        own = ("my-experiment", "dl-remote-lab")
        assert name in own or version in locked[name], name


def test_a_second_run_changes_nothing(up):
    project = up
    shape = {path: path.stat().st_mtime_ns for path in project.path.rglob("*")}
    shape = {path: when for path, when in shape.items() if ".git/" not in str(path)}
    project.bootstrap()
    assert {path: path.stat().st_mtime_ns for path in shape} == shape


def test_a_fresh_clone_is_set_up_by_the_same_command_and_an_environment_in_it_kept(up, tmp_path):
    clone = Project(tmp_path / "my-experiment")
    up.git("clone", "--quiet", up.path, clone.path)
    shutil.rmtree(Path.home() / "jupyter")  # a colleague has not the kernel of this project
    clone.run("uv", "venv", "--quiet", ".venv")
    (clone.path / ".venv" / "mine").write_text("1")
    assert "the old environment is now .venv.before-bootstrap" in clone.bootstrap().stdout
    assert (clone.path / ".venv.before-bootstrap" / "mine").read_text() == "1"
    shutil.rmtree(clone.path / ".venv.before-bootstrap")
    assert_works(clone)
    assert clone.git("status", "--porcelain") == ""


def test_a_chosen_venv_folder_is_used_and_that_of_another_project_set_aside(up, tmp_path):
    venv, project, other = (tmp_path / name for name in ("envs/one", "project", "other"))
    for path in (project, other):
        shutil.copytree(up.path, path, ignore=shutil.ignore_patterns(".venv"))
    project, other = Project(project), Project(other)
    project.bootstrap("--venv", venv, "--no-kernel", "--no-git")
    project.run(venv / "bin/python", "-c", "import lab, my_experiment")
    assert not (project.path / ".venv").exists()
    (venv / "mine").write_text("1")
    output = other.bootstrap("--venv", venv, "--no-kernel", "--no-git").stdout
    assert "the old environment is now one.before-bootstrap" in output
    assert (tmp_path / "envs/one.before-bootstrap/mine").read_text() == "1"


def test_a_folder_that_is_not_an_environment_is_not_touched(up, tmp_path):
    project = up
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "data").write_text("1")
    done = project.bootstrap("--venv", tmp_path / "precious", check=False)
    assert done.returncode == 1
    assert "is not an environment; choose another --venv folder" in done.stdout
    assert (tmp_path / "precious" / "data").read_text() == "1"


def test_a_file_at_the_path_of_the_environment_stays(up):
    project = up
    done = project.bootstrap("--venv", "README.md", check=False)
    assert done.returncode == 1
    assert "README.md exists and is not an environment" in done.stdout
    assert (project.path / "README.md").is_file()


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_a_missing_file_is_named(up, name):
    (up.path / name).unlink()
    done = up.bootstrap("--no-kernel", "--no-git", check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert str(up.path / name) in done.stdout and "No such file" in done.stdout


# --- --check ---------------------------------------------------------------------------------


def spoil_lock(project):
    with open(project.path / "requirements.txt", "a") as lock:
        lock.write("# changed\n")


def spoil_package(project):
    shutil.rmtree(next(project.path.glob(".venv/lib/python3*/site-packages/ipykernel-*")))


def empty_environment(project):
    (packages,) = project.path.glob(".venv/lib/python3*/site-packages")
    shutil.rmtree(packages)
    packages.mkdir()


def spoil_kernel(project):
    project.run("lab", "kernel", "remove")


def spoil_filter(project):
    project.git("config", "--unset", "filter.notebook-output.clean")


def test_check_finds_all_that_is_out_of_date_and_names_what_fixes_it(up):
    project = up
    spoil_kernel(project)
    spoil_filter(project)
    spoil_package(project)
    spoil_lock(project)
    done = project.check(check=False)
    assert done.returncode == 1
    rows = (
        "stale    environment  .venv is older than requirements.txt",
        "stale    packages",
        "stale    kernel       not registered with Jupyter",
        "stale    repository   the notebook filter is missing",
    )
    for row in rows:
        assert row in done.stdout
    assert "To fix it: python3 bootstrap.py" in done.stdout
    project.bootstrap()
    project.check()


def test_an_environment_that_was_emptied_is_made_again(up, tmp_path):
    project = copy(up, tmp_path / "copy")
    empty_environment(project)
    assert "done     environment  .venv, Python 3.11" in project.bootstrap().stdout
    assert_works(project)


def test_a_dependency_that_is_not_in_the_lock_is_found(up):
    settings = up.path / "pyproject.toml"
    text = settings.read_text()
    for name in ("einops", "of-no-index"):
        new = text.replace("dependencies = [", f'dependencies = [\n    "{name}",')
        settings.write_text(new)
        done = up.check(check=False)
        assert done.returncode == 1
        assert "packages     requirements.txt lacks what pyproject.toml asks for" in done.stdout


# --- faults, one at a time --------------------------------------------------------------------


def no_network(tmp_path) -> dict:
    """The environment of a machine that reaches no package registry and has nothing cached."""
    nowhere = "http://127.0.0.1:9/simple"  # the discard port: nobody listens there
    return {
        "UV_CACHE_DIR": str(tmp_path / "cold"),
        "UV_DEFAULT_INDEX": nowhere,
        "PIP_INDEX_URL": nowhere,
        "UV_HTTP_RETRIES": "0",
        "PIP_RETRIES": "0",
    }


def test_without_network_the_files_stay_and_the_summary_names_the_command(tmp_path, home):
    done = cookiecutter(tmp_path / "out", env=no_network(tmp_path))
    project = Project(tmp_path / "out" / "my-experiment")
    assert done.returncode == 0
    rows = [line.split()[:2] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert ["failed", "environment"] in rows
    assert ["skipped", "kernel"] in rows
    assert ["done", "repository"] in rows
    assert "python3 bootstrap.py" in done.stdout
    assert "Traceback" not in done.stdout
    assert project.files() == TREE, "as a fresh clone, which bootstrap.py sets up"
    assert project.git("status", "--porcelain", "--ignored") == "!! machines.local.toml"


def test_a_lost_network_leaves_the_environment_that_was_there(up, tmp_path):
    project = up
    spoil_lock(project)
    done = project.bootstrap(check=False, env=no_network(tmp_path))
    assert done.returncode == 1
    assert "failed   environment" in done.stdout
    project.run("lab", "kernel", "list")


def test_a_failing_uv_is_named_and_leaves_nothing_unfinished(bake, tmp_path):
    project = bake()
    stub(tmp_path / "bin" / "uv", 'case "$1" in --version) echo "uv 9.9.9";; *) exit 3;; esac')
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    # Project.run puts .venv/bin first, but there is no environment yet
    done = project.bootstrap(check=False, env={"PATH": path})
    assert done.returncode == 1
    assert "failed (3)" in done.stdout
    assert project.files() == TREE
    assert not list(project.path.glob(".venv*"))


@pytest.mark.parametrize(
    ("given", "passed_on", "calls"),
    [
        ({}, {}, ["--torch-backend=auto --offline", "--torch-backend=auto"]),
        (
            {
                "PIP_FIND_LINKS": "/wheels /more",
                "PIP_INDEX_URL": "https://one.invalid",
                "PIP_EXTRA_INDEX_URL": "https://two.invalid https://three.invalid",
            },
            {
                "UV_FIND_LINKS": "/wheels,/more",
                "UV_DEFAULT_INDEX": "https://one.invalid",
                "UV_INDEX": "https://two.invalid https://three.invalid",
                "UV_INDEX_STRATEGY": "unsafe-first-match",
            },
            [""],
        ),
        ({"UV_TORCH_BACKEND": "cpu"}, {"UV_TORCH_BACKEND": "cpu"}, ["--offline", ""]),
    ],
    ids=["nothing given", "pip's variables", "UV_TORCH_BACKEND"],
)
def test_uv_gets_the_gpus_torch_unless_the_user_says_where_packages_are(
    up, tmp_path, monkeypatch, given, passed_on, calls
):
    assert list_installs(up, tmp_path, monkeypatch, given) == (calls, passed_on)


@pytest.mark.parametrize(
    ("file", "text", "calls"),
    [
        ("~/.config/uv/uv.toml", '[[index]]\nurl = "https://one.invalid"\ndefault = true\n', [""]),
        ("~/.config/uv/uv.toml", 'index-url = "https://one.invalid"\n', [""]),
        ("uv.toml", 'find-links = ["/wheels"]\n', ["--offline", ""]),
        ("uv.toml", '[pip]\ntorch-backend = "cpu"\n', ["--offline", ""]),
        ("pyproject.toml", '[[tool.uv.index]]\nurl = "https://one.invalid"\n', [""]),
        (
            "uv.toml",
            "no-cache = true\n",
            ["--torch-backend=auto --offline", "--torch-backend=auto"],
        ),
    ],
)
def test_what_uvs_own_configuration_says_of_packages_is_left_to_uv(
    up, tmp_path, monkeypatch, file, text, calls
):
    path = up.path / os.path.expanduser(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as opened:
        opened.write(f"\n{text}")
    assert list_installs(up, tmp_path, monkeypatch, {}) == (calls, {})


def list_installs(project, tmp_path, monkeypatch, given):
    """The options of each `uv pip install` that name the source, and uv's variables."""
    log = tmp_path / "log"
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    # it installs nothing: the packages of a GPU's torch are gigabytes
    logging = f'echo "$*" >> {log}; env | grep ^UV_ >> {log}; [ "$2" != pip ]'
    stub(tmp_path / "bin/uv", f'case "$1" in --version) echo "uv 9.9.9"; exit;; esac; {logging}')
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    options = ("--venv", tmp_path / "new", "--no-kernel", "--no-git")
    done = project.bootstrap(*options, check=False, env={"PATH": path, **given})
    assert done.returncode == 1
    lines = log.read_text().splitlines()
    installs = [line.split() for line in lines if " pip install " in line]
    options = ("--torch-backend=auto", "--offline")
    found = dict(line.split("=", 1) for line in lines if line.startswith("UV_"))
    found.pop("UV_HTTP_RETRIES", None)  # only for the download of a Python
    return [" ".join(word for word in words if word in options) for words in installs], found


def bare_path(tmp_path, *more) -> str:
    """A PATH with git and Python, but without uv unless it is asked for."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("git", "python3.11", "sh", *more):
        (tools / name).symlink_to(os.path.realpath(shutil.which(name)))
    return str(tools)


def test_a_machine_without_a_recent_uv_gets_its_own_from_pypi(small, tmp_path, home):
    """Without network one line says what to install; and a Python without pip asks for it, too."""
    project, cache = small, home / ".cache/dl-remote-template"
    stub(tmp_path / "old" / "uv", 'echo "uv 0.4.1"')
    project.run("uv", "venv", "--quiet", tmp_path / "no pip")
    bare = bare_path(tmp_path)
    old, offline = {"PATH": f"{tmp_path}/old:{bare}"}, no_network(tmp_path)
    done = project.bootstrap(python=tmp_path / "no pip/bin/python", check=False, env=old | offline)
    assert done.returncode == 1
    assert "Downloading uv from PyPI" in done.stdout
    assert "uv is missing and cannot be downloaded: python -m pip failed" in done.stdout
    assert "Traceback" not in done.stdout
    assert os.listdir(cache) == []
    project.bootstrap(python=os.path.realpath(sys.executable), env={"PATH": bare})
    assert (cache / "uv/bin/uv").exists()
    assert_works(project)


def test_the_lab_of_another_project_in_pythonpath_is_not_taken(up, tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").touch()
    foreign = {"PYTHONPATH": str(tmp_path)}
    assert up.bootstrap(env=foreign).stdout.count("  done ") == 3


def test_a_kernel_that_cannot_be_written_is_named_and_the_rest_is_done(up):
    project, kernels = up, Path.home() / "jupyter"
    shutil.rmtree(kernels)
    kernels.write_text("a file where the folder should be")
    done = project.bootstrap(check=False)
    assert done.returncode == 1
    assert "done     environment" in done.stdout
    assert "failed   kernel" in done.stdout
    assert "done     repository" in done.stdout
    assert "Traceback" not in done.stdout
    kernels.unlink()
    project.bootstrap()
    assert_works(project)


def test_an_ipykernel_that_is_missing_or_broken_is_named(up):
    project = up
    (site,) = project.path.glob(".venv/lib/python3*/site-packages")
    (site / "ipykernel").rename(site / "aside")
    done = project.run("lab", "kernel", "install", check=False)
    assert done.returncode == 1 and "ipykernel is not installed" in done.stdout
    (site / "aside").rename(site / "ipykernel")
    (site / "zmq").rename(site / "aside")
    (site / "zmq.py").write_text("raise OSError('libzmq.so.5: no such file')")
    done = project.bootstrap(check=False)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "zmq cannot be imported (OSError('libzmq.so.5: no such file'))" in done.stdout
    assert f"delete {project.path}/.venv and run python3 bootstrap.py" in done.stdout


DISK = """
mount -t tmpfs none "$1" && cp -r . "$1" && mount -o remount,ro "$1" && cd "$1"
"$2" bootstrap.py; echo "read-only: $?"
echo "left: $(ls -dA .venv* 2>/dev/null)"
mount -o remount,rw,size=2m "$1"
"$2" bootstrap.py; echo "full: $?"
echo "left: $(ls -dA .venv* 2>/dev/null)"
mount -o remount,size=500m "$1"
"$2" bootstrap.py; echo "last: $?"
.venv/bin/lab check; echo "check: $?"
"""


def test_a_disk_that_takes_nothing_is_named_and_later_all_is_well(small, tmp_path):
    project = small
    (tmp_path / "disk").mkdir()
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c", DISK, "sh"]
    done = project.run(*inside, tmp_path / "disk", sys.executable)
    assert "Traceback" not in done.stdout
    read_only, rest = done.stdout.split("read-only: ")
    full, rest = rest.split("full: ")
    assert "failed   environment" in read_only and "failed   environment" in full
    assert full.startswith("1\nleft: \n") and rest.startswith("1\nleft: \n")
    assert "last: 0" in rest
    assert "check: 0" in rest


def test_the_leftovers_of_a_process_that_ended_are_removed_even_if_it_is_a_zombie(tmp_path):
    script = runpy.run_path(str(TEMPLATE / "{{cookiecutter.project_slug}}/bootstrap.py"))
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as ended:
        ended.stdout.read()  # closed when it ends; nobody waits for it yet
        stat = Path(f"/proc/{ended.pid}/stat")
        while stat.exists() and ") Z " not in stat.read_text():
            pass
        pids = (ended.pid, f"{ended.pid}-old", os.getpid())
        left, old, building = (tmp_path / f".venv{script['BUILDING']}{pid}" for pid in pids)
        for folder in (left, old, building):
            folder.mkdir()
        script["remove_leftovers"](tmp_path / ".venv")
        assert list(tmp_path.iterdir()) == [building]


# A uv that tells the test through a pipe that it was called, waits there forever at the call the
# test chose, and otherwise is the real one.
HALTING_UV = """
case "$1" in --version) exec {uv} "$@";; esac
echo x >> {count}
if [ "$(wc -l < {count})" = {call} ]; then
    {before}
    echo halted > {pipe}
    while :; do read -r nothing < {never}; done
fi
exec {uv} "$@"
"""


def test_interrupted_at_its_creation_and_at_each_step_and_run_again_all_is_well(tmp_path, home):
    """Each run gets past the step at which the one before was interrupted."""
    project, uv = Project(tmp_path / "out" / "my-experiment"), shutil.which("uv")
    names = {name: tmp_path / name for name in ("pipe", "never", "count")}
    for name in ("pipe", "never"):
        os.mkfifo(names[name])

    def interrupt(number: int, call: int, *command: object, before: str = "") -> str:
        names["count"].unlink(missing_ok=True)
        stub(tmp_path / "bin/uv", HALTING_UV.format(uv=uv, call=call, before=before, **names))
        running = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert names["pipe"].read_text() == "halted\n"  # blocks until uv was called
        os.killpg(running.pid, number)
        output, _ = running.communicate()
        assert running.returncode != 0
        assert not (project.path / ".venv").exists()
        return output

    create = ("-m", "cookiecutter", "--no-input", TEMPLATE, "-o", tmp_path / "out")
    interrupt(signal.SIGINT, 2, *create)
    assert project.files() == TREE
    shorten(project)
    # what SIGTERM does, SIGINT does
    for number, call in [(signal.SIGINT, 1), (signal.SIGTERM, 2), (signal.SIGINT, 3)]:
        output = interrupt(number, call, project.path / "bootstrap.py", before=f'{uv} --quiet "$@"')
        assert "Run again: python3 bootstrap.py" in output
        assert "Traceback" not in output
        assert not list(project.path.glob(".venv*"))
    for call in (1, 2, 3):
        interrupt(signal.SIGKILL, call, project.path / "bootstrap.py", before=f'{uv} --quiet "$@"')
    project.bootstrap()
    assert_works(project)


def test_interrupted_while_git_holds_its_lock_and_run_again_all_is_well(bake, tmp_path):
    project, only_git = bake(), ("bootstrap.py", "--no-venv", "--no-kernel")
    for name in ("pipe", "never"):
        os.mkfifo(tmp_path / name)
    # git asks the notebook filter in the middle of git add
    stub(tmp_path / "bin/python3", f"echo halted > {tmp_path}/pipe; read -r _ < {tmp_path}/never")
    for number in (signal.SIGINT, signal.SIGKILL):
        running = subprocess.Popen(
            [sys.executable, *only_git],
            cwd=project.path,
            env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
            start_new_session=True,
        )
        assert (tmp_path / "pipe").read_text() == "halted\n"
        assert list(project.path.glob(".git*/**/index.lock"))
        os.killpg(running.pid, number)
        assert running.wait() != 0
        assert not (project.path / ".git").exists()
    project.run(sys.executable, *only_git)
    assert not list(project.path.glob(".git.*"))
    assert "building" not in project.git("ls-files")
    assert project.git("status", "--porcelain") == ""
    assert project.git("config", "--get-all", "core.bare") == "false"
    found = [path for path in project.path.glob(".git/**/*") if path.is_file()]
    assert not [path for path in found if b"building-" in path.read_bytes()]


# --- kernels ----------------------------------------------------------------------------------


def kernels(project) -> dict[str, dict]:
    rows = json.loads(project.run("lab", "kernel", "list", "--json").stdout)
    return {row["name"]: row for row in rows}


def test_two_projects_of_one_name_get_two_kernels_and_the_notebooks_know_theirs(up, tmp_path):
    first = up
    second = copy(first, tmp_path / "my-experiment")
    output = second.bootstrap().stdout
    assert f"my-experiment-2; because the name my-experiment belongs to {first.path}" in output
    for project, name in ((first, "my-experiment"), (second, "my-experiment-2")):
        assert kernels(project)[name]["state"] == "this project"
        assert kernels(project)[name]["python"] == f"{project.path}/.venv/bin/python"
        for path in project.path.glob("notebooks/*.ipynb"):
            assert json.loads(path.read_text())["metadata"]["kernelspec"]["name"] == name
    assert "my-experiment-3" not in second.bootstrap().stdout


def test_a_kernel_that_another_program_made_is_not_replaced(up):
    folder = Path.home() / "jupyter" / "kernels" / "my-experiment"
    # also one that cannot be read is somebody's
    for text in ('{"argv": ["julia"], "display_name": "Julia"}', '{"argv": '):
        shutil.rmtree(folder.parent)
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(text)
        up.bootstrap("--no-git")
        assert (folder / "kernel.json").read_text() == text
        assert kernels(up)["my-experiment-2"]["state"] == "this project"


def test_a_notebook_of_another_language_or_a_broken_one_is_left_alone(up):
    project = up
    folder = project.path / "notebooks"
    spec = '{"cells": [], "metadata": {"kernelspec": %s}, "nbformat": 4, "nbformat_minor": 5}'
    julia = spec % '{"name": "julia", "language": "julia"}'
    (folder / "julia.ipynb").write_text(julia)
    (folder / "half.ipynb").write_text("{")
    (folder / ".#julia.ipynb").symlink_to("ada@laptop.1234")  # so Emacs locks a file
    (folder / "fresh.ipynb").write_text(spec % "null")
    output = "my-experiment; written into fresh.ipynb\n"
    assert project.run("lab", "kernel", "install").stdout == output
    assert (folder / "julia.ipynb").read_text() == julia


def test_a_project_that_moved_takes_its_kernel_along(up, tmp_path):
    project = up
    project.path.rename(tmp_path / "moved")
    moved = Project(tmp_path / "moved")
    moved.run("lab", "kernel", "list")  # the environment itself moved along
    moved.bootstrap()
    assert list(kernels(moved)) == ["my-experiment"]
    assert kernels(moved)["my-experiment"]["python"] == f"{moved.path}/.venv/bin/python"
    assert moved.git("status", "--porcelain") == ""


def test_a_deleted_environment_shows_as_gone_and_comes_back(up, tmp_path):
    project, other = up, copy(up, tmp_path / "other", "other")
    other.run("lab", "kernel", "install")
    (project.path / ".venv").rename(tmp_path / "away")
    assert kernels(other)["my-experiment"]["state"] == "gone"
    assert "my-experiment  gone" in other.run("lab", "kernel", "list").stdout
    (tmp_path / "away").rename(project.path / ".venv")
    assert kernels(other)["my-experiment"]["state"] == "other"


def test_kernel_remove_takes_away_this_projects_kernel_alone(up, tmp_path):
    project, other = up, copy(up, tmp_path / "other", "other")
    other.run("lab", "kernel", "install")
    assert project.run("lab", "kernel", "remove").stdout == "removed: my-experiment\n"
    assert list(kernels(other)) == ["other"]
    assert "has no kernel" in project.run("lab", "kernel", "remove").stdout


# --- the notebook filter ----------------------------------------------------------------------


def with_output(path) -> None:
    """Give every code cell of a notebook an output, as a run in Jupyter does."""
    notebook = json.loads(path.read_text())
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            cell["execution_count"] = number
            cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": ["1\n"]}]
            cell["metadata"]["scrolled"] = True
    path.write_text(json.dumps(notebook, indent=1) + "\n")


def test_output_is_stripped_on_commit_and_stays_in_the_file(up):
    project = up
    notebook = project.path / "notebooks" / "explore_data.ipynb"
    with_output(notebook)
    assert project.git("diff", "--", "notebooks") == ""
    project.git("add", "--all")
    assert project.git("status", "--porcelain", "--", "notebooks") == ""
    assert '"1\\n"' not in project.git("show", ":notebooks/explore_data.ipynb")
    assert '"1\\n"' in notebook.read_text()


def test_a_cell_with_the_tag_keep_output_keeps_it(up):
    project = up
    path = project.path / "notebooks" / "explore_data.ipynb"
    with_output(path)
    notebook = json.loads(path.read_text())
    notebook["cells"][1]["metadata"]["tags"] = ["keep_output"]
    path.write_text(json.dumps(notebook))
    project.git("add", "--all")
    committed = json.loads(project.git("show", ":notebooks/explore_data.ipynb"))
    assert [bool(cell.get("outputs")) for cell in committed["cells"]][:3] == [False, True, False]


def test_the_filter_works_without_environment_in_a_moved_project_and_in_a_worktree(up, tmp_path):
    project = up
    shutil.rmtree(project.path / ".venv")
    project.path.rename(tmp_path / "moved")
    moved = Project(tmp_path / "moved")
    moved.git("worktree", "add", "--quiet", tmp_path / "tree")
    for copy in (moved, Project(tmp_path / "tree")):
        with_output(copy.path / "notebooks" / "explore_data.ipynb")
        copy.git("add", "--all")
        assert '"1\\n"' not in copy.git("show", ":notebooks/explore_data.ipynb")


def test_a_file_that_is_not_a_notebook_passes_the_filter_unchanged(up):
    contents = [b"", b"<<<<<<< ours", b'{"cells": 3}', b"\xff\xfe", b"[1]"]
    for number, content in enumerate(contents):
        (up.path / "notebooks" / f"odd-{number}.ipynb").write_bytes(content)
    up.git("add", "--all")
    for number, content in enumerate(contents):
        shown = ["git", "show", f":notebooks/odd-{number}.ipynb"]
        assert subprocess.check_output(shown, cwd=up.path) == content


# --- other Pythons ----------------------------------------------------------------------------

EVERY_MODULE = """
import importlib, lab, pkgutil, sys
names = [module.name for module in pkgutil.walk_packages(lab.__path__, "lab.")]
for name in names:
    importlib.import_module(name)
assert len(names) > 50 and "torch" not in sys.modules
print(sys.version)
"""


def test_a_missing_python_is_one_line_with_both_fixes_and_the_versions_that_are_installed(
    small, tmp_path
):
    project = small
    edit(project.path / "pyproject.toml", 'python = "3.11"', 'python = "3.12"')
    alone = {"PATH": bare_path(tmp_path, "uv"), "UV_PYTHON_INSTALL_DIR": str(tmp_path / "none")}
    alone |= no_network(tmp_path)
    done = project.bootstrap("--no-kernel", "--no-git", check=False, env=alone)
    assert done.returncode == 1
    failed, last = [line for line in done.stdout.splitlines() if "not asked" not in line]
    assert failed.startswith(
        "  failed   environment  .venv is missing, and there is no Python 3.12"
    )
    assert "install it, or change `python` in pyproject.toml" in failed
    assert re.search(r"\(installed: ([0-9.]+, )*3\.11(, [0-9.]+)*\)\.$", failed), failed
    assert last == "Fix what failed, then run: python3 bootstrap.py"
    assert not list(project.path.glob(".venv*"))


def test_the_versions_of_python_that_are_offered_are_those_of_the_question():
    script = (TEMPLATE / "{{cookiecutter.project_slug}}/bootstrap.py").read_text("utf-8")
    named = re.search(r"^PYTHONS = \((.*?)\)", script, re.M)[1]
    offered = json.loads((TEMPLATE / "cookiecutter.json").read_text("utf-8"))["python_version"]
    assert re.findall(r'"([^"]*)"', named) == sorted(offered)


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
def test_every_python_we_name_creates_sets_up_and_runs_lab(tmp_path, home, version):
    python = python_of(version)
    if not python:
        pytest.skip(f"this machine has no Python {version}")
    command = [tmp_path / "venv/bin/python", "-m", "cookiecutter", "--no-input", TEMPLATE]
    run_uv("venv", "--quiet", "-p", python, tmp_path / "venv")
    run_uv("pip", "install", "--quiet", "-p", tmp_path / "venv", "cookiecutter")
    project = Project(tmp_path / "my-experiment")
    answers, skip = [f"python_version={version}"], {"DL_TEMPLATE_SKIP": "venv,kernel"}
    project.run(*command, "-o", tmp_path, *answers, cwd=tmp_path, env=skip)
    assert (project.path / ".git").exists()
    # a module that only some versions have
    refused = "sys.version, find_refusal('project_slug', 'distutils') is not None"
    said = ask_hook(refused, tmp_path, command[0])
    assert said.startswith(f"{version}.") and said.endswith(" True\n")

    shorten(project, RECORDED)
    path = f"{os.path.dirname(python)}:{os.environ['PATH']}"
    project.bootstrap(python=python, env={"PATH": path})
    assert up_to_date(project.check().stdout) == 5
    assert project.run("python", "-c", EVERY_MODULE).stdout.startswith(f"{version}.")
    shutil.copy(EXPERIMENT, project.path / "src/my_experiment/experiment.py")
    project.run("python", "-m", "my_experiment.experiment", "with", "quick")
    assert "COMPLETED" in project.run("lab", "runs").stdout
    assert kernels(project)["my-experiment"]["state"] == "this project"


def test_bootstrap_runs_under_the_oldest_python_it_promises(small):
    python = python_of("3.8")
    if not python:
        pytest.skip("this machine has no Python 3.8")
    project = small
    project.bootstrap(python=python)
    assert_works(project)


def test_where_packages_come_from_is_read_from_pip_conf(small, tmp_path, home):
    """uv does not read it; and `user = true` there would break pip in an environment."""
    project = small
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (home / ".config/pip").mkdir(parents=True)
    (home / ".config/pip/pip.conf").write_text(
        f"[global]\nfind-links = {wheels}\nindex-url = http://127.0.0.1:9/simple\nuser = true\n"
    )
    show = "import bootstrap; print(bootstrap.variables().get('UV_' + input()))"
    for name, expected in (("FIND_LINKS", wheels), ("DEFAULT_INDEX", "http://127.0.0.1:9/simple")):
        env = dict.fromkeys(("PIP_FIND_LINKS", "PIP_INDEX_URL", "UV_FIND_LINKS"), "")
        done = project.run(sys.executable, "-c", show, input=name, env=env)
        assert done.stdout == f"{expected}\n"
    (home / ".config/pip/pip.conf").write_text("[global\n")
    done = project.bootstrap("--no-kernel", "--no-git", check=False)
    assert done.returncode == 1 and "pip.conf" in done.stdout and "Traceback" not in done.stdout
