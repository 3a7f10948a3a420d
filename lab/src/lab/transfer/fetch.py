"""Brings new records and models of runs to this computer; no local change is ever lost.

Files are compared with what earlier fetches brought (STATE), gathered in a staging folder beside
their destination, checked, and renamed: a checkpoint completely or not at all.
"""

import errno
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from lab.ground import files, project
from lab.ssh.connection import Connection
from lab.ssh.sockets import hold_lock
from lab.transfer import copying
from lab.transfer.fetch_plan import (
    SHARED,
    FetchState,
    Kind,
    Listing,
    Memory,
    decide,
    find_strange,
    folder_of,
    list_remote,
    remote_hashes,
    unit_of,
)
from lab.transfer.staging import (
    PARTIAL,
    DiskFull,
    Fingerprint,
    discard_incomplete,
    disk_usage,
    explain_os_errors,
    fingerprint,
    free_bytes,
    is_file,
    staging,
    why_impossible,
)

STATE = ".fetched-{}.json"  # in the runs folder, for each machine
STAGE = ".fetching-{}"  # in the runs folder and in the data folder
ROUNDS = 3  # at most, as files may change while they are copied


class Report:
    """What a fetch did."""

    def __init__(self) -> None:
        self.files = self.bytes = 0
        self.runs: set[str] = set()  # of which files came
        self.jobs: set[str] = set()  # from whose checkouts files came
        self.conflicts: list[str] = []  # differ from the remote ones, and were kept
        self.damaged: list[str] = []  # arrived with the wrong hash
        self.missing: list[str] = []  # did not arrive
        self.skipped: list[str] = []  # not regular files
        self.impossible: dict[str, str] = {}  # cannot be written on this computer, and why
        self.unfit: dict[str, int] = {}  # too big for the disk, and their bytes
        self.rsync = True


def fetch(connection: Connection, wanted: Iterable[str] = (), models: bool = True) -> Report:
    """Bring what is new of these jobs or runs, or of all.

    A file that does not fit on the disk, or cannot have its name on this computer, does not stop
    the rest.

    Raises SshError if the connection is lost, RemoteError if there is no such job, or DiskFull if
    not even the state can be saved.
    """
    runs = project.runs_folder()
    stages = [folder() / STAGE.format(connection.name) for folder in FOLDERS.values()]
    with explain_os_errors():
        runs.mkdir(parents=True, exist_ok=True)
        with hold_lock(runs / f".fetch-{connection.name}.lock"), staging(*stages):
            return _fetch(connection, list(wanted), models)


def _fetch(connection: Connection, wanted: list[str], models: bool) -> Report:
    report = Report()
    memory = Memory()
    state = FetchState(project.runs_folder() / STATE.format(connection.name))
    for _ in range(ROUNDS):
        report.conflicts, report.damaged, report.missing = [], [], []
        report.impossible, report.unfit = {}, {}
        listing = list_remote(connection, wanted, models)
        report.skipped, report.rsync = listing.special, listing.rsync
        report.missing += listing.closed
        rounds = [_Round(connection, listing, kind, state, report) for kind in FOLDERS]
        again = [one.run(memory) for one in rounds]
        if not any(again):
            break
    return report


FOLDERS: dict[Kind, Callable[[], Path]] = {
    "runs": project.runs_folder,
    "data": project.data_folder,
    "jobs": lambda: project.runs_folder().parent / "jobs",
}


class _Round:
    """One look at one kind of files: what is new is copied, checked and put in place."""

    def __init__(
        self,
        connection: Connection,
        listing: Listing,
        kind: Kind,
        state: FetchState,
        report: Report,
    ):
        self.connection, self.listing, self.kind = connection, listing, kind
        self.state, self.report = state, report
        self.remote = listing.files[kind]
        self.local = FOLDERS[kind]()
        self.stage = self.local / STAGE.format(connection.name)
        self.before = {name: fingerprint(self.local / name) for name in self.remote}

    def run(self, memory: Memory) -> bool:
        """Return whether another round may bring more."""
        shrunk = memory.find_shrunk(self.kind, self.remote)
        needed = [name for name in self._find_needed() if unit_of(self.kind, name) not in shrunk]
        if not needed:
            return False
        if self.kind == "jobs" and not make_ignored_folder(self.local):
            self.report.conflicts.append(str(project.relative(self.local)))
            return False
        staged = self.stage / "files"
        unfit = self._pull([name for name in needed if not self._is_staged(name)])
        needed = [name for name in needed if unit_of(self.kind, name) not in unfit]
        arrived = {name for name in needed if is_file(staged / name)}
        again = False
        if self.kind == "data":
            arrived -= self._remove_damaged(arrived, memory)
        else:
            arrived -= self._remove_misnamed(arrived, memory)
            changed = [name for name in arrived if fingerprint(staged / name) != self.remote[name]]
            # a run that has just ended: its other files may be older than its end
            again = any(name.endswith("/run.json") for name in changed)
        self.report.missing += [
            f"{self.kind}/{name}"
            for name in needed
            if name not in memory.suspect and not is_file(staged / name)
        ]
        self._put_in_place(needed, arrived)
        return again or len(arrived) < len(needed)

    def _pull(self, unsent: list[str]) -> set[str]:
        """Copy files into the staging folder; return the units for which there is no room."""
        sizes: dict[str, int] = defaultdict(int)
        for name in unsent:
            sizes[unit_of(self.kind, name)] += disk_usage(self.remote[name][0])
        room, unfit = free_bytes(self.local), set()
        for unit, size in sorted(sizes.items(), key=lambda one: one[1]):
            if size > room:
                unfit.add(unit)
            else:
                room -= size
        while rest := [
            name
            for name in unsent
            if unit_of(self.kind, name) not in unfit and not self._is_staged(name)
        ]:
            try:
                copying.pull(
                    self.connection,
                    self.listing.base[self.kind],
                    rest,
                    self.stage,
                    rsync=self.listing.rsync,
                    basis=self.local,
                )
                break
            except DiskFull:  # a quota, say: the largest did not fit, so without it
                discard_incomplete(self.stage)
                left = {unit_of(self.kind, name) for name in rest if not self._is_staged(name)}
                largest = max((sizes[unit] for unit in left), default=0)
                unfit |= {unit for unit in left if sizes[unit] >= largest / 2}
                if not left:
                    break
        self.report.unfit |= {f"{self.kind}/{unit}": sizes[unit] for unit in unfit}
        return unfit

    def _is_staged(self, name: str) -> bool:
        return fingerprint(self.stage / "files" / name) == self.remote[name]

    def _find_needed(self) -> list[str]:
        """Return the files to bring. Report conflicts; they hold back the rest of their unit."""
        actions = {
            name: decide(remote, self.state.files.get(f"{self.kind}/{name}"), self.before[name])
            for name, remote in self.remote.items()
        }
        compare = [name for name, action in actions.items() if action == "compare"]
        hashes = self._hash_remote(compare)
        same = {
            name
            for name in compare
            if is_file(self.local / name) and hashes.get(name) == files.sha256(self.local / name)
        }
        strange = {
            folder
            for folder in find_strange(self.kind, self.remote, self.state.files)
            if os.path.lexists(self.local / folder) and f"{folder}/run.json" not in same
        }
        conflicts, adopted = set(), False
        for name in compare:
            path, local = self.local / name, self.before[name]
            if local and name in same:
                if folder_of(self.kind, name) not in strange:
                    self._remember(name, [local])
                    adopted = True
            else:
                conflicts.add(unit_of(self.kind, name))
                self.report.conflicts.append(str(project.relative(path)))
        if adopted:
            self.state.save()
        for name in [name for name, action in actions.items() if action == "new"]:
            if why := why_impossible(self.local, name):
                self.report.impossible[f"{self.kind}/{name}"] = why
                conflicts.add(unit_of(self.kind, name))
                del actions[name]
        new = [name for name, action in actions.items() if action == "new"]
        kept = {name for name in new if folder_of(self.kind, name) in strange}
        conflicts |= {unit_of(self.kind, name) for name in kept}
        folders = {folder_of(self.kind, name) for name in kept}
        self.report.conflicts += [
            str(project.relative(self.local / one)) for one in sorted(folders)
        ]
        new = [name for name in new if name not in kept]
        blocking = {name: one for name in new if (one := find_blocking(self.local, name))}
        conflicts |= {unit_of(self.kind, name) for name in blocking}
        self.report.conflicts += sorted({str(project.relative(path)) for path in blocking.values()})
        return [
            name
            for name, action in actions.items()
            if action in ("new", "update") and unit_of(self.kind, name) not in conflicts
        ]

    def _remove_damaged(self, names: Collection[str], memory: Memory) -> set[str]:
        """Remove staged files whose hash is not the remote one; return their names.

        A file that changed while it was copied gets another chance; a damaged one is reported.
        """
        from concurrent.futures import ThreadPoolExecutor  # slow to import

        staged = self.stage / "files"
        with ThreadPoolExecutor(1) as pool:  # both sides at once, as models are big
            ours = pool.submit(lambda: {name: files.sha256(staged / name) for name in names})
            hashes = self._hash_remote(names)
            damaged = {name for name, found in ours.result().items() if found != hashes.get(name)}
        for name in damaged:
            (staged / name).unlink()
            if name in hashes and memory.suspect.get(name) == self.remote[name]:
                self.report.damaged.append(f"{self.kind}/{name}")
            memory.suspect[name] = self.remote[name]
        return damaged

    def _remove_misnamed(self, names: Collection[str], memory: Memory) -> set[str]:
        """Remove staged files whose content does not match the hash in their name; return names.

        Later runs on this computer would take such a file for their own source.
        """
        staged = self.stage / "files"
        shared = [name for name in names if folder_of(self.kind, name) in SHARED]
        wrong = {name for name in shared if not has_own_hash(staged / name)}
        for name in wrong:
            (staged / name).unlink()
            self.report.damaged.append(f"{self.kind}/{name}")
            memory.suspect[name] = self.remote[name]
        return wrong

    def _hash_remote(self, names: Collection[str]) -> dict[str, str]:
        return remote_hashes(self.connection, self.listing.base[self.kind], names) if names else {}

    def _remember(self, name: str, local: Iterable[Fingerprint]) -> None:
        entry = [list(self.remote[name]), [list(one) for one in local]]
        self.state.files[f"{self.kind}/{name}"] = entry

    def _put_in_place(self, needed: list[str], arrived: set[str]) -> None:
        """Move the complete units to their destination.

        The state is saved first, so that a later fetch recognizes the files of an interrupted one.
        """
        units = defaultdict(list)
        for name in needed:
            units[unit_of(self.kind, name)].append(name)
        complete = {unit: names for unit, names in units.items() if arrived.issuperset(names)}
        staged = self.stage / "files"
        for name in (name for names in complete.values() for name in names):
            local = (self.before[name], fingerprint(staged / name))
            self._remember(name, [one for one in local if one])
        if complete:
            self.state.save()
        for unit, names in complete.items():
            try:
                moved = self._move_unit(unit, names)
            except OSError as error:  # another disk, behind a link, may be full
                for name in names:
                    self.state.files.pop(f"{self.kind}/{name}", None)
                self.state.save()
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    size = sum(self.remote[name][0] for name in names)
                    self.report.unfit[f"{self.kind}/{unit}"] = size
                else:
                    self.report.impossible[f"{self.kind}/{unit}"] = error.strerror or str(error)
                continue
            self.report.files += len(moved)
            self.report.bytes += sum(self.remote[name][0] for name in moved)
            if self.kind == "jobs":
                self.report.jobs.add(unit.split("/")[0])
                continue
            self.report.runs.add(unit.split("/")[2 if self.kind == "data" else 0])

    def _move_unit(self, unit: str, names: list[str]) -> list[str]:
        """Move the files of a unit to their destination; return those that were moved."""
        staged = self.stage / "files"
        if names == [unit] or os.path.lexists(self.local / unit):
            return [name for name in names if self._move_unless_changed(name)]
        _remove_leftovers(staged / unit, {staged / name for name in names})
        _move(staged / unit, self.local / unit)
        return names

    def _move_unless_changed(self, name: str) -> bool:
        """Move a staged file to its destination, unless that changed meanwhile: a conflict."""
        target = self.local / name
        if fingerprint(target) != self.before[name]:
            self.report.conflicts.append(str(project.relative(target)))
            del self.state.files[f"{self.kind}/{name}"]  # the next fetch compares the two
            self.state.save()
            return False
        _move(self.stage / "files" / name, target)
        return True


def _move(source: Path, target: Path) -> None:
    """Move a file or folder; a folder on the path may be a link to another disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    files.move(source, target)


def make_ignored_folder(path: Path) -> bool:
    """Make a folder that git ignores; return False if one exists that git does not ignore.

    The project may have a folder of its own of that name, whose new files have to stay in git.
    """
    mark = path / ".gitignore"
    if os.path.lexists(path):
        return is_file(mark) and files.read_text(mark, "replace") == "*\n"
    path.mkdir()
    files.write(mark, "*\n")
    return True


def has_own_hash(path: Path) -> bool:
    """Return whether a file's name ends with the hash of its content, as lab or Sacred names it."""
    import hashlib  # slow to import

    content = hashlib.md5(usedforsecurity=False)
    with files.open_regular(path) as file:
        while chunk := file.read(1 << 20):
            content.update(chunk)
    named = path.stem.rpartition("_")[2]
    return named in (files.sha256(path)[:32], content.hexdigest())


def find_blocking(base: Path, name: str) -> Path | None:
    """Return a parent of this file that exists but is not a folder; None if there is none."""
    folder = (base / name).parent
    while folder != base and not folder.is_dir():
        if os.path.lexists(folder):
            return folder
        folder = folder.parent
    return None


def _remove_leftovers(folder: Path, wanted: set[Path]) -> None:
    """Remove what an earlier attempt left in a staged folder, except the wanted files."""
    import shutil

    for path in folder.rglob(PARTIAL):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.rglob("*"):
        if not path.is_dir() and path not in wanted:
            path.unlink()
