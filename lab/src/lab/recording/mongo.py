"""Runs in a MongoDB as well, for teams with a server: SACRED_MONGO_URL=mongodb://host/database.

Needs pymongo: add it to the dependencies in pyproject.toml, then lab lock.
"""

import os
from typing import Any

from lab.ground.terminal import print_message
from lab.recording import provenance
from lab.recording.record_files import RecordFiles
from lab.recording.sacred_import import RunObserver

TIMEOUT = 3000  # milliseconds
# What the record has and Sacred's entries lack.
FACTS = ["process", "code", "software", "torch", "machine", "job", "data", "seeds", "determinism"]
FACTS += ["usage"]
OUTPUT = 1_000_000  # bytes of the output that are sent, from its end; a document holds 16 MB


class Mongo(RunObserver):  # type: ignore[misc] # Sacred has no types
    """Sacred's MongoObserver beside the file record. A failure is reported once and harms nothing.

    Sacred passes the arguments of every event by name.
    """

    priority = 10  # after the file record, which gives the run its id

    def __init__(self, url: str, recorder: RecordFiles):
        self.url, self.recorder = url, recorder
        self.inner: Any = None  # Sacred's own observer, if the server answers
        self.reported = False

    def started_event(self, _id: str, **arguments: Any) -> str:
        self.inner, self.reported = None, False
        try:
            self.inner = connect(self.url)
            self.inner.started_event(_id=_id, **arguments)
            self._add_facts()
            self.inner.save()
        except Exception as error:  # noqa: BLE001 # whatever it is, the run goes on
            self._report(error)
        return _id

    def heartbeat_event(self, captured_out: str, **arguments: Any) -> None:
        if self.inner:
            self._add_facts()
            self._pass_on("heartbeat_event", captured_out=self._read_output(), **arguments)

    def log_metrics(self, **arguments: Any) -> None:
        self._pass_on("log_metrics", **arguments)

    def completed_event(self, **arguments: Any) -> None:
        self._end("completed_event", **arguments)

    def interrupted_event(self, **arguments: Any) -> None:
        self._end("interrupted_event", **arguments)

    def failed_event(self, **arguments: Any) -> None:
        self._end("failed_event", **arguments)

    def resource_event(self, **arguments: Any) -> None:
        self._pass_on("resource_event", **arguments)

    def artifact_event(self, **arguments: Any) -> None:
        self._pass_on("artifact_event", **arguments)

    def _end(self, event: str, **arguments: Any) -> None:
        if self.inner and self.inner.run_entry:
            self.inner.run_entry["captured_out"] = self._read_output()
            self._add_facts()
        self._pass_on(event, **arguments)

    def _pass_on(self, event: str, **arguments: Any) -> None:
        try:
            if self.inner:
                getattr(self.inner, event)(**arguments)
        except Exception as error:  # noqa: BLE001 # whatever it is, the run goes on
            self._report(error)

    def _add_facts(self) -> None:
        """Add what the record says of code, machine, seeds and the like."""
        if self.inner and self.inner.run_entry:
            known = self.recorder.run_entry
            self.inner.run_entry |= {name: known[name] for name in FACTS if name in known}

    def _report(self, error: Exception) -> None:
        if not self.reported:
            self.reported = True
            reason = provenance.remove_credentials(str(error)).split(", Timeout:")[0]
            print_message(f"warning: MongoDB does not record this run: {reason}")
            print_message("the run and its record in runs/ go on")

    def _read_output(self) -> str:
        """Read the end of the output; if that fails, it is what was sent before."""
        try:
            with (self.recorder.folder / "cout.txt").open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - OUTPUT))
                return file.read(OUTPUT).decode("utf-8", "replace")
        except OSError as error:
            self._report(error)
            return str(self.inner.run_entry.get("captured_out", ""))


def connect(url: str) -> Any:
    """Return Sacred's observer for a server, changed to raise when that does not answer."""
    import pymongo
    from sacred.observers import MongoObserver

    class Observer(MongoObserver):  # type: ignore[misc] # Sacred has no types
        def save(self) -> None:
            # Sacred's own ignores a dead server, and tries ten times at the end
            entry = {"_id": self.run_entry["_id"]}
            self.runs.update_one(entry, {"$set": self.run_entry}, upsert=True)

        def final_save(self, attempts: int) -> None:
            self.save()

    database = pymongo.uri_parser.parse_uri(url)["database"] or "sacred"
    return Observer(url=url, db_name=database, serverSelectionTimeoutMS=TIMEOUT)
