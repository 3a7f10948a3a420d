"""Identify a dataset by its manifest; warn if a model was trained on what is now in val or test."""

from lab.ground import files, project
from lab.ground.terminal import print_message


def hash_manifest(dataset: str) -> str:
    """Return the sha256 of a dataset's manifest; "" if there is none."""
    return files.sha256_or_none(project.dataset_folder(dataset) / "manifest.json") or ""


def warn_of_leakage(run: str, learned: str, manifest: str, dataset: str) -> None:
    """Warn if a run may have been trained on files that are now in val or test of a dataset.

    `learned` is the dataset that it was trained on, `manifest` the hash of its manifest then.
    """
    if manifest == hash_manifest(dataset):
        return
    number = "some" if learned == dataset else ""
    if manifest == hash_manifest(learned):  # the split that it was trained on still exists
        known = list_hashes(learned, "train/") & list_hashes(dataset, "val/", "test/")
        number = str(len(known) or "")
    if number:
        print_message(
            f"warning: {run} was trained on another split of {learned}: it may have seen {number}"
            f" of the files in val and test of {dataset}, whose scores then mean little.",
        )


def list_hashes(dataset: str, *splits: str) -> set[str]:
    """List the sha256 of the files in these splits, by the manifest; none if it is damaged."""
    try:
        listed = files.read_json(project.dataset_folder(dataset) / "manifest.json")["files"]
        return {digest for path, digest in listed.items() if path.startswith(splits)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()
