"""When records that have been kept long enough are deleted: at the start and every hour, by one instance at a time."""

import asyncio
import collections
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from pymongo.errors import PyMongoError

from .records import Clock
from .retention import DAY_MS
from .rules import Rule
from .store import RecordStore
from .streams import FAILURES
from .writer import Backoff

log = logging.getLogger("logsrv.retention")

SWEEP_SECONDS = 3600.0
#: Between these, only what has grown old since is looked at; then all, for records that came with an old time.
WHOLE_SECONDS = 86_400.0
#: How often the turn is renewed, and how often it is looked whether the server has time for this.
TURN_SECONDS = 5.0
#: Whoever has the turn keeps it from one time to the next; when that instance dies, another has it after this.
HELD_SECONDS = 7200
BUSY_SECONDS = 1.0
#: Waits after a failure.
_BACKOFF_FIRST = 1.0
_BACKOFF_LONGEST = 600.0
#: MongoDB deletes what is over its TTL once a minute, and later when it is busy.
_TTL_SLACK_MS = 600_000

Sleep = Callable[[float], Awaitable[None]]


class Sweeper:
    """Sets the TTL index, and deletes by the rules: no faster than half the time, and not while records wait."""

    def __init__(
        self,
        store: RecordStore,
        days: int,
        rules: Sequence[Rule],
        *,
        now_ms: Callable[[], Awaitable[int]],
        busy: Callable[[], bool],
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """``busy`` says whether the server has more important things to do."""
        self._store = store
        self._days = days
        self._rules = rules
        self._now_ms = now_ms
        self._busy = busy
        self._clock = clock
        self._sleep = sleep
        self._backoff = Backoff(_BACKOFF_FIRST, _BACKOFF_LONGEST)
        self._are_set: set[str] = set()
        self._turn_until = 0.0
        self._swept: dict[tuple[str, Rule], int] = {}
        self._whole_at = 0.0
        #: Takes, or keeps, the turn to delete, which one instance has at a time; False when another has it. Raises
        #: one of FAILURES.
        self.take_turn: Callable[[], Awaitable[bool]] = _always
        #: Whose records are in collections of their own.
        self.tenants: Callable[[], Iterable[str]] = lambda: ()
        #: Records deleted since the start, by the name of the rule.
        self.deleted: collections.Counter[str] = collections.Counter({rule.name: 0 for rule in rules})

    async def run(self) -> None:
        """Sweep again and again, until cancelled."""
        while True:
            await self._sleep(await self.try_sweep())

    async def try_sweep(self) -> float:
        """Sweep once, as far as MongoDB and Redis let; the seconds until the next time."""
        try:
            await self.sweep()
        except (PyMongoError, *FAILURES) as error:
            if not self._backoff.failures and (self._days or self._rules):
                log.warning("old records cannot be deleted now, it is tried again: %s", type(error).__name__)
            return self._backoff.next()
        if self._backoff.failures and (self._days or self._rules):
            log.info("old records can be deleted again")
        self._backoff.reset()
        return SWEEP_SECONDS

    async def sweep(self) -> None:
        """Delete what is old enough now. Raises PyMongoError, or one of FAILURES, when all else is done."""
        if self._clock() >= self._whole_at:
            self._swept.clear()
            self._whole_at = self._clock() + WHOLE_SECONDS
        failed: PyMongoError | None = None
        for tenant in ("", *sorted(self.tenants())):
            try:
                await self._sweep_store(self._store.of(tenant))
            except PyMongoError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def _sweep_store(self, store: RecordStore) -> None:
        if store.name not in self._are_set:
            if changed := await store.retention.set_days(self._days):
                log.info("%s%s", self._whose(store), changed)
            self._are_set.add(store.name)
        for rule in self._rules:
            if not await self._has_turn():
                # Another's work is not known here.
                self._swept.clear()
                return
            await self._sweep_rule(store, rule)
        if self._days:
            await store.forget(await self._now_ms() - self._days * DAY_MS - _TTL_SLACK_MS)

    def _whose(self, store: RecordStore) -> str:
        return "" if store is self._store else f"{store.name}: "

    async def _sweep_rule(self, store: RecordStore, rule: Rule) -> None:
        before, cutoff = self.deleted[rule.name], await self._now_ms() - rule.days * DAY_MS
        async for start, end in store.retention.parts(self._swept.get((store.name, rule)), cutoff):
            while start < end:
                began = self._clock()
                count, start = await store.retention.delete(rule, start, end)
                self.deleted[rule.name] += count
                await self._rest(self._clock() - began)
                if not await self._has_turn():
                    return
        self._swept[store.name, rule] = cutoff
        if count := self.deleted[rule.name] - before:
            whose = self._whose(store)
            log.info("%s%d records deleted: %s is kept for %d days", whose, count, rule.name, rule.days)

    async def _rest(self, seconds: float) -> None:
        await self._sleep(seconds)
        while self._busy():
            await self._sleep(BUSY_SECONDS)

    async def _has_turn(self) -> bool:
        if self._clock() < self._turn_until:
            return True
        if not await self.take_turn():
            return False
        self._turn_until = self._clock() + TURN_SECONDS
        return True


async def _always() -> bool:
    return True
