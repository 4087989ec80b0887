"""Records in Redis before their acknowledgement, many requests a round trip."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .errors import JournalUnavailable
from .records import Clock
from .streams import FAILURES, RecordStream

T = TypeVar("T")

#: Bytes of one entry at the most, unless one request alone has more.
ENTRY_BYTES = 1 << 20
#: Bytes of one round trip at the most, likewise.
GROUP_BYTES = 8 << 20
#: After a failure, requests are refused without a try for this many seconds.
PAUSE_SECONDS = 0.5


#: Called with the id of the entry that holds the records; what it returns is what the request waits for.
Put = Callable[[bytes], T]
#: Called when the records are not taken, with the error that the request gets.
Refuse = Callable[[JournalUnavailable], None]


@dataclasses.dataclass(slots=True)
class _Request:
    records: Sequence[bytes]
    size: int
    put: Put[Any]
    refuse: Refuse
    done: "asyncio.Future[Any]"


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
        self._waiting: list[_Request] = []
        self._appending: asyncio.Task[None] | None = None
        self._pause_until = 0.0

    def append(self, records: Sequence[bytes], size: int, put: Put[T], refuse: Refuse) -> "asyncio.Future[T]":
        """Done, with what ``put`` returns, when ``records``, ``size`` bytes, are in Redis.

        Raises JournalUnavailable by the future when Redis does not take them, after ``refuse`` has been called; then
        they are nowhere. (Should Redis have failed in the middle and this process be killed before the next trim, they
        may be found there.)
        """
        request = _Request(records, size, put, refuse, asyncio.get_running_loop().create_future())
        if not self._ready() or self._clock() < self._pause_until:
            _refuse(request)
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

    def _next_group(self) -> list[_Request]:
        size = count = 0
        for request in self._waiting:
            size += request.size
            if count and size > GROUP_BYTES:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _append_group(self, group: list[_Request]) -> None:
        entries = list(_entries(group))
        try:
            ids = await self._stream.append([[r for request in entry for r in request.records] for entry in entries])
        except FAILURES as error:
            self._fail(group, error)
            return
        self._tell(True, None)
        for entry_id, entry in zip(ids, entries, strict=True):
            for request in entry:
                result = request.put(entry_id)
                if not request.done.done():
                    request.done.set_result(result)

    def _fail(self, group: list[_Request], error: Exception) -> None:
        self._tell(False, error)
        self._pause_until = self._clock() + PAUSE_SECONDS
        waiting, self._waiting = self._waiting, []
        for request in (*group, *waiting):
            _refuse(request)

    async def stop(self) -> None:
        """Wait for the append in flight."""
        if self._appending is not None:
            await asyncio.wait([self._appending])


def _entries(group: list[_Request]) -> "list[list[_Request]]":
    """``group`` cut into entries: each request whole in one, each entry of ENTRY_BYTES or one request."""
    entries: list[list[_Request]] = []
    room = 0
    for request in group:
        if request.size > room:
            entries.append([])
            room = ENTRY_BYTES
        entries[-1].append(request)
        room -= request.size
    return entries


def _refuse(request: _Request) -> None:
    error = JournalUnavailable("Redis does not answer, so ack=journal cannot be given; ack=memory can", 1)
    request.refuse(error)
    if not request.done.done():
        request.done.set_exception(error)
