"""What this server can do at the moment, and what it cannot and why: the one source for probes and metrics."""

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING

from pymongo.errors import PyMongoError

from .errors import QueueFull
from .fullness import Fullness
from .records import Clock
from .streams import FAILURES

if TYPE_CHECKING:
    from .application import LogApplication

#: MongoDB and Redis are asked what only they know this often at the most, and nobody waits longer for their answer.
ASK_SECONDS = 10.0
WAIT_SECONDS = 0.5
#: What has not answered for so long counts as away.
PATIENCE_SECONDS = 3.0
#: A queue that is fuller than this counts as full: the next request may well be refused.
FULL = 0.99


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that may be well or not; ``needed``: without it requests are refused."""

    name: str
    ok: bool
    needed: bool
    detail: str


@dataclasses.dataclass
class State:
    """Whether something can be used, and since when that is so, in milliseconds since 1970."""

    up: bool
    since_ms: int

    def see(self, up: bool, now_ms: int) -> None:
        """It is so at ``now_ms``."""
        if up != self.up:
            self.up, self.since_ms = up, now_ms


class Health:
    """The state of the server and of what it needs.

    ``stream_entries`` and ``quarantined`` are what Redis and MongoDB said last: entries of this instance's stream and
    documents in quarantine; None while they do not answer.
    """

    def __init__(self, application: "LogApplication", clock: Clock = time.monotonic) -> None:
        self._application = application
        self._clock = clock
        self._ask_at = 0.0
        self._asking: asyncio.Task[None] | None = None
        self._fullness = Fullness()
        self._store_answers = True
        self._store_asked_at: float | None = None
        self.stream_entries: int | None = None
        self.quarantined: int | None = None
        #: MongoDB and Redis; changes are seen when ``see`` is called.
        self.store, self.journal = State(True, application.now_ms()), State(True, application.now_ms())

    @property
    def ready(self) -> bool:
        """Whether a request with records, and with the default ``ack``, would be taken."""
        return all(check.ok for check in self.checks() if check.needed)

    def checks(self) -> list[Check]:
        """Everything that is looked at."""
        found = [self._running(), self._journal(), self._queue(), self._recovery(), self._store()]
        problem = self._application.store.shard_problem
        return found if problem is None else [*found, _shard_key(problem)]

    def _running(self) -> Check:
        stopping = self._application.stopping
        return Check("server", not stopping, True, "stopping" if stopping else "serving")

    def _journal(self) -> Check:
        ok, needed = self.journal_up, self._application.options.ack == "journal"
        without = "ack=journal is refused; ack=memory and ack=stored are not"
        return Check("journal", ok, needed, "Redis takes records" if ok else f"Redis cannot be used: {without}")

    def _queue(self) -> Check:
        queue, full = self._application.queue, self.full
        share = 100 * queue.size_bytes // max(1, queue.max_bytes)
        return Check("queue", not full, True, f"{share} % full" + (", and so is the spool" if full else ""))

    def _recovery(self) -> Check:
        ok = not self.recovering
        detail = "all is read back" if ok else "records of before the start are still being read back"
        return Check("recovery", ok, False, detail)

    def _store(self) -> Check:
        ok = self.store_up
        detail = "MongoDB takes records" if ok else "MongoDB cannot be used: records are kept and tried again"
        return Check("store", ok, False, detail)

    @property
    def line(self) -> str:
        """How many records wait, and what cannot be used, in one line."""
        away = [name for name, up in (("MongoDB", self.store_up), ("Redis", self.journal_up)) if not up]
        return f"{self._application.unsettled} records queued" + (f"; {' and '.join(away)} away" if away else "")

    @property
    def full(self) -> bool:
        """Whether neither the queue nor the spool has room."""
        queue, spool = self._application.queue, self._application.spool
        if queue.size_bytes < FULL * queue.max_bytes:
            return False
        try:
            spool.check(1)
        except QueueFull:
            return True
        return False

    @property
    def recovering(self) -> bool:
        """Whether records of an earlier process, or of an instance that is gone, are still to be read back."""
        return self._application.backup.recovering

    @property
    def journal_up(self) -> bool:
        """Whether Redis takes records of this instance, as far as is known."""
        return self._application.journal.ready and self._application.backup.up

    @property
    def store_up(self) -> bool:
        """Whether MongoDB did what it was asked last, and does not keep us waiting."""
        asked = self._store_asked_at
        overdue = asked is not None and self._clock() - asked > PATIENCE_SECONDS
        return self._store_answers and not overdue and not self._application.writer.failures

    def see(self, now_ms: int) -> None:
        """Note since when MongoDB and Redis are as they are, and tell of a queue that is full or no longer is."""
        self.store.see(self.store_up, now_ms)
        self.journal.see(self.journal_up, now_ms)
        queue = self._application.queue
        self._fullness.look(
            share=queue.size_bytes / max(1, queue.max_bytes),
            is_full=self.full,
            spooled=self._application.spool.count,
            waiting=self._application.unsettled,
        )

    async def look(self) -> None:
        """Ask MongoDB and Redis again, if it is time; returns after WAIT_SECONDS at the most. Raises nothing."""
        if self._asking is None and self._clock() >= self._ask_at:
            self._asking = asyncio.ensure_future(self._ask())
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=WAIT_SECONDS)

    async def _ask(self) -> None:
        try:
            await asyncio.gather(self._ask_store(), self._ask_redis())
        finally:
            self._ask_at = self._clock() + ASK_SECONDS
            self._asking = None

    async def _ask_store(self) -> None:
        self._store_asked_at = self._clock()
        try:
            self.quarantined = await self._application.store.count_quarantined()
        except PyMongoError:
            self.quarantined = None
        finally:
            self._store_asked_at = None
        self._store_answers = self.quarantined is not None

    async def _ask_redis(self) -> None:
        try:
            self.stream_entries = await self._application.stream.length()
        except FAILURES:
            self.stream_entries = None

    async def stop(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])


def _shard_key(problem: str) -> Check:
    return Check("shard_key", not problem, False, problem or "a record that is sent again goes to the same shard")
