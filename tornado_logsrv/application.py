"""The application: owns the queue, and puts the parts together."""

import collections
import time
from collections.abc import Callable
from pathlib import Path

import tornado.web

from . import readers, receivers
from .backup import Backup
from .config import Options
from .handler import NotFoundHandler
from .intake import Intake
from .journal import Journal
from .metrics import Ledger
from .queues import RecordQueue
from .records import Ids, NewIds
from .segments import Segments
from .spool import Spool
from .store import RecordStore
from .streams import RecordStream
from .writer import BatchWriter


class LogApplication(tornado.web.Application):
    """Routes, and the one way of a record: ``intake`` → ``queue`` → ``writer`` → ``store``, with ``backup`` beside."""

    def __init__(self, options: Options, store: RecordStore, stream: RecordStream) -> None:
        """Raises OSError when the data directory, which must be there, cannot be read."""
        super().__init__(
            [*receivers.FIRST_ROUTES, *receivers.ROUTES, *readers.ROUTES, *receivers.LAST_ROUTES],
            default_handler_class=NotFoundHandler,
            log_function=_log_nothing,
        )
        self.options = options
        self.store = store
        self.records: collections.deque[bytes] = collections.deque()
        self.queue = RecordQueue(self.records, options.queue_max_bytes)
        self.ledger = Ledger()
        segments = Segments(Path(options.data_dir), options.instance_name)
        self.spool = Spool(segments, options.spool_max_bytes)
        self.writer = BatchWriter(
            self.queue, store, self.ledger, interval_ms=options.flush_interval_ms, batch_size=options.batch_size
        )
        self.backup = Backup(stream, segments, self.spool, self.queue)
        self.backup.on_recovered = self.ledger.recovered
        self.writer.on_settled = self.backup.trim
        #: Whether this instance is sure of its name, so that its stream is its own.
        self.may_journal: Callable[[], bool] = lambda: True
        self.journal = Journal(stream, lambda: self.backup.ready and self.may_journal(), self.backup.tell)
        self.intake = Intake(
            self.queue, self.spool, self.journal, self.backup, self.writer, self.ledger, options.stored_timeout
        )
        self.ids = Ids()
        self.new_ids = NewIds(self.ids)
        self._in_progress: set[object] = set()
        self.stopping = False

    @property
    def unsettled(self) -> int:
        """Records taken that are neither stored nor in quarantine, wherever they are in this process."""
        return self.queue.unstored_count + self.spool.count

    def request_began(self, request: object) -> None:
        """A stop waits for this request."""
        self._in_progress.add(request)

    def request_ended(self, request: object) -> None:
        """A request has its answer, or its client is gone."""
        self._in_progress.discard(request)

    @property
    def in_progress(self) -> bool:
        """Whether any request waits for its answer."""
        return bool(self._in_progress)

    def now_ms(self) -> int:
        """The time of acceptance: milliseconds since 1970."""
        return time.time_ns() // 1_000_000


def _log_nothing(handler: tornado.web.RequestHandler) -> None:
    """A line for each request would cost more than taking the record; failures are logged where they happen."""
