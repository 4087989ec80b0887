"""Splunk's indexer acknowledgement, where it means: MongoDB has it."""

import time
from collections.abc import Callable

from ..queues import RecordQueue
from ..spool import Spool

#: Acknowledgements that are remembered, of all channels, and for how many seconds. Splunk forgets a channel after ten
#: minutes; clients ask for five (Vector, ``query_interval`` times ``retry_limit``).
MAX_ACKS = 100_000
ACK_SECONDS = 3600


class Acknowledgements:
    """Which requests are stored, told by the queue's floor: nothing is kept of a request but a number.

    Ids ascend from the time of start in microseconds, so that an id given before a restart is unknown after it, and
    not that of another request. What is unknown, or of another channel, is not confirmed; its client sends it again.
    """

    def __init__(self, queue: RecordQueue, spool: Spool, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds."""
        self._queue = queue
        self._spool = spool
        self._clock = clock
        self._next = time.time_ns() // 1000
        #: Id → channel, when it was given, and the place that the queue's floor has to reach; None: not known yet.
        self._given: dict[int, tuple[str, float, int | None]] = {}

    def __len__(self) -> int:
        return len(self._given)

    def give(self, channel: str) -> int:
        """The id of a request on ``channel`` whose records have just been taken."""
        now = self._clock()
        while self._given and (len(self._given) >= MAX_ACKS or self._oldest() < now - ACK_SECONDS):
            del self._given[next(iter(self._given))]
        self._next += 1
        self._given[self._next] = (channel, now, self._place())
        return self._next

    def _oldest(self) -> float:
        return self._given[next(iter(self._given))][1]

    def _place(self) -> int | None:
        # What went into the spool gets its place when it is read back; that is known once all of it is.
        return None if self._spool.count else self._queue.next_place

    def confirmed(self, channel: str, ids: list[int]) -> dict[int, bool]:
        """Whether all records of each of these requests are stored, or in quarantine."""
        floor = self._queue.floor
        return {each: self._is_stored(channel, each, floor) for each in ids}

    def _is_stored(self, channel: str, ack_id: int, floor: int) -> bool:
        owner, given, place = self._given.get(ack_id, ("", 0.0, None))
        if owner != channel:
            return False
        if place is None:
            place = self._place()
            self._given[ack_id] = (owner, given, place)
        return place is not None and place <= floor
