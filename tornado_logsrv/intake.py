"""The way in: where records are taken or refused, and how their taking is acknowledged.

ack=memory    on the queue                                       survives SIGTERM
ack=journal   on the queue, and in Redis                         survives kill -9
ack=stored    written to MongoDB, by a majority, in its journal  survives all of this process
"""

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .backup import Backup
from .deferred import Deferred
from .errors import JournalUnavailable, QueueFull, StoredTimeout, Unavailable
from .journal import Journal, Request
from .metrics import Ledger
from .queues import RecordQueue, Ticket
from .spool import Spool
from .writer import BatchWriter

ACKS = ("memory", "journal", "stored")


@dataclasses.dataclass(frozen=True)
class Receipt:
    """How records were acknowledged; with ``ack=stored``, the reasons of those that are in quarantine instead."""

    ack: str
    quarantined: Sequence[str] = ()


_MEMORY = Receipt("memory")
_JOURNAL = Receipt("journal")


class Intake:
    """Takes the records of a request, all or none."""

    def __init__(
        self,
        queue: RecordQueue,
        spool: Spool,
        journal: Journal,
        backup: Backup,
        writer: BatchWriter,
        ledger: Ledger,
        stored_timeout: float,
    ) -> None:
        """``stored_timeout``: seconds that ``ack=stored`` waits for MongoDB."""
        self._queue = queue
        self._spool = spool
        self._journal = journal
        self._backup = backup
        self._writer = writer
        self._ledger = ledger
        self._stored_timeout = stored_timeout
        self.closed = False
        #: Whether the records of a source, which is a tenant's, wait for its collection.
        self.is_held: Callable[[str], bool] = lambda source: False
        #: Called with records that have been taken, before they are acknowledged.
        self.on_taken: Callable[[Sequence[bytes]], None] = lambda records: None
        journal.put = self._put_entry
        journal.refuse = self._refuse_request

    def accept(self, records: Sequence[bytes], ack: str, source: str) -> Receipt | Awaitable[Receipt]:
        """Take ``records`` of ``source``; the receipt, or an awaitable of it when there is something to wait for.

        Raises, now or when awaited, QueueFull or JournalUnavailable when nothing was taken, and StoredTimeout when
        all was, but MongoDB has not confirmed it in time.
        """
        if not records:
            return Receipt(ack)
        if self._queue.size_bytes > self._queue.max_bytes // 2 and self.is_held(source):
            # The other half is for all others.
            error = QueueFull(f"the records of {source} cannot be written, and half of the queue is full")
            self._refused(source, len(records), error)
            raise error
        if ack == "memory":
            self._take(records, source)
            return _MEMORY
        return self._journaled(records, source, False) if ack == "journal" else self._stored(records, source)

    def has_room(self, records: Sequence[bytes]) -> bool:
        """Whether ``records`` of several requests can be taken as if they were of one: there is room for all."""
        if self.closed or not self._spool.empty:
            return False
        return self._queue.has_room(sum(map(len, records)))

    def refuse(self, source: str, count: int) -> None:
        """``count`` records were refused before they were whole."""
        self._ledger.refused(source, count)

    def _take(self, records: Sequence[bytes], source: str) -> bool:
        try:
            queued = self._put(records)
        except Unavailable as error:
            self._refused(source, len(records), error)
            raise
        self._taken(source, records)
        return queued

    def _refused(self, source: str, count: int, error: Unavailable) -> None:
        self._ledger.refused(source, count)
        if isinstance(error, QueueFull):
            error.retry_after = self._writer.retry_after()

    def _put(self, records: Sequence[bytes]) -> bool:
        """Put ``records`` on the queue or, when it is full or older ones are there, into the spool; which of both."""
        if self.closed:
            raise Unavailable("the server has stopped")
        if self._spool.enabled and not self._spool.empty:
            self._spool.append(records)
            return False
        try:
            self._queue.offer(records)
        except QueueFull:
            if not self._spool.enabled:
                raise
            self._spool.append(records)
            return False
        return True

    def _taken(self, source: str, records: Sequence[bytes]) -> None:
        self._ledger.accepted(source, len(records))
        self.on_taken(records)
        self._writer.offered()

    def _journaled(self, records: Sequence[bytes], source: str, awaits_storage: bool) -> Deferred[Any]:
        """Put ``records`` into Redis, then on the queue: the receipt to come, or a ticket for their storage.

        Raises Unavailable, now or by it; nothing was taken then.
        """
        size = sum(map(len, records))
        try:
            self._reserve(size)
        except Unavailable as error:
            self._refused(source, len(records), error)
            raise
        return self._journal.append(Request(records, size, source, awaits_storage, Deferred()))

    def _put_entry(self, entry: bytes, requests: list[Request], found: list[bytes]) -> None:
        """Take the requests of one entry that Redis has: one step for the queue, the backup and the ledger."""
        if self._spool.enabled:
            places = [self._put_journaled(entry, request) for request in requests]
        else:
            places = self._put_all(entry, requests, found)
        for source in {request.source for request in requests}:
            self._ledger.accepted(source, sum([len(r.records) for r in requests if r.source == source]))
        self.on_taken(found)
        self._writer.offered()
        # Last: who is told may send more at once.
        for request, first in zip(requests, places, strict=True):
            self._end(request, first)

    def _put_all(self, entry: bytes, requests: list[Request], found: list[bytes]) -> list[int | None]:
        """Put ``found``, the records of all requests, on the queue; the place of the first of each."""
        size = sum([request.size for request in requests])
        self._queue.release(size)
        first = self._queue.next_place
        self._queue.restore(found, size)
        self._backup.hold(entry, first, self._queue.next_place)
        return list(itertools.accumulate([len(request.records) for request in requests[:-1]], initial=first))

    def _put_journaled(self, entry: bytes, request: Request) -> int | None:
        """Put the records of one request on the queue, or into the spool: the place of its first, None there."""
        first = self._queue.next_place
        try:
            queued = self._put(request.records)
        except Unavailable:
            queued = self._put_over(request.records)
        if queued:
            self._backup.hold(entry, first, self._queue.next_place)
        else:
            self._backup.hold_spooled(entry)
        return first if queued else None

    def _end(self, request: Request, first: int | None) -> None:
        """Give a request what it waits for; ``first`` is the place of its first record, None in the spool."""
        result: Receipt | Ticket | None = _JOURNAL
        if request.awaits_storage:
            result = None if first is None else self._queue.ticket(first, first + len(request.records))
        request.done.set_result(result)

    def _refuse_request(self, request: Request, error: Unavailable) -> None:
        self._release(request.size)
        # ack=stored decides for itself what this means.
        if not request.awaits_storage:
            self._refused(request.source, len(request.records), error)

    def _reserve(self, size: int) -> None:
        """Make sure that there will be room. With a spool there is, or as good as: put decides where."""
        if self.closed:
            raise Unavailable("the server has stopped")
        if self._spool.enabled:
            self._spool.check(size)
        else:
            self._queue.reserve(size)

    def _release(self, size: int) -> None:
        if not self._spool.enabled:
            self._queue.release(size)

    def _put_over(self, records: Sequence[bytes]) -> bool:
        """Put ``records``, which Redis has already: over the bound, by no more than the requests under way."""
        if not self.closed and not self._spool.empty:
            with contextlib.suppress(QueueFull):
                # Behind those that came before.
                self._spool.append(records, bounded=False)
                return False
        self._queue.restore(records)
        return True

    async def _stored(self, records: Sequence[bytes], source: str) -> Receipt:
        journaled = True
        try:
            ticket = await self._journaled(records, source, awaits_storage=True)
        except JournalUnavailable:
            # MongoDB is to have them in a moment; without Redis they are in memory until then.
            journaled = False
            queued = self._take(records, source)
            end = self._queue.next_place
            ticket = self._queue.ticket(end - len(records), end) if queued else None
        if ticket is None:
            message = "MongoDB does not keep up; the records are kept on disk until it does"
            raise StoredTimeout(message, 30, journaled=journaled)
        return await self._await_stored(ticket, journaled)

    async def _await_stored(self, ticket: Ticket, journaled: bool) -> Receipt:
        self._writer.flush_soon()
        done, _ = await asyncio.wait([ticket.done], timeout=self._stored_timeout)
        if not done:
            self._queue.give_up(ticket)
            raise StoredTimeout(
                f"MongoDB has not confirmed the records in {self._stored_timeout:g} s; they are kept until it does",
                self._writer.retry_after(),
                journaled=journaled,
            )
        return Receipt("stored", ticket.quarantined)
