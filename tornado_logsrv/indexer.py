"""Makes the indexes of ``--index``, beside all else: neither a start nor a write waits for one."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from pymongo.errors import PyMongoError

from .reading import reason
from .store import RecordStore
from .writer import Backoff

log = logging.getLogger("logsrv.store")

#: How often it is looked for tenants that are new.
LOOK_SECONDS = 60.0
_BACKOFF_FIRST = 1.0
_BACKOFF_LONGEST = 600.0

Sleep = Callable[[float], Awaitable[None]]


class Indexer:
    """Sees to it that every collection of records has an index for each of ``paths``. It removes none."""

    def __init__(self, store: RecordStore, paths: Sequence[str], sleep: Sleep = asyncio.sleep) -> None:
        self._store = store
        self._paths = paths
        self._sleep = sleep
        self._backoff = Backoff(_BACKOFF_FIRST, _BACKOFF_LONGEST)
        self._made: set[tuple[str, str]] = set()
        self._failed = ""
        #: Whose records are in collections of their own.
        self.tenants: Callable[[], Iterable[str]] = lambda: ()

    async def run(self) -> None:
        """Make what is not there, again and again, until cancelled."""
        while self._paths:
            await self._sleep(await self.try_make())

    async def try_make(self) -> float:
        """Make what is not there, as far as MongoDB lets; the seconds until the next time."""
        try:
            for tenant in ("", *self.tenants()):
                for path in self._paths:
                    await self._make(tenant, path)
        except PyMongoError as error:
            if (told := reason(error)) != self._failed:
                log.warning("an index of --index cannot be made, trying again: %s", told)
            self._failed = told
            return self._backoff.next()
        self._failed = ""
        self._backoff.reset()
        return LOOK_SECONDS

    async def _make(self, tenant: str, path: str) -> None:
        if (tenant, path) in self._made:
            return
        store = self._store.of(tenant)
        if await store.make_index(path):
            log.info("%s has an index for %s", store.name, path)
        self._made.add((tenant, path))
