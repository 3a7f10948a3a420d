"""Make docs/first_run.svg, the image in the README: the first minute, run for real and drawn.

`make images` runs it, in the template's own environment.
"""

import io
import os
import re
import subprocess
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

TEMPLATE = Path(__file__).resolve().parents[1]
COMMANDS = [
    "cookiecutter --no-input dl-remote-template",
    "cd my-experiment",
    ". .venv/bin/activate",
    "python -m my_experiment.data prepare",
    "python -m my_experiment.experiment",
]


def main() -> None:
    console = Console(record=True, width=80, file=io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        home.mkdir()
        (home / ".gitconfig").write_text("[user]\n\tname = You\n\temail = you@example.org\n")
        (Path(folder) / "dl-remote-template").symlink_to(TEMPLATE)
        environment = {**os.environ, "HOME": str(home), "JUPYTER_DATA_DIR": str(home / "jupyter")}
        environment["PATH"] = f"{TEMPLATE}/.venv/bin:{environment['PATH']}"
        cache = subprocess.check_output(["uv", "cache", "dir"], text=True)
        environment["UV_CACHE_DIR"] = cache.strip()
        for number, command in enumerate(COMMANDS):
            console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
            so_far = " && ".join([*filter(changes_the_shell, COMMANDS[:number]), command])
            done = subprocess.run(
                ["bash", "-c", so_far],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                check=True,
            )
            if done.stdout.strip():
                console.print(Text.from_ansi(done.stdout.strip("\n")))
    # without rich's web fonts, so that the image loads nothing
    drawing = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.S)
    console.save_svg(
        str(TEMPLATE / "docs/first_run.svg"), title="the first minute", code_format=drawing
    )


def changes_the_shell(command: str) -> bool:
    """Whether later commands need this one in their shell."""
    return command.startswith(("cd ", ". "))


if __name__ == "__main__":
    main()
