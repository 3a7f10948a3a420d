"""Records and models of runs, brought home: what is new, and nothing here is ever lost for it.

What comes is compared with what an earlier fetch put here (STATE), gathered in a folder beside its
place, checked, and renamed into place: a checkpoint whole or not at all.
"""

import errno
import os
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lab.ground import project
from lab.ground.files import sha256
from lab.ssh.connection import Connection, hold_lock
from lab.transfer import copying
from lab.transfer.copying import Fingerprint, fingerprint
from lab.transfer.fetch_plan import (
    FetchState,
    Listing,
    Memory,
    decide,
    list_remote,
    remote_hashes,
    unit_of,
)

STATE = ".fetched-{}.json"  # in the runs folder, for each machine
STAGE = ".fetching-{}"  # in the runs folder and in the data folder
ROUNDS = 3  # how often it looks again if something changed while it was copied


@dataclass
class Report:
    """What a fetch did."""

    files: int = 0
    bytes: int = 0
    runs: set[str] = field(default_factory=set)  # that something came of
    conflicts: list[str] = field(default_factory=list)  # changed on both sides, and left alone
    damaged: list[str] = field(default_factory=list)  # did not arrive as they are there
    missing: list[str] = field(default_factory=list)  # did not arrive at all
    skipped: list[str] = field(default_factory=list)
    rsync: bool = True


def fetch(connection: Connection, wanted: Iterable[str] = (), models: bool = True) -> Report:
    """Bring what is new of these jobs or runs, or of all.

    Raises SshError after a cut, RemoteError if there is no such job; LabError if the disk is full.
    """
    runs = project.runs_folder()
    stages = [base() / STAGE.format(connection.name) for base in BASES.values()]
    with copying.explain_os_errors():
        runs.mkdir(parents=True, exist_ok=True)
        with hold_lock(runs / f".fetch-{connection.name}.lock"), copying.staging(*stages):
            return _fetch(connection, list(wanted), models)


def _fetch(connection: Connection, wanted: list[str], models: bool) -> Report:
    report = Report()
    memory = Memory()
    state = FetchState(project.runs_folder() / STATE.format(connection.name))
    for _ in range(ROUNDS):
        report.conflicts, report.damaged, report.missing = [], [], []
        listing = list_remote(connection, wanted, models)
        report.skipped, report.rsync = listing.special, listing.rsync
        report.missing += listing.closed
        rounds = [_Round(connection, listing, kind, state, report) for kind in BASES]
        if not [one for one in rounds if one.run(memory)]:
            break
    return report


BASES = {"runs": project.runs_folder, "data": project.data_folder}


class _Round:
    """One look at one kind of files: what is new is copied, checked and put in place."""

    def __init__(self, connection, listing: Listing, kind: str, state: FetchState, report: Report):
        self.connection, self.listing, self.kind = connection, listing, kind
        self.state, self.report = state, report
        self.there = listing.files[kind]
        self.here = BASES[kind]()
        self.stage = self.here / STAGE.format(connection.name)

    def run(self, memory: Memory) -> bool:
        """Returns whether it is worth while to look again."""
        gone = memory.find_shrunk(self.kind, self.there)
        needed = [name for name in self._needed() if unit_of(self.kind, name) not in gone]
        if not needed:
            return False
        staged = self.stage / "files"
        missing = [name for name in needed if fingerprint(staged / name) != self.there[name]]
        if missing:
            copying.pull(
                self.connection,
                self.listing.base[self.kind],
                missing,
                self.stage,
                rsync=self.listing.rsync,
                known=self.here,
            )
        good = {name for name in needed if is_file(staged / name)}
        again = False
        if self.kind == "data":
            hashes = self._hashes(good)
            wrong = {name for name in good if hashes.get(name) != sha256(staged / name)}
            for name in wrong:
                (staged / name).unlink()
                # a file that changes while it is copied gets a second chance, not a broken one
                if name in hashes and memory.suspect.get(name) == self.there[name]:
                    self.report.damaged.append(f"{self.kind}/{name}")
                memory.suspect[name] = self.there[name]
            good -= wrong
        else:
            moved = [name for name in good if fingerprint(staged / name) != self.there[name]]
            # a run that has just ended: its other files may be older than its end
            again = any(name.endswith("/run.json") for name in moved)
        absent = [name for name in needed if not is_file(staged / name)]
        self.report.missing += [
            f"{self.kind}/{name}" for name in absent if name not in memory.suspect
        ]
        self._place(needed, good)
        return again or len(good) < len(needed)

    def _needed(self) -> list[str]:
        """What has to come. What was changed on both sides is said, with all of its unit."""
        verdicts = {}
        for name, there in self.there.items():
            known = self.state.files.get(f"{self.kind}/{name}")
            verdicts[name] = decide(there, known, fingerprint(self.here / name))
        compare = [name for name, verdict in verdicts.items() if verdict == "compare"]
        kept = set()
        hashes = self._hashes(compare)
        for name in compare:
            path = self.here / name
            if is_file(path) and hashes.get(name) == sha256(path):
                self._know(name, self.there[name], [fingerprint(path)])
            else:
                kept.add(unit_of(self.kind, name))
                self.report.conflicts.append(str(project.relative(path)))
        if len(compare) > len(kept):
            self.state.save()
        ways = {name: in_the_way(self.here, name) for name in verdicts if verdicts[name] == "new"}
        kept |= {unit_of(self.kind, name) for name, path in ways.items() if path}
        self.report.conflicts += sorted(
            {str(project.relative(path)) for path in ways.values() if path}
        )
        return [
            name
            for name, verdict in verdicts.items()
            if verdict in ("new", "update") and unit_of(self.kind, name) not in kept
        ]

    def _hashes(self, names: Collection[str]) -> dict[str, str]:
        return remote_hashes(self.connection, self.listing.base[self.kind], names) if names else {}

    def _know(self, name: str, there: Fingerprint, here: list) -> None:
        self.state.files[f"{self.kind}/{name}"] = [list(there), [list(one) for one in here]]

    def _place(self, needed: list[str], good: set[str]) -> None:
        """Rename what arrived; the state is written first, so that a break leaves no riddle."""
        units = defaultdict(list)
        for name in needed:
            units[unit_of(self.kind, name)].append(name)
        whole = {one: names for one, names in units.items() if good.issuperset(names)}
        staged = self.stage / "files"
        before = {name: fingerprint(self.here / name) for names in whole.values() for name in names}
        for name, old in before.items():
            olds = [old] if old else []
            self._know(name, self.there[name], [*olds, fingerprint(staged / name)])
        if whole:
            self.state.save()
        for one, names in whole.items():
            target = self.here / one
            if names != [one] and not os.path.lexists(target):
                _prune(staged / one, {staged / name for name in names})
                move(staged / one, target)
            else:
                for name in names:
                    if fingerprint(self.here / name) != before[name]:  # somebody was quicker
                        self.report.conflicts.append(str(project.relative(self.here / name)))
                        continue
                    move(staged / name, self.here / name)
            self.report.files += len(names)
            self.report.bytes += sum(self.there[name][0] for name in names)
            self.report.runs.add(one.split("/")[2 if self.kind == "data" else 0])


def move(source: Path, target: Path) -> None:
    """Rename, also where a folder on the way is a link to another disk; never half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            shutil.move(source, draft)
            os.replace(draft, target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            with suppress(OSError):
                draft.unlink()
            raise


def in_the_way(base: Path, name: str) -> Path | None:
    """What stands here in place of a folder of this file, and is none."""
    folder = (base / name).parent
    while folder != base and not folder.is_dir():
        if os.path.lexists(folder):
            return folder
        folder = folder.parent
    return None


def is_file(path: Path) -> bool:
    """Whether it is one itself, and no link to one."""
    return path.is_file() and not path.is_symlink()


def _prune(folder: Path, wanted: set[Path]) -> None:
    """Remove what an earlier attempt left in a staged folder."""
    for path in folder.rglob(copying.PARTIAL):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.rglob("*"):
        if not path.is_dir() and path not in wanted:
            path.unlink()
