"""Who watches, and what they are shown: the hub between the way of a record and the tails.

    accepted ─┐                     ┌─ group (one query) ─┬─ watcher
    recovered ┼→ order → untold →───┤                     └─ watcher      shown: event ``record``
    found ────┘                     └─ group …
    settled ──────────────────────────→ those it was shown to             event ``stored``, ``quarantined``

``found`` are the records that other servers have stored (feed.py). All records that anybody could be shown here stand
in one order (order.py), and the id of an event is the order's name, the number behind the record, and the time. Whoever
comes back with it is shown what stands in the order from that number on, which is exact also after a restart:

- an id is in the order, and the order in a file, before its record is acknowledged or can be stored;
- what a restart reads back and the order has already was shown already, and is not shown again; what it does not
  have (the server was killed between Redis and the order) is shown then.

The records themselves are taken from ``recent`` (short gaps), else from the queue and MongoDB (long ones). An id of
another server's order, or of one that is forgotten, is good for its time, that of MongoDB's clock by which all that
others had stored was in that order: its watcher is shown what was stored since a little before, from the order if it
has all of it (moments.py), so a record may come a second time, with the same ``_id``.

While nobody has watched for an hour nothing is noted, and a batch costs one look at a flag. While somebody does, a
record is decoded once, each distinct query asked once, if it may select it at all (groups.py), and each event encoded
once, however many watch; all that happens after the record's acknowledgement, in slices that leave the loop to the
others for twice the time.
"""

import asyncio
import collections
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from . import events, records
from .changes import Batch
from .groups import Groups
from .order import FORGET_SECONDS, HOLE, Order
from .others import Others
from .queues import RecordQueue
from .recent import Entry, Recent
from .records import Clock, Ids
from .watchers import Group, Wanted, Watcher

#: Records that wait to be told at the most: beyond that, they come faster than they can be shown.
UNTOLD_COUNT = 20_000
UNTOLD_BYTES = 64 << 20
#: Seconds of work at a time, and from one telling to the next.
SLICE_SECONDS = 0.02
PACE_SECONDS = 0.05
HEARTBEAT_SECONDS = 15.0
#: How often it is written down how far MongoDB has told.
KEEP_SECONDS = 1.0
#: A watcher comes back after so many milliseconds, unless it knows better.
RETRY_MS = 1000


class Watch:
    """Shows every record, once, to everybody who watches for it."""

    def __init__(self, order: Order, queue: RecordQueue, ids: Ids, clock: Clock = time.monotonic) -> None:
        """``queue`` has all records that are taken and not settled; ``ids`` makes the ids of this process."""
        self.order = order
        self._queue = queue
        self._clock = clock
        self.others = Others(ids)
        #: Those who have come, by what they watch for.
        self.groups = Groups()
        #: What is at hand for short gaps.
        self.recent = Recent()
        self._untold: collections.deque[Entry] = collections.deque()
        self._untold_bytes = 0
        self._lowest = 0
        #: Whether the order goes on and nothing is known of what other servers have stored meanwhile.
        self._blind = False
        self._kept_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0
        self._beat: asyncio.TimerHandle | None = None
        self._watched_until = 0.0
        self._settling: list[dict[bytes, str | None]] = []
        #: Whether records are noted: somebody watches, or did within the hour.
        self.active = False
        self.closed = False
        #: All who watch, those who are still shown what they missed among them.
        self.watchers: set[Watcher] = set()
        #: Called when records of other servers are wanted, from the order's place on or from a second, and when not.
        self.on_active: Callable[[int | None], None] = lambda second: None
        self.on_idle: Callable[[], None] = lambda: None

    # The life

    def resume(self) -> None:
        """Go on with the order of the process before, if somebody may still want it: before anything is read back."""
        if self.order.resume():
            self.others.echoes.resume(self.order.read(self.order.first, self.order.end))
            self._blind = self.order.place is None
            self._activate(None)

    def read_back(self) -> None:
        """All that earlier processes have left has been read back."""
        self.others.read_back()

    def _activate(self, second: int | None) -> None:
        if not self.active:
            # All that is not settled has its place in the order, so that nothing falls between queue and store.
            unsettled = [records.id_of(record) for record in self._queue.everything()]
            self.order.append(unsettled)
            self.others.begin(unsettled, second, self.unsettled_from())
            self.on_active(second)
        self.active = True
        self._watched_until = self._clock() + FORGET_SECONDS
        if self._beat is None:
            self._heartbeat()

    def _heartbeat(self) -> None:
        self._beat = asyncio.get_running_loop().call_later(HEARTBEAT_SECONDS, self._heartbeat)
        now = self._clock()
        if self.watchers:
            self._watched_until = now + FORGET_SECONDS
            self.order.touch()
            self.order.keep_place()
        elif now >= self._watched_until:
            self._deactivate()
            return
        chunk = events.passed(self.position())
        for group in self.groups:
            group.offer(chunk, 0, b"")

    def _deactivate(self) -> None:
        self.active = False
        self._stop_timers()
        self.on_idle()
        self.others.end()
        self.order.forget()
        self.recent.clear()
        self._untold.clear()
        self._untold_bytes = 0

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._beat):
            if timer is not None:
                timer.cancel()
        self._timer = self._beat = None

    def close(self) -> None:
        """End every tail, and take no more."""
        self.closed = True
        if self._untold:
            self._tell()
        self._stop_timers()
        self.on_idle()
        for watcher in list(self.watchers):
            watcher.end()

    # Who watches

    def come(self, watcher: Watcher, second: int | None = None) -> None:
        """Somebody watches; what they are shown begins with ``join``.

        ``second``, of MongoDB's clock: since when he would like to know what other servers have stored.
        """
        self.watchers.add(watcher)
        self.groups.of(watcher.query).members += 1
        self._activate(second)

    def join(self, watcher: Watcher) -> None:
        """Show ``watcher`` what has not been told to anybody yet, and all that follows."""
        self.groups.of(watcher.query).watchers.add(watcher)

    def go(self, watcher: Watcher) -> None:
        """``watcher`` has gone."""
        if watcher not in self.watchers:
            return
        self.watchers.discard(watcher)
        group = self.groups.of(watcher.query)
        group.watchers.discard(watcher)
        group.members -= 1
        if not group.members:
            self.groups.remove(group)

    # The way of a record

    def accepted(self, found: Sequence[bytes]) -> None:
        """Records have been taken: they are not acknowledged yet."""
        if self.active:
            self._enter([(records.id_of(record), record) for record in found], stored=False)

    def recovered(self, found: Sequence[bytes]) -> None:
        """Records of an earlier process, or of a server that is no more, have been read back."""
        if not self.active:
            return
        echoes = self.others.echoes
        for record in found:
            record_id = records.id_of(record)
            if echoes.was_before(record_id) and record_id not in self.recent:
                self.recent.add(Entry(record_id, record, stored=False, told=True))
                echoes.expect([record_id])
        self.accepted([record for record in found if not echoes.was_before(records.id_of(record))])

    def _enter(self, found: Iterable[tuple[bytes, bytes]], stored: bool) -> None:
        fresh: dict[bytes, bytes] = {}
        for record_id, record in found:
            if record_id not in self.recent and not records.is_bad(record):
                fresh[record_id] = record
        if not fresh:
            return
        self.order.append(fresh)
        if not stored:
            self.others.echoes.expect(fresh)
        for record_id, record in fresh.items():
            entry = Entry(record_id, record, stored)
            self.recent.add(entry)
            self._untold.append(entry)
            self._untold_bytes += len(record)
        if len(self._untold) > UNTOLD_COUNT or self._untold_bytes > UNTOLD_BYTES:
            self._skip()
        self._tell_soon()

    def settled(self, stored: Sequence[bytes], quarantined: Mapping[bytes, str]) -> None:
        """Records have left the queue: they are stored, or, for the given reasons, in quarantine."""
        if not self.active:
            return
        for record in stored:
            self._settle(record, None)
        for record, reason in quarantined.items():
            self._settle(record, reason)
            self.others.echoes.give_up(records.id_of(record))
        self.recent.look_again()
        self._tell_soon()

    def _settle(self, record: bytes, reason: str | None) -> None:
        record_id = records.id_of(record)
        for settled in self._settling:
            settled[record_id] = reason
        entry = self.recent.get(record_id)
        groups: Iterable[Group] = ()
        if entry is not None:
            groups = () if entry.settled else self.recent.settle(entry, reason)
        elif self.recent.forgetful:
            groups = self.groups.seeing([record])
        for group in groups:
            group.settled[record_id] = reason

    # What other servers store

    def find(self, batch: Batch) -> None:
        """MongoDB tells of these records, by whomever they are; all before the batch's place has been told."""
        if not self.active:
            return
        if self._blind:
            self.lose()
        self.others.follow(batch.tenants)
        self._enter(self.others.news(batch.records), stored=True)
        self.others.seen(batch.place, batch.whole, self.unsettled_from())
        self.order.place = batch.place
        if self._clock() - self._kept_at >= KEEP_SECONDS:
            self.order.keep_place()
            self._kept_at = self._clock()

    def lose(self) -> None:
        """Some of what other servers have stored will not be shown; nobody knows how much."""
        if self.active:
            self._blind = False
            self.others.lost()
            self.order.place = None
            self.order.append([HOLE])
            self._untold.append(Entry(HOLE, b"", stored=True))
            self._tell_soon()

    @property
    def is_busy(self) -> bool:
        """Whether so much waits to be told that more had better come later."""
        return len(self._untold) > UNTOLD_COUNT // 2 or self._untold_bytes > UNTOLD_BYTES // 2

    # Telling

    @property
    def told(self) -> int:
        """The number of the first record in the order that has not been told."""
        return self.order.end - len(self._untold)

    def position(self, number: int | None = None) -> bytes:
        """What a watcher comes back with that has been shown all before ``number`` (none: all that has been told)."""
        moment_ms = self.others.seen_ms if self.others.follows else int(time.time() * 1000)
        return b"%b.%d.%d" % (self.order.name.encode(), self.told if number is None else number, moment_ms)

    def _tell_soon(self) -> None:
        if self._timer is None and not self.closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._next_at), self._tell)

    def _tell(self) -> None:
        self._timer = None
        began, now_ms = self._clock(), int(time.time() * 1000)
        until = began + SLICE_SECONDS
        while self._untold and (self._clock() < until or self.closed):
            self._tell_one(self._next_untold(), now_ms)
        position = self.position()
        for group in self.groups:
            group.send(position)
        loop = asyncio.get_running_loop()
        self._next_at = loop.time() + max(PACE_SECONDS, 2 * (self._clock() - began))
        if self._untold:
            self._tell_soon()

    def _tell_one(self, entry: Entry, now_ms: int) -> None:
        if not self.groups:
            return
        if entry.id == HOLE:
            hole = events.missed(None, self.position())
            for group in self.groups:
                group.add(hole)
            return
        document = events.decode(entry.record)
        groups = self.groups.wanting(document, now_ms)
        if not groups:
            return
        shown = events.record_event(document, entry.stored, self.position())
        for group in groups:
            group.add(shown)
        if not entry.settled:
            self.recent.show(entry, groups)
        elif entry.reason is not None:
            for group in groups:
                group.settled[entry.id] = entry.reason

    def _skip(self) -> None:
        """Records come faster than they can be shown: say so in place of the older half of them."""
        skipped = [self._next_untold() for _ in range(len(self._untold) // 2)]
        position = self.position()
        holes = sum(entry.id == HOLE for entry in skipped)
        seen = self.groups.seeing(entry.record for entry in skipped if entry.id != HOLE)
        for group in self.groups:
            group.send(position)
            if count := holes + seen.get(group, 0):
                group.miss(count, position)

    def _next_untold(self) -> Entry:
        entry = self._untold.popleft()
        self._untold_bytes -= len(entry.record)
        entry.told = True
        return entry

    # For those who are shown what they missed

    def follow(self, entry: Entry, query: Wanted) -> None:
        """Those who watch for ``query`` are to be told what becomes of ``entry``, which is not settled."""
        if entry.id not in self.recent:
            entry.told = True
            self.recent.add(entry)
        group, kept = self.groups.of(query), self.recent.get(entry.id)
        if kept is not None and group not in kept.groups:
            self.recent.show(kept, [group])

    @contextlib.contextmanager
    def settling(self) -> Iterator[dict[bytes, str | None]]:
        """What is settled meanwhile: ids, and the reasons of what is in quarantine."""
        settled: dict[bytes, str | None] = {}
        self._settling.append(settled)
        try:
            yield settled
        finally:
            # Two that are equal are not the same.
            self._settling = [each for each in self._settling if each is not settled]

    def unsettled_from(self) -> int:
        """All that is not settled has this number or a higher one."""
        oldest = self._queue.oldest()
        self._lowest = self.order.end if oldest is None else self.order.find(records.id_of(oldest), self._lowest)
        return self._lowest
