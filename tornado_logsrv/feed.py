"""What other servers store, to those who watch here: one change stream, while anybody watches, and an hour longer.

It goes on where it was, after whatever failure, and after a restart where the process before has got to: no record is
left out, and those that come again are known. When MongoDB has forgotten that place (its oplog is short, the collection
was dropped), or records are stored faster than they can be shown for long, it goes on with what is new, and whoever
watches is told that he has missed some.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable

from .changes import Batch
from .errors import ChangesLost, NoChangeStreams, StoreUnavailable
from .places import Place, since
from .records import Clock
from .watch import Watch
from .writer import Backoff

log = logging.getLogger("logsrv.tail")

#: So many seconds may be added to what the stream is behind MongoDB, before it goes on with what is new.
LAG_SECONDS = 10
#: Of the time that a batch takes, how many times as much is left to the others.
_REST = 3
_LOOK_SECONDS = 0.05
_FIRST_SECONDS = 0.2
_LONGEST_SECONDS = 10.0


class Feed:
    """Brings the records of other servers to ``watch``."""

    def __init__(
        self,
        batches: Callable[[Place | None], AsyncGenerator[Batch, None]],
        watch: Watch,
        backoff: Backoff | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """``batches``: Changes.batches of the store."""
        self._batches = batches
        self._watch = watch
        self._backoff = backoff or Backoff(_FIRST_SECONDS, _LONGEST_SECONDS)
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._place: Place | None = None

    def start(self, second: int | None) -> None:
        """Follow what is stored from where the order's place is, or from ``second`` of MongoDB's clock, or from now."""
        self.end()
        self._place = self._watch.order.place or (None if second is None else since(second))
        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(_tell_fault)

    def end(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Follow no more, and wait until that is so."""
        self.end()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except NoChangeStreams as error:
                log.info("MongoDB has no change streams: tails show the records of this server alone (%s)", error)
                self._watch.others.unknown()
                return
            except ChangesLost as error:
                log.warning("what other servers have stored is not shown without a gap: %s", error)
                self._place = None
                self._watch.lose()
            except StoreUnavailable as error:
                self._fail(error)
            await asyncio.sleep(self._backoff.next())

    def _fail(self, error: Exception) -> None:
        if not self._backoff.failures:
            log.warning("what other servers store cannot be shown now, and is shown later: %s", error)

    async def _follow(self) -> None:
        least = None
        async with contextlib.aclosing(self._batches(self._place)) as batches:
            async for batch in batches:
                self._backoff.reset()
                least = batch.behind if least is None else min(least, batch.behind)
                if batch.behind > least + LAG_SECONDS:
                    raise ChangesLost(f"more is stored than can be shown, {batch.behind} seconds behind")
                began = self._clock()
                self._place = batch.place
                self._watch.find(batch)
                await self._rest(self._clock() - began)

    async def _rest(self, seconds: float) -> None:
        await asyncio.sleep(_REST * seconds)
        # MongoDB keeps what cannot be shown yet, and this server's own records are shown meanwhile.
        while self._watch.is_busy:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)


def _tell_fault(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (fault := task.exception()):
        log.critical("what other servers store is not shown any more", exc_info=fault)
