"""lab init: a repository of any kind becomes a project, its own lines stay, all can be undone."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from git_helper import run_git
from test_offline_setup import make_wheel

from lab.adoption import adopt, survey, texts
from lab.cli import main
from lab.ground import project as current

PROJECT = """[project]
name = "sugar"
version = "1"
requires-python = ">=3.11"
dependencies = ["tiny"]
"""


@pytest.fixture
def index(tmp_path, uv_cache, monkeypatch) -> Path:
    """A package index that is a folder: packages without requirements of their own."""
    folder = tmp_path / "found"
    folder.mkdir()
    for name, version in (("ipykernel", "7.0"), ("pip", "30.0"), ("tiny", "1.0")):
        make_wheel(folder, name, version, {f"{name}.py": "x = 1\n"})
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"file://{tmp_path}/empty")
    monkeypatch.setenv("UV_CACHE_DIR", str(uv_cache))
    return folder


@pytest.fixture
def wheel(tmp_path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    files = {"lab/__init__.py": "", "lab/cli.py": "print('skipped: a test')\n"}
    return make_wheel(folder, "dl_remote_lab", "1.0.0", files)


@pytest.fixture
def write(home, tmp_path, monkeypatch, index):
    """A function that commits files as a repository, and makes that the current folder."""
    path = (tmp_path / "Sugar level").resolve()

    def commit(**files: str) -> Path:
        for name, text in {"train.py": "print(1)\n", **files}.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(text.encode())
        for words in (["init", "-q"], ["add", "--all"], ["commit", "-qm", "mine"]):
            subprocess.run(["git", *words], cwd=path, check=True)
        monkeypatch.chdir(path)
        current.reload()
        return path

    yield commit
    current.reload()


@pytest.fixture
def init(wheel, capsys):
    """A function that calls lab init and returns its exit code, and all that it printed."""

    def call(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main.main(["init", "--wheel", str(wheel), *words])
        return code, "".join(capsys.readouterr())

    return call


def list_files(folder: Path) -> dict[str, bytes]:
    """The content of every file but git's own."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def read_settings(folder: Path) -> dict:
    return current.parse_toml((folder / "pyproject.toml").read_text())


KINDS = {
    "scripts alone": {},
    "a list of packages": {"requirements.txt": "tiny\n"},
    "a list of lists": {"requirements.txt": "-r more/base.txt\n", "more/base.txt": "tiny>=1\n"},
    "src layout": {"pyproject.toml": PROJECT, "src/sugar/__init__.py": ""},
    "flat layout": {
        "pyproject.toml": f"{PROJECT}\n[tool.ruff]\nline-length = 88",
        "sugar/__init__.py": "",
    },
    "uv": {"pyproject.toml": PROJECT, "uv.lock": '[[package]]\nname = "tiny"\nversion = "1.0"\n'},
    "Windows": {"pyproject.toml": PROJECT.replace("\n", "\r\n"), ".gitignore": "*.pt\r\n"},
    "no end of line": {".gitignore": "*.pt", "pyproject.toml": "[tool.black]\nline-length = 88"},
    "empty files": dict.fromkeys(["pyproject.toml", ".gitignore", ".gitattributes"], ""),
    "notebooks": {"notebooks/a.ipynb": '{"cells": []}', "data/kept.csv": "1\n"},
    "everything ignored": {
        ".gitignore": "vendor/\n*.whl\n*.lock\n*.toml\nbootstrap*\n",
        "requirements.txt": "tiny",
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_repository_of_any_kind_is_taken_in_with_no_line_changed_and_given_back(
    kind, write, init, wheel
):
    path = write(**KINDS[kind])
    before = list_files(path)
    own = current.parse_toml(before.get("pyproject.toml", b"").decode())
    code, printed = init("--yes", "--remote", "ada@gpu1", "--gateway", "gate", "--outputs", "out/")
    assert code == 0, printed
    after = list_files(path)
    assert all(after[name].startswith(text) for name, text in before.items()), "lines are added"
    settings = read_settings(path)
    ours = settings["tool"].pop("lab")
    assert settings.get("project") == own.get("project")
    assert (
        ours["outputs"] == ["out/"]
        and f"dl-remote-lab=={adopt.find_version(str(wheel))}" in ours["requires"]
    )
    lock = (path / ours.get("lock", "requirements.txt")).read_text()
    assert "./vendor/dl_remote_lab-1.0.0-py3-none-any.whl # sha256" in lock
    assert ("tiny==1.0" in lock) == ("tiny" in str(before)), "what the user's code needs is locked"
    assert after["bootstrap.py"] == texts.BOOTSTRAP.read_bytes()
    untracked = run_git(path, "ls-files", "--others", "--exclude-standard").splitlines()
    assert {"bootstrap.py", "machines.toml"} <= {
        *untracked
    } and "machines.local.toml" not in untracked
    assert init("--yes")[1].endswith("nothing was changed\n") and list_files(path) == after
    (line,) = [line for line in printed.splitlines() if line.startswith("To undo it: ")]
    subprocess.run(
        line.partition(": ")[2], shell=True, cwd=path, check=True, stdout=subprocess.DEVNULL
    )
    assert list_files(path) == before and not (path / "vendor").exists()


def test_what_could_not_be_taken_back_is_refused_and_nothing_is_written(write, init):
    path = write(**{"pyproject.toml": "[tool.black]\n"})
    (path / "pyproject.toml").write_text("[tool.black]\nline-length = 1\n")
    (path / "train.py").write_text("edited, which does not matter")
    before = list_files(path)
    assert init("--yes")[0] == 1 and list_files(path) == before
    run_git(path, "commit", "-qam", "mine")
    for name, text in (("bootstrap.py", "mine"), ("pyproject.toml", "[tool"), ("train.py", "")):
        kept = (path / name).read_bytes() if (path / name).exists() else None
        (path / name).write_text(text)
        run_git(path, "add", "--all")
        run_git(path, "commit", "-qm", "mine")
        before = list_files(path)
        code = init("--yes")[0]
        assert code == (0 if name == "train.py" else 1)
        assert (list_files(path) == before) == bool(code)
        (path / name).write_bytes(kept) if kept is not None else (path / name).unlink()


def test_where_no_lock_fits_or_nobody_can_answer_nothing_is_written(write, init, monkeypatch):
    listed = {"requirements.txt": "tiny\nof-no-index\n"}
    path = write(**listed, **{".gitignore": "*.pt\n", ".gitattributes": ""})
    before = list_files(path)
    code, printed = init("--yes")
    assert code == 1 and "Traceback" not in printed
    assert init()[0] == 2, "there is no terminal"
    for words in (["--python", "2.7"], ["--remote=-oProxyCommand=x"], ["--outputs", "../x"]):
        assert init("--yes", *words)[0] == 2
    assert list_files(path) == before and not (path / "vendor").exists()
    monkeypatch.chdir(path.parent)
    assert init("--yes")[0] == 1, "no repository"


def test_a_wheel_that_lies_where_it_belongs_stays_there(write, init, wheel):
    path = write()
    shutil.copytree(wheel.parent, path / "vendor")
    run_git(path, "add", "--all")
    run_git(path, "commit", "-qm", "mine")
    code, printed = init("--yes", "--wheel", f"vendor/{wheel.name}")
    assert code == 0, printed
    assert (path / "vendor" / wheel.name).read_bytes() == wheel.read_bytes()
    assert run_git(path, "status", "--porcelain", "--", "vendor") == ""


def test_on_a_terminal_each_question_is_asked_until_its_answer_can_work(write, init, monkeypatch):
    path = write()
    answers = iter(["-", "sugar", "", "gpu:22", "ada@gpu", "", "out logs/"])

    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return f"{next(answers)}\n"

    monkeypatch.setattr("sys.stdin", Terminal())
    assert init()[0] == 0 and not list(answers)
    ours = read_settings(path)["tool"]["lab"]
    assert (ours["name"], ours["python"], ours["outputs"]) == ("sugar", "3.11", ["out", "logs/"])
    assert current.parse_toml((path / "machines.toml").read_text())["machines"]["gpu"] == {
        "ssh": "gpu",
        "folder": "lab/sugar",
    }
    assert 'user = "ada"' in (path / "machines.local.toml").read_text()


def run_bootstrap(path: Path, *words: object) -> Path:
    """Make an environment with the project's bootstrap.py; returns its folder of packages."""
    command = [sys.executable, "bootstrap.py", "--no-kernel", "--no-git", *map(str, words)]
    done = subprocess.run(command, cwd=path, stdout=-1, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    (packages,) = path.glob(".venv/lib/python*/site-packages")
    return packages


@pytest.mark.slow
def test_the_sources_that_their_requirements_name_are_those_of_the_lock(
    write, init, index, tmp_path, monkeypatch
):
    more = tmp_path / "more"
    more.mkdir()
    make_wheel(more, "rare", "2.0", {"rare.py": "x = 1\n"})
    included = f"-f {more}\n--extra-index-url=file://{tmp_path}/empty\nrare\n"
    path = write(**{"requirements.txt": "-r more/base.txt\ntiny\n", "more/base.txt": included})
    code, printed = init("--yes")
    assert code == 0, printed
    lock = (path / "requirements.lock").read_text().splitlines()
    assert {f"--find-links {more}", f"--extra-index-url file://{tmp_path}/empty"} <= {*lock}
    assert {"rare==2.0", "tiny==1.0"} <= {*lock} and "-e ." not in lock
    packages = run_bootstrap(path)
    assert {"rare.py", "tiny.py"} <= {one.name for one in packages.iterdir()}
    assert json.loads((path / ".venv/lab-environment.json").read_text())["lock"] == (
        hashlib.sha256((path / "requirements.lock").read_bytes()).hexdigest()
    )


@pytest.mark.slow
def test_a_package_in_the_top_folder_is_imported_from_where_the_environment_is_told(
    write, init, tmp_path
):
    build = '\n[build-system]\nrequires = ["uv_build>=0.9,<1"]\nbuild-backend = "uv_build"\n'
    build += '[tool.uv.build-backend]\nmodule-root = ""\n'
    path = write(**{"pyproject.toml": PROJECT + build, "sugar/__init__.py": ""})
    assert init("--yes")[0] == 0
    assert read_settings(path)["tool"]["lab"]["source"] == "."
    packages = run_bootstrap(path)

    def find_imported() -> list[Path]:
        texts = [one.read_text().strip() for one in packages.glob("*.pth")]
        return [(packages / text).resolve() for text in texts if text.startswith("..")]

    assert find_imported() == [path]
    run_bootstrap(path, "--source", tmp_path / "work")
    assert find_imported() == [tmp_path / "work"]


@pytest.mark.parametrize(
    ("named", "proposed"), [(">=3.12", "3.12"), (">=3.8,<3.11", "3.10"), ("", "3.11")]
)
def test_the_python_that_is_proposed_is_one_that_the_project_allows(write, named, proposed):
    path = write(**{"pyproject.toml": PROJECT.replace(">=3.11", named)})
    assert survey.find_repository(path).propose() == survey.Answers("sugar", proposed)


def test_packages_in_an_unknown_format_are_reported_and_a_list_of_them_is_taken_later(write, init):
    path = write(**{"environment.yml": "dependencies: [tiny]\n"})
    code, printed = init("--yes")
    assert code == 0 and "environment.yml" in printed
    (path / "requirements.txt").write_text("tiny\n")
    current.reload()
    assert main.main(["lock"]) == 0
    assert "\ntiny==1.0\n" in (path / "requirements.lock").read_text()


def test_where_nothing_lists_packages_those_that_the_code_imports_are_named(write, init):
    path = write(
        **{"train.py": "import os, helper\nfrom tiny.x import y\n", "helper.py": "z = 1\n"}
    )
    code, printed = init("--yes")
    (line,) = [line for line in printed.splitlines() if "tiny" in line]
    assert code == 0 and "helper" not in line and "requirements.txt" in line
    (path / "requirements.txt").write_text("tiny\n")
    assert main.main(["lock"]) == 0
    assert "tiny==1.0" in (path / "requirements.lock").read_text()


def test_a_first_lock_begins_with_the_versions_of_another_lock(write, init, index):
    make_wheel(index, "tiny", "2.0", {"tiny.py": "x = 2\n"})
    write(**KINDS["uv"])
    assert init("--yes")[0] == 0
    assert "\ntiny==1.0\n" in Path("requirements.txt").read_text()


def test_a_machine_reads_the_settings_of_lab_and_not_of_other_tools(tmp_path):
    text = '[tool.poetry.dependencies]\npython = "^3.9"\n'
    text += '[tool.lab]\nlock = "a.lock"\npython = "3.12"\n'
    (tmp_path / "pyproject.toml").write_text(f'{text}[tool.x]\nsource = "no"\n')
    script = Path(adopt.__file__).parents[1] / "jobs/environment.sh"
    told = 'for name in python lock source; do echo "$name $(setting "$1" $name)"; done'
    for shell in ("dash", "bash"):
        command = [shell, "-c", f'. "$0"; {told}', script, tmp_path]
        shown = subprocess.check_output(command, text=True)
        assert shown == "python 3.12\nlock a.lock\nsource \n"
