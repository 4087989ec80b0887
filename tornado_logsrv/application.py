"""The application: owns the queue, and is where every record is accepted."""

import asyncio
import collections
import time
from collections.abc import Sequence

import tornado.web

from . import readers, receivers
from .config import Options
from .errors import QueueFull, Unavailable
from .handler import NotFoundHandler
from .queues import RecordQueue
from .records import Ids
from .store import RecordStore
from .writer import BatchWriter


class LogApplication(tornado.web.Application):
    """Routes, and the one way of a record: ``accept`` → ``queue`` → ``writer`` → ``store``."""

    def __init__(self, options: Options, store: RecordStore) -> None:
        super().__init__(
            [*receivers.ROUTES, *readers.ROUTES],
            default_handler_class=NotFoundHandler,
            log_function=_log_nothing,
        )
        self.options = options
        self.store = store
        self.records: collections.deque[bytes] = collections.deque()
        self.queue = RecordQueue(self.records, options.queue_max_bytes)
        self.writer = BatchWriter(
            self.queue, store, interval_ms=options.flush_interval_ms, batch_size=options.batch_size
        )
        self.ids = Ids()
        self._in_progress: set[tornado.web.RequestHandler] = set()
        self._idle = asyncio.Event()
        self.stopping = False
        self.closed = False

    def request_began(self, handler: tornado.web.RequestHandler) -> None:
        """A stop waits for this request."""
        self._in_progress.add(handler)

    def request_ended(self, handler: tornado.web.RequestHandler) -> None:
        """A request has its answer, or its client is gone."""
        self._in_progress.discard(handler)
        if self.stopping and not self._in_progress:
            self._idle.set()

    async def stop_accepting(self) -> None:
        """Let the requests under way end, each on a connection that then closes."""
        self.stopping = True
        if self._in_progress:
            await self._idle.wait()

    def now_ms(self) -> int:
        """The time of acceptance: milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def accept(self, records: Sequence[bytes]) -> str:
        """Take ``records``, all or none; the level at which they are acknowledged: ``memory``.

        Raises QueueFull, or Unavailable while the server stops.
        """
        if self.closed:
            raise Unavailable("the server has stopped")
        try:
            self.queue.offer(records)
        except QueueFull as full:
            full.retry_after = self.writer.retry_after()
            raise
        self.writer.offered()
        return "memory"


def _log_nothing(handler: tornado.web.RequestHandler) -> None:
    """A line for each request would cost more than taking the record; failures are logged where they happen."""
