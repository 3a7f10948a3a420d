"""What a repository says of itself: the answers that `lab init` proposes."""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.ground import files, git, project
from lab.ground.errors import LabError, UsageError
from lab.ssh import machines

PYTHONS = ("3.11", "3.10", "3.12", "3.13")  # the best first
MAX_FILES = 1000  # whose imports are looked at
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,48}[A-Za-z0-9])?")
NAMED = re.compile(r"""(?m)^[ \t]*name[ \t]*=[ \t]*["']?([\w.-]+)["']?[ \t]*,?$""")


@dataclass(frozen=True)
class Answers:
    """What `lab init` asks; "" and () for nothing."""

    name: str
    python: str
    remote: str = ""  # [user@]host
    gateway: str = ""
    outputs: tuple[str, ...] = ()  # folders that the scripts write to


@dataclass(frozen=True)
class Repository:
    """A folder that can become a project, and what lab init has to know about it."""

    root: Path
    settings: dict[str, Any]  # of its pyproject.toml; {} without one

    @property
    def has_own_name(self) -> bool:
        """Return whether its pyproject.toml names it in [project]."""
        return bool(find_text(self.settings, "project", "name"))

    def propose(self) -> Answers:
        """Propose the answers."""
        return Answers(next(self._find_names()), self._find_python())

    def _find_names(self) -> Iterator[str]:
        written = (files.read_text(path, "replace") for path in self._list("setup.cfg", "setup.py"))
        found = [NAMED.search(text) for text in written]
        names = [
            find_text(self.settings, "project", "name"),
            find_text(self.settings, "tool", "poetry", "name"),
        ]
        for name in [*names, *(one[1] for one in found if one)]:
            if NAME.fullmatch(name):
                yield name
        yield "-".join(re.findall("[a-z0-9]+", self.root.name.lower()))[:50].strip("-") or "project"

    def _find_python(self) -> str:
        from packaging.specifiers import SpecifierSet

        wanted = [files.read_text(path, "replace") for path in self._list(".python-version")]
        version = re.match(r"\d+\.\d+", wanted[0]) if wanted else None
        if version and version[0] in PYTHONS:
            return version[0]
        required = find_text(self.settings, "project", "requires-python")
        try:
            allowed = SpecifierSet(required)
            fitting = [one for one in PYTHONS if f"{one}.99" in allowed or f"{one}.0" in allowed]
        except ValueError:  # not a specifier, or a number with thousands of digits
            return PYTHONS[0]
        if not fitting:
            oldest, newest = sorted(PYTHONS, key=lambda one: int(one[2:]))[:: len(PYTHONS) - 1]
            raise LabError(
                f"requires-python in pyproject.toml is {required}, and lab runs on Python {oldest}"
                f" to {newest}: allow one of them first."
            )
        return fitting[0]

    def find_source(self) -> str:
        """Find the folder that its packages are imported from: src, or "." for the top."""
        packages = list(self.root.glob("src/*/__init__.py"))
        return "src" if packages and not (self.root / "src/__init__.py").exists() else "."

    def find_dataset(self, name: str) -> str:
        """Find the name of its dataset: of the only folder in data/, otherwise the project's."""
        found = [path.name for path in self.root.glob("data/*") if path.is_dir()]
        fitting = [one for one in found if project.DATASET.fullmatch(one)]
        if len(fitting) == 1:
            return fitting[0]
        return name if project.DATASET.fullmatch(name) else f"data-{name}"

    def find_unread(self) -> list[str]:
        """Find files that list packages in a form that lab does not read: conda, Pipenv, Poetry."""
        found = [path.name for path in self._list("environment.yml", "environment.yaml", "Pipfile")]
        poetry = project.get_table(self.settings, "tool", "poetry")
        is_built = "build-system" in self.settings and poetry.get("package-mode", True)
        if poetry and "project" not in self.settings and not is_built:
            found.append("[tool.poetry]")
        return found

    @cached_property
    def imported(self) -> list[str]:
        """What its code imports, if no file says which packages it needs; otherwise []."""
        listed = [
            project.get_table(self.settings, *at) for at in (("project",), ("tool", "poetry"))
        ]
        if any(listed) or self._list("requirements.txt", "setup.py") or self.find_unread():
            return []
        tracked = git.split_null(git.run("ls-files", "-z", "--", "*.py", cwd=self.root))
        found, own = set(), {*sys.stdlib_module_names}
        for path in (self.root / name for name in tracked[:MAX_FILES]):
            own |= {path.stem, path.parent.name}
            try:
                nodes = list(ast.walk(ast.parse(files.read(path))))
            except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            for node in nodes:
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.partition(".")[0])
                elif isinstance(node, ast.Import):
                    found |= {one.name.partition(".")[0] for one in node.names}
        return sorted(found - own)

    def find_lock(self) -> str:
        """Find a free name for the lock: requirements.txt, unless the user has or needs that."""
        names = ("requirements.txt", "requirements.lock", "requirements-lab.lock")
        for name in names[1:] if self.find_unread() or self.imported else names:
            if not (self.root / name).exists():
                return name
        both = "requirements.lock and requirements-lab.lock exist"
        raise LabError(f"{both}, and the lock needs one of these names: rename one.")

    def _list(self, *names: str) -> list[Path]:
        return [self.root / name for name in names if (self.root / name).is_file()]


def find_repository(folder: Path) -> Repository:
    """Examine the folder that is to become a project; LabError if it cannot."""
    top = git.run("rev-parse", "--show-toplevel", cwd=folder, accept=range(256)).removesuffix("\n")
    if not top:
        raise LabError(f"{folder} is not in a git repository of yours: git init and commit first.")
    markers = ("pyproject.toml", "setup.py", "requirements.txt")
    if Path(top).resolve() != folder and not any((folder / one).exists() for one in markers):
        raise LabError(f"{folder} is inside a repository: first cd {top}")
    if git.run("rev-parse", "--verify", "--quiet", "HEAD", cwd=folder, accept=range(256)) == "":
        raise LabError("the repository has no commit yet: git add and git commit your code first.")
    settings = folder / "pyproject.toml"
    try:
        content = project.parse_toml(files.read_text(settings)) if settings.exists() else {}
    except (OSError, ValueError) as error:
        raise LabError(f"{settings} cannot be read: {error}") from None
    return Repository(folder, content)


def find_text(settings: dict[str, Any], *keys: str) -> str:
    """Return a text from nested tables; "" if it is missing."""
    value: Any = settings
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


def check(name: str, answer: str) -> str:
    """Check an answer against its rule and return it; UsageError if it cannot work."""
    rule = ""
    if name == "name" and not NAME.fullmatch(answer):
        rule = "letters, digits, '.', '_' and '-', at most 50, with a letter or digit at both ends"
    if name == "python" and answer not in PYTHONS:
        rule = f"one of {', '.join(PYTHONS)}"
    if name in ("remote", "gateway") and answer:
        user, _, host = answer.rpartition("@")
        if not machines.HOST.fullmatch(host) or (user and not machines.USER.fullmatch(user)):
            rule = "[user@]host or an ssh alias; ports, keys and options belong in machines.toml"
    if name == "outputs":
        for one in answer.replace(",", " ").split():
            path = Path(one)
            if path.is_absolute() or ".." in path.parts or not path.parts or not one.isprintable():
                rule = "folders inside the project, such as out/ logs/"
    if rule:
        raise UsageError(f"{name} = {answer!r}: {rule}.")
    return answer
