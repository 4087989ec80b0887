"""Deleting what has been kept long enough: all of it by MongoDB's own TTL index, some of it by rules, part by part.

A rule has no index of its own: a partial TTL index for each would cost every insert, and not every server has them. It
is a walk over the index of the reading order, oldest first, that deletes what it finds and never asks for much at once.
"""

import dataclasses
import datetime
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from bson import DatetimeMS
from pymongo import ASCENDING, DESCENDING

from .records import JOB_SOURCE, Clock
from .rules import Rule

#: The name of the TTL index that this server makes and removes.
INDEX = "logsrv_retention"
#: Records that one deletion is meant for; it is a few more when many have the time of the last.
BATCH = 1000
DAY_MS = 86_400_000
#: A part of the time is made narrower when going over it takes longer than this, and wider when a tenth.
_PART_SECONDS = 1.0
_NARROWEST_MS = 1000
_WIDEST_MS = DAY_MS
_FIRST_MS = 60_000
_QUERY_MS = 60_000

Document = dict[str, Any]
Range = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Found:
    """What a rule would delete: how many records, and the times, in milliseconds, of the oldest and the newest."""

    rule: Rule
    count: int = 0
    oldest_ms: int | None = None
    newest_ms: int | None = None


class Retention:
    """The records of one collection, as those see them that are to delete some. Methods raise PyMongoError."""

    def __init__(
        self,
        collection: Any,
        ranges: Callable[[int | None, int], Iterable[tuple[int | None, int | None]]],
        prepare: Callable[[], Awaitable[None]],
        clock: Clock = time.monotonic,
    ) -> None:
        """``collection`` is motor's; ``ranges`` cuts a time into ranges that are cheap to look at, oldest first;
        ``prepare`` is awaited before anything is looked at."""
        self._collection = collection
        self._ranges = ranges
        self._prepare = prepare
        self._clock = clock

    async def set_days(self, days: int) -> str:
        """Have MongoDB keep records for ``days``, for ever with 0; what had to be changed for that, in words.

        An index of somebody else's on the timestamp alone is changed, there can be no second; but never removed.
        """
        seconds = days * DAY_MS // 1000
        index = await self._ttl_index()
        if not days:
            if index is None or index["name"] != INDEX:
                return ""
            await self._collection.drop_index(INDEX)
            return "records are kept for ever"
        if index is None:
            await self._collection.create_index([("timestamp", ASCENDING)], name=INDEX, expireAfterSeconds=seconds)
            return f"records are kept for {days} days"
        before = index.get("expireAfterSeconds")
        if before == seconds:
            return ""
        changed = {"name": index["name"], "expireAfterSeconds": seconds}
        await self._collection.database.command("collMod", self._collection.name, index=changed)
        was = "for ever" if before is None else f"for {before / 86400:g}"
        return f"records are kept for {days} days, no longer {was}"

    async def _ttl_index(self) -> Document | None:
        async for index in self._collection.list_indexes():
            if list(index["key"].items()) == [("timestamp", ASCENDING)]:
                return dict(index)
        return None

    async def parts(self, low: int | None, cutoff: int) -> AsyncIterator[Range]:
        """Ranges [from, to) that hold all records in [low, cutoff), oldest first; times are in milliseconds.

        A range is as wide as what is done with it bears, to judge by the one before.
        """
        await self._prepare()
        width = _FIRST_MS
        while (first := await self._first(low, cutoff)) is not None:
            low = min(first + width, cutoff)
            began = self._clock()
            yield first, low
            took = self._clock() - began
            if took > _PART_SECONDS:
                width = max(width // 2, _NARROWEST_MS)
            elif took < _PART_SECONDS / 10:
                width = min(width * 2, _WIDEST_MS)

    async def _first(self, low: int | None, cutoff: int) -> int | None:
        """The time of the oldest record in [low, cutoff)."""
        for start, end in self._ranges(low, cutoff):
            found = await self._edge(_within(start, end), ASCENDING)
            if found is not None:
                return found
        return None

    async def _edge(self, query: Document, direction: int) -> int | None:
        cursor = self._collection.find(query, {"timestamp": 1}, max_time_ms=_QUERY_MS)
        found = await cursor.sort([("timestamp", direction), ("_id", direction)]).limit(1).to_list(1)
        return _milliseconds(found[0]["timestamp"]) if found else None

    async def delete(self, rule: Rule, start: int, end: int) -> tuple[int, int]:
        """Delete the oldest records of ``rule`` in [start, end), BATCH of them or a few more.

        How many, and where to go on: ``end`` when there are no more.
        """
        query = _within(start, end) | filter_of(rule)
        cursor = self._collection.find(query, {"timestamp": 1}, max_time_ms=_QUERY_MS)
        found = await cursor.sort([("timestamp", ASCENDING), ("_id", ASCENDING)]).limit(BATCH).to_list(BATCH)
        if not found:
            return 0, end
        # By time, not by _id: a range of an index is what every server deletes fast.
        stop = _milliseconds(found[-1]["timestamp"]) + 1 if len(found) == BATCH else end
        result = await self._collection.delete_many(_within(start, stop) | filter_of(rule))
        return result.deleted_count, stop

    async def find(self, rule: Rule, now_ms: int) -> Found:
        """What ``rule`` would delete at ``now_ms``. Changes nothing."""
        count, oldest, newest = 0, None, None
        async for start, end in self.parts(None, now_ms - rule.days * DAY_MS):
            query = _within(start, end) | filter_of(rule)
            if counted := await self._collection.count_documents(query, maxTimeMS=_QUERY_MS):
                count += counted
                oldest = await self._edge(query, ASCENDING) if oldest is None else oldest
                newest = await self._edge(query, DESCENDING)
        return Found(rule, count, oldest, newest)


def filter_of(rule: Rule) -> Document:
    """The records of ``rule``. A level is found in the usual ways of writing it; jobs have no source."""
    if rule.field == "level":
        return {"data.level": {"$in": sorted({rule.value, rule.value.lower(), rule.value.upper(), rule.value.title()})}}
    if rule.field == "source":
        return {"source": None if rule.value == JOB_SOURCE else rule.value}
    return {}


def _within(start: int | None, end: int | None) -> Document:
    bounds = {"$gte": None if start is None else DatetimeMS(start), "$lt": None if end is None else DatetimeMS(end)}
    return {"timestamp": {name: bound for name, bound in bounds.items() if bound is not None}}


def _milliseconds(moment: datetime.datetime | DatetimeMS) -> int:
    return int(moment if isinstance(moment, DatetimeMS) else DatetimeMS(moment))
