"""Each sub-package imports only those below it, and the command starts without heavy imports."""

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
HEAVY = {"IPython", "matplotlib", "numpy", "pandas", "pydantic", "sacred", "tensorboard", "torch"}


def test_the_walls_stand():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    environment = {"PYTHONPATH": str(PACKAGE / "src"), "PATH": "", "PYTHONUTF8": "1"}
    done = subprocess.run(
        command, cwd=PACKAGE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout.decode()


def test_every_room_and_every_file_says_what_it_is_for():
    files = sorted((PACKAGE / "src/lab").rglob("*.py"))
    assert len(files) > 70
    for path in files:
        assert path.read_text("utf-8").startswith('"""'), path
    for path in (PACKAGE / "src/lab").rglob("*.sh"):
        assert path.read_text("utf-8").startswith("# "), path


def test_no_command_imports_a_heavy_package_to_be_shown():
    code = "import sys; sys.path.insert(0, sys.argv[1]); from lab.cli.main import build_parser;"
    code += "build_parser().format_help(); print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-I", "-c", code, str(PACKAGE / "src")]
    imported = set(subprocess.check_output(command, text=True).split())
    assert "argparse" in imported and not HEAVY & imported
