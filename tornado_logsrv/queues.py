"""The queue of records between acceptance and MongoDB."""

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from .errors import QueueFull


@dataclasses.dataclass(frozen=True)
class Batch:
    """Records taken from the queue for one write, and the place of each in the order of acceptance."""

    records: list[bytes]
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.records)


class RecordQueue:
    """First in, first out, over the application's ``deque`` of encoded records; bounded in bytes.

    Every record has a place: how many were offered before it. What is taken counts until it is confirmed or put
    back, so the bound holds for the records in a write as well, and ``floor`` never passes an unstored record:

        offered          0 1 2 3 4 5 6 7 8 9
        confirmed        x x   x
        put back             2                    ← the head
        in a write               4 5
        on the deque                 6 7 8 9
        floor                2
    """

    def __init__(self, records: collections.deque[bytes], max_bytes: int) -> None:
        """``records`` is the deque, empty; ``max_bytes`` the bound on the BSON bytes of all unstored records."""
        self._records = records
        self._max_bytes = max_bytes
        self._bytes = 0
        self._next_place = 0
        self._put_back: collections.deque[int] = collections.deque()
        self._taken: dict[int, Batch] = {}

    def __len__(self) -> int:
        """Records on the deque; those in a write are not among them."""
        return len(self._records)

    @property
    def in_flight(self) -> int:
        """Records taken and neither confirmed nor put back."""
        return sum(map(len, self._taken.values()))

    @property
    def size_bytes(self) -> int:
        """BSON bytes of all unstored records, in flight or not."""
        return self._bytes

    @property
    def max_bytes(self) -> int:
        """The bound on ``size_bytes``."""
        return self._max_bytes

    @property
    def next_place(self) -> int:
        """The place that the next offered record gets."""
        return self._next_place

    @property
    def floor(self) -> int:
        """Every record whose place is less than this has been confirmed."""
        heads = [min(batch.places) for batch in self._taken.values()]
        return min([self._head_place(), *heads])

    def _head_place(self) -> int:
        if self._put_back:
            return self._put_back[0]
        return self._next_place - len(self._records)

    def offer(self, records: Sequence[bytes]) -> None:
        """Append all of ``records``, or none: raises QueueFull when there is no room for them."""
        size = sum(map(len, records))
        if self._bytes + size > self._max_bytes:
            raise QueueFull(f"the queue is full ({self._bytes} of {self._max_bytes} bytes)")
        self._append(records, size)

    def restore(self, records: Sequence[bytes]) -> None:
        """Append records that were accepted once before; there is always room for them."""
        self._append(records, sum(map(len, records)))

    def _append(self, records: Sequence[bytes], size: int) -> None:
        self._records.extend(records)
        self._bytes += size
        self._next_place += len(records)

    def take(self, count: int, max_bytes: int) -> Batch:
        """The first ``count`` records, or as many as there are and fit ``max_bytes``, but at least one.

        Each batch ends in ``confirm``. Raises IndexError when the queue is empty.
        """
        first = self._next_place - len(self._records) + len(self._put_back)
        records = self._pop(min(count, len(self._records)), max_bytes)
        again = [self._put_back.popleft() for _ in range(min(len(records), len(self._put_back)))]
        fresh = range(first, first + len(records) - len(again))
        batch = Batch(records, [*again, *fresh] if again else fresh)
        self._taken[id(batch)] = batch
        return batch

    def _pop(self, count: int, max_bytes: int) -> list[bytes]:
        popleft = self._records.popleft
        records = [popleft() for _ in range(count)]
        size = sum(map(len, records))
        while size > max_bytes and len(records) > 1:
            size -= len(records[-1])
            self._records.appendleft(records.pop())
        return records

    def confirm(self, batch: Batch, unwritten: Sequence[int] = ()) -> None:
        """End ``batch``: all is stored but the indexes ``unwritten`` (ascending), which return to the head in order."""
        del self._taken[id(batch)]
        kept = [batch.records[index] for index in unwritten]
        self._bytes -= sum(map(len, batch.records)) - sum(map(len, kept))
        self._records.extendleft(reversed(kept))
        self._put_back.extendleft(batch.places[index] for index in reversed(unwritten))

    def unstored(self) -> Iterator[tuple[int, bytes]]:
        """The place and bytes of every record on the deque, in order; call it when nothing is in flight."""
        fresh = range(self._next_place - len(self._records) + len(self._put_back), self._next_place)
        return zip(itertools.chain(self._put_back, fresh), self._records, strict=True)
