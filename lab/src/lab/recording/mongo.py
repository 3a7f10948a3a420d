"""Runs in a MongoDB as well, for teams with a server: SACRED_MONGO_URL=mongodb://host/database.

Needs pymongo: uv pip install -e .[mongo]
"""

import sys
from pathlib import Path

from sacred.observers.base import RunObserver

from lab.recording import provenance

ANSWER_WITHIN = 3000  # milliseconds
OUTPUT = 1_000_000  # bytes of the output that go there, from its end; a document takes 16 MB


class Mongo(RunObserver):
    """Sacred's MongoObserver beside the file record. What goes wrong is said, and harms nothing."""

    priority = 10  # after the file record, which gives the run its id

    def __init__(self, url: str, recorder):
        self.url, self.recorder = url, recorder
        self.inner = None
        self.said = False

    def _try(self, event: str, **arguments) -> None:
        try:
            if self.inner:
                getattr(self.inner, event)(**arguments)
        except Exception as error:
            self._say(error)

    def _say(self, error: Exception) -> None:
        if not self.said:
            self.said = True
            reason = provenance.without_credentials(str(error)).split(", Timeout:")[0]
            print(f"warning: MongoDB does not record this run: {reason}", file=sys.stderr)
            print("the run and its record in runs/ go on", file=sys.stderr, flush=True)

    def started_event(self, _id, **arguments):
        self.inner, self.said = None, False
        try:
            self.inner = connect(self.url)
            self.inner.started_event(_id=_id, **arguments)
        except Exception as error:
            self._say(error)
        return _id

    def heartbeat_event(self, captured_out, **arguments):
        self._try("heartbeat_event", captured_out=self._output(), **arguments)

    def log_metrics(self, **arguments):
        self._try("log_metrics", **arguments)

    def completed_event(self, **arguments):
        self._end("completed_event", **arguments)

    def interrupted_event(self, **arguments):
        self._end("interrupted_event", **arguments)

    def failed_event(self, **arguments):
        self._end("failed_event", **arguments)

    def resource_event(self, **arguments):
        self._try("resource_event", **arguments)

    def artifact_event(self, **arguments):
        self._try("artifact_event", **arguments)

    def _end(self, event: str, **arguments) -> None:
        if self.inner and self.inner.run_entry:
            self.inner.run_entry["captured_out"] = self._output()
        self._try(event, **arguments)

    def _output(self) -> str:
        content = Path(self.recorder.dir, "cout.txt").read_bytes()
        return content[-OUTPUT:].decode("utf-8", "replace")


def connect(url: str):
    """Sacred's observer for a server, which raises when that does not answer."""
    import pymongo
    from sacred.observers import MongoObserver

    class Observer(MongoObserver):
        def save(self):
            # Sacred's own is silent about a dead server, and tries ten times at the end
            entry = {"_id": self.run_entry["_id"]}
            self.runs.update_one(entry, {"$set": self.run_entry}, upsert=True)

        def final_save(self, attempts):
            self.save()

    database = pymongo.uri_parser.parse_uri(url)["database"] or "sacred"
    return Observer(url=url, db_name=database, serverSelectionTimeoutMS=ANSWER_WITHIN)
