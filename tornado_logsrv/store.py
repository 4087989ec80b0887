"""MongoDB: the only module that imports motor."""

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import pymongo.uri_parser
from bson import CodecOptions, DatetimeMS, Int64, ObjectId
from bson.codec_options import DatetimeConversion
from bson.raw_bson import RawBSONDocument
from motor.motor_tornado import MotorClient
from pymongo import ASCENDING, DESCENDING, InsertOne, WriteConcern
from pymongo.errors import BulkWriteError, PyMongoError

from .errors import StartError, StoreUnavailable, WriteFailed
from .minutes import MINUTE_MS, Minutes
from .records import timestamp_of

log = logging.getLogger("logsrv.store")

#: Used where the URL does not say otherwise: a server that is away is noticed in seconds, not half a minute.
_URL_DEFAULTS = {
    "serverSelectionTimeoutMS": 5000,
    "connectTimeoutMS": 5000,
    "socketTimeoutMS": 60000,
    "heartbeatFrequencyMS": 2000,
}
_DUPLICATE_KEY = 11000

Document = dict[str, Any]
Order = Literal["asc", "desc"]


@dataclasses.dataclass(frozen=True)
class Position:
    """A place in the order by (timestamp, _id): that of the last record of a page."""

    timestamp_ms: int
    id: ObjectId


class RecordStore:
    """One collection of records, written in batches and read in pages."""

    def __init__(self, url: str, database: str, collection: str) -> None:
        """Connects to nothing yet. Raises StartError when ``url`` cannot be one."""
        try:
            given = {name.lower() for name in pymongo.uri_parser.parse_uri(url)["options"]}
            defaults = {name: value for name, value in _URL_DEFAULTS.items() if name.lower() not in given}
            self._client: Any = MotorClient(url, appname="tornado_logsrv", **defaults)  # type: ignore[arg-type]
        except (PyMongoError, ValueError) as error:
            raise StartError(f"--mongo_url: {error}") from None
        codec: CodecOptions[Document] = CodecOptions(
            tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO
        )
        self._database = self._client.get_database(database, codec_options=codec)
        # Confirmed means on a majority and in their journals: without j a server that is killed with -9 loses
        # records it has confirmed (MongoDB manual, "Write Concern").
        self._records = self._database.get_collection(collection, write_concern=WriteConcern("majority", j=True))
        self._hours = self._database.get_collection(f"{collection}_hours")
        self._minutes: Minutes | None = None
        self._prepared = False

    async def prepare(self) -> None:
        """Make the index of the reading order, and find out what the server is. Raises PyMongoError."""
        if self._prepared:
            return
        await self._records.create_index([("timestamp", ASCENDING), ("_id", ASCENDING)])
        build = await self._client.admin.command("buildInfo")
        if "secantusVersion" in build:
            self._minutes = await self._load_minutes()
        self._prepared = True

    async def _load_minutes(self) -> Minutes:
        minutes = Minutes()
        async for hour in self._hours.find({}):
            minutes.load(int(hour["_id"].timestamp() * 1000), hour["minutes"])
        return minutes

    async def write(self, records: Sequence[bytes]) -> None:
        """Store ``records``; a record that is there already is stored.

        Raises WriteFailed with the indexes of the records that are not confirmed, in the journals of a majority.
        """
        try:
            await self.prepare()
            await self._note_minutes(records)
            await self._records.bulk_write([InsertOne(RawBSONDocument(r)) for r in records], ordered=False)
        except BulkWriteError as error:
            _examine(dict(error.details), len(records))
        except PyMongoError as error:
            raise WriteFailed(_reason(error), range(len(records))) from error

    async def _note_minutes(self, records: Sequence[bytes]) -> None:
        if self._minutes is None:
            return
        self._minutes.note(map(timestamp_of, records))
        for hour_ms, mask in self._minutes.unsaved().items():
            set_bits = {"$bit": {"minutes": {"or": Int64(mask)}}}
            await self._hours.update_one({"_id": DatetimeMS(hour_ms)}, set_bits, upsert=True)
        self._minutes.saved()

    async def page(
        self, order: Order, low: int | None, high: int | None, after: Position | None, limit: int
    ) -> list[Document]:
        """At most ``limit`` documents with timestamps in [low, high), in ``order``, beginning behind ``after``.

        Every query is one range of the index, so a page costs the same wherever it is. Raises StoreUnavailable.
        """
        try:
            await self.prepare()
            return await self._page(order, low, high, after, limit)
        except PyMongoError as error:
            raise StoreUnavailable(f"MongoDB cannot be read: {_reason(error)}", 5) from error

    async def _page(
        self, order: Order, low: int | None, high: int | None, after: Position | None, limit: int
    ) -> list[Document]:
        found: list[Document] = []
        if after is not None:
            found = await self._find(_same_moment(order, after), order, limit)
            low, high = _behind(order, after, low, high)
        for start, end in self._ranges(order, low, high):
            if len(found) >= limit:
                break
            documents = await self._find(_between(start, end), order, limit - len(found))
            found += documents
        self._learn_width(order, found, limit)
        return found

    def _ranges(self, order: Order, low: int | None, high: int | None) -> Iterable[tuple[int | None, int | None]]:
        if low is not None and high is not None and low >= high:
            return ()
        if self._minutes is None:
            return ((low, high),)
        return self._minutes.ranges_up(low, high) if order == "asc" else self._minutes.ranges_down(low, high)

    def _learn_width(self, order: Order, found: list[Document], limit: int) -> None:
        if self._minutes is None or len(found) < limit:
            return
        first, last = (_milliseconds(found[index]["timestamp"]) for index in (0, -1))
        # Half as wide again as this page was, so that the next is most often one query.
        self._minutes.width_ms = min(max(1, abs(first - last) * 3 // 2), MINUTE_MS)

    async def _find(self, query: Document, order: Order, limit: int) -> list[Document]:
        direction = ASCENDING if order == "asc" else DESCENDING
        cursor = self._records.find(query).sort([("timestamp", direction), ("_id", direction)])
        found: list[Document] = await cursor.limit(limit).to_list(limit)
        return found

    async def close(self) -> None:
        """Close every connection."""
        self._client.close()


def _same_moment(order: Order, after: Position) -> Document:
    return {"timestamp": DatetimeMS(after.timestamp_ms), "_id": {"$gt" if order == "asc" else "$lt": after.id}}


def _behind(order: Order, after: Position, low: int | None, high: int | None) -> tuple[int | None, int | None]:
    if order == "asc":
        return (after.timestamp_ms + 1 if low is None else max(low, after.timestamp_ms + 1)), high
    return low, (after.timestamp_ms if high is None else min(high, after.timestamp_ms))


def _between(start: int | None, end: int | None) -> Document:
    bounds = {} if start is None else {"$gte": DatetimeMS(start)}
    bounds |= {} if end is None else {"$lt": DatetimeMS(end)}
    return {"timestamp": bounds} if bounds else {}


def _milliseconds(moment: Any) -> int:
    return int(moment) if isinstance(moment, DatetimeMS) else round(moment.timestamp() * 1000)


def _examine(details: Document, count: int) -> None:
    """Raise WriteFailed for what a partly failed bulk write left unconfirmed; nothing when all of it is stored."""
    concerns = details.get("writeConcernErrors") or []
    if concerns:
        # Written somewhere, but not on a majority: nothing of it counts. Written again, it is a duplicate.
        raise WriteFailed(f"write concern not met: {concerns[0].get('errmsg')}", range(count))
    failed = [error for error in details.get("writeErrors", ()) if not _is_stored(error)]
    if failed:
        indexes = sorted(error["index"] for error in failed)
        raise WriteFailed(f"code {failed[0].get('code')}: {failed[0].get('errmsg')}", indexes)


def _is_stored(error: Document) -> bool:
    """Whether a write error says that the record is there already: its own ``_id``, given at acceptance, is taken."""
    if error.get("code") != _DUPLICATE_KEY:
        return False
    pattern = error.get("keyPattern")
    return list(pattern) == ["_id"] if pattern else " index: _id_ " in error.get("errmsg", "")


def _reason(error: BaseException) -> str:
    """One line, without the driver's description of the whole topology."""
    text = str(error).partition(", Timeout:")[0].partition("\n")[0]
    return f"{type(error).__name__}: {text[:300]}"
