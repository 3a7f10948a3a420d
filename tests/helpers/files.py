"""Writing and reading the files that fetch, push-data and the like transfer."""

import hashlib
import json
import os
from pathlib import Path

SHORT = {"LAB_PATIENCE": "4"}
MB = 1_000_000
NASTY = "# -rf \n ü 'a\" $HOME `id` \\n *"


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but those of lab's own, with its content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".fetch")
    }


def dataset(place: Path, name="pets", size=10, **more: bytes) -> Path:
    """A dataset of a few files; returns its folder."""
    files = {
        f"{split}/{label}/{number} ü.png": os.urandom(size)
        for split in ("train", "val", "test")
        for label in ("cat", "dog")
        for number in range(2)
    }
    files |= more
    for path, data in files.items():
        put(place / name / path, data)
    manifest = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    put(place / name / "manifest.json", json.dumps({"dataset": name, "files": manifest}))
    return place / name
