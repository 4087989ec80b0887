"""Records in Redis before their acknowledgement, many requests a round trip."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

from .deferred import Deferred
from .errors import JournalUnavailable
from .measures import Histogram
from .records import Clock
from .streams import FAILURES, RecordStream

#: Bytes of one entry at the most, unless one request alone has more.
ENTRY_BYTES = 1 << 20
#: Bytes of one round trip at the most, likewise.
GROUP_BYTES = 8 << 20
#: After a failure, requests are refused without a try for this many seconds.
PAUSE_SECONDS = 0.5


@dataclasses.dataclass(slots=True, eq=False)
class Request:
    """The records of one request, ``size`` bytes of them, and what it waits for."""

    records: Sequence[bytes]
    size: int
    source: str
    awaits_storage: bool
    done: Deferred[Any]


#: Called with an entry's id, its requests and all their records once Redis has them: tells the requests.
Put = Callable[[bytes, list[Request], list[bytes]], None]
#: Called with a request that Redis did not take, before it gets the error.
Refuse = Callable[[Request, JournalUnavailable], None]


class Journal:
    """Group commit: one append is in flight at most, and what arrives meanwhile goes in the next.

    A request's records are in one entry, so they are in Redis all or none.
    """

    def __init__(
        self,
        stream: RecordStream,
        ready: Callable[[], bool],
        tell: Callable[[bool, Exception | None], None],
        clock: Clock = time.monotonic,
    ) -> None:
        """``ready`` says whether the stream may be appended to; ``tell`` is told whether Redis answers."""
        self._stream = stream
        self._ready = ready
        self._tell = tell
        self._clock = clock
        self._waiting: list[Request] = []
        self._appending: asyncio.Task[None] | None = None
        self._pause_until = 0.0
        self.put: Put = lambda entry, requests, found: None
        self.refuse: Refuse = lambda request, error: None
        #: Seconds of each round trip, whatever became of it, and how many have failed.
        self.append_seconds = Histogram()
        self.failed_appends = 0

    @property
    def ready(self) -> bool:
        """Whether the stream may be appended to."""
        return self._ready()

    def append(self, request: Request) -> Deferred[Any]:
        """What the request waits for: done, by ``put``, when its records are in Redis.

        Raises JournalUnavailable by it when Redis does not take them, after ``refuse``; then they are nowhere.
        (Should Redis have failed in the middle and this process be killed before the next trim, they may be there.)
        """
        if not self._ready() or self._clock() < self._pause_until:
            self._end(request)
            return request.done
        self._waiting.append(request)
        if self._appending is None:
            self._appending = asyncio.ensure_future(self._append_all())
        return request.done

    async def _append_all(self) -> None:
        try:
            while self._waiting:
                await self._append_group(self._next_group())
        finally:
            self._appending = None

    def _next_group(self) -> list[Request]:
        size = count = 0
        for request in self._waiting:
            size += request.size
            if count and size > GROUP_BYTES:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _append_group(self, group: list[Request]) -> None:
        entries = _entries(group)
        found = [[record for request in entry for record in request.records] for entry in entries]
        began = self._clock()
        try:
            ids = await self._stream.append(found)
        except FAILURES as error:
            self._fail(group, error)
            return
        finally:
            self.append_seconds.observe(self._clock() - began)
        self._tell(True, None)
        for entry_id, requests, records in zip(ids, entries, found, strict=True):
            self.put(entry_id, requests, records)

    def _fail(self, group: list[Request], error: Exception) -> None:
        self.failed_appends += 1
        self._tell(False, error)
        self._pause_until = self._clock() + PAUSE_SECONDS
        waiting, self._waiting = self._waiting, []
        for request in (*group, *waiting):
            self._end(request)

    def _end(self, request: Request) -> None:
        error = JournalUnavailable("Redis takes no records now, so ack=journal cannot be given; ack=memory can", 1)
        self.refuse(request, error)
        request.done.set_exception(error)

    async def stop(self) -> None:
        """Wait for the append in flight."""
        if self._appending is not None:
            await asyncio.wait([self._appending])


def _entries(group: list[Request]) -> list[list[Request]]:
    """``group`` cut into entries: each request whole in one, each entry of ENTRY_BYTES or one request."""
    entries: list[list[Request]] = []
    room = 0
    for request in group:
        if request.size > room:
            entries.append([])
            room = ENTRY_BYTES
        entries[-1].append(request)
        room -= request.size
    return entries
