"""When the queue is written to MongoDB, what a failure means, and how long to wait after one."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tornado.ioloop import IOLoop, PeriodicCallback

from .measures import RECORDS, Histogram
from .metrics import Ledger
from .outcome import Outcome
from .queues import Batch, RecordQueue
from .records import Clock

log = logging.getLogger("logsrv.writer")

BACKOFF_FIRST = 0.1
BACKOFF_MAX = 30.0
#: MongoDB takes 48,000,000 bytes a message; a larger batch would be several.
BATCH_MAX_BYTES = 40_000_000
#: Seconds of Retry-After while nothing is known of how fast the queue drains, and while it does not.
RETRY_UNKNOWN = 5
RETRY_MAX = 30
#: How often it is looked whether what was put aside may be tried again.
LOOK_ASIDE_SECONDS = 1.0


class Sink(Protocol):
    """Where batches go."""

    async def write(self, records: Sequence[bytes]) -> Outcome:
        """Store ``records``, or put them in quarantine; raises nothing that is foreseen."""


class Backoff:
    """Full jitter: after the n-th failure in a row, a random time up to ``first * 2**n``, at most ``longest``.

    The name and the formula are those of "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
    """

    def __init__(self, first: float, longest: float, rand: Callable[[], float] = random.random) -> None:
        self._first = first
        self._longest = longest
        self._random = rand
        self.failures = 0

    def next(self) -> float:
        """Count a failure; the seconds to wait."""
        ceiling = min(self._longest, self._first * 2.0 ** min(self.failures, 60))
        self.failures += 1
        return ceiling * self._random()

    def reset(self) -> None:
        """It worked."""
        self.failures = 0


class BatchWriter:
    """Writes the queue every ``interval_ms`` milliseconds, and at once when a full batch waits.

    A flush writes batch after batch until what stood on the queue when it began has gone, and goes on while full
    batches wait. One batch is in flight at a time, so order is kept. After a failure nothing is written until the
    backoff has passed.
    """

    def __init__(
        self,
        queue: RecordQueue,
        sink: Sink,
        ledger: Ledger,
        *,
        interval_ms: int,
        batch_size: int,
        clock: Clock = time.monotonic,
        backoff: Backoff | None = None,
    ) -> None:
        self._queue = queue
        self._sink = sink
        self._ledger = ledger
        self._batch_size = batch_size
        #: Called whenever records have been settled: ``queue.floor`` may have risen.
        self.on_settled: Callable[[], None] = lambda: None
        #: Called, before that, with the records that are stored, and those in quarantine with the reasons.
        self.on_outcome: Callable[[Sequence[bytes], Mapping[bytes, str]], None] = lambda stored, quarantined: None
        #: Which of some records are not to be written now, though others are; they wait aside, in their places.
        self.held: Callable[[Sequence[bytes]], Sequence[int]] = lambda found: ()
        self._aside: list[Batch] = []
        self._look_aside_at = 0.0
        self._clock = clock
        self._backoff = backoff or Backoff(BACKOFF_FIRST, BACKOFF_MAX)
        self._ticks = PeriodicCallback(self.flush_soon, interval_ms)
        self._flush: asyncio.Task[None] | None = None
        self._retry: object | None = None
        self._stopping = False
        self._drain_rate = 0.0
        self._retry_at = 0.0
        #: Records and seconds of each batch, whatever became of it, and how many have failed.
        self.batch_records = Histogram(RECORDS)
        self.batch_seconds = Histogram()
        self.failed_batches = 0

    def start(self) -> None:
        """Begin to write, on the running IOLoop."""
        self._ticks.start()

    async def stop(self) -> None:
        """Begin no more writes, and wait for the batch in flight, which PeriodicCallback.stop() does not."""
        self._end()
        if self._flush is not None:
            await asyncio.wait([self._flush])
        self._put_back()

    def _end(self) -> None:
        self._stopping = True
        self._ticks.stop()
        self._forget_retry()

    async def abandon(self) -> None:
        """Give up a batch that is still in flight: its records are put back.

        Should MongoDB have them after all, their ``_id`` keeps them single.
        """
        self._end()
        if self._flush is not None:
            self._flush.cancel()
            await asyncio.wait([self._flush])
        self._put_back()

    def offered(self) -> None:
        """Records have been put on the queue: starts a flush when a full batch waits."""
        if len(self._queue) >= self._batch_size:
            self.flush_soon()

    def flush_soon(self) -> None:
        """Start a flush, unless one runs, waits for its backoff, or there is nothing to write."""
        waits = len(self._queue) or self._aside
        if self._flush is None and self._retry is None and not self._stopping and waits:
            self._flush = asyncio.ensure_future(self._run())

    async def flush(self) -> None:
        """Write what stands on the queue, as far as it can be written now."""
        self.flush_soon()
        if self._flush is not None:
            await asyncio.wait([self._flush])

    @property
    def failures(self) -> int:
        """How many writes in a row have failed."""
        return self._backoff.failures

    @property
    def pause_seconds(self) -> float:
        """Seconds until the next try after a failure; 0 when none is waited for."""
        return max(0.0, self._retry_at - self._clock()) if self._retry is not None else 0.0

    def retry_after(self) -> int:
        """Seconds until half of a full queue has been written, at the rate of the last batches."""
        if self._backoff.failures:
            return RETRY_MAX
        if not self._drain_rate:
            return RETRY_UNKNOWN
        return max(1, min(RETRY_MAX, round(self._queue.max_bytes / 2 / self._drain_rate)))

    async def _run(self) -> None:
        try:
            await self._drain()
        finally:
            self._flush = None
        if len(self._queue) >= self._batch_size or (self._queue.awaited and len(self._queue)):
            self.flush_soon()

    async def _drain(self) -> None:
        if self._aside and self._clock() >= self._look_aside_at:
            self._look_aside_at = self._clock() + LOOK_ASIDE_SECONDS
            self._put_back(lambda batch: len(self.held(batch.records)) < len(batch))
        left = len(self._queue)
        while left > 0 and not self._stopping:
            settled = await self._write_batch(min(left, self._batch_size))
            if not settled:
                return
            left -= settled

    async def _write_batch(self, count: int) -> int:
        """Write one batch; how many of its records are settled. None, and the writer must wait before the next."""
        batch, aside = self._take(count)
        if batch is None:
            return aside
        before, began = self._queue.size_bytes, self._clock()
        outcome = Outcome(range(len(batch)), problem="the write was given up")
        try:
            outcome = await self._sink.write(batch.records)
        except Exception as error:
            # Unknown, so it may pass: nothing is dropped.
            log.exception("a write failed in a way this server does not know")
            outcome = Outcome(range(len(batch)), problem=repr(error))
        finally:
            self._settle(batch, outcome)
        seconds = self._clock() - began
        self.batch_records.observe(len(batch))
        self.batch_seconds.observe(seconds)
        if len(outcome.unwritten) == len(batch):
            if not outcome.own_fault:
                self._failed(outcome.problem)
            return aside
        self._succeeded((before - self._queue.size_bytes) / max(seconds, 1e-6))
        return aside + len(batch) - len(outcome.unwritten)

    def _take(self, count: int) -> tuple[Batch | None, int]:
        """The next batch, and how many records before or among it were put aside."""
        batch = self._queue.take(count, BATCH_MAX_BYTES)
        held = self.held(batch.records)
        if not held:
            return batch, 0
        aside, rest = self._queue.part(batch, held)
        self._aside.append(aside)
        return rest, len(aside)

    def _put_back(self, whether: Callable[[Batch], bool] = lambda batch: True) -> None:
        """Put those that are aside back into the queue, to their places."""
        aside, self._aside = self._aside, []
        for batch in aside:
            if whether(batch):
                self._queue.confirm(batch, range(len(batch)))
            else:
                self._aside.append(batch)

    def _settle(self, batch: Batch, outcome: Outcome) -> None:
        self._queue.confirm(batch, outcome.unwritten, outcome.quarantined)
        if len(outcome.unwritten) == len(batch):
            return
        other = {*outcome.unwritten, *outcome.quarantined}
        stored = [r for index, r in enumerate(batch.records) if index not in other] if other else batch.records
        self._ledger.settled(stored, [batch.records[index] for index in outcome.quarantined])
        self.on_outcome(stored, {batch.records[index]: reason for index, reason in outcome.quarantined.items()})
        self.on_settled()

    def _succeeded(self, rate: float) -> None:
        if self._backoff.failures:
            log.info("writing to MongoDB again; %d records wait", len(self._queue))
        self._backoff.reset()
        self._drain_rate = 0.8 * self._drain_rate + 0.2 * rate if self._drain_rate else rate

    def _failed(self, problem: str) -> None:
        if not self._backoff.failures:
            log.warning("cannot write to MongoDB, records are kept and tried again: %s", problem)
        self.failed_batches += 1
        delay = self._backoff.next()
        self._retry_at = self._clock() + delay
        if not self._stopping:
            self._retry = IOLoop.current().call_later(delay, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.flush_soon()

    def _forget_retry(self) -> None:
        if self._retry is not None:
            IOLoop.current().remove_timeout(self._retry)
            self._retry = None
