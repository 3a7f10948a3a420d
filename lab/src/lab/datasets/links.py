"""Links in place of copies: one folder shows what another one holds."""

from pathlib import Path


def link_tree(source: Path, target: Path) -> None:
    """Link what a folder holds into another one; folders that are there get what they lack.

    What is hidden is left out. Nothing is replaced.
    """
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        there = target / entry.name
        if entry.name.startswith("."):
            continue
        if not there.exists() and not there.is_symlink():
            there.symlink_to(entry)
        elif entry.is_dir() and there.is_dir() and not there.is_symlink():
            link_tree(entry, there)
