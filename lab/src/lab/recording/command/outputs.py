"""The files of a recorded command: its output folder, what it writes elsewhere, its data."""

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.datasets.links import link_tree
from lab.ground import files, git, project
from lab.ground.errors import LabError
from lab.ground.terminal import count_files, escape, print_message

SHOWN = 5  # names in a line of advice


def locate_folder(run: str) -> Path:
    """Return a run's output folder (LAB_OUTPUT), in models/ of the default dataset."""
    try:
        dataset = project.default_dataset()
    except LabError:  # a project without one
        dataset = "default"
    return project.dataset_folder(dataset).resolve() / "models" / run


def collect(declared: list[str], target: Path, since: int) -> None:
    """Copy what a command has written into the declared folders since a time (in ns)."""

    def is_new(file: Path, copy: Path) -> bool:
        found = file.stat()  # cp -p, tar and wget set the mtime back
        return max(found.st_mtime_ns, found.st_ctime_ns) >= since

    for name in declared:
        copy_files(project.root() / name, target / name, is_new)


def restore(run: str, declared: list[str]) -> None:
    """Copy what an earlier run kept of the declared folders back into them.

    A file that another run has kept, too, is replaced. LabError for one that no run has kept.
    """
    found = [path for path in project.data_folder().glob(f"*/models/{run}") if path.is_dir()]
    if not found:
        where = project.relative(project.data_folder())
        raise LabError(f"{run} left no outputs in {where}; lab fetch brings those of a machine.")
    kept = list(project.data_folder().glob("*/models/*"))
    differ = [
        copy
        for name in declared
        for file, copy in list_wanted(found[0] / name, project.root() / name, differs)
    ]
    for path in differ:
        copies = (folder / project.relative(path) for folder in kept)
        if not any(copy.is_file() and not differs(copy, path) for copy in copies):
            raise LabError(
                f"{project.relative(path)} would be lost, as no run has kept it: move it away."
            )
    for name in declared:
        copy_files(found[0] / name, project.root() / name, lambda file, copy: True)
        left = list_wanted(
            project.root() / name, found[0] / name, lambda _, copy: not copy.exists()
        )
        if left:
            print_message(
                f"lab: {name} also has {count_files(len(left))} that {run} did not leave,"
                f" such as {escape(project.relative(left[0][0]))}"
            )


def differs(file: Path, copy: Path) -> bool:
    """Whether a copy differs from its file in size or time.

    A link always does; a missing copy does not.
    """
    if copy.is_symlink() or not copy.exists():
        return copy.is_symlink()
    first, second = file.stat(), copy.stat()
    return (first.st_size, first.st_mtime_ns) != (second.st_size, second.st_mtime_ns)


def copy_files(source: Path, target: Path, is_wanted: Callable[[Path, Path], bool]) -> None:
    """Copy a file, or those in a folder at any depth, for which is_wanted(FILE, COPY) holds."""
    for file, copy in list_wanted(source, target, is_wanted):
        copy.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(copy) as draft:
            shutil.copy2(file, draft)


def list_wanted(
    source: Path, target: Path, is_wanted: Callable[[Path, Path], bool]
) -> list[tuple[Path, Path]]:
    """List the files at or below a path, each with its copy, for which is_wanted() holds.

    Links, pipes and devices are left out.
    """
    inside = (Path(folder, name) for folder, _, names in os.walk(source) for name in names)
    found = [source] if source.is_file() else list(inside)
    found = [file for file in found if file.is_file() and not file.is_symlink()]
    pairs = [(file, target / file.relative_to(source)) for file in found]
    return [(file, copy) for file, copy in pairs if is_wanted(file, copy)]


def remove_if_empty(folder: Path) -> None:
    """Remove the folder of a run that made nothing, and then models/ if nothing else is in it."""
    with suppress(OSError):
        folder.rmdir()
        folder.parent.rmdir()


def link_data() -> None:
    """Link the datasets into data/ of a checkout of ours, which has only placeholders.

    Git ignores the links there.
    """
    if os.environ.get("LAB_DATA"):
        own, data = project.root() / "data", project.data_folder()
        if own.resolve() != data.resolve():
            link_tree(data.resolve(), own, depth=1)  # git would not ignore a link called v1.0


def list_untracked() -> set[str]:
    """List the files and folders (NAME/) in the project that git neither tracks nor ignores."""
    try:
        listed = git.run(
            "ls-files",
            "--others",
            "--directory",
            "--no-empty-directory",
            "--exclude-standard",
            "-z",
        )
    except LabError:
        return set()
    return set(git.split_null(listed))


def advise(code: Mapping[str, Any], declared: list[str]) -> None:
    """Name the untracked files and folders that a command made, and the line that declares them.

    `code` is the record's: its commit has what existed before. Source code is never output.
    """
    if not code.get("commit"):
        return
    made = sorted(list_untracked() - {*declared, *(f"{name}/" for name in declared)})
    made = [one for one in made if not one.endswith((".py", ".ipynb", ".sh"))]
    made = [one for one in made if not (project.root() / one / "pyvenv.cfg").exists()]
    if made:
        inside = [os.path.normpath(f"{code['folder']}/{name}") for name in made]
        listed = git.split_null(
            git.run("ls-tree", "--full-tree", "--name-only", "-z", code["commit"], "--", *inside)
        )
        made = [name for name, path in zip(made, inside, strict=True) if path not in listed]
    if made:
        known = {name if (project.root() / name).is_file() else f"{name}/" for name in declared}
        lines = ", ".join(f'"{escape(name)}"' for name in sorted({*made[:SHOWN], *known}))
        named = escape(", ".join(made[:SHOWN]))
        named += f" and {len(made) - SHOWN} more" if len(made) > SHOWN else ""
        print_message(
            f"lab: new since the start: {named}, which would go into every snapshot. If it is"
            f" output, declare it in pyproject.toml: [tool.lab] outputs = [{lines}]",
        )
