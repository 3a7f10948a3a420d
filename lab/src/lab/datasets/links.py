"""Links in place of copies: one folder shows the files of another one."""

from pathlib import Path


def link_tree(source: Path, target: Path, depth: int = 0) -> None:
    """Link the contents of a folder into another one; folders that exist there get what they lack.

    Hidden files are left out. Nothing is replaced. Down to `depth`, folders are made, not linked.
    """
    waiting = [(source, target, depth)]
    while waiting:
        folder, linked, depth = waiting.pop()
        linked.mkdir(parents=True, exist_ok=True)
        for entry in folder.iterdir():
            there = linked / entry.name
            if entry.name.startswith("."):
                continue
            absent = not there.exists() and not there.is_symlink()
            if absent and not (depth and entry.is_dir()):
                there.symlink_to(entry)
            elif entry.is_dir() and (absent or (there.is_dir() and not there.is_symlink())):
                waiting.append((entry, there, max(depth - 1, 0)))
