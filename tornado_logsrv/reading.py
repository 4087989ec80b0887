"""Reading records out of MongoDB: by time and query, a bounded piece at a time, in a bounded time.

A piece is a range of the index on (timestamp, _id). MongoDB gets one range for all that is asked; SecantusDB, which
fetches a whole range before it does anything else, gets many small ones, as ``occupancy`` has them.
"""

import collections
import contextlib
import copy
import dataclasses
import datetime
import itertools
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from typing import Any, Literal

import bson
from bson import CodecOptions, DatetimeMS, ObjectId
from bson.codec_options import DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import ExecutionTimeout, OperationFailure, PyMongoError

from .errors import BadParameter, QueryTimeout, StoreUnavailable
from .occupancy import Occupancy
from .query import Query, parse
from .records import JOB_SOURCE, Clock
from .room import Room, Share

#: Bytes of BSON in one page at the most, but for its first record: a record may have 16 MiB.
PAGE_BYTES = 16 * 1024 * 1024
#: Records of one page of a stream.
STREAM_PAGE = 1000
#: Seconds with few records that are read at once where a filter may leave nothing of them, so that no more is read
#: behind the last record of a page, or held in SecantusDB's memory, than this.
_SCAN_SECONDS = 64
#: What of a page has to be found in so many ranges: with less, what is sought is rare, and SecantusDB finds it faster
#: by an index, from which it fetches every record with a value.
_LEAST_FOUND = {3: 0.01, 8: 0.1}
#: In so many ranges is looked, by the index, whether there is anything of a value: no record is read for nothing. How
#: many spellings of values are looked for at the most; with more, the ranges themselves tell.
_PROBED_RANGES = 3
_MOST_PROBES = 8
#: Seconds for all records of a value that seems to be rare: what takes longer is not rare, and is read by time.
_RARE_SECONDS = 0.5
_FETCH = 100
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
#: What MongoDB says of a filter that it does not take (src/mongo/base/error_codes.yml; 51091 is a regular expression).
_BAD_QUERY = frozenset({2, 9, 14, 51091})
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)

Document = dict[str, Any]
Order = Literal["asc", "desc"]
Range = tuple[int | None, int | None]
#: (bucket, level) → how many records.
LevelCounts = collections.Counter[tuple[int, str | int | float | None]]


@dataclasses.dataclass(frozen=True)
class Position:
    """A place in the order by (timestamp, _id): that of the last record of a page."""

    timestamp_ms: int
    id: ObjectId


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which records: those with timestamps in [low, high), in milliseconds, that ``query`` selects.

    None is no bound; ``now_ms`` is the time that relative moments of the query count from. ``anywhere``: whichever
    member of the replica set the URL's read preference allows may answer, so what was stored last may be missing.
    """

    low: int | None = None
    high: int | None = None
    query: Query = dataclasses.field(default_factory=lambda: parse(""))
    now_ms: int = 0
    anywhere: bool = False

    def range(self) -> Range:
        """The timestamps in which any can be: [low, high) and what the query itself says of them."""
        low, high = self.query.time_range(self.now_ms)
        lows = [at for at in (self.low, low) if at is not None]
        highs = [at for at in (self.high, high) if at is not None]
        return max(lows, default=None), min(highs, default=None)


@dataclasses.dataclass(frozen=True)
class Page:
    """Some records, and behind what the next ones stand; None when there are no more."""

    documents: list[Document]
    next: Position | None


class _Found:
    """What becomes a page of ``limit`` documents, and one more, which tells that there is a next page."""

    def __init__(self, limit: int, share: Share) -> None:
        self._limit = limit
        self._share = share
        self._documents: list[Document] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether no more is wanted."""
        return len(self._documents) > self._limit or (self._bytes > PAGE_BYTES and len(self._documents) > 1)

    @property
    def share(self) -> float:
        """How much of the page has been found."""
        return len(self._documents) / self._limit

    @property
    def room(self) -> int:
        """How many are still wanted."""
        return self._limit + 1 - len(self._documents)

    def add(self, batch: Iterable[RawBSONDocument]) -> None:
        """Take what is wanted of ``batch``."""
        for raw in batch:
            if self.full:
                return
            self._share.take(len(raw.raw))
            self._documents.append(_decoded(raw))
            self._bytes += len(raw.raw)

    def page(self) -> Page:
        """All but the one more."""
        if not self.full:
            return Page(self._documents, None)
        documents = self._documents[:-1]
        return Page(documents, position_of(documents[-1]))


class Deadline:
    """The time that one request may take of MongoDB."""

    def __init__(self, seconds: float, clock: Clock = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Another reading begins."""
        self._end = self._clock() + self._seconds

    def part(self, seconds: float) -> "Deadline":
        """So much of what is left, at the most. Raises QueryTimeout when nothing is."""
        return Deadline(min(seconds, self.left_ms() / 1000), self._clock)

    def cut_short(self) -> None:
        """Nobody waits for the answer any more."""
        self._seconds = 0.0
        self._end = -math.inf

    def left_ms(self) -> int:
        """What is left, at least 1. Raises QueryTimeout when nothing is."""
        left = self._end - self._clock()
        if left <= 0:
            raise self.passed()
        return max(1, int(left * 1000))

    def passed(self) -> QueryTimeout:
        """The error for a query that has not ended in its time."""
        return QueryTimeout(
            f"MongoDB has not answered in {self._seconds:g} s (--query_timeout); ask for less time with from and to, "
            "or for a field that has an index (--index)"
        )


class RecordReader:
    """Reads one collection of records. Methods raise StoreUnavailable, QueryTimeout and BadParameter."""

    def __init__(self, collection: Any, anywhere: Any, prepare: Callable[[], Awaitable[None]], timeout: float) -> None:
        """Both collections are motor's, the first as the primary has it, the other as any member may.

        ``prepare`` is awaited before each reading; ``timeout`` is seconds for each.
        """
        self._collection = collection.with_options(codec_options=_RAW)
        self._anywhere = anywhere.with_options(codec_options=_RAW)
        self._prepare = prepare
        self._timeout = timeout
        self._only: Document = {}
        self._all = self
        #: Where records are; None where the server needs no such hint.
        self.occupancy: Occupancy | None = None
        #: What pages may take of memory while they are read.
        self.room = Room()
        #: The fields that begin an index.
        self.indexed: frozenset[str] = frozenset()

    def only(self, source: str) -> "RecordReader":
        """The records of one source, for who may see no others; with an empty one, all."""
        if not source:
            return self
        part = copy.copy(self)
        part._only = {"source": None if source == JOB_SOURCE else source}
        return part

    def deadline(self) -> Deadline:
        """The time for one reading, from now on."""
        return Deadline(self._timeout)

    async def page(
        self,
        selection: Selection,
        order: Order = "desc",
        after: Position | None = None,
        limit: int = 100,
        deadline: Deadline | None = None,
    ) -> Page:
        """At most ``limit`` documents in ``order``, beginning behind ``after``; fewer when they are large.

        Every query is one range of the index, so a page costs the same wherever it is.
        """
        deadline = deadline or self.deadline()
        share = Share(self.room)
        with contextlib.closing(share), self._failures(deadline):
            await self._prepare()
            found, collection = _Found(limit, share), self._of(selection)
            low, high = selection.range()
            filter_ = selection.query.filter(selection.now_ms, self._listed())
            if after is not None:
                await self._run(collection, found, (_same_moment(order, after), self._only, filter_), order, deadline)
                low, high = _behind(order, after, low, high)
            by = None if found.full else self._index_for(selection)
            if by is not None and await self._found_rare(collection, found, by, (low, high), order, deadline):
                return found.page()
            for number, (start, end) in enumerate(self._ranges(order, low, high, bool(filter_ or self._only))):
                if found.full:
                    break
                if by is not None and found.share < _LEAST_FOUND.get(number, 0):
                    rest = (low, end) if order == "desc" else (start, high)
                    await self._run(collection, found, _split(*by, _between(*rest), self._only), order, deadline)
                    break
                await self._run(collection, found, (_between(start, end), self._only, filter_), order, deadline)
            return found.page()

    async def _found_rare(
        self,
        collection: Any,
        found: "_Found",
        by: tuple[str, Document],
        between: Range,
        order: Order,
        deadline: Deadline,
    ) -> bool:
        """Read by the index what seems to be rare; False, and nothing is read, when it does not, or is not."""
        if not await self._is_rare(collection, by, self._ranges(order, *between, True), order, deadline):
            return False
        before = found.room
        try:
            filters = _split(*by, _between(*between), self._only)
            await self._run(collection, found, filters, order, deadline.part(_RARE_SECONDS))
        except ExecutionTimeout:
            if found.room < before:
                raise
            return False
        return True

    async def _is_rare(
        self, collection: Any, by: tuple[str, Document], ranges: Iterable[Range], order: Order, deadline: Deadline
    ) -> bool:
        """Whether the first of ``ranges`` hold no record with a value that the filter of ``by`` lists for its path.

        SecantusDB answers a value and a range of time together by the index, and reads no more than what it finds.
        This is a guess at the shorter way, and looks for texts as they are usually written: both ways find the same.
        """
        path, filter_ = by
        probes, pieces = _usual(filter_[path]["$in"]), list(itertools.islice(ranges, _PROBED_RANGES))
        if not pieces or len(probes) > _MOST_PROBES:
            return False
        low, high = (pieces[-1][0], pieces[0][1]) if order == "desc" else (pieces[0][0], pieces[-1][1])
        for value in probes:
            match = {path: value} | _between(low, high)
            pipeline = [{"$match": match}, {"$limit": 1}, {"$project": {"_id": 1}}]
            if await collection.aggregate(pipeline, maxTimeMS=deadline.left_ms()).to_list(1):
                return False
        return True

    async def count_levels(
        self, selection: Selection, start_ms: int, interval_ms: int, deadline: Deadline | None = None
    ) -> LevelCounts:
        """How many, by bucket, counted in ``interval_ms`` from ``start_ms`` on, and by ``data.level``, None without."""
        deadline = deadline or self.deadline()
        found: LevelCounts = collections.Counter()
        bucket = {"$floor": {"$divide": [{"$subtract": ["$timestamp", DatetimeMS(start_ms)]}, interval_ms]}}
        group = {"$group": {"_id": {"bucket": bucket, "level": "$data.level"}, "count": {"$sum": 1}}}
        with self._failures(deadline):
            await self._prepare()
            low, high = selection.range()
            filter_ = selection.query.filter(selection.now_ms, self._listed())
            for start, end in self._ranges("asc", low, high, True):
                pipeline = [*_matches((_between(start, end), self._only, filter_)), group]
                for counted in await self._counts(self._of(selection), pipeline, deadline):
                    found[int(counted["_id"]["bucket"]), _level(counted["_id"])] += counted["count"]
        return found

    async def stream(
        self,
        selection: Selection,
        order: Order = "desc",
        limit: int | None = None,
        deadline: Deadline | None = None,
        after: Position | None = None,
    ) -> AsyncIterator[list[Document]]:
        """All that is selected behind ``after``, or ``limit`` of it, a page at a time: nothing stays open in MongoDB.

        Each page has the time of ``deadline`` for itself.
        """
        deadline = deadline or self.deadline()
        left, page = limit, Page([], after)
        while left is None or left > 0:
            deadline.restart()
            size = STREAM_PAGE if left is None else min(left, STREAM_PAGE)
            page = await self.page(selection, order, page.next, size, deadline)
            yield page.documents
            left = None if left is None else left - len(page.documents)
            if page.next is None:
                return

    async def get(self, record_id: ObjectId) -> Document | None:
        """One document; None when it is not stored."""
        deadline = self.deadline()
        with self._failures(deadline):
            await self._prepare()
            raw = await self._collection.find_one({"_id": record_id} | self._only, max_time_ms=deadline.left_ms())
            return None if raw is None else _decoded(raw)

    async def fetch(self, ids: Collection[bytes]) -> dict[bytes, bytes]:
        """Those of the records with ``ids`` that are stored, encoded, by their ids."""
        deadline = self.deadline()
        with self._failures(deadline):
            await self._prepare()
            wanted = {"_id": {"$in": [ObjectId(record_id) for record_id in ids]}} | self._only
            cursor = self._collection.find(wanted, max_time_ms=deadline.left_ms())
            return {raw["_id"].binary: raw.raw for raw in await cursor.to_list(len(ids))}

    def _of(self, selection: Selection) -> Any:
        return self._anywhere if selection.anywhere else self._collection

    def _listed(self) -> frozenset[str]:
        # SecantusDB, which reads by time, compares a value with each of a list one by one.
        return self._all.indexed if self._all.occupancy is None else frozenset()

    def _index_for(self, selection: Selection) -> tuple[str, Document] | None:
        """The field of a selection by whose index SecantusDB finds all records with its value, and the filter."""
        occupancy, indexed = self._all.occupancy, self._all.indexed - {"timestamp", "_id"}
        if occupancy is None or not indexed:
            return None
        filter_ = selection.query.filter(selection.now_ms, indexed)
        path = next((path for path in indexed if set(filter_.get(path, ())) == {"$in"}), None)
        return None if path is None else (path, filter_)

    def _ranges(self, order: Order, low: int | None, high: int | None, filtered: bool) -> Iterable[Range]:
        if low is not None and high is not None and low >= high:
            return ()
        occupancy = self._all.occupancy
        if occupancy is None:
            return ((low, high),)
        ranges = occupancy.ranges_up if order == "asc" else occupancy.ranges_down
        return ranges(low, high, _SCAN_SECONDS) if filtered else ranges(low, high)

    async def _run(
        self, collection: Any, found: "_Found", filters: Iterable[Document], order: Order, deadline: Deadline
    ) -> None:
        direction = ASCENDING if order == "asc" else DESCENDING
        pipeline = _matches(filters)
        pipeline += [{"$sort": {"timestamp": direction, "_id": direction}}, {"$limit": found.room}]
        # What MongoDB answers, 16 MiB at the most, is in memory before it can be counted.
        async with self.room.fetching:
            cursor = collection.aggregate(pipeline, maxTimeMS=deadline.left_ms())
            try:
                while not found.full and (batch := await cursor.to_list(_FETCH)):
                    found.add(batch)
            finally:
                await cursor.close()

    async def _counts(self, collection: Any, pipeline: list[Document], deadline: Deadline) -> list[Document]:
        cursor = collection.aggregate(pipeline, maxTimeMS=deadline.left_ms())
        return [_decoded(raw) for raw in await cursor.to_list(None)]

    @contextlib.contextmanager
    def _failures(self, deadline: Deadline) -> Iterator[None]:
        """The driver's errors as those of this package."""
        try:
            yield
        except ExecutionTimeout:
            raise deadline.passed() from None
        except OperationFailure as error:
            if error.code in _BAD_QUERY:
                raise BadParameter("q", f"MongoDB does not take it: {reason(error)}") from error
            raise unavailable(error) from error
        except PyMongoError as error:
            raise unavailable(error) from error


def unavailable(error: PyMongoError) -> StoreUnavailable:
    """The error of this package for one of the driver's."""
    return StoreUnavailable(f"MongoDB cannot be used: {reason(error)}", 5)


def reason(error: BaseException) -> str:
    """One line, without the driver's description of the whole topology."""
    text = str(error).partition(", Timeout:")[0].partition("\n")[0]
    return f"{type(error).__name__}: {text[:300]}"


def position_of(document: Document) -> Position | None:
    """The place of a document; None when its identity is none of this server's making."""
    moment, record_id = document.get("timestamp"), document["_id"]
    if not isinstance(moment, datetime.datetime) or not isinstance(record_id, ObjectId):
        return None
    return Position((moment - _EPOCH) // _MILLISECOND, record_id)


def _decoded(raw: RawBSONDocument) -> Document:
    return bson.decode(raw.raw, _CODEC)


def _matches(filters: Iterable[Document]) -> list[Document]:
    # In stages, since SecantusDB looks for an index in the first alone, and in none that has $and or $or.
    return [{"$match": each} for each in filters if each]


def _level(group: Document) -> str | int | float | None:
    level = group.get("level")
    return level if isinstance(level, str | int | float) and not isinstance(level, bool) else None


def _same_moment(order: Order, after: Position) -> Document:
    return {"timestamp": DatetimeMS(after.timestamp_ms), "_id": {"$gt" if order == "asc" else "$lt": after.id}}


def _usual(values: Iterable[Any]) -> list[Any]:
    """Of a text in each of its spellings those that people write: as in the query, or small, capital, capitalized."""
    return [
        value
        for number, value in enumerate(values)
        if not number or not isinstance(value, str) or value in (value.lower(), value.upper(), value.capitalize())
    ]


def _split(path: str, filter_: Document, *others: Document) -> list[Document]:
    """``filter_`` with what it says of ``path`` first, and ``others``."""
    rest = {name: value for name, value in filter_.items() if name != path}
    return [{path: filter_[path]}, *others, rest]


def _behind(order: Order, after: Position, low: int | None, high: int | None) -> Range:
    if order == "asc":
        return (after.timestamp_ms + 1 if low is None else max(low, after.timestamp_ms + 1)), high
    return low, (after.timestamp_ms if high is None else min(high, after.timestamp_ms))


def _between(start: int | None, end: int | None) -> Document:
    bounds = {} if start is None else {"$gte": DatetimeMS(start)}
    bounds |= {} if end is None else {"$lt": DatetimeMS(end)}
    return {"timestamp": bounds} if bounds else {}
