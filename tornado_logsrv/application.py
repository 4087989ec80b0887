"""The application: owns the queue, and puts the parts together."""

import collections
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import tornado.web
from tornado.ioloop import PeriodicCallback

from . import problems, readers, receivers
from .backup import Backup
from .clocks import Cautious
from .config import Options
from .errors import TooManyConnections
from .feed import Feed
from .gate import Gate
from .handler import BaseHandler, NotFoundHandler
from .health import Health
from .indexer import Indexer
from .intake import Intake
from .journal import Journal
from .listener import Connections
from .looplag import LoopLag
from .measures import LOOK_SECONDS, Requests, RouteNames, Waiting
from .metrics import Ledger
from .order import Order
from .queues import RecordQueue
from .records import Ids, NewIds
from .room import Room
from .segments import Segments
from .serverlog import Refusals, RequestLog
from .spool import Spool
from .store import RecordStore
from .streams import RecordStream
from .sweeper import Sweeper
from .watch import Watch
from .writer import BatchWriter

_FULL = TooManyConnections("as many clients are connected as may be (--max_connections)", retry_after=5)


class LogApplication(tornado.web.Application):
    """Routes, and the one way of a record: ``intake`` → ``queue`` → ``writer`` → ``store``, with ``backup`` beside."""

    def __init__(self, options: Options, store: RecordStore, stream: RecordStream) -> None:
        """Raises OSError when the data directory, which must be there, cannot be read, and StartError as Gate does."""
        #: Every path and its handler, but for those that are there for clients of Elasticsearch alone.
        self.routes = [*receivers.ROUTES, *readers.ROUTES]
        super().__init__(
            [*receivers.FIRST_ROUTES, *self.routes, *receivers.LAST_ROUTES],
            default_handler_class=NotFoundHandler,
        )
        self.options = options
        self.gate = Gate(options)
        self.store = store
        self.stream = stream
        self.records: collections.deque[bytes] = collections.deque()
        self.queue = RecordQueue(self.records, options.queue_max_bytes)
        self.ledger = Ledger()
        segments = Segments(Path(options.data_dir), options.instance_name)
        self.spool = Spool(segments, options.spool_max_bytes)
        self.writer = BatchWriter(
            self.queue, store, self.ledger, interval_ms=options.flush_interval_ms, batch_size=options.batch_size
        )
        self.writer.held = store.held.indexes
        self.backup = Backup(stream, segments, self.spool, self.queue)
        self.ids = Ids()
        self.new_ids = NewIds(self.ids)
        self.watch = Watch(Order(Path(options.data_dir)), self.queue, self.ids)
        self.feed = Feed(lambda place: self.store.changes.batches(place, lambda: self.gate.tenants), self.watch)
        self.watch.on_active, self.watch.on_idle = self.feed.start, self.feed.end
        self.backup.on_recovered = self._recovered
        self.writer.on_settled = self.backup.trim
        self.writer.on_outcome = self.watch.settled
        #: Whether this instance is sure of its name, so that its stream is its own.
        self.may_journal: Callable[[], bool] = lambda: True
        self.journal = Journal(stream, lambda: self.backup.ready and self.may_journal(), self.backup.tell)
        self.intake = Intake(
            self.queue, self.spool, self.journal, self.backup, self.writer, self.ledger, options.stored_timeout
        )
        self.intake.is_held = lambda source: store.held.is_held(source.rpartition("/")[0])
        self.intake.on_taken = self.watch.accepted
        self.loop_lag = LoopLag()
        self.room = store.room = store.reader.room = Room(options.requests_max_bytes)
        self.connections = Connections(options.max_connections, functools.partial(problems.whole_answer, _FULL))
        self.sweeper = Sweeper(
            store,
            options.retention_days,
            options.retention,
            now_ms=Cautious(self.now_ms, store.now_ms).now_ms,
            busy=lambda: self.writer.failures > 0 or self.queue.size_bytes > self.queue.max_bytes // 2,
        )
        self.sweeper.tenants = lambda: self.gate.tenants
        self.indexer = Indexer(store, options.index)
        self.indexer.tenants = lambda: self.gate.tenants
        self.health = Health(self)
        self.requests = Requests()
        rules = self.wildcard_router.rules
        self._route_names = RouteNames((cast(Any, rule.matcher).regex.pattern, rule.target) for rule in rules)
        self.refusals = Refusals()
        self.request_log = RequestLog(options.log_format) if options.request_log == "yes" else None
        self.waiting = Waiting()
        self._looks = PeriodicCallback(self.look, LOOK_SECONDS * 1000)
        self.metrics = readers.metrics.registry(self)
        self._in_progress: set[object] = set()
        self.whereabouts = readers.receipt.Whereabouts(self)
        self.stopping = False
        self.started_ms = self.now_ms()

    def start(self) -> None:
        """Begin to write what is on the queue, on the running IOLoop."""
        self.writer.start()
        self._looks.start()
        self.loop_lag.start()

    async def stop(self) -> None:
        """Look after nothing more; the parts that hold records end by themselves."""
        self._looks.stop()
        self.look()
        self.loop_lag.stop()
        await self.health.stop()
        await self.feed.stop()
        self.watch.order.close()

    def _recovered(self, found: list[bytes]) -> None:
        self.ledger.recovered(found)
        self.watch.recovered(found)

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
    def in_progress(self) -> int:
        """How many requests wait for their answers."""
        return len(self._in_progress)

    def now_ms(self) -> int:
        """The time of acceptance: milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def look(self) -> None:
        """See how long the queue has waited and what is up, and write what the request log has kept back."""
        self.waiting.look(self.queue.floor, self.queue.next_place)
        self.health.see(self.now_ms())
        if self.request_log is not None:
            self.request_log.flush()

    def log_request(self, handler: tornado.web.RequestHandler) -> None:
        """Count a request that a handler has answered, and write of it if that is wanted."""
        request = handler.request
        method = request.method if request.method in handler.SUPPORTED_METHODS else "other"
        route = self._route_names.of(type(handler), request.path)
        # By the clock on the wall, which may be set back.
        seconds, status = max(0.0, request.request_time()), handler.get_status()
        self.requests.of(str(method), route, status).observe(seconds)
        if self.request_log is not None:
            named = handler.request_id if isinstance(handler, BaseHandler) and status >= 400 else ""
            named = named or problems.sane(request.headers.get(problems.REQUEST_ID, ""))
            self.request_log.note(str(method), request.path, status, seconds, str(request.remote_ip), named)
