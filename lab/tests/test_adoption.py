"""lab init: a repository of any kind becomes a project, its own lines stay, all can be undone."""

import subprocess
from pathlib import Path

import pytest
from git_helper import run_git
from test_offline_setup import make_wheel

from lab.adoption import adopt, texts
from lab.cli import main
from lab.ground import project as current

PROJECT = """[project]
name = "sugar"
version = "1"
requires-python = ">=3.11"
dependencies = ["tiny"]
"""


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
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
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def wheel(tmp_path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    files = {"lab/__init__.py": "", "lab/cli.py": "print('skipped: a test')\n"}
    return make_wheel(folder, "dl_remote_lab", "1.0.0", files)


@pytest.fixture
def write(home, tmp_path, monkeypatch, index):
    """A function that commits files as a repository of their own, in which one stands then."""
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
    (line,) = [line for line in printed.splitlines() if line.startswith("To take it back: ")]
    subprocess.run(
        line.partition(": ")[2], shell=True, cwd=path, check=True, stdout=subprocess.DEVNULL
    )
    assert list_files(path) == before and not (path / "vendor").exists()
