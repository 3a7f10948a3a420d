"""Draw the layers of lab into CONTRIBUTING.md, from the contract in lab/pyproject.toml.

.venv/bin/python scripts/layers.py
"""

import ast
import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
BLOCK = re.compile(r"(?s)(?<=<!-- scripts/layers.py -->\n).*?(?=<!-- end -->)")


def draw_layers() -> str:
    """Return the drawing: one row for each layer, the highest first."""
    settings = tomllib.loads((ROOT / "lab/pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    rule = f"├{'─' * 13}┤\n"
    rows = []
    for layer in layers:
        modules = layer.split(" | ")
        rows.append("".join(f"│ {name[4:]:<11} │ {read_purpose(name)}\n" for name in modules))
    return f"```text\n┌{'─' * 13}┐\n{rule.join(rows)}└{'─' * 13}┘\n```\n"


def read_purpose(module: str) -> str:
    """Return the first line of a module's docstring."""
    path = ROOT / "lab/src" / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.get_docstring(ast.parse(file.read_text("utf-8"))).splitlines()[0]


def main() -> None:
    PAGE.write_text(BLOCK.sub(draw_layers(), PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
