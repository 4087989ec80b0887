"""What outlives the process: records in a Redis Stream or, when Redis is away, in files.

A stream entry holds whole BSON documents, one after the other, in its one field ``r``; a file holds the same. What
is held stays until every record of it is stored: reading back never deletes first.
"""

import asyncio
import collections
import dataclasses
import itertools
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from . import records
from .errors import StartError
from .queues import RecordQueue
from .segments import Segments

log = logging.getLogger("logsrv.backup")

#: Bytes of one stream entry, and entries of one round trip, when many are written or read.
ENTRY_BYTES = 256 * 1024
ROUND_TRIP_ENTRIES = 16
_FIELD = b"r"


def connect(url: str) -> Redis:
    """A client for ``url`` that connects at its first command. Raises StartError when ``url`` cannot be one."""
    try:
        return Redis.from_url(url, socket_connect_timeout=3, socket_timeout=10, retry=Retry(NoBackoff(), 1))
    except ValueError as error:
        raise StartError(f"--redis_url: {error}") from None


class RecordStream:
    """The Redis Stream of one instance."""

    def __init__(self, redis: Redis, prefix: str, instance: str) -> None:
        # redis-py types an answer as everything it can be in any mode.
        self._redis: Any = redis
        self._key = f"{prefix}:backup:{instance}"

    async def append(self, entries: list[list[bytes]]) -> list[bytes]:
        """Add one entry for each list of records, in one round trip; the entries' ids. Raises RedisError, OSError."""
        pipeline = self._redis.pipeline(transaction=False)
        for entry in entries:
            pipeline.xadd(self._key, {_FIELD: b"".join(entry)})
        ids: list[bytes] = await pipeline.execute()
        return ids

    async def recover(self) -> AsyncIterator[tuple[bytes, list[bytes]]]:
        """Every entry, oldest first: its id and its records. Raises RedisError, OSError."""
        start = b"-"
        while entries := await self._redis.xrange(self._key, min=start, count=ROUND_TRIP_ENTRIES):
            for entry_id, fields in entries:
                yield entry_id, await self._read(entry_id, fields)
            start = b"(" + entries[-1][0]

    async def _read(self, entry_id: bytes, fields: dict[bytes, bytes]) -> list[bytes]:
        found, rest, problem = records.split(fields.get(_FIELD, b""))
        if found and not rest:
            return found
        problem = problem or f"{len(rest)} bytes at its end are no whole record"
        await self._redis.xadd(f"{self._key}:damaged", fields)
        log.error("entry %r of %s is damaged (%s); it is kept in %s:damaged", entry_id, self._key, problem, self._key)
        return found

    async def trim(self, last: bytes) -> None:
        """Remove every entry up to and with ``last``. Raises RedisError, OSError."""
        milliseconds, _, sequence = last.partition(b"-")
        await self._redis.xtrim(self._key, minid=b"%s-%d" % (milliseconds, int(sequence) + 1), approximate=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


@dataclasses.dataclass(frozen=True)
class _Holding:
    """One entry or file, and the places [first, end) of its records in the queue."""

    first: int
    end: int
    entry: bytes | Path


class Backup:
    """Keeps what is on the queue beyond the life of the process, on a stream and on files, behind one interface."""

    def __init__(self, stream: RecordStream, segments: Segments, queue: RecordQueue) -> None:
        self._stream = stream
        self._segments = segments
        self._queue = queue
        self._holdings: collections.deque[_Holding] = collections.deque()
        self._to_trim: bytes | None = None
        self._trimming: asyncio.Task[None] | None = None
        self._up = True

    def recover_files(self) -> int:
        """Read the files back onto the queue; how many records. Raises OSError. Once, before anything is offered."""
        before = self._queue.next_place
        for path, batches in self._segments.recover():
            self._hold(path, batches)
        return self._queue.next_place - before

    async def recover_stream(self) -> int | None:
        """Read the stream back onto the queue; how many records, or None when Redis cannot be used: call again."""
        before = self._queue.next_place
        held = {holding.entry for holding in self._holdings}
        try:
            async for entry_id, found in self._stream.recover():
                if entry_id not in held:
                    self._hold(entry_id, [found])
        except (RedisError, OSError) as error:
            self._changed(False, error)
            return None
        self._changed(True)
        return self._queue.next_place - before

    def _hold(self, entry: bytes | Path, batches: Iterable[list[bytes]]) -> None:
        first = self._queue.next_place
        for batch in batches:
            self._queue.restore(batch)
        self._holdings.append(_Holding(first, self._queue.next_place, entry))

    def trim(self) -> None:
        """Begin to remove what is wholly stored, by the queue's floor. A failure is tried again the next time."""
        floor = self._queue.floor
        while self._holdings and self._holdings[0].end <= floor:
            entry = self._holdings.popleft().entry
            if isinstance(entry, Path):
                self._segments.remove(entry)
            else:
                self._to_trim = entry
        if self._to_trim is not None and self._trimming is None:
            self._trimming = asyncio.ensure_future(self._trim())

    async def _trim(self) -> None:
        try:
            while (last := self._to_trim) is not None:
                await self._stream.trim(last)
                self._to_trim = None if self._to_trim == last else self._to_trim
            self._changed(True)
        except (RedisError, OSError) as error:
            self._changed(False, error)
        finally:
            self._trimming = None

    def _changed(self, up: bool, error: Exception | None = None) -> None:
        if up == self._up:
            return
        self._up = up
        if up:
            log.info("Redis answers again")
        else:
            log.warning("Redis cannot be used: %s", error)

    async def dump(self) -> None:
        """Keep every record of the queue that is not held yet: on the stream or, when Redis is away, in a file.

        Nothing may be in flight. Raises OSError when the file cannot be written either.
        """
        if self._trimming is not None:
            await asyncio.wait([self._trimming])
        groups = _grouped(records.chunks(self._not_held(), ENTRY_BYTES))
        kept = 0
        for group in groups:
            try:
                await self._stream.append(group)
            except (RedisError, OSError) as error:
                self._changed(False, error)
                self._dump_to_file(itertools.chain(group, *groups))
                break
            kept += sum(map(len, group))
        if kept:
            log.info("%d records kept in Redis for the next start", kept)

    def _dump_to_file(self, batches: Iterable[list[bytes]]) -> None:
        path = self._segments.append(batches)
        log.warning("the records are kept in %s for the next start", path)

    def _not_held(self) -> Iterator[bytes]:
        holdings = iter(self._holdings)
        holding = next(holdings, None)
        for place, record in self._queue.unstored():
            while holding is not None and holding.end <= place:
                holding = next(holdings, None)
            if holding is None or place < holding.first:
                yield record


def _grouped(entries: Iterator[list[bytes]]) -> Iterator[list[list[bytes]]]:
    while group := list(itertools.islice(entries, ROUND_TRIP_ENTRIES)):
        yield group
