"""Strip the output from a notebook: git's clean filter for *.ipynb, from stdin to stdout.

Standard library only, and any Python 3, so that it works without an environment. A cell with the
tag `keep_output` keeps its output.
"""

import json
import sys

# What Jupyter writes into a cell's metadata when it runs, or when it is shown.
VOLATILE = ("collapsed", "scrolled", "execution", "ExecuteTime")


def strip(content: bytes) -> bytes:
    """Return the notebook without output; what is not a notebook (a conflict, say) unchanged."""
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
        return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()
    except (ValueError, LookupError, TypeError, AttributeError):
        return content


def main() -> None:
    """Filter as git asks for it."""
    sys.stdout.buffer.write(strip(sys.stdin.buffer.read()))
