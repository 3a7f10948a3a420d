"""Files that others may have written: read in bounded time and memory, or refused in one way."""

import os

import pytest

from lab.ground import files, project
from lab.ground.errors import LabError
from lab.ssh import machines


def test_only_a_regular_file_of_bounded_size_is_read(tmp_path):
    (tmp_path / "good").write_bytes(b"four")
    assert files.read(tmp_path / "good", 4) == b"four"
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "endless", "folder", "absent"):
        with pytest.raises(OSError, match=name):
            files.read(tmp_path / name)
    with pytest.raises(OSError, match="good"):
        files.read(tmp_path / "good", 3)


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 10_000, "a." * 20_000 + "b = 1", "x=" + "{a=" * 10_000]
)
def test_toml_that_would_take_the_parser_long_is_refused(text):
    with pytest.raises(ValueError, match="nested|parts"):
        project.parse_toml(text)


@pytest.mark.parametrize("kind", ["fifo", "endless", "nested"])
def test_a_configuration_that_cannot_be_read_is_one_line(project, kind):
    path = project / "machines.toml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        path.write_text("x = " + "[" * 10_000)
    with pytest.raises(LabError, match=r"machines\.toml"):
        machines.read_all()
