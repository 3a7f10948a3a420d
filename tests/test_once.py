"""What workers share is made once, by one of them."""

import subprocess
import sys
from pathlib import Path

import pytest

MAKE = """
import sys
from pathlib import Path
from helpers.once import once

folder, log = map(Path, sys.argv[1:])
with once(folder) as ours:
    if ours:
        assert not list(folder.iterdir())
        (folder / "half").touch()
        with log.open("a") as file:
            file.write("begun\\n")
        if log.read_text().count("begun") == 1:
            sys.exit("the first fails")
        (folder / "whole").touch()
assert (folder / "whole").exists()
"""


@pytest.mark.slow
def test_a_folder_is_made_by_one_process_and_if_that_fails_anew_by_the_next(tmp_path):
    command = [sys.executable, "-c", MAKE, tmp_path / "folder", tmp_path / "log"]
    options = {"cwd": Path(__file__).parent, "stderr": subprocess.PIPE}
    makers = [subprocess.Popen(command, **options) for _ in range(3)]
    said = [maker.communicate()[1] for maker in makers]
    assert sorted(maker.returncode for maker in makers) == [0, 0, 1], said
    assert (tmp_path / "log").read_text().count("begun") == 2
