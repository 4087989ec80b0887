"""Reading records out of MongoDB: by time and query, a bounded piece at a time, in a bounded time.

A piece is a range of the index on (timestamp, _id). MongoDB gets one range for all that is asked; SecantusDB, which
fetches a whole range before it does anything else, gets many small ones, as ``occupancy`` has them.

What has an index of its own is found by that: MongoDB sees to it by itself. SecantusDB is asked for all records with a
value that few have, as far as ``frequency`` knows, and for those with one that many have a range of time at once.
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
from typing import Any, Literal, NamedTuple

import bson
from bson import CodecOptions, DatetimeMS, ObjectId
from bson.codec_options import DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import ExecutionTimeout, OperationFailure, PyMongoError

from .errors import BadParameter, QueryTimeout, StoreUnavailable
from .frequency import Frequency
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
#: Seconds for all records of values that few seem to have: what takes longer many have, and is read by time.
_FEW_SECONDS = 0.5
#: From so many seconds, and from as many that are crowds, it is learned how frequent values are.
_SAMPLED = 24
#: Seconds for that: a second may hold any number of records.
_LEARN_SECONDS = 3.0
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


class _Read(NamedTuple):
    """A document, and the bytes that it had."""

    document: Document
    size: int

    @property
    def place(self) -> tuple[float, bytes]:
        """Its place in the order by (timestamp, _id); what has no time comes first, as in MongoDB."""
        moment, record_id = self.document.get("timestamp"), self.document["_id"]
        if isinstance(moment, datetime.datetime):
            moment = (moment - _EPOCH) // _MILLISECOND
        known = isinstance(record_id, ObjectId)
        return int(moment) if isinstance(moment, int | DatetimeMS) else -math.inf, record_id.binary if known else b""


class _Found:
    """What becomes a page of ``limit`` documents, and one more, which tells that there is a next page."""

    def __init__(self, limit: int, share: Share) -> None:
        self._limit = limit
        #: What the page takes of memory.
        self.share = share
        self.documents: list[Document] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether no more is wanted."""
        return _is_enough(len(self.documents), self._bytes, self._limit + 1)

    @property
    def room(self) -> int:
        """How many are still wanted."""
        return self._limit + 1 - len(self.documents)

    def add(self, read: Iterable[_Read]) -> None:
        """Take what is wanted of ``read``."""
        for document, size in read:
            if self.full:
                return
            self.documents.append(document)
            self._bytes += size

    def page(self) -> Page:
        """All but the one more."""
        if not self.full:
            return Page(self.documents, None)
        documents = self.documents[:-1]
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
        #: How frequent values are; asked only where there is an occupancy.
        self.frequency = Frequency()
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
            if after is not None:
                filter_ = selection.query.filter(selection.now_ms, self._listed())
                await self._run(collection, found, (_same_moment(order, after), self._only, filter_), order, deadline)
                low, high = _behind(order, after, low, high)
            if found.full or _is_empty(low, high):
                return found.page()
            by = await self._index_for(collection, selection, deadline)
            if by is not None and await self._found_by_index(collection, found, by, (low, high), order, deadline):
                return found.page()
            filter_ = selection.query.filter(selection.now_ms, self._listed())
            for start, end in self._ranges(order, low, high, bool(filter_ or self._only)):
                if found.full:
                    break
                await self._run(collection, found, (_between(start, end), self._only, filter_), order, deadline)
            if by is not None:
                # It took too long to read all that have it, so many do.
                self._all.frequency.take_for_many(by[0], found.documents)
            return found.page()

    async def _found_by_index(
        self,
        collection: Any,
        found: "_Found",
        by: tuple[str, Document],
        between: Range,
        order: Order,
        deadline: Deadline,
    ) -> bool:
        """Read by an index; False, and nothing is read, when more records than was known have what is sought."""
        path, filter_ = by
        others = (self._only, {name: value for name, value in filter_.items() if name != path})
        few, many = self._all.frequency.divided(path, filter_[path]["$in"])
        try:
            filters = ({path: {"$in": few}}, _between(*between), *others)
            rest = await self._read(collection, found, filters, order, deadline.part(_FEW_SECONDS)) if few else []
        except ExecutionTimeout:
            return False
        for start, end in self._pieces(order, between) if many else ():
            if found.full:
                break
            read: list[_Read] = []
            for value in many:
                within = ({path: value} | _between(start, end), *others)
                read += await self._read(collection, found, within, order, deadline)
            count = _count_within(rest, start, end)
            # An array may hold several of the values.
            every = {repr(each.document["_id"]): each for each in (*read, *rest[:count])}.values()
            found.add(sorted(every, key=lambda each: each.place, reverse=order == "desc"))
            del rest[:count]
        found.add(rest)
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

    async def _index_for(
        self, collection: Any, selection: Selection, deadline: Deadline
    ) -> tuple[str, Document] | None:
        """The field of a selection by whose index SecantusDB has to fetch the fewest records, and the filter."""
        occupancy, indexed = self._all.occupancy, self._all.indexed - {"timestamp", "_id"}
        if occupancy is None or not indexed:
            return None
        filter_ = selection.query.filter(selection.now_ms, indexed)
        paths = [path for path in sorted(indexed) if set(filter_.get(path, ())) == {"$in"}]
        if not paths:
            return None
        frequency = self._all.frequency
        if missing := indexed - frequency.paths:
            await self._learn(collection, occupancy, missing, deadline)
        return min(paths, key=lambda path: frequency.about(path, filter_[path]["$in"])), filter_

    async def _learn(self, collection: Any, occupancy: Occupancy, paths: Collection[str], deadline: Deadline) -> None:
        """Learn how frequent the values of ``paths`` are."""
        counted, done, part = Frequency(paths), 0, deadline.part(_LEARN_SECONDS)
        ranges = [*occupancy.sample(_SAMPLED)]
        # There may be time for a part of them, which has to be from everywhere.
        for start, end, times in itertools.chain.from_iterable(ranges[first::5] for first in range(5)):
            pipeline = [{"$match": _between(start, end)}, {"$project": dict.fromkeys(paths, 1)}]
            try:
                documents = await self._counts(collection, pipeline, part)
            except (ExecutionTimeout, QueryTimeout):
                break
            for document in documents:
                counted.count(document, times)
            done += 1
        counted.scale(len(ranges) / max(1, done))
        self._all.frequency.take(counted)

    def _pieces(self, order: Order, between: Range) -> Iterable[Range]:
        occupancy = self._all.occupancy
        if occupancy is None:
            return (between,)
        return occupancy.pieces_up(*between) if order == "asc" else occupancy.pieces_down(*between)

    def _ranges(self, order: Order, low: int | None, high: int | None, filtered: bool) -> Iterable[Range]:
        if _is_empty(low, high):
            return ()
        occupancy = self._all.occupancy
        if occupancy is None:
            return ((low, high),)
        ranges = occupancy.ranges_up if order == "asc" else occupancy.ranges_down
        return ranges(low, high, _SCAN_SECONDS) if filtered else ranges(low, high)

    async def _run(
        self, collection: Any, found: "_Found", filters: Iterable[Document], order: Order, deadline: Deadline
    ) -> None:
        found.add(await self._read(collection, found, filters, order, deadline))

    async def _read(
        self, collection: Any, found: "_Found", filters: Iterable[Document], order: Order, deadline: Deadline
    ) -> list[_Read]:
        """What ``filters`` select, as much of it as ``found`` may want."""
        direction, wanted, size = ASCENDING if order == "asc" else DESCENDING, found.room, 0
        pipeline = _matches(filters)
        pipeline += [{"$sort": {"timestamp": direction, "_id": direction}}, {"$limit": wanted}]
        read: list[_Read] = []
        # What MongoDB answers, 16 MiB at the most, is in memory before it can be counted.
        async with self.room.fetching:
            # One more than there can be, or MongoDB would be asked for more.
            cursor = collection.aggregate(pipeline, maxTimeMS=deadline.left_ms(), batchSize=wanted + 1)
            try:
                while not _is_enough(len(read), size, wanted) and (batch := await cursor.to_list(_FETCH)):
                    for raw in batch:
                        if _is_enough(len(read), size, wanted):
                            break
                        found.share.take(len(raw.raw))
                        read.append(_Read(_decoded(raw), len(raw.raw)))
                        size += len(raw.raw)
            finally:
                # Another thread would be asked for nothing.
                if cursor.alive:
                    await cursor.close()
        return read

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


def _is_enough(count: int, size: int, wanted: int) -> bool:
    return count >= wanted or (size > PAGE_BYTES and count > 1)


def _count_within(read: list[_Read], start: int | None, end: int | None) -> int:
    """How many at the beginning of ``read`` are of [start, end)."""
    low, high = -math.inf if start is None else start, math.inf if end is None else end
    return next((n for n, each in enumerate(read) if not low <= each.place[0] < high), len(read))


def _is_empty(low: int | None, high: int | None) -> bool:
    return low is not None and high is not None and low >= high


def _behind(order: Order, after: Position, low: int | None, high: int | None) -> Range:
    if order == "asc":
        return (after.timestamp_ms + 1 if low is None else max(low, after.timestamp_ms + 1)), high
    return low, (after.timestamp_ms if high is None else min(high, after.timestamp_ms))


def _between(start: int | None, end: int | None) -> Document:
    bounds = {} if start is None else {"$gte": DatetimeMS(start)}
    bounds |= {} if end is None else {"$lt": DatetimeMS(end)}
    return {"timestamp": bounds} if bounds else {}
