"""What one watcher is shown before it is shown what is new: what is stored since a time, and what it has missed.

    stored from ``low`` on  →  the order from ``number`` on  →  join the others

Both go in portions, each sent when the client has room for it, and each ends in a position to go on from.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import TypeVar

from .. import events, records
from ..errors import QueryTimeout, StoreUnavailable
from ..order import HOLE
from ..queues import RecordQueue
from ..reading import Document, Position, RecordReader, Selection, position_of
from ..recent import Entry
from ..watch import Watch
from ..watchers import Send, Wanted, Watcher
from .marks import Start

#: Records of one portion.
PORTION = 500
#: So many records before a position may have been shown as queued: what became of them is told.
CONFIRM = 5000
#: Records that were shown as stored and may come again, as what MongoDB tells of other servers.
_ECHOES = 20_000
_LOOK_AGAIN_SECONDS = 1.0
#: Records looked at before the loop turns to others.
_LOOK_COUNT = 20_000

T = TypeVar("T")


class Replay:
    """Shows one watcher what it has missed, then lets it join the others."""

    def __init__(self, watch: Watch, reader: RecordReader, queue: RecordQueue, query: Wanted, send: Send) -> None:
        self._watch = watch
        self._reader = reader
        self._queue = queue
        self._query = query
        self._send = send
        self._echoes: dict[bytes, None] = {}
        self._queued: set[bytes] = set()

    async def run(self, start: Start, watcher: Watcher) -> None:
        """Returns when ``watcher`` has joined. Raises StreamClosedError when its client has gone."""
        with self._watch.settling() as settled:
            if start.seen:
                await self._confirm(start.number)
            number = start.number
            if start.low is not None:
                number = await self._show_before(start, start.low)
            await self._show_order(number)
            # Nothing has been awaited since the last look at the order.
            self._watch.join(watcher)
        watcher.offer(events.fates({each: reason for each, reason in settled.items() if each in self._queued}), 0, b"")

    async def _show_before(self, start: Start, low: int) -> int:
        """Show what is stored since ``low``, where the order does not have it; the number to go on from."""
        # What is stored while it is not followed yet would fall between the two.
        while not await self._watch.others.known(_LOOK_AGAIN_SECONDS):
            await self._send(events.NOTHING)
        others, covered = self._watch.others, None
        if start.second is not None and others.covers(self._query.binding.tenant):
            covered = others.number_at(start.second)
        if covered is not None:
            return min(covered, start.number)
        await self._show_stored(low, start.after, start.number)
        return start.number

    # What is stored

    async def _show_stored(self, low: int, after: Position | None, number: int) -> None:
        """Show what is stored, but not what the order will bring."""
        selection = Selection(low, None, self._query.query, _now_ms())
        later: set[bytes] = set()
        looked = number
        while True:
            page = await self._patiently(functools.partial(self._reader.page, selection, "asc", after, PORTION))
            # What this server has stored by now was in the order before that.
            later.update(self._watch.order.read(looked, self._watch.order.end - looked))
            looked = self._watch.order.end
            await self._send(b"".join(self._stored_events(page.documents, later, number)) or events.NOTHING)
            after = page.next
            if after is None:
                break
        await self._watch.others.heard()

    def _stored_events(self, documents: list[Document], later: set[bytes], number: int) -> Iterator[bytes]:
        for document in documents:
            place = position_of(document)
            if place is not None and place.id.binary not in later:
                self._note_echo(place.id.binary)
                behind = b"%b~%d.%b" % (self._watch.position(number), place.timestamp_ms, str(place.id).encode())
                yield events.record_event(document, True, behind)

    def _note_echo(self, record_id: bytes) -> None:
        if self._watch.others.follows:
            self._echoes[record_id] = None
            if len(self._echoes) > _ECHOES:
                del self._echoes[next(iter(self._echoes))]

    # What is in the order

    async def _show_order(self, number: int) -> None:
        watch = self._watch
        while number < watch.told:
            if number < watch.order.first:
                await self._send(events.missed(watch.order.first - number, watch.position(number)))
                number = watch.order.first
            ids = watch.order.read(number, min(PORTION, watch.told - number))
            found = await self._find(ids)
            chunk = b"".join(self._events(ids, found, number))
            number += len(ids)
            await self._send(chunk + events.passed(watch.position(number)))

    def _events(self, ids: list[bytes], found: Mapping[bytes, Entry], number: int) -> Iterator[bytes]:
        now_ms = _now_ms()
        for behind, record_id in enumerate(ids, number + 1):
            if record_id == HOLE:
                yield events.missed(None, self._watch.position(behind))
            entry = found.get(record_id)
            if entry is None or record_id in self._echoes:
                continue
            document = events.decode(entry.record)
            if self._query.matches(document, now_ms):
                yield events.record_event(document, entry.stored, self._watch.position(behind))
                if not entry.stored:
                    self._follow(entry)
                if entry.reason is not None:
                    yield events.fates({entry.id: entry.reason})

    def _follow(self, entry: Entry) -> None:
        """``entry`` is shown as queued: what becomes of it will be told."""
        if not entry.settled:
            self._queued.add(entry.id)
            self._watch.follow(entry, self._query)

    async def _confirm(self, number: int) -> None:
        """Tell what has become of the records before ``number``."""
        order = self._watch.order
        first = max(order.first, number - CONFIRM)
        found = await self._find(order.read(first, number - first))
        await self._send(
            events.fates({entry.id: entry.reason for entry in found.values() if entry.settled}) or events.NOTHING
        )
        for entry in found.values():
            self._follow(entry)

    async def _find(self, ids: Collection[bytes]) -> dict[bytes, Entry]:
        """Those of these records that may be shown, wherever they are: shown just now, in the queue, or stored."""
        with self._watch.settling() as settled:
            found = self._watch.recent.at_hand(ids)
            if missing := {*ids} - {*found, HOLE}:
                found |= await self._find_queued(missing)
            if missing := {*ids} - {*found, HOLE}:
                found |= await self._find_stored(missing)
            for record_id in settled.keys() & found.keys():
                found[record_id].settle(settled[record_id])
        return {record_id: entry for record_id, entry in found.items() if self._query.sees(entry.record)}

    async def _find_queued(self, ids: Collection[bytes]) -> dict[bytes, Entry]:
        found: dict[bytes, Entry] = {}
        for count, record in enumerate(self._queue.everything(), 1):
            record_id = records.id_of(record)
            if record_id in ids and not records.is_bad(record):
                found[record_id] = Entry(record_id, record, stored=False)
            if count % _LOOK_COUNT == 0:
                await asyncio.sleep(0)
        return found

    async def _find_stored(self, ids: Collection[bytes]) -> dict[bytes, Entry]:
        stored = await self._patiently(lambda: self._reader.fetch(ids))
        return {record_id: Entry(record_id, record, stored=True) for record_id, record in stored.items()}

    async def _patiently(self, read: Callable[[], Awaitable[T]]) -> T:
        """What ``read`` gives, however long MongoDB is away."""
        while True:
            try:
                return await read()
            except (StoreUnavailable, QueryTimeout):
                await self._send(events.NOTHING)
                await asyncio.sleep(_LOOK_AGAIN_SECONDS)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
