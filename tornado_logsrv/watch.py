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
another server's order, or of one that is forgotten, is good for its time: its watcher is shown what is stored since a
little before, so a record may come a second time, with the same ``_id``.

While nobody has watched for an hour nothing is noted, and a batch costs one look at a flag. While somebody does, a
record is decoded once, each distinct query evaluated once and each event encoded once, however many watch; all that
happens after the record's acknowledgement, in slices that leave the loop to the others for twice the time.
"""

import asyncio
import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion

from . import jsontext, records
from .binding import UNBOUND, Binding
from .order import FORGET_SECONDS, Order
from .query import Query
from .records import Clock

Document = dict[str, Any]
#: What sends bytes to a client: the future is done when there is room for more, and fails when the client has gone.
Send = Callable[[bytes], "asyncio.Future[None]"]

#: Bytes that wait for one slow watcher at the most.
BUFFER_BYTES = 1 << 20
#: What is at hand for short gaps, and to know what was shown to whom.
RECENT_BYTES = 16 << 20
RECENT_COUNT = 100_000
#: Records that wait to be told at the most: beyond that, they come faster than they can be shown.
UNTOLD_COUNT = 20_000
UNTOLD_BYTES = 64 << 20
#: Seconds of work at a time, and from one telling to the next.
SLICE_SECONDS = 0.02
PACE_SECONDS = 0.05
HEARTBEAT_SECONDS = 15.0
#: A watcher comes back after so many milliseconds, unless it knows better.
RETRY_MS = 1000

_CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)


@dataclasses.dataclass(slots=True, eq=False)
class Entry:
    """One record that is or will be shown, and to which groups it was. ``reason``: why it is in quarantine."""

    id: bytes
    record: bytes
    stored: bool
    told: bool = False
    reason: str | None = None
    groups: "list[Group]" = dataclasses.field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether it is stored or in quarantine."""
        return self.stored or self.reason is not None

    def settle(self, reason: str | None) -> None:
        """It is stored or, for a ``reason``, in quarantine."""
        self.stored, self.reason = reason is None, reason


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What somebody watches for: what ``query`` selects of the records that ``binding`` lets them see."""

    query: Query
    binding: Binding = UNBOUND

    @property
    def text(self) -> str:
        """What tells it from others."""
        return self.binding.of_whom + self.query.text

    def matches(self, document: Document, now_ms: int) -> bool:
        """Whether this record is to be shown."""
        return self.binding.sees_document(document) and self.query.matches(document, now_ms)

    def sees(self, record: bytes) -> bool:
        """Whether this record may be shown."""
        return self.binding.sees(record)


@dataclasses.dataclass(eq=False)
class Group:
    """The watchers of one query, and what they are sent next; ``members`` counts also those who have not joined yet."""

    query: Wanted
    members: int = 0
    watchers: "set[Watcher]" = dataclasses.field(default_factory=set)
    events: list[bytes] = dataclasses.field(default_factory=list)
    count: int = 0
    settled: dict[bytes, str | None] = dataclasses.field(default_factory=dict)

    def take(self) -> bytes:
        """What is to be sent."""
        chunk = b"".join(self.events) + fates(self.settled)
        self.events, self.count, self.settled = [], 0, {}
        return chunk


class Watcher:
    """One client. What it does not take at once waits, up to a bound; of what comes beyond it is told how many."""

    def __init__(self, query: Wanted, send: Send, end: Callable[[], None]) -> None:
        """``end`` is called, once, when the server has nothing more to say."""
        self.query = query
        self.end = end
        self._send = send
        self._sending = False
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._missed = 0
        self._missed_to = b""

    def offer(self, chunk: bytes, count: int, position: bytes) -> None:
        """Send ``chunk``, which has ``count`` records and ends at ``position``, now or when there is room."""
        if not self._sending:
            self._begin(chunk)
        elif self._missed or self._waiting_bytes + len(chunk) > BUFFER_BYTES:
            self.miss(count, position)
        else:
            self._waiting.append(chunk)
            self._waiting_bytes += len(chunk)

    def miss(self, count: int, position: bytes) -> None:
        """``count`` records up to ``position`` will not be shown; it is told as soon as it takes more."""
        self._missed += count
        self._missed_to = position
        if not self._sending:
            self._go_on()

    def _begin(self, chunk: bytes) -> None:
        done = self._send(chunk)
        if not done.done():
            self._sending = True
            done.add_done_callback(self._sent)

    def _sent(self, done: "asyncio.Future[None]") -> None:
        if done.cancelled() or done.exception() is not None:
            # It has gone, and is forgotten by whoever noticed.
            return
        self._sending = False
        if self._waiting or self._missed:
            self._go_on()

    def _go_on(self) -> None:
        chunk = b"".join(self._waiting)
        if self._missed:
            chunk += event("missed", {"missed": self._missed}, self._missed_to)
        self._waiting, self._waiting_bytes, self._missed = [], 0, 0
        self._begin(chunk)


class Watch:
    """Shows every record, once, to everybody who watches for it."""

    def __init__(self, order: Order, unstored: Callable[[], Sequence[bytes]], clock: Clock = time.monotonic) -> None:
        """``unstored`` gives all records that are taken and not settled, the oldest first."""
        self.order = order
        self._unstored = unstored
        self._clock = clock
        self._groups: dict[str, Group] = {}
        self._recent: collections.OrderedDict[bytes, Entry] = collections.OrderedDict()
        self._recent_bytes = 0
        self._untold: collections.deque[Entry] = collections.deque()
        self._untold_bytes = 0
        self._shown_before: set[bytes] = set()
        #: Whether records that are not settled have left ``recent``: whom they were shown to is not known then.
        self._unknown = False
        self._unsettled = 0
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0
        self._beat: asyncio.TimerHandle | None = None
        self._watched_until = 0.0
        self._settling: list[dict[bytes, str | None]] = []
        #: Whether records of other servers are found, a moment after they are stored.
        self.follows_others = False
        #: Whether records are noted: somebody watches, or did within the hour.
        self.active = False
        self.closed = False
        #: All who watch, those who are still shown what they missed among them.
        self.watchers: set[Watcher] = set()
        #: Called when the first one comes, and when the last one has gone.
        self.on_first: Callable[[], None] = lambda: None
        self.on_last: Callable[[], None] = lambda: None

    # The life

    def resume(self) -> None:
        """Go on with the order of the process before, if somebody may still want it: before anything is read back."""
        if self.order.resume():
            self._shown_before = set(self.order.read(self.order.first, self.order.end))
            self._activate()

    def read_back(self) -> None:
        """All that earlier processes have left has been read back."""
        self._shown_before = set()

    def _activate(self) -> None:
        if not self.active:
            # All that is not settled has its place in the order, so that nothing falls between queue and store.
            self.order.append([records.id_of(record) for record in self._unstored()])
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
        elif now >= self._watched_until:
            self._deactivate()
            return
        # An event without data: nothing happens, but it is known how far all has been seen.
        chunk = b"id: %b\n:\n\n" % self.position()
        for group in self._groups.values():
            for watcher in group.watchers:
                watcher.offer(chunk, 0, b"")

    def _deactivate(self) -> None:
        self.active = False
        self._stop_timers()
        self.order.forget()
        self._recent.clear()
        self._recent_bytes = self._unsettled = 0
        self._untold.clear()
        self._unknown = False

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
        for watcher in list(self.watchers):
            watcher.end()

    # Who watches

    def come(self, watcher: Watcher) -> None:
        """Somebody watches; what they are shown begins with ``join``."""
        if not self.watchers:
            self.on_first()
        self.watchers.add(watcher)
        self._group(watcher.query).members += 1
        self._activate()

    def join(self, watcher: Watcher) -> None:
        """Show ``watcher`` what has not been told to anybody yet, and all that follows."""
        self._group(watcher.query).watchers.add(watcher)

    def go(self, watcher: Watcher) -> None:
        """``watcher`` has gone."""
        if watcher not in self.watchers:
            return
        self.watchers.discard(watcher)
        group = self._group(watcher.query)
        group.watchers.discard(watcher)
        group.members -= 1
        if not group.members:
            del self._groups[watcher.query.text]
        if not self.watchers:
            self.on_last()

    def _group(self, query: Wanted) -> Group:
        group = self._groups.get(query.text)
        if group is None:
            group = self._groups[query.text] = Group(query)
        return group

    # The way of a record

    def accepted(self, found: Sequence[bytes]) -> None:
        """Records have been taken: they are not acknowledged yet."""
        if self.active:
            self._enter([(records.id_of(record), record) for record in found], stored=False)

    def recovered(self, found: Sequence[bytes]) -> None:
        """Records of an earlier process, or of a server that is no more, have been read back."""
        if not self.active:
            return
        for record in found:
            record_id = records.id_of(record)
            if record_id in self._shown_before and record_id not in self._recent:
                self._remember(Entry(record_id, record, stored=False, told=True))
        self.accepted([record for record in found if records.id_of(record) not in self._shown_before])

    def found(self, documents: Iterable[tuple[bytes, bytes]]) -> None:
        """Other servers have stored these: ids, and BSON documents."""
        if self.active:
            self._enter(documents, stored=True)

    def _enter(self, found: Iterable[tuple[bytes, bytes]], stored: bool) -> None:
        fresh: dict[bytes, bytes] = {}
        for record_id, record in found:
            if record_id not in self._recent and not records.is_bad(record):
                fresh[record_id] = record
        if not fresh:
            return
        self.order.append(fresh)
        for record_id, record in fresh.items():
            entry = Entry(record_id, record, stored)
            self._remember(entry)
            self._untold.append(entry)
            self._untold_bytes += len(record)
        if len(self._untold) > UNTOLD_COUNT or self._untold_bytes > UNTOLD_BYTES:
            self._skip()
        self._tell_soon()

    def _remember(self, entry: Entry) -> None:
        recent = self._recent
        recent[entry.id] = entry
        self._recent_bytes += len(entry.record)
        self._unsettled += not entry.settled
        while self._recent_bytes > RECENT_BYTES or len(recent) > RECENT_COUNT:
            oldest = next(iter(recent.values()))
            if not oldest.told:
                break
            del recent[oldest.id]
            self._recent_bytes -= len(oldest.record)
            if not oldest.settled:
                self._unsettled -= 1
                self._unknown = True

    def settled(self, stored: Sequence[bytes], quarantined: Mapping[bytes, str]) -> None:
        """Records have left the queue: they are stored, or, for the given reasons, in quarantine."""
        if not self.active:
            return
        for record in stored:
            self._settle(record, None)
        for record, reason in quarantined.items():
            self._settle(record, reason)
        self._unknown = self._unknown and self._unsettled > 0
        self._tell_soon()

    def _settle(self, record: bytes, reason: str | None) -> None:
        record_id = records.id_of(record)
        for settled in self._settling:
            settled[record_id] = reason
        entry = self._recent.get(record_id)
        if entry is None:
            every = self._groups.values() if self._unknown else ()
            groups = [group for group in every if group.query.sees(record)]
        elif entry.settled:
            return
        else:
            entry.settle(reason)
            self._unsettled -= 1
            groups = entry.groups
        for group in groups:
            group.settled[record_id] = reason

    # Telling

    @property
    def told(self) -> int:
        """The number of the first record in the order that has not been told."""
        return self.order.end - len(self._untold)

    def position(self, number: int | None = None) -> bytes:
        """What a watcher comes back with that has been shown all before ``number`` (none: all that has been told)."""
        return b"%b.%d.%d" % (self.order.name.encode(), self.told if number is None else number, time.time() * 1000)

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
        for group in list(self._groups.values()):
            self._send(group, position)
        loop = asyncio.get_running_loop()
        self._next_at = loop.time() + max(PACE_SECONDS, 2 * (self._clock() - began))
        if self._untold:
            self._tell_soon()

    def _tell_one(self, entry: Entry, now_ms: int) -> None:
        if not self._groups:
            return
        document: Document = bson.decode(entry.record, _CODEC)
        shown = b""
        for group in self._groups.values():
            if group.query.matches(document, now_ms):
                shown = shown or record_event(document, entry.stored, self.position())
                group.events.append(shown)
                group.count += 1
                entry.groups.append(group)
                if entry.reason is not None:
                    group.settled[entry.id] = entry.reason

    def _send(self, group: Group, position: bytes) -> None:
        count = group.count
        chunk = group.take()
        if chunk:
            for watcher in list(group.watchers):
                watcher.offer(chunk, count, position)

    def _skip(self) -> None:
        """Records come faster than they can be shown: say so in place of the older half of them."""
        skipped = [self._next_untold().record for _ in range(len(self._untold) // 2)]
        position = self.position()
        for group in list(self._groups.values()):
            self._send(group, position)
            if count := sum(map(group.query.sees, skipped)):
                for watcher in list(group.watchers):
                    watcher.miss(count, position)

    def _next_untold(self) -> Entry:
        entry = self._untold.popleft()
        self._untold_bytes -= len(entry.record)
        entry.told = True
        return entry

    # For those who are shown what they missed

    def at_hand(self, ids: Collection[bytes]) -> dict[bytes, Entry]:
        """The entries of those of ``ids`` that are recent."""
        return {record_id: self._recent[record_id] for record_id in ids if record_id in self._recent}

    def follow(self, entry: Entry, query: Wanted) -> None:
        """Those who watch for ``query`` are to be told what becomes of ``entry``, which is not settled."""
        if entry.id not in self._recent:
            entry.told = True
            self._remember(entry)
        group, groups = self._group(query), self._recent[entry.id].groups
        if group not in groups:
            groups.append(group)

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
        unstored = self._unstored()
        return self.order.find(records.id_of(unstored[0])) if unstored else self.order.end


def decode(record: bytes) -> Document:
    """A record as queries and events take it."""
    return bson.decode(record, _CODEC)


def event(name: str, value: Any, position: bytes = b"") -> bytes:
    """One event of the stream (HTML standard, "Server-sent events")."""
    place = b"id: %b\n" % position if position else b""
    return b"%bevent: %b\ndata: %b\n\n" % (place, name.encode(), jsontext.write(value))


def fates(settled: Mapping[bytes, str | None]) -> bytes:
    """The events that tell what became of records: stored or, for a reason, in quarantine; none when there are none."""
    stored = [record_id.hex() for record_id, reason in settled.items() if reason is None]
    refused = [{"id": record_id.hex(), "reason": reason} for record_id, reason in settled.items() if reason is not None]
    events = [event("stored", {"ids": stored})] if stored else []
    return b"".join([*events, *(event("quarantined", each) for each in refused)])


def record_event(document: Document, stored: bool, position: bytes) -> bytes:
    """The event that shows a record."""
    return event("record", {**document, "state": "stored" if stored else "queued"}, position)
