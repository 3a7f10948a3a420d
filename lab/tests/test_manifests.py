"""A dataset is what its manifest says: another split under the same name is another dataset."""

import json

import pytest

from lab import project as public
from lab.ground.errors import LabError


@pytest.fixture
def write(project):
    """A function that writes the manifest of a dataset, and returns its hash."""

    def write(dataset: str, train: str, val: str, test: str) -> str:
        splits = {"train": train, "val": val, "test": test}
        files = {f"{split}/{one}": f"hash of {one}" for split in splits for one in splits[split]}
        path = public.dataset_folder(dataset) / "manifest.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"files": files}))
        return public.hash_manifest(dataset)

    return write


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x"])
def test_no_name_of_a_dataset_leads_elsewhere(project, name):
    with pytest.raises(LabError, match="is not a valid name of a dataset"):
        public.dataset_folder(name)


def test_weights_that_know_what_is_tested_by_now_are_warned_of(write, capsys):
    def said(learned: str, dataset: str) -> str:
        public.warn_of_leakage("RUN", learned, may, dataset)
        return capsys.readouterr().err

    may = write("may", "abcd", "e", "fg")
    assert said("may", "may") == ""
    write("copy", "abcd", "e", "fg")
    assert said("may", "copy") == "", "the same split by another name"
    write("grown", "abcdh", "ei", "fgj")
    assert said("may", "grown") == "", "--like keeps the splits"
    write("others", "uv", "w", "xyz")
    assert said("may", "others") == "", "fine-tuning"
    write("june", "efg", "ax", "cyd")
    assert "RUN" in (text := said("may", "june")) and " 3 of the files" in text
    (public.dataset_folder("june") / "manifest.json").write_text("{}")
    assert said("may", "june") == said("may", "nothing") == "", "the run itself will say"
    write("may", "efg", "a", "cd")
    assert " some of the files" in said("may", "may"), "how many, nobody knows any more"
    assert said("may", "others") == ""
