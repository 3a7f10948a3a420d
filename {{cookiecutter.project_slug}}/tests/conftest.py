"""A data folder and a runs folder of its own for every test, and a small dataset in it."""

import shutil

import pytest

from {{ cookiecutter.__package }} import data


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """No test touches the project's data or records."""
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    return tmp_path


@pytest.fixture
def digits(folders, tmp_path_factory):
    """The name of a dataset with some 30 handwritten digits of each class."""
    written = tmp_path_factory.getbasetemp() / "written"  # once for all tests
    if not written.exists():
        samples = data.load_digits()[:300]
        data.write_dataset("digits", "the first 300 digits", samples, seed=0, val=0.2, test=0.2)
        data.folder("digits").rename(written)
    shutil.copytree(written, data.folder("digits"))
    return "digits"
