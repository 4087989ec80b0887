"""Those who watch, each on a connection of its own, and the groups of those who watch for the same."""

import asyncio
import dataclasses
from collections.abc import Callable

from . import events
from .binding import UNBOUND, Binding
from .query import Query

#: What sends bytes to a client: the future is done when there is room for more, and fails when the client has gone.
Send = Callable[[bytes], "asyncio.Future[None]"]

#: Bytes that wait for one slow watcher at the most.
BUFFER_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What somebody watches for: what ``query`` selects of the records that ``binding`` lets them see."""

    query: Query
    binding: Binding = UNBOUND

    @property
    def text(self) -> str:
        """What tells it from others."""
        return self.binding.of_whom + self.query.text

    def matches(self, document: events.Document, now_ms: int) -> bool:
        """Whether this record is to be shown."""
        return self.binding.sees_document(document) and self.query.matches(document, now_ms)

    def sees(self, record: bytes) -> bool:
        """Whether this record may be shown."""
        return self.binding.sees(record)


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
            chunk += events.missed(self._missed, self._missed_to)
        self._waiting, self._waiting_bytes, self._missed = [], 0, 0
        self._begin(chunk)


@dataclasses.dataclass(eq=False)
class Group:
    """The watchers of one query, and what they are sent next; ``members`` counts also those who have not joined yet."""

    query: Wanted
    members: int = 0
    watchers: set[Watcher] = dataclasses.field(default_factory=set)
    pending: list[bytes] = dataclasses.field(default_factory=list)
    count: int = 0
    settled: dict[bytes, str | None] = dataclasses.field(default_factory=dict)

    def add(self, event: bytes) -> None:
        """``event`` is to be sent: a record, or one that stands for some."""
        self.pending.append(event)
        self.count += 1

    def send(self, position: bytes) -> None:
        """Send what is to be sent, which ends at ``position``."""
        if not self.pending and not self.settled:
            return
        count = self.count
        chunk = b"".join(self.pending)
        if self.settled:
            chunk += events.fates(self.settled)
        self.pending, self.count, self.settled = [], 0, {}
        self.offer(chunk, count, position)

    def offer(self, chunk: bytes, count: int, position: bytes) -> None:
        """Send ``chunk`` to every watcher."""
        for watcher in list(self.watchers):
            watcher.offer(chunk, count, position)

    def miss(self, count: int, position: bytes) -> None:
        """``count`` records up to ``position`` are not shown to any of them."""
        for watcher in list(self.watchers):
            watcher.miss(count, position)
