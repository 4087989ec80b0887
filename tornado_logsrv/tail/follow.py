"""Search and follow: which requests, in what order, so that nothing is left out and nothing comes twice."""

import collections
import datetime
import email.utils
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .connection import LOST, Event, Refused, Server, events, lines
from .options import Options
from .terminal import warn

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 15.0
#: Whose records have been shown: a server that does not know an id any more begins a little before it.
_REMEMBERED = 20_000


class Shown(NamedTuple):
    """A record to show, and the JSON that it was."""

    record: Mapping[str, Any]
    text: str


def search(server: Server, options: Options) -> Iterator[Shown]:
    """What is stored, oldest first. Raises Refused, and one of LOST also for an answer that is not whole."""
    if options.count == 0:
        return
    asked = {"q": options.query, "from": options.since, "to": options.until, "format": "ndjson"}
    if options.count is None:
        with server.get("/logs", {**asked, "order": "asc"}) as response:
            yield from map(_read, lines(response))
        return
    with server.get("/logs", {**asked, "limit": str(options.count)}) as response:
        newest = list(lines(response))
    yield from map(_read, reversed(newest))


def _read(text: str) -> Shown:
    return Shown(json.loads(text), text)


class Follower:
    """Shows records as they are taken, and comes back when the connection is lost."""

    def __init__(self, server: Server, options: Options, sleep: Callable[[float], None] = time.sleep) -> None:
        self._server = server
        self._query = options.query
        self._count = options.count
        self._since = options.since
        self._sleep = sleep
        self._pause = _FIRST_PAUSE
        self._last_id = ""
        self._first: tuple[str, str] | None = None
        self._recent: collections.OrderedDict[str, None] = collections.OrderedDict()

    def records(self) -> Iterator[Shown]:
        """What is stored, as far as it is wanted, and all that comes, for ever.

        Raises Refused, and one of LOST when there is no server at the beginning.
        """
        if self._count is not None:
            self._since = self._oldest()
        connected = False
        while True:
            try:
                arguments = {"q": self._query, "from": "" if self._last_id else self._since}
                with self._server.get("/logs/tail", arguments, Last_Event_ID=self._last_id) as response:
                    if connected:
                        warn("connected again")
                    self._since = self._since or _second(response.headers.get("Date", ""))
                    connected = True
                    yield from self._shown(events(response))
                why = "the server has ended it"
            except Refused as error:
                if not (connected and error.passing):
                    raise
                why, self._pause = str(error), error.retry_after or self._pause
            except LOST as error:
                if not connected:
                    raise
                why = str(error) or type(error).__name__
            warn(f"connection lost ({why}); trying again in {self._pause:g} s")
            self._sleep(self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _oldest(self) -> str:
        """The time to begin at, so that the newest ``count`` come first."""
        if not self._count:
            return ""
        asked = {"q": self._query, "from": self._since, "format": "ndjson", "fields": "timestamp"}
        with self._server.get("/logs", {**asked, "limit": str(self._count)}) as response:
            found = [json.loads(line) for line in lines(response)]
        if not found:
            return self._since or "now"
        self._first = (found[-1]["timestamp"], found[-1]["_id"])
        return self._first[0]

    def _shown(self, found: Iterator[Event]) -> Iterator[Shown]:
        for event in found:
            self._pause = _FIRST_PAUSE
            self._last_id = event.id or self._last_id
            told = json.loads(event.data)
            if event.name == "record" and self._is_new(told):
                yield Shown(told, event.data)
            elif event.name == "missed":
                how_many = "records" if told["missed"] is None else f"{told['missed']} records"
                warn(f"{how_many} are left out: they come faster than they can be shown, or long ago")
            elif event.name == "quarantined":
                warn(f"{told.get('id')} went to quarantine: {told.get('reason')}")

    def _is_new(self, record: Mapping[str, Any]) -> bool:
        if record["_id"] in self._recent or self._is_before(record):
            return False
        self._recent[record["_id"]] = None
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        return True

    def _is_before(self, record: Mapping[str, Any]) -> bool:
        # What waits on the queue is shown whatever its time.
        return (
            self._first is not None
            and record.get("state") == "stored"
            and (record["timestamp"], record["_id"]) < self._first
        )


def _second(date: str) -> str:
    """The time that a Date header has, in ISO 8601; now where there is none."""
    try:
        return email.utils.parsedate_to_datetime(date).isoformat()
    except ValueError:
        return datetime.datetime.now(datetime.UTC).isoformat()
