"""The queue of records between acceptance and MongoDB."""

import asyncio
import collections
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from .errors import QueueFull


@dataclasses.dataclass(frozen=True)
class Batch:
    """Records taken from the queue for one write, and the place of each in the order of acceptance, ascending."""

    records: list[bytes]
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.records)


class Ticket:
    """Waits for the records at places [first, end) to be stored or quarantined."""

    def __init__(self, first: int, end: int) -> None:
        self.first = first
        self.end = end
        self.left = end - first
        self.quarantined: list[str] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, count: int, reasons: Sequence[str]) -> None:
        """``count`` of the records are settled, for ``reasons`` some of them in quarantine."""
        self.left -= count
        self.quarantined += reasons
        if self.left == 0 and not self.done.done():
            self.done.set_result(None)


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
        self._reserved = 0
        self._next_place = 0
        self._put_back: collections.deque[int] = collections.deque()
        self._taken: dict[int, Batch] = {}
        self._tickets: list[Ticket] = []

    def __len__(self) -> int:
        """Records on the deque; those in a write are not among them."""
        return len(self._records)

    @property
    def in_flight(self) -> int:
        """Records taken and neither confirmed nor put back."""
        return sum(map(len, self._taken.values()))

    @property
    def unstored_count(self) -> int:
        """Records accepted and not confirmed."""
        return len(self._records) + self.in_flight

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
        heads = [batch.places[0] for batch in self._taken.values()]
        return min([self._head_place(), *heads])

    def _head_place(self) -> int:
        if self._put_back:
            return self._put_back[0]
        return self._next_place - len(self._records)

    def has_room(self, size: int) -> bool:
        """Whether records of ``size`` bytes in all can be offered."""
        return self._bytes + self._reserved + size <= self._max_bytes

    def _check_room(self, size: int) -> None:
        if not self.has_room(size):
            raise QueueFull(f"the queue is full ({self._bytes + self._reserved} of {self._max_bytes} bytes)")

    def reserve(self, size: int) -> None:
        """Keep ``size`` bytes free for records that are about to be offered. Raises QueueFull without room."""
        self._check_room(size)
        self._reserved += size

    def release(self, size: int) -> None:
        """Give back what ``reserve`` kept free."""
        self._reserved -= size

    def offer(self, records: Sequence[bytes]) -> None:
        """Append all of ``records``, or none: raises QueueFull when there is no room for them."""
        size = sum(map(len, records))
        self._check_room(size)
        self._append(records, size)

    def restore(self, records: Sequence[bytes], size: int | None = None) -> None:
        """Append records, of ``size`` bytes, for which there is room, or which were accepted once before."""
        self._append(records, sum(map(len, records)) if size is None else size)

    def _append(self, records: Sequence[bytes], size: int) -> None:
        self._records.extend(records)
        self._bytes += size
        self._next_place += len(records)

    def ticket(self, first: int, end: int) -> Ticket:
        """Waits for the records at places [first, end), just appended."""
        ticket = Ticket(first, end)
        self._tickets.append(ticket)
        return ticket

    def give_up(self, ticket: Ticket) -> None:
        """Nobody waits for ``ticket`` any more."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for records to be stored."""
        return bool(self._tickets)

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

    def confirm(
        self, batch: Batch, unwritten: Sequence[int] = (), quarantined: Mapping[int, str] | None = None
    ) -> None:
        """End ``batch``: all of it is settled but the indexes ``unwritten`` (ascending), which return to the head.

        ``quarantined`` gives the reasons, by index, of those that were settled by quarantine.
        """
        del self._taken[id(batch)]
        kept = [batch.records[index] for index in unwritten]
        self._bytes -= sum(map(len, batch.records)) - sum(map(len, kept))
        self._return(kept, [batch.places[index] for index in unwritten])
        if self._tickets:
            self._settle(batch, set(unwritten), quarantined or {})

    def part(self, batch: Batch, indexes: Sequence[int]) -> tuple[Batch, Batch | None]:
        """Cut ``batch`` in two, each of which ends by itself: what is at ``indexes``, and the rest, if there is one."""
        del self._taken[id(batch)]
        rest = sorted({*range(len(batch))} - {*indexes})
        return self._some_of(batch, indexes), self._some_of(batch, rest) if rest else None

    def _some_of(self, batch: Batch, indexes: Sequence[int]) -> Batch:
        some = Batch([batch.records[index] for index in indexes], [batch.places[index] for index in indexes])
        self._taken[id(some)] = some
        return some

    def _return(self, kept: list[bytes], places: list[int]) -> None:
        if kept and self._put_back and self._put_back[0] < places[-1]:
            # Of a batch that was taken earlier, some have been put back before this one: both go in by their places.
            head = [self._records.popleft() for _ in self._put_back]
            merged = sorted(zip([*self._put_back, *places], [*head, *kept], strict=True))
            self._put_back.clear()
            places, kept = [place for place, _ in merged], [record for _, record in merged]
        self._records.extendleft(reversed(kept))
        self._put_back.extendleft(reversed(places))

    def _settle(self, batch: Batch, unwritten: set[int], quarantined: Mapping[int, str]) -> None:
        settled = {place: index for index, place in enumerate(batch.places) if index not in unwritten}
        low, high = min(batch.places), max(batch.places) + 1
        for ticket in self._tickets:
            places = range(max(low, ticket.first), min(high, ticket.end))
            mine = [settled[place] for place in places if place in settled]
            ticket.settle(len(mine), [quarantined[index] for index in mine if index in quarantined])
        self._tickets = [ticket for ticket in self._tickets if ticket.left]

    def everything(self) -> list[bytes]:
        """Every record accepted and not confirmed: what is in a write, then the deque."""
        return [*itertools.chain.from_iterable(batch.records for batch in self._taken.values()), *self._records]

    def oldest(self) -> bytes | None:
        """The first of them; None when there is none."""
        for batch in self._taken.values():
            return batch.records[0]
        return self._records[0] if self._records else None

    def newest_first(self, count: int) -> Iterator[list[bytes]]:
        """The unstored records in lists of about ``count``, from the newest on, those in a write in the last one.

        The queue may change between two lists: what was on it before the first, and has not been settled since, is in
        one of them.
        """
        end = self._next_place
        # Those on the deque that have not been put back are at the places up to the next: some before ``end`` are left.
        while (left := end - (self._next_place - len(self._records) + len(self._put_back))) > count:
            yield self._slice(len(self._put_back) + left - count, count)
            end -= count
        yield [*self.taken(), *self._slice(0, len(self._put_back) + max(left, 0))]

    def _slice(self, start: int, count: int) -> list[bytes]:
        # Turning the deque moves whole blocks; an iterator would look at every record before the first one wanted.
        self._records.rotate(-start)
        found = list(itertools.islice(self._records, count))
        self._records.rotate(start)
        return found

    def taken(self) -> list[bytes]:
        """The records that are in a write."""
        return [record for batch in self._taken.values() for record in batch.records]

    def unstored(self) -> Iterator[tuple[int, bytes]]:
        """The place and bytes of every record on the deque, in order; call it when nothing is in flight."""
        fresh = range(self._next_place - len(self._records) + len(self._put_back), self._next_place)
        return zip(itertools.chain(self._put_back, fresh), self._records, strict=True)
