"""Takes the example out of a new project, and puts a skeleton of an experiment in its place.

What belongs to the example is listed here alone; a test on a new project keeps the list true.
"""

import re
from pathlib import Path
from typing import NamedTuple

from lab.ground import files, git, project
from lab.ground.errors import LabError

SKELETON = Path(__file__).with_name("skeleton")
MODULES = "accelerator checkpoints data images loading model past_runs plots splitting training"
REMOVED = (
    *(f"src/PACKAGE/{name}.py" for name in MODULES.split()),
    "notebooks/explore_data.ipynb",
    "tests/test_data.py",
)
WRITTEN = {
    "src/PACKAGE/experiment.py": "experiment.py.txt",
    "tests/conftest.py": "conftest.py.txt",
    "tests/test_experiment.py": "test_experiment.py.txt",
}
# Sections of the README, and what replaces them.
SECTIONS = {"Train": "train.md.txt", "Make it yours": ""}
REPLACED = {  # what else mentions the example, as regular expressions
    "README.md": [
        (r"--sort accuracy", "--sort loss"),
        (r"`explore_data` shows the splits, `compare_runs`", "`compare_runs` shows"),
        (r"Both import\ntheir functions from", "Notebooks import\ntheir functions from"),
        (r"start at `experiment\.py`, .*?`training\.py` \|", "start at `experiment.py` |"),
        (r"\| digits, default settings.*\n", ""),
        (r"\| result \| command \| test accuracy \|", "| result | command | number |"),
    ],
    "AGENTS.md": [(r"python -m \w+\.data prepare\n", "")],
    "notebooks/compare_runs.ipynb": [
        (r'\(\\"train/loss\\", \\"val/accuracy\\"\)', r'(\\"val/loss\\")')
    ],
}


class Removal(NamedTuple):
    """The names of the files that were changed, and of those that could not be."""

    removed: list[str]
    written: list[str]
    edited: list[str]
    left: list[str]  # they still mention the example, as somebody has edited them


def remove() -> Removal:
    """Remove the example from the project, and write the skeleton; nothing is committed.

    LabError, before anything is changed, if one of the files differs from the last commit, or if
    there is no example.
    """
    root, package = project.root(), project.package()
    gone = [name.replace("PACKAGE", package) for name in REMOVED]
    gone = [name for name in gone if (root / name).is_file()]
    if not gone:
        raise LabError("there is no example in this project: nothing was changed.")
    written = {name.replace("PACKAGE", package): text for name, text in WRITTEN.items()}
    refuse_edited([*gone, *written, *REPLACED])
    texts = {name: read(root / name) for name in REPLACED if (root / name).is_file()}
    edited, left = {}, []
    for name, text in texts.items():
        new, complete = edit(name, text, package)
        if new != text:
            edited[name] = new
        if not complete:
            left.append(name)
    for name in gone:
        (root / name).unlink()
    for name, source in written.items():
        write(root / name, read(SKELETON / source).replace("PACKAGE", package))
    for name, text in edited.items():
        write(root / name, text)
    return Removal(gone, list(written), list(edited), left)


def refuse_edited(names: list[str]) -> None:
    """Raise LabError if git could not restore these files as they are."""
    files.refuse_links(project.root(), names)
    status = ["status", "--porcelain", "--ignored", "--untracked-files=all", "--", *names]
    changed = [line[3:] for line in git.run(*status).splitlines()]
    if not git.run("rev-parse", "--verify", "--quiet", "HEAD", accept=(0, 1)):
        changed = names
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise LabError(
            f"not in the last commit as they are: {', '.join(changed[:3])}{more}; nothing was"
            " changed. Commit them, so that git can restore them, and run this again."
        )


def edit(name: str, text: str, package: str) -> tuple[str, bool]:
    """Return a text without the example, and whether all that mentions it was found."""
    complete = True
    for old, new in REPLACED[name]:
        text, count = re.subn(old, new, text)
        complete = complete and bool(count)
    for title, source in SECTIONS.items() if name == "README.md" else ():
        new = read(SKELETON / source).replace("PACKAGE", package) if source else ""
        section = rf"(?ms)^## {re.escape(title)}\n.*?(?=^## |\Z)"
        text, count = re.subn(section, new.replace("\\", r"\\"), text)
        complete = complete and bool(count)
    return text, complete


def read(path: Path) -> str:
    try:
        return files.read_text(path)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}.") from None


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, text)
