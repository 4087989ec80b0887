"""What anybody stores in the collection of records, as it is stored: a change stream of MongoDB, read in batches.

It is read as raw batches of an aggregation: motor's ``watch`` takes the turn of a thread for every single record. A
batch tells behind what it ends, and whoever comes with that, from whatever process, goes on there.
"""

import dataclasses
import time
from collections.abc import AsyncGenerator
from typing import Any

import bson
from bson import CodecOptions, Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure, PyMongoError

from .errors import ChangesLost, NoChangeStreams
from .places import Place
from .reading import reason, unavailable
from .records import Clock

#: Events of one batch at the most, and how long MongoDB waits for the first one.
BATCH = 1000
AWAIT_MS = 500
#: When nothing is stored, the place to go on from is one of MongoDB's clock: so long ago, in seconds, that all that
#: was stored by then has been told, whatever shard or secondary is slow.
QUIET_SECONDS = 15.0
#: The server has none, or none for this user (mongodb/mongo, src/mongo/base/error_codes.yml; 40573 is that of a
#: standalone, 40324 that of an unknown stage).
_NONE = frozenset({13, 115, 238, 303, 40324, 40573})
#: The place is gone, or never was one: FailedToParse, TypeMismatch, InvalidResumeToken, ChangeStreamFatalError,
#: ChangeStreamHistoryLost, and those of before they had names.
_LOST = frozenset({9, 14, 260, 280, 286, 40576, 40647, 50811})
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
#: How a document begins whose _id is an ObjectId, behind its length.
_ID = b"\x07_id\x00"


@dataclasses.dataclass(frozen=True)
class Batch:
    """``records`` (ids and documents) in the order in which they were stored, and the ``place`` behind them.

    ``behind``: seconds from there to MongoDB's last write; ``whole``: there was no more when it was asked.
    """

    records: list[tuple[bytes, bytes]]
    place: Place
    behind: int
    whole: bool


class Changes:
    """The change stream of one collection."""

    def __init__(self, client: Any, collection: Any, clock: Clock = time.monotonic) -> None:
        """``client`` and ``collection`` are motor's."""
        self._client = client
        self._collection = collection.with_options(codec_options=_RAW)
        self._clock = clock

    async def batches(self, place: Place | None) -> AsyncGenerator[Batch, None]:
        """What is stored from ``place``, or from now on, for ever; empty batches while nothing is.

        Raises StoreUnavailable, NoChangeStreams, and ChangesLost when MongoDB has forgotten the place.
        """
        try:
            async with await self._client.start_session(causal_consistency=False) as session:
                now = await self._now(session)
                async for batch in self._read(session, _begin(place, now), now):
                    yield batch
        except OperationFailure as error:
            if error.code in _NONE:
                raise NoChangeStreams(reason(error)) from error
            if error.code in _LOST:
                raise ChangesLost(reason(error)) from error
            raise unavailable(error) from error
        except PyMongoError as error:
            raise unavailable(error) from error

    async def _now(self, session: Any) -> Timestamp:
        await self._client.admin.command("ping", session=session)
        if session.operation_time is None and session.cluster_time is None:
            raise NoChangeStreams("the server has no clock of a cluster")
        return _time(session)

    async def _read(self, session: Any, place: Place, at: Timestamp) -> AsyncGenerator[Batch, None]:
        cursor = self._collection.aggregate_raw_batches(
            [
                {"$changeStream": place.options()},
                {"$match": {"operationType": "insert"}},
                {"$project": {"clusterTime": 1, "fullDocument": 1}},
            ],
            session=session,
            batchSize=BATCH,
            maxAwaitTimeMS=AWAIT_MS,
        )
        looked = self._clock()
        try:
            while cursor.alive:
                async for raw in cursor:
                    events = bson.decode_all(raw, _RAW)
                    place = Place(events[-1]["clusterTime"], bson.decode(events[-1]["_id"].raw))
                    looked, at = self._clock(), _time(session)
                    yield Batch(_records(events), place, max(0, at.time - place.time.time), place.time >= at)
                if self._clock() - looked >= QUIET_SECONDS:
                    place, looked, at = Place(at), self._clock(), _time(session)
                yield Batch([], place, 0, True)
        finally:
            await cursor.close()
        raise ChangesLost("the collection has been dropped or renamed")


def _begin(place: Place | None, now: Timestamp) -> Place:
    """``place``, unless there is none, or it is in the future: then it is just behind ``now``."""
    latest = Place(Timestamp(now.time, now.inc + 1))
    return latest if place is None or place.time > latest.time else place


def _time(session: Any) -> Timestamp:
    """MongoDB's clock in its last answer; a mongos may not say the one, and always says the other."""
    moment: Timestamp = session.operation_time or session.cluster_time["clusterTime"]
    return moment


def _records(events: list[RawBSONDocument]) -> list[tuple[bytes, bytes]]:
    """Ids and documents; not of documents whose identity is none of a log server's making."""
    documents = [bytes(event["fullDocument"].raw) for event in events]
    return [(document[9:21], document) for document in documents if document.startswith(_ID, 4)]
