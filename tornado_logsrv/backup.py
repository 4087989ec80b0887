"""What outlives the process: Redis Streams and files, behind one interface: hold, recover, trim, dump.

What is held is an entry of a stream or a file. It stays until every record of it is stored: reading back never
deletes first. A lane is what is held of one medium, in its order:

    files        backup and spool files                            removed one by one
    own, old     this instance's stream, as found at the start     trimmed from its first entry on
    own, new     what this process appends to it                   trimmed when the old is gone
    adopted      the streams of instances that are no more         trimmed, then dropped
"""

import asyncio
import collections
import dataclasses
import heapq
import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from . import records
from .queues import RecordQueue
from .segments import Segments
from .spool import Spool
from .streams import FAILURES, RecordStream

log = logging.getLogger("logsrv.backup")

#: Bytes of one stream entry, and entries of one round trip, when many are written or read.
ENTRY_BYTES = 64 * 1024
ROUND_TRIP_ENTRIES = 8
#: Records that are let go of together at the most: to keep count of each would take as much memory as they do.
HOLD_RECORDS = 1000
#: Entries read in one round trip at the most, however small.
MOST_ENTRIES = 1000


@dataclasses.dataclass(slots=True)
class Holding:
    """One entry or file, and the places [first, end) of its records in the queue; ``whole`` once all are there."""

    first: int
    end: int
    entry: bytes | Path
    whole: bool = True


class Lane:
    """What is held of one medium, oldest first."""

    def __init__(self) -> None:
        self.holdings: collections.deque[Holding] = collections.deque()

    def hold(self, entry: bytes, first: int, end: int) -> None:
        """``entry``, the newest of a stream, holds the records at places [first, end), and maybe some before.

        Neighbours are held as one: a stream is trimmed up to an entry, so the last one is all there is to know.
        """
        last = self.holdings[-1] if self.holdings else None
        # An entry may hold several requests' records: it is let go when those of the last one are stored.
        if last is not None and last.whole and (last.entry == entry or _neighbours(last, first, end)):
            last.end, last.entry = end, entry
        else:
            self.holdings.append(Holding(first, end, entry))

    def released(self, floor: int) -> list[bytes | Path]:
        """Remove and give what is wholly stored when every place below ``floor`` is."""
        released = []
        while self.holdings and self.holdings[0].whole and self.holdings[0].end <= floor:
            released.append(self.holdings.popleft().entry)
        return released


class OldStream(Lane):
    """A stream as it was found: read back a portion at a time, as the queue has room."""

    def __init__(self, stream: RecordStream, last: bytes | None) -> None:
        """``last`` is the id of its newest entry, None when it is empty."""
        super().__init__()
        self.stream = stream
        self._last = last
        self._read_to: bytes | None = None
        self._count = ROUND_TRIP_ENTRIES

    @property
    def exhausted(self) -> bool:
        """Whether all of it has been read back."""
        return self._last is None

    @property
    def done(self) -> bool:
        """Whether all of it is stored, too."""
        return self.exhausted and not self.holdings

    async def read(self) -> list[tuple[bytes, list[bytes]]]:
        """The next entries. Raises one of FAILURES."""
        assert self._last is not None
        asked = self._count
        entries = await self.stream.read(self._read_to, self._last, asked)
        if entries:
            self._read_to = entries[-1][0]
            self._count = _next_count(entries)
        if len(entries) < asked:
            self._last = None
        return entries


class Backup:
    """Keeps what is on the queue beyond the life of the process."""

    def __init__(self, stream: RecordStream, segments: Segments, spool: Spool, queue: RecordQueue) -> None:
        self._stream = stream
        self._segments = segments
        self._spool = spool
        self._queue = queue
        self._files = Lane()
        self._new = Lane()
        self._old: OldStream | None = None
        self._adopted: dict[str, OldStream] = {}
        self._trims: dict[str, tuple[RecordStream, bytes]] = {}
        self._trimming: asyncio.Task[None] | None = None
        self._filling: asyncio.Task[None] | None = None
        self._up = True
        #: Whether a file could not be read to its end.
        self._unread = False
        #: The Redis server that has had all that is held.
        self._holder: tuple[str, int] | None = None
        #: The id of the entry that was appended last.
        self._newest = b"0-0"
        #: Called with the records that have been read back.
        self.on_recovered: Callable[[list[bytes]], None] = lambda found: None

    @property
    def ready(self) -> bool:
        """Whether it is known what the stream holds, so that it may be appended to and trimmed."""
        return self._old is not None

    @property
    def up(self) -> bool:
        """Whether Redis did what it was asked last."""
        return self._up

    @property
    def recovering(self) -> bool:
        """Whether records of an earlier process, or of another instance, are still to be read back."""
        return any(not lane.exhausted for lane in self._old_streams())

    @property
    def all_read(self) -> bool:
        """Whether everything that earlier processes have left is on the queue."""
        return self.ready and self._spool.empty and not self.recovering

    async def find(self) -> bool:
        """Look what the stream holds; whether Redis could say. Until it can, nothing is appended or trimmed."""
        if self._old is None:
            try:
                self._old = OldStream(self._stream, await self._stream.last_id())
                self._holder = self._stream.primary
            except FAILURES as error:
                self.tell(False, error)
        return self._old is not None

    async def adopt(self, stream: RecordStream) -> None:
        """Take over the stream of an instance that is no more. Raises one of FAILURES."""
        if stream.instance not in self._adopted:
            self._adopted[stream.instance] = OldStream(stream, await stream.last_id())
            self.fill_soon()

    def adopting(self) -> dict[str, bool]:
        """The instances whose streams are being taken over, and whether all of that is stored."""
        return {name: lane.done and name not in self._trims for name, lane in self._adopted.items()}

    def adopted(self, instance: str) -> None:
        """There is nothing more to take over from ``instance``."""
        self._adopted.pop(instance, None)

    def hold(self, entry: bytes, first: int, end: int) -> None:
        """``entry``, just appended to the stream, holds the records at places [first, end), and maybe some before."""
        self._follow(entry)
        self._new.hold(entry, first, end)

    def hold_spooled(self, entry: bytes) -> None:
        """``entry`` holds records that went into the spool: it stays until all of that is read back and stored."""
        self._follow(entry)
        held = self._new.holdings
        if held and (not held[-1].whole or held[-1].entry == entry):
            held[-1].entry, held[-1].whole = entry, False
        else:
            held.append(Holding(self._queue.next_place, self._queue.next_place, entry, whole=False))

    async def hold_again(self) -> None:
        """Append all that is on the queue once more, if another Redis server is the primary now.

        One that took its primary's place may not have got the last of what that one had confirmed. What is there twice
        is stored once. Raises one of FAILURES, and has then to be called again.
        """
        primary = self._stream.primary
        if not self.ready or primary == self._holder:
            return
        kept = self._queue.everything()
        for group in _grouped(records.chunks(kept, ENTRY_BYTES)):
            *_, last = await self._stream.append(group)
            # At the end of the lane, and until all of the queue is stored: others may have been appended meanwhile.
            self.hold(last, self._queue.next_place, self._queue.next_place)
        self._holder = primary
        if kept:
            log.warning(
                "Redis has another primary, %s; %d records are appended again", primary and primary[0], len(kept)
            )

    def _follow(self, entry: bytes) -> None:
        """See to it that nothing is trimmed along with entries before ``entry`` that must stay.

        Ids rise, but a replica that was behind when it took its primary's place may count on from a lower one.
        """
        newest, self._newest = self._newest, entry
        if (len(entry) == len(newest) and entry >= newest) or _order(entry) >= _order(newest):
            return
        for lane in self._own_lanes():
            for holding in lane.holdings:
                assert isinstance(holding.entry, bytes)
                if _order(holding.entry) >= _order(entry):
                    holding.entry = _just_before(entry)

    def _own_lanes(self) -> list[Lane]:
        return [self._new] if self._old is None else [self._old, self._new]

    def _spool_emptied(self) -> None:
        for holding in self._new.holdings:
            if not holding.whole and not self._unread:
                holding.end, holding.whole = self._queue.next_place, True

    # Reading back

    async def filled(self) -> None:
        """Read back what is kept, oldest first, as long as the queue is less than half full. Raises nothing."""
        self.fill_soon()
        if self._filling is not None:
            await asyncio.wait([self._filling])

    async def _fill(self) -> None:
        try:
            while self._queue.size_bytes < self._queue.max_bytes // 2:
                if not self._fill_from_files() and not await self._fill_from_streams():
                    break
        except FAILURES as error:
            self.tell(False, error)

    def fill_soon(self) -> None:
        """Start to read back, unless that is under way or there is nothing to read."""
        waiting = not self._spool.empty or any(not lane.exhausted for lane in self._old_streams())
        if waiting and self._filling is None:
            self._filling = asyncio.ensure_future(self._fill_once())

    async def _fill_once(self) -> None:
        try:
            await self._fill()
        finally:
            self._filling = None
        # A file is known to end only when all of it may be stored already.
        self._release()

    def _old_streams(self) -> list[OldStream]:
        return [lane for lane in (self._old, *self._adopted.values()) if lane is not None]

    def _fill_from_files(self) -> bool:
        held = self._files.holdings
        try:
            portion = self._spool.next_portion()
        except OSError as error:
            if held and not held[-1].whole:
                held.pop()
            # What stands in the file and in Redis stays in Redis, too.
            self._unread = True
            log.error("a file of records cannot be read and is left for the next start: %s", error)
            return True
        if portion is None:
            return False
        if not held or held[-1].whole:
            held.append(Holding(self._queue.next_place, self._queue.next_place, portion.path, whole=False))
        if portion.own:
            self._queue.restore(portion.records)
        else:
            self._restore(portion.records)
        held[-1].end, held[-1].whole = self._queue.next_place, portion.ends
        if self._spool.empty:
            self._spool_emptied()
        return True

    async def _fill_from_streams(self) -> bool:
        for lane in self._old_streams():
            if lane.exhausted:
                continue
            for entry, found in await lane.read():
                first = self._queue.next_place
                self._restore(found)
                lane.hold(entry, first, self._queue.next_place)
            self.tell(True)
            return True
        return False

    def _restore(self, found: list[bytes]) -> None:
        self._queue.restore(found)
        self.on_recovered(found)

    # Letting go

    def trim(self) -> None:
        """Begin to remove what is wholly stored, by the queue's floor, and to read back what there is room for now.

        A failure is tried again the next time.
        """
        self._release()
        self.fill_soon()

    def _release(self) -> None:
        floor = self._queue.floor
        for path in self._files.released(floor):
            assert isinstance(path, Path)
            self._segments.remove(path)
        for lane in self._old_streams():
            self._trim_later(lane.stream, lane.released(floor))
        # Trimming goes from the first entry on: before the old ones are gone it would take them along.
        if self._old is not None and self._old.done:
            self._trim_later(self._stream, self._new.released(floor))
        if self._trims and self._trimming is None:
            self._trimming = asyncio.ensure_future(self._trim())

    def _trim_later(self, stream: RecordStream, entries: list[bytes | Path]) -> None:
        if entries:
            last = entries[-1]
            assert isinstance(last, bytes)
            self._trims[stream.instance] = (stream, last)

    async def _trim(self) -> None:
        try:
            while self._trims:
                name, (stream, last) = next(iter(self._trims.items()))
                await stream.trim(last)
                if self._trims[name][1] == last:
                    del self._trims[name]
            self.tell(True)
        except FAILURES as error:
            self.tell(False, error)
        finally:
            self._trimming = None

    def tell(self, up: bool, error: Exception | None = None) -> None:
        """Log, once, that Redis cannot be used or can be again."""
        if up == self._up:
            return
        self._up = up
        if up:
            log.info("Redis answers again")
        else:
            log.warning("Redis cannot be used: %s", error)

    # The end

    async def stop(self) -> None:
        """End what is under way."""
        for task in (self._filling, self._trimming):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        self._spool.close()

    async def dump(self) -> None:
        """Keep every record of the queue that is not held yet: on the stream or, when Redis is away, in a file.

        Nothing may be in flight. Raises OSError when the file cannot be written either.
        """
        left, sure = len(self._queue), await self._is_held_for_sure()
        # All at once: an append that was under way may still put its records, which Redis has, on the queue.
        groups = _grouped(records.chunks(list(self._not_held(streams=sure)), ENTRY_BYTES))
        for group in groups:
            try:
                await self._stream.append(group)
            except FAILURES as error:
                self.tell(False, error)
                left -= self._write_file(itertools.chain(group, *groups))
                break
        if left:
            log.info("%d records are kept for the next start, in Redis or the files that held them", left)

    async def _is_held_for_sure(self) -> bool:
        """Whether Redis has what it is said to hold; not so when another server may be its primary now."""
        if self._holder is None:
            return True
        try:
            # A connection that has ended finds out who is the primary.
            await self._stream.length()
        except FAILURES:
            return False
        return self._stream.primary == self._holder

    def dump_to_file(self) -> None:
        """Keep every record of the queue that is in no file yet in one. Raises OSError."""
        self._write_file(records.chunks(self._not_held(streams=False), ENTRY_BYTES))

    def _write_file(self, batches: Iterator[list[bytes]]) -> int:
        first = next(batches, None)
        if first is None:
            return 0
        path, count = self._segments.write(itertools.chain([first], batches))
        log.warning("%d records are kept in %s for the next start", count, path)
        return count

    def _not_held(self, streams: bool = True) -> Iterator[bytes]:
        lanes = [self._files, *((self._new, *self._old_streams()) if streams else ())]
        holdings = heapq.merge(*(lane.holdings for lane in lanes), key=lambda holding: holding.first)
        holding = next(holdings, None)
        for place, record in self._queue.unstored():
            while holding is not None and holding.end <= place:
                holding = next(holdings, None)
            if holding is None or place < holding.first:
                yield record


def _order(entry: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry.partition(b"-")
    return int(milliseconds), int(sequence)


def _just_before(entry: bytes) -> bytes:
    milliseconds, sequence = _order(entry)
    return b"%d-%d" % ((milliseconds, sequence - 1) if sequence else (milliseconds - 1, (1 << 64) - 2))


def _neighbours(last: Holding, first: int, end: int) -> bool:
    return last.end == first and end - last.first <= HOLD_RECORDS


def _next_count(entries: list[tuple[bytes, list[bytes]]]) -> int:
    """How many entries of the size of these make a round trip's worth: an entry may be one record, or a megabyte."""
    mean = max(1, sum(len(record) for _, found in entries for record in found) // len(entries))
    return max(1, min(MOST_ENTRIES, ROUND_TRIP_ENTRIES * ENTRY_BYTES // mean))


def _grouped(entries: Iterator[list[bytes]]) -> Iterator[list[list[bytes]]]:
    while group := list(itertools.islice(entries, ROUND_TRIP_ENTRIES)):
        yield group
