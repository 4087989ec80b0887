"""The way in: where records are taken or refused, and how their taking is acknowledged.

ack=memory    on the queue                                       survives SIGTERM
ack=journal   on the queue, and in Redis                         survives kill -9
ack=stored    written to MongoDB, by a majority, in its journal  survives all of this process
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from .backup import Backup
from .errors import JournalUnavailable, QueueFull, StoredTimeout, Unavailable
from .journal import Journal
from .metrics import Ledger
from .queues import RecordQueue, Ticket
from .spool import Spool
from .writer import BatchWriter

T = TypeVar("T")

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

    def accept(self, records: Sequence[bytes], ack: str, source: str) -> Receipt | Awaitable[Receipt]:
        """Take ``records`` of ``source``; the receipt, or an awaitable of it when there is something to wait for.

        Raises, now or when awaited, QueueFull or JournalUnavailable when nothing was taken, and StoredTimeout when
        all was, but MongoDB has not confirmed it in time.
        """
        if not records:
            return Receipt(ack)
        if ack == "memory":
            self._take(records, source)
            return _MEMORY
        return self._journaled(records, source) if ack == "journal" else self._stored(records, source)

    def refuse(self, source: str, count: int) -> None:
        """``count`` records were refused before they were whole."""
        self._ledger.refused(source, count)

    def _take(self, records: Sequence[bytes], source: str) -> bool:
        try:
            queued = self._put(records)
        except Unavailable as error:
            self._refused(source, len(records), error)
            raise
        self._taken(source, len(records))
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

    def _taken(self, source: str, count: int) -> None:
        self._ledger.accepted(source, count)
        self._writer.offered()

    def _journaled(self, records: Sequence[bytes], source: str) -> "asyncio.Future[Receipt]":
        return self._append(records, source, lambda queued: _JOURNAL, partial(self._refused, source, len(records)))

    def _append(
        self, records: Sequence[bytes], source: str, taken: Callable[[bool], T], refused: Callable[[Unavailable], None]
    ) -> "asyncio.Future[T]":
        """Put ``records`` into Redis, then on the queue; done with what ``taken`` makes of their being queued.

        Raises Unavailable, now or by the future, after ``refused`` was called with it; nothing was taken then.
        """
        size = sum(map(len, records))

        def put(entry: bytes) -> T:
            self._release(size)
            result = taken(self._put_journaled(records, entry))
            self._taken(source, len(records))
            return result

        def refuse(error: Unavailable) -> None:
            self._release(size)
            refused(error)

        try:
            self._reserve(size)
        except Unavailable as error:
            refused(error)
            raise
        return self._journal.append(records, size, put, refuse)

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

    def _put_journaled(self, records: Sequence[bytes], entry: bytes) -> bool:
        first = self._queue.next_place
        try:
            queued = self._put(records)
        except Unavailable:
            queued = self._put_over(records)
        if queued:
            self._backup.hold(entry, first, self._queue.next_place)
        else:
            self._backup.hold_spooled(entry)
        return queued

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
        try:
            ticket = await self._append(records, source, partial(self._ticket, len(records)), _ignore)
        except JournalUnavailable:
            # MongoDB is to have them in a moment; without Redis they are in memory until then.
            ticket = self._ticket(len(records), self._take(records, source))
        except Unavailable as error:
            self._refused(source, len(records), error)
            raise
        if ticket is None:
            raise StoredTimeout("MongoDB does not keep up; the records are kept on disk until it does", 30)
        return await self._await_stored(ticket)

    def _ticket(self, count: int, queued: bool) -> Ticket | None:
        return self._queue.ticket(count) if queued else None

    async def _await_stored(self, ticket: Ticket) -> Receipt:
        self._writer.flush_soon()
        done, _ = await asyncio.wait([ticket.done], timeout=self._stored_timeout)
        if not done:
            self._queue.give_up(ticket)
            raise StoredTimeout(
                f"MongoDB has not confirmed the records in {self._stored_timeout:g} s; they are kept until it does",
                self._writer.retry_after(),
            )
        return Receipt("stored", ticket.quarantined)


def _ignore(error: Unavailable) -> None:
    """``ack=stored`` decides for itself what a refusal by the journal means."""
