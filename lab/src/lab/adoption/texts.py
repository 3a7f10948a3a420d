"""The texts that `lab init` writes: whole new files, and lines at the end of the user's own."""

import json
from pathlib import Path

from lab.adoption.survey import Answers, Repository
from lab.ground import files, git, project
from lab.ground.errors import LabError

REQUIRES = ("ipykernel>=6.29", "pip>=25")  # for the kernel, and for pip install in the environment
BOOTSTRAP = Path(__file__).with_name("bootstrap.py.txt")  # the template's, byte for byte
IGNORED = (
    *("/.venv*", "/runs", "/remote/", "/machines.local.toml"),
    *("__pycache__/", "*.egg-info/"),  # otherwise every snapshot would have them
)
WHEEL = "vendor/dl_remote_lab-*.whl"


def make(repository: Repository, answers: Answers, version: str, lock: str) -> dict[str, bytes]:
    """Return the new content of every file that is written, by its name."""
    attributes = [f"/{WHEEL} -filter binary", f"/{lock} text eol=lf"]
    made = {
        "bootstrap.py": files.read(BOOTSTRAP),
        "pyproject.toml": extend_settings(
            repository, make_tables(repository, answers, version, lock)
        ),
        ".gitattributes": extend(repository, ".gitattributes", attributes),
        ".gitignore": extend(repository, ".gitignore", list_ignored(repository)),
    }
    for name, text in make_machines(answers).items():
        if not (repository.root / name).exists():
            made[name] = text.encode("utf-8")
    return {name: content for name, content in made.items() if content}


def extend(repository: Repository, name: str, lines: list[str]) -> bytes:
    """Return a file with the lines that it lacks at its end; b"" if it has them all."""
    content = read(repository, name).splitlines()
    return append(repository, name, [one for one in lines if one.encode() not in content])


def append(repository: Repository, name: str, lines: list[str]) -> bytes:
    """Return a file with these lines at its end, ended as its own are; b"" if there are none."""
    content = read(repository, name)
    end = b"\r\n" if b"\r\n" in content else b"\n"
    gap = b"" if not content else end if content.endswith(b"\n") else end * 2
    return content + gap + b"".join(line.encode() + end for line in lines) if lines else b""


def read(repository: Repository, name: str) -> bytes:
    """Read a file; b"" if there is none."""
    path = repository.root / name
    return files.read(path) if path.exists() else b""


def list_ignored(repository: Repository) -> list[str]:
    """List what git must ignore: all of data/, unless the user has some of it in git."""
    tracked = git.run("ls-files", "--", "data", cwd=repository.root)
    return [*IGNORED, "/data/*/models/" if tracked else "/data"]


def extend_settings(repository: Repository, tables: list[str]) -> bytes:
    """Return pyproject.toml with these tables at its end, and the rest unchanged."""
    path, after = repository.root / "pyproject.toml", append(repository, "pyproject.toml", tables)
    try:
        settings = project.parse_toml(after.decode("utf-8"))
        tool = settings["tool"]
        own = tool.pop("lab")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise LabError(f"{path} cannot take a table [tool.lab] at its end: {error}") from None
    if "uv" not in project.get_table(repository.settings, "tool"):
        tool.pop("uv", None)
    if not tool and "tool" not in repository.settings:
        del settings["tool"]
    if settings != repository.settings or "python" not in own:
        raise LabError(f"{path} cannot take a table [tool.lab] at its end: write it yourself.")
    return after


def make_tables(repository: Repository, answers: Answers, version: str, lock: str) -> list[str]:
    """Make the lines of the tables that pyproject.toml lacks."""

    def line(key: str, value: str | list[str], comment: str) -> str:
        return f"{key} = {json.dumps(value, ensure_ascii=False)} # {comment}"

    source, dataset = repository.find_source(), repository.find_dataset(answers.name)
    requires = [f"dl-remote-lab=={version}", *REQUIRES]
    lines = ["[tool.lab]"]
    if not repository.has_own_name:
        lines.append(line("name", answers.name, "of the kernel, and of the folder on machines"))
    lines.append(line("title", answers.name, "the kernel's name in Jupyter's menus"))
    lines.append(line("python", answers.python, "of the environment, on every machine"))
    lines.append(line("dataset", dataset, f"runs keep what they make in data/{dataset}/models/"))
    if lock != "requirements.txt":
        lines.append(line("lock", lock, "made by lab lock from requirements.txt, which is yours"))
    if source != "src":
        lines.append(line("source", source, "the folder from which your packages are imported"))
    if answers.outputs:
        lines.append(line("outputs", list(answers.outputs), "folders that the scripts write to"))
    lines.append(
        line("requires", requires, "what lab adds to the environment; lab update changes it")
    )
    tools = project.get_table(repository.settings, "tool")
    has_uv = "uv" in tools or (repository.root / "uv.lock").exists()
    if not has_uv:
        lines += [
            "",
            "[tool.uv]",
            f"managed = false # uv run and uv sync would replace what {lock} names",
        ]
    return lines


def make_machines(answers: Answers) -> dict[str, str]:
    """Make machines.toml, and machines.local.toml for the names of a user."""
    (user, ssh), (gate_user, gate) = map(split_address, (answers.remote, answers.gateway))
    head = """\
# The machines that this project runs on, shared by the team. Your user names on them belong in
# machines.local.toml, which git ignores.
"""
    table = [
        "[machines.gpu]",
        f'ssh = "{ssh or "gpu1.example.org"}" # a host, or an alias of your ~/.ssh/config',
        f'gateway = "{gate or "gate.example.org"}" # the jump host in front of it',
        f'folder = "lab/{answers.name}" # the project\'s folder on it, from the home folder',
    ]
    if ssh and not gate:
        del table[2]
    made = {
        "machines.toml": "\n".join([head, *(line if ssh else f"# {line}" for line in table), ""])
    }
    personal = [f'user = "{user}"'] if user else []
    personal += [f'gateway_user = "{gate_user}"'] if gate_user else []
    if personal:
        head = "# What is personal, or only true of this computer. git ignores this file.\n"
        made["machines.local.toml"] = "\n".join([head, "[machines.gpu]", *personal, ""])
    return made


def split_address(text: str) -> tuple[str, str]:
    """Split [user@]host."""
    user, _, host = text.rpartition("@")
    return user, host
