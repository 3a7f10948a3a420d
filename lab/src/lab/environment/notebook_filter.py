"""Strip the output from a notebook: git's clean filter for *.ipynb, from stdin to stdout.

Standard library only, and any Python 3, so that it works without an environment. A cell with the
tag `keep_output` keeps its output. The kernel is committed under the project's own name, even from
a second clone, whose kernel is called NAME-2.
"""

import json
import re
import sys
from pathlib import Path

# What Jupyter writes into a cell's metadata when it runs, or when it is shown.
VOLATILE = ("collapsed", "scrolled", "execution", "ExecuteTime")


def strip(content: bytes, project: str = "") -> bytes:
    """Return the notebook without output; return what is not one (a conflict, say) unchanged.

    `project` is the project's name; "" leaves the kernel as it is.
    """
    try:
        notebook = json.loads(content)
        for cell in notebook["cells"]:
            metadata = cell["metadata"]
            for key in VOLATILE:
                metadata.pop(key, None)
            if cell["cell_type"] == "code" and "keep_output" not in metadata.get("tags", []):
                cell.update(outputs=[], execution_count=None)
        notebook["metadata"].pop("widgets", None)
        language = notebook["metadata"].get("language_info", {})
        for key in language.keys() - {"name"}:  # the kernel writes the others again in every run
            del language[key]
        drop_number(notebook["metadata"].get("kernelspec"), project)
        return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return content


def drop_number(kernel: object, project: str) -> None:
    """Remove the -2 that kernel.install() adds to the kernel's name of a second clone."""
    if not project or not isinstance(kernel, dict):
        return
    number = re.fullmatch(re.escape(project) + "(-[0-9]+)", str(kernel.get("name")))
    if number:
        kernel["name"] = project
        title = str(kernel.get("display_name", ""))
        if title.endswith(number.group(1)):
            kernel["display_name"] = title[: -len(number.group(1))]


def read_project() -> str:
    """Return the name of the project in the working directory, where git runs filters; or ""."""
    try:
        path = Path("pyproject.toml")
        settings = path.read_text("utf-8") if path.is_file() else ""  # not of a FIFO
    except (OSError, ValueError):
        return ""
    found = re.search('^name = "([^"]*)"', settings, re.M)
    return found.group(1) if found else ""


def main() -> None:
    """Filter as git asks for it."""
    sys.stdout.buffer.write(strip(sys.stdin.buffer.read(), read_project()))
