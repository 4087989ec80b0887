"""What anybody stores in the collections of records, as it is stored: a change stream of MongoDB, read in batches.

While there are no tenants it is one of the collection, else one of the database, which brings of its other collections
those of the tenants alone. A batch tells behind what it ends, and whoever comes with that, from whatever process, goes
on there.
"""

import contextlib
import dataclasses
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from typing import Any

import bson
from bson import CodecOptions, Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure, PyMongoError

from . import records
from .errors import ChangesLost, NoChangeStreams
from .places import Place
from .reading import reason, unavailable
from .records import Clock

log = logging.getLogger("logsrv.tail")

#: Events of one batch at the most, and how long MongoDB waits for the first one.
BATCH = 1000
AWAIT_MS = 500
#: When nothing is stored, the place to go on from is one of MongoDB's clock: so long ago, in seconds, that all that
#: was stored by then has been told, whatever shard or secondary is slow.
QUIET_SECONDS = 15.0
#: The server has none, or none for this user (mongodb/mongo, src/mongo/base/error_codes.yml; 40573 is that of a
#: standalone, 40324 that of an unknown stage).
_NONE = frozenset({13, 115, 238, 303, 40324, 40573})
_UNAUTHORIZED = 13
#: The place is gone, or never was one: FailedToParse, TypeMismatch, InvalidResumeToken, ChangeStreamFatalError,
#: ChangeStreamHistoryLost, and those of before they had names.
_LOST = frozenset({9, 14, 260, 280, 286, 40576, 40647, 50811})
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
#: How a document begins whose _id is an ObjectId, behind its length.
_ID = b"\x07_id\x00"


@dataclasses.dataclass(frozen=True)
class Batch:
    """``records`` (ids and documents) in the order in which they were stored, and the ``place`` behind them.

    ``behind``: seconds from there to MongoDB's last write; ``whole``: there was no more when it was asked. ``tenants``:
    whose records are followed, beside those of nobody.
    """

    records: list[tuple[bytes, bytes]]
    place: Place
    behind: int
    whole: bool
    tenants: frozenset[str] = frozenset()


class _Scope:
    """What a stream follows: the collections of ``tenants``, and the one of all others."""

    def __init__(self, collection: str, tenants: frozenset[str]) -> None:
        self.tenants = tenants
        self.is_wide = bool(tenants)
        self._tenant_of = {collection: "", **{f"{collection}_{tenant}": tenant for tenant in tenants}}

    @property
    def collections(self) -> list[str]:
        """Their names."""
        return sorted(self._tenant_of)

    def records(self, events: Sequence[RawBSONDocument]) -> Iterator[tuple[bytes, bytes]]:
        """Ids and documents; not of what has no identity of a log server's making, nor of what says it is another's."""
        for event in events:
            document = bytes(event["fullDocument"].raw)
            if document.startswith(_ID, 4) and records.is_of(document, self._tenant_of[event["ns"]["coll"]]):
                yield records.id_of(document), document


class Changes:
    """The change stream of one collection, and of the tenants' beside it."""

    def __init__(self, client: Any, collection: Any, clock: Clock = time.monotonic) -> None:
        """``client`` and ``collection`` are motor's."""
        self._client = client
        self._collection = collection.with_options(codec_options=_RAW)
        self._database = client.get_database(collection.database.name, codec_options=_RAW)
        self._clock = clock
        #: All there have been: whoever comes back may want what was stored while there was no token for him.
        self._tenants: frozenset[str] = frozenset()
        self._may_widen = True
        #: What was brought last: the time of a place alone is not exact.
        self._last: tuple[Timestamp | None, frozenset[bytes]] = (None, frozenset())

    async def batches(
        self, place: Place | None, tenants: Callable[[], Collection[str]] = tuple
    ) -> AsyncGenerator[Batch, None]:
        """What is stored from ``place``, or from now on, for ever; empty batches while nothing is.

        ``tenants`` gives whose records are followed, too; it is asked again and again. Raises StoreUnavailable,
        NoChangeStreams, and ChangesLost when MongoDB has forgotten the place.
        """
        try:
            async with await self._client.start_session(causal_consistency=False) as session:
                now = await self._now(session)
                place = _begin(place, now)
                while True:
                    scope = self._scope(tenants)
                    async with contextlib.aclosing(self._within(scope, session, place, now)) as batches:
                        async for batch in batches:
                            place = batch.place
                            yield batch
                            if self._scope(tenants).tenants != scope.tenants:
                                break
        except OperationFailure as error:
            if error.code in _NONE:
                raise NoChangeStreams(reason(error)) from error
            if error.code in _LOST:
                raise ChangesLost(reason(error)) from error
            raise unavailable(error) from error
        except PyMongoError as error:
            raise unavailable(error) from error

    def _scope(self, tenants: Callable[[], Collection[str]]) -> _Scope:
        self._tenants = self._tenants.union(tenants()) if self._may_widen else frozenset()
        return _Scope(self._collection.name, self._tenants)

    async def _within(self, scope: _Scope, session: Any, place: Place, now: Timestamp) -> AsyncGenerator[Batch, None]:
        """What is stored within ``scope``; ends when MongoDB refuses to tell more than of one collection."""
        try:
            async with contextlib.aclosing(self._read(scope, session, place, now)) as batches:
                async for batch in batches:
                    yield batch
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED or not scope.is_wide:
                raise
            log.warning("tails of tenants do not show what other servers store: %s", reason(error))
            self._may_widen = False

    async def _now(self, session: Any) -> Timestamp:
        await self._client.admin.command("ping", session=session)
        if session.operation_time is None and session.cluster_time is None:
            raise NoChangeStreams("the server has no clock of a cluster")
        return _time(session)

    async def _read(self, scope: _Scope, session: Any, place: Place, at: Timestamp) -> AsyncGenerator[Batch, None]:
        known = frozenset() if place.is_exact(scope.is_wide) or place.time != self._last[0] else self._last[1]
        cursor = self._open(scope, session, place)
        looked = self._clock()
        try:
            while cursor.alive:
                async for events in _batches(cursor, scope.is_wide):
                    place = Place(events[-1]["clusterTime"], bson.decode(events[-1]["_id"].raw), scope.is_wide)
                    looked, at = self._clock(), _time(session)
                    found = [record for record in scope.records(events) if record[0] not in known]
                    self._note(events, place.time)
                    behind = max(0, at.time - place.time.time)
                    yield Batch(found, place, behind, place.time >= at, scope.tenants)
                if self._clock() - looked >= QUIET_SECONDS:
                    place, looked, at = Place(at), self._clock(), _time(session)
                yield Batch([], place, 0, True, scope.tenants)
        finally:
            await cursor.close()
        raise ChangesLost("the collection has been dropped or renamed")

    def _open(self, scope: _Scope, session: Any, place: Place) -> Any:
        pipeline = [
            {"$changeStream": place.options(scope.is_wide)},
            {
                "$match": {
                    "operationType": "insert",
                    **({"ns.coll": {"$in": scope.collections}} if scope.is_wide else {}),
                }
            },
            {"$project": {"clusterTime": 1, "fullDocument": 1, "ns": 1}},
        ]
        read = self._database.aggregate if scope.is_wide else self._collection.aggregate_raw_batches
        return read(pipeline, session=session, batchSize=BATCH, maxAwaitTimeMS=AWAIT_MS)

    def _note(self, events: Sequence[RawBSONDocument], last: Timestamp) -> None:
        latest = itertools.takewhile(lambda event: event["clusterTime"] == last, reversed(events))
        ids = frozenset(records.id_of(bytes(event["fullDocument"].raw)) for event in latest)
        self._last = (last, ids | self._last[1] if self._last[0] == last else ids)


async def _batches(cursor: Any, wide: bool) -> AsyncGenerator[list[RawBSONDocument], None]:
    """The events of one answer, and of the next: motor takes the turn of a thread for each, and not for each event."""
    async for each in cursor:
        if not wide:
            yield bson.decode_all(each, _RAW)
            continue
        # A database has no raw batches, and motor no name for what has come with the first and is there.
        events = [each]
        while cursor._buffer_size():
            events.append(await cursor.next())
        yield events


def _begin(place: Place | None, now: Timestamp) -> Place:
    """``place``, unless there is none, or it is in the future: then it is just behind ``now``."""
    latest = Place(Timestamp(now.time, now.inc + 1))
    return latest if place is None or place.time > latest.time else place


def _time(session: Any) -> Timestamp:
    """MongoDB's clock in its last answer; a mongos may not say the one, and always says the other."""
    moment: Timestamp = session.operation_time or session.cluster_time["clusterTime"]
    return moment
