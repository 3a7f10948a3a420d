"""What lab update shows of a CHANGELOG, and which files it takes for a wheel of lab."""

import os
import zipfile

import pytest
from git_helper import run_git

from lab.environment import update
from lab.ground.errors import LabError

LOG = "# Changes\n\nwords\n\n## 1.2.0\n\n- two\n\n## 1.1.0\n\n- one\n\n## 1.0.0\n\n- first\n"


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        ("1.0.0", ["1.2.0", "1.1.0"]),
        ("1.1.0", ["1.2.0"]),
        ("1.1.0+team.2", ["1.2.0"]),
        ("1.2.0", []),
        ("0.1", ["1.2.0", "1.1.0", "1.0.0"]),
    ],
)
def test_the_news_is_the_sections_above_the_old_version(old, expected):
    news = update.new_sections(LOG, old)
    assert [line[3:] for line in news.splitlines() if line.startswith("## ")] == expected


def wheel(folder, name="dl_remote_lab-1.1.0-py3-none-any.whl", version="1.1.0", pack=0):
    with zipfile.ZipFile(folder / name, "w", pack) as archive:
        archive.writestr("dl_remote_lab-1.1.0.dist-info/METADATA", f"Version: {version}\n")
        archive.writestr("dl_remote_lab-1.1.0.dist-info/licenses/CHANGELOG.md", LOG)
    return folder / name


def test_a_wheel_tells_its_version_and_its_changes(tmp_path):
    assert update.read_wheel(wheel(tmp_path)) == ("1.1.0", LOG)


def test_a_wheel_that_is_in_vendor_already_is_pinned_and_stays(repository, monkeypatch):
    settings = repository / "pyproject.toml"
    settings.write_text(f'{settings.read_text()}requires = ["dl-remote-lab==1.0.0"]\n')
    (repository / "vendor").mkdir()
    path = wheel(repository / "vendor")
    content = path.read_bytes()
    run_git(repository, "add", "--all")
    run_git(repository, "commit", "-qm", "x")
    monkeypatch.setattr(update.lock, "compile_lock", lambda words: ["a line"])
    assert update.update(f"vendor/{path.name}").changes == ["a line"]
    assert path.read_bytes() == content and "dl-remote-lab==1.1.0" in settings.read_text()
    run_git(repository, "commit", "-qam", "x")
    assert update.update(f"vendor/{path.name}").changes == []


@pytest.mark.parametrize(
    "what",
    ["another name", "another version", "no zip", "missing", "endless", "damaged", "damaged LZMA"],
)
def test_a_file_that_is_not_a_wheel_of_lab_is_refused(tmp_path, what):
    if what == "another name":
        path = wheel(tmp_path, "numpy-1.1.0-py3-none-any.whl")
    elif what == "another version":
        path = wheel(tmp_path, version="1.1.1")
    elif what == "endless":
        path = wheel(
            tmp_path, version="1.1.0\n" + "x" * update.MAX_TEXT_BYTES, pack=zipfile.ZIP_DEFLATED
        )
    elif what.startswith("damaged"):
        pytest.importorskip("lzma")
        pack = zipfile.ZIP_LZMA if what.endswith("LZMA") else zipfile.ZIP_DEFLATED
        path = wheel(tmp_path, version="1.1.0\n" + os.urandom(1000).hex(), pack=pack)
        content = bytearray(path.read_bytes())
        content[120:190] = bytes(70)
        path.write_bytes(content)
    else:
        path = tmp_path / "dl_remote_lab-1.1.0-py3-none-any.whl"
        if what == "no zip":
            path.write_text("text")
    with pytest.raises(LabError):
        update.read_wheel(path)
