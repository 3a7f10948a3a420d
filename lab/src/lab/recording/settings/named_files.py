"""Files that settings name: their hashes for the record, and a warning if they are not portable."""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from lab.ground import files, portable, project
from lab.ground.errors import LabError
from lab.ground.terminal import print_message


def identify(names: Iterable[str]) -> list[dict[str, str]]:
    """Return path and sha256 of each file that a setting of the type File names.

    LabError for a file that is missing or cannot be read.
    """
    identified = []
    for name in dict.fromkeys(filter(None, names)):
        try:
            digest = files.sha256(portable.find_file(name))
        except OSError as error:
            raise LabError(f"the file {name} cannot be read: {error.strerror}.") from None
        identified.append({"path": name, "sha256": digest})
    return identified


def list_weights(runs: Iterable[str]) -> list[str]:
    """List the portable names of the files in the models folders of runs: their weights.

    Checkpoints, which lie in folders there, are left out.
    """
    folders = list(project.data_folder().glob("*/models"))
    plain = [run for run in runs if files.is_plain_path(run)]
    found = [one for run in plain for folder in folders for one in (folder / run).glob("[!.]*")]
    whole = sorted(one for one in found if one.is_file() and one.suffix != ".new")
    return [portable.to_portable(str(one.absolute())) for one in whole]


def warn_of_not_portable(
    config: Mapping[str, Any], identified: Iterable[Mapping[str, str]]
) -> None:
    """Warn of the files that neither `lab reproduce` nor a job on a machine will find."""
    known = {one["path"] for one in identified if one["path"].startswith(("data/", "runs/"))}
    for name, value in list_texts(config):
        reason = "" if value in known else portable.explain_not_portable(value)
        if reason:
            print_message(
                f"warning: {name}={value} {reason}: lab reproduce and jobs will not find it. A"
                " setting of the type tracking.File finds data/FILE and runs/FILE everywhere.",
            )


def has_any(value: Any, names: Container[str]) -> bool:
    """Whether a setting is, or has inside, the name of one of these files."""
    return any(text in names for _, text in list_texts(value) if text)


def list_texts(values: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and value of every setting that is text, also inside others."""
    if isinstance(values, str):
        yield name, values
    elif isinstance(values, (list, tuple)):
        for one in values:
            yield from list_texts(one, name)
    elif isinstance(values, Mapping):
        for key, one in values.items():
            yield from list_texts(one, f"{name}.{key}" if name else str(key))
