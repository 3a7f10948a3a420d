"""A file is replaced as a whole: a reader sees the old content or the new, and no draft stays."""

import os

import pytest

from lab.ground import files


def test_until_the_end_the_old_content_is_there_and_then_the_new(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with files.replacing(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_content_and_no_draft(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def fail_in_the_middle():
        with files.replacing(path) as draft:
            draft.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        fail_in_the_middle()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_was_not_there_is_not_there_after_an_error(tmp_path):
    with pytest.raises(OSError, match="full"), files.replacing(tmp_path / "file"):
        raise OSError("full")
    assert os.listdir(tmp_path) == []


def test_two_concurrent_writers_have_drafts_of_their_own(tmp_path):
    path = tmp_path / "file"
    with files.replacing(path) as first, files.replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first", "whoever ends last"
    assert os.listdir(tmp_path) == ["file"]


def test_write_keeps_mode_and_leaves_the_same_content_alone_and_follows_no_link_unasked(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to("file")
    assert files.write(link, "new", follow=True)
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    before = path.stat()
    assert not files.write(path, "new")
    assert path.stat() == before
    assert files.write(link, "new")
    assert not link.is_symlink() and path.stat() == before


def test_the_hash_of_a_file_and_of_none(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert files.sha256(tmp_path / "file").startswith("ba7816bf8f01cfea")
    assert files.sha256_or_none(tmp_path / "nothing") is None
