"""Baking projects and running commands in them, isolated from the developer's settings."""

import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[2]
EVERY_STEP = "venv,kernel,git"
LAB = TEMPLATE / "lab/src"  # the package, for tests that need no environment
VERSION = re.search(r'(?m)^version = "(.*)"', (LAB.parent / "pyproject.toml").read_text("utf-8"))[1]
# The caches are the developer's, so that packages are not fetched again in each run.
UV_CACHE = subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True).stdout.strip()
PIP_CACHE = os.environ.get("PIP_CACHE_DIR") or str(Path.home() / ".cache/pip")
PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")  # before HOME is isolated
# What a project needs for its kernel and the lab command: such a lock installs in a moment, also
# on a Python for which this machine has no torch.
FEW = ("ipykernel", "jupyter-core", "tomli")
# What the experiment of remote tests needs: everything of a recorded run but torch.
RECORDED = (*FEW, "annotated-types", "numpy", "pydantic", "sacred", "setuptools", "tqdm")
# IPython uses jedi for completion if it is installed. Two thirds of the files of a small
# environment are jedi's, and tests make, copy and compare dozens of environments.
LEFT_OUT = ("jedi", "parso")
TREE = [
    ".gitattributes",
    ".github/dependabot.yml",
    ".github/workflows/tests.yml",
    ".gitignore",
    ".vscode/settings.json",
    "AGENTS.md",
    "CITATION.cff",
    "CLAUDE.md",
    "LICENSE",
    "README.md",
    "bootstrap.py",
    "data/digits/models/.gitkeep",
    "data/digits/test/.gitkeep",
    "data/digits/train/.gitkeep",
    "data/digits/val/.gitkeep",
    "machines.local.toml",
    "machines.toml",
    "notebooks/compare_runs.ipynb",
    "notebooks/explore_data.ipynb",
    "pyproject.toml",
    "requirements.txt",
    "src/my_experiment/__init__.py",
    "src/my_experiment/accelerator.py",
    "src/my_experiment/checkpoints.py",
    "src/my_experiment/data.py",
    "src/my_experiment/experiment.py",
    "src/my_experiment/images.py",
    "src/my_experiment/loading.py",
    "src/my_experiment/model.py",
    "src/my_experiment/past_runs.py",
    "src/my_experiment/plots.py",
    "src/my_experiment/splitting.py",
    "src/my_experiment/training.py",
    "tests/conftest.py",
    "tests/test_data.py",
    "tests/test_experiment.py",
    f"vendor/dl_remote_lab-{VERSION}-py3-none-any.whl",
]


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

    def run_lab(self, *arguments, check=True, **options):
        """Run lab from its source; the registry is asked only if the command has to succeed."""
        command = [sys.executable, "-m", "lab.cli", *arguments]

        def run(offline: str) -> subprocess.CompletedProcess:
            env = {"PYTHONPATH": str(LAB), "UV_OFFLINE": offline}
            return self.run(*command, env=env, check=False, **options)

        return try_cache_first(run) if check else run("1")

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


def isolate(home: Path, setenv) -> None:
    """Use a home of its own: no kernel, git or pip setting of the developer is read or changed."""
    home.mkdir(parents=True, exist_ok=True)
    draft = home / f".gitconfig.{os.getpid()}"  # each worker does this for the home of the session
    draft.write_text("[user]\n\tname = Test\n\temail = test@example.org\n")
    draft.replace(home / ".gitconfig")
    setenv("HOME", str(home))
    setenv("JUPYTER_DATA_DIR", str(home / "jupyter"))
    setenv("GIT_CONFIG_NOSYSTEM", "1")
    setenv("UV_CACHE_DIR", UV_CACHE)
    setenv("PIP_CACHE_DIR", PIP_CACHE)
    setenv("OMP_NUM_THREADS", "1")  # the networks are tiny, and threads would fight for the cores


def cookiecutter(output_dir: Path, *options, skip="", env=None, template=TEMPLATE, **answers):
    """Run the cookiecutter command itself; returns the finished process, output as text."""
    command = [sys.executable, "-m", "cookiecutter", "--no-input", template, "-o", output_dir]
    answered = [f"{name}={value}" for name, value in answers.items()]
    return subprocess.run(
        [str(word) for word in [*command, *options, *answered]],
        env={**os.environ, "DL_TEMPLATE_SKIP": skip, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def ask_hook(expression: str, folder: Path, python=sys.executable, **env: str) -> str:
    """Evaluate an expression in pre_gen_project.py, in a folder; returns what print makes of it."""
    source = (TEMPLATE / "hooks/pre_gen_project.py").read_text("utf-8")
    source = source.replace("{{ cookiecutter | tojson }}", "{}").partition("\nif __name__")[0]
    command = [str(python), "-c", f"{source}\nprint({expression})"]
    return subprocess.check_output(command, cwd=folder, env={**os.environ, **env}, text=True)


def share_compiled(made: Project, other: Project, prefix: Path | None = None) -> None:
    """Give another project's packages what Python has compiled for those of one.

    Both environments are links into uv's cache; if they are copies, Python compiles its own. With
    `prefix`, for PYTHONPYCACHEPREFIX, the other environment need not be there yet.
    """
    (packages,) = made.path.glob(".venv/lib/python3*/site-packages")
    for compiled in packages.rglob("*.pyc"):
        place = other.path / compiled.relative_to(made.path)
        if prefix:
            place = prefix / place.parent.parent.relative_to("/") / place.name
        elif not place.parent.parent.is_dir():
            continue
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(compiled, place)


@functools.cache
def python_of(version: str) -> str | None:
    """An interpreter of that version on this machine: in PATH, of pyenv, or of uv."""
    pyenv = sorted(PYENV.glob(f"versions/{version}.*"))
    found = [shutil.which(f"python{version}"), *(p / "bin/python" for p in pyenv)]
    for candidate in itertools.chain(filter(None, found), uvs_python(version)):
        tell = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(tell, capture_output=True, text=True).stdout.strip() == version:
            return str(candidate)
    return None


def uvs_python(version: str) -> Iterator[str]:
    """Yield the interpreter that uv finds; asking it takes a second."""
    done = subprocess.run(["uv", "python", "find", version], capture_output=True, text=True)
    if done.returncode == 0:
        yield done.stdout.strip()


def run_uv(*arguments, input: str = "") -> str:
    """Run uv, from its cache if that is enough; return its output."""
    command = ["uv", *map(str, arguments)]

    def run(offline: str) -> subprocess.CompletedProcess:
        env = {**os.environ, "UV_OFFLINE": offline}
        return subprocess.run(command, input=input, env=env, capture_output=True, text=True)

    return try_cache_first(run).stdout


def try_cache_first(
    run: Callable[[str], subprocess.CompletedProcess],
) -> subprocess.CompletedProcess:
    """Run with UV_OFFLINE=1 and, if that fails, with 0; assert that one of them succeeds.

    Asking the registry about each package takes 15 seconds.
    """
    done = run("1")
    if done.returncode != 0:
        done = run("0")
    printed = f"{done.stdout}\n{done.stderr or ''}"
    assert done.returncode == 0, f"{done.args} ended with {done.returncode}:\n{printed}"
    return done


def shorten(project: Project, names: tuple[str, ...] = FEW) -> None:
    """Leave only these packages in pyproject.toml and in the lock."""
    settings = project.path / "pyproject.toml"
    lines = settings.read_text("utf-8").splitlines(keepends=True)
    dependencies = [line for line in lines if line.startswith('    "')]
    wanted = [line for line in dependencies if line.strip(' "').startswith(names)]
    lines = [line for line in lines if line not in dependencies or line in wanted]
    lines = [line for line in lines if not line.startswith("dev = ")]
    without = f"override-dependencies = [\"{LEFT_OUT[0]}; python_version < '3'\"]\n"
    lines.insert(lines.index("[tool.uv]\n") + 1, without)
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
    """The part of the lock that is wanted."""
    command = ["pip", "compile", "-", "--quiet", "--universal", "--python-version=3.10"]
    names = "\n".join(re.findall(r'"([^"]+)"', wanted))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write(lock)
        constraints.flush()
        command += ["--no-annotate", "--no-header", "--constraint", constraints.name]
        lines = run_uv(*command, input=names).splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(tuple(f"{x}==" for x in LEFT_OUT)))


def stub(path, script):
    """An executable shell script in place of a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def edit(path, old, new):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def build_fork(folder: Path, version: str) -> Path:
    """Build the wheel of a team's own lab, as docs/updating.md says."""
    copy = folder / "lab"
    shutil.copytree(LAB.parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    settings = copy / "pyproject.toml"
    text = re.sub(r'^version = ".*"', f'version = "{version}"', settings.read_text(), flags=re.M)
    settings.write_text(text)
    log = copy / "CHANGELOG.md"
    log.write_text(log.read_text().replace("## ", f"## {version}\n\n- ours\n\n## ", 1))
    subprocess.run(["uv", "build", "--quiet", "--wheel", "-o", folder, copy], check=True)
    (built,) = folder.glob("*.whl")
    return built
