import collections
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tornado_logsrv.errors import QueueFull
from tornado_logsrv.queues import RecordQueue

ANY = 1 << 30


def queue(max_bytes: int = ANY) -> RecordQueue:
    return RecordQueue(collections.deque(), max_bytes)


def test_records_are_taken_in_the_order_they_were_offered():
    q = queue()
    q.offer([b"a", b"b"])
    q.offer([b"c"])
    assert q.take(2, ANY).records == [b"a", b"b"]
    assert q.take(9, ANY).records == [b"c"]


def test_what_failed_returns_to_the_head_in_order():
    q = queue()
    q.offer([b"a", b"b", b"c", b"d", b"e"])
    q.confirm(q.take(4, ANY), [0, 2])
    assert q.take(9, ANY).records == [b"a", b"c", b"e"]


def test_a_batch_is_bounded_in_bytes_but_never_empty():
    q = queue()
    q.offer([b"aaaa", b"bbbb", b"cccc"])
    assert q.take(3, 9).records == [b"aaaa", b"bbbb"]
    assert q.take(3, 1).records == [b"cccc"]


def test_an_offer_is_taken_whole_or_not_at_all_and_what_is_in_flight_counts():
    q = queue(6)
    q.offer([b"aaa"])
    q.take(1, ANY)
    with pytest.raises(QueueFull):
        q.offer([b"bbb", b"c"])
    assert (len(q), q.in_flight, q.size_bytes) == (0, 1, 3)


def test_what_was_accepted_before_always_finds_room():
    q = queue(2)
    q.restore([b"aaa"])
    assert q.size_bytes == 3


class Model(RuleBasedStateMachine):
    """Any order of offers, takes and confirmations, beside a list of what is not confirmed."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue()
        self.waiting: list[tuple[int, bytes]] = []
        self.batch = None
        self.offered = 0

    @rule(count=st.integers(0, 5))
    def offer(self, count):
        new = [b"%d" % (self.offered + n) for n in range(count)]
        self.queue.offer(new)
        self.waiting += [(self.offered + n, record) for n, record in enumerate(new)]
        self.offered += count

    @rule(count=st.integers(1, 4))
    def take(self, count):
        if self.batch is None and self.waiting:
            self.batch = self.queue.take(count, ANY)
            assert self.batch.records == [record for _, record in self.waiting[:count]]

    @rule(data=st.data())
    def confirm(self, data):
        if self.batch is None:
            return
        failed = sorted(data.draw(st.sets(st.integers(0, len(self.batch) - 1))))
        self.queue.confirm(self.batch, failed)
        self.waiting[: len(self.batch)] = [self.waiting[index] for index in failed]
        self.batch = None

    @invariant()
    def counts_hold(self):
        taken = len(self.batch) if self.batch else 0
        assert (len(self.queue) + taken, self.queue.in_flight) == (len(self.waiting), taken)
        assert self.queue.size_bytes == sum(len(record) for _, record in self.waiting)
        assert self.queue.floor == min([place for place, _ in self.waiting], default=self.offered)
        assert list(self.queue.unstored()) == self.waiting[taken:]


TestModel = Model.TestCase


@given(st.lists(st.sampled_from(["offer", "take", "confirm", "put back", "look"]), max_size=40), st.integers(1, 7))
def test_who_looks_through_a_queue_that_changes_meanwhile_misses_nothing_that_stays(steps, count):
    made, numbers = queue(), itertools.count()
    batches, settled = [], set()
    made.offer([b"%d" % next(numbers) for _ in range(10)])
    before, seen, lists = set(range(10)), set(), None
    for step in [*steps, *["look"] * 30]:
        if step == "offer":
            made.offer([b"%d" % next(numbers) for _ in range(3)])
        elif step == "take" and len(made):
            batches.append(made.take(4, 1000))
        elif step in ("confirm", "put back") and batches:
            batch = batches.pop()
            unwritten = range(len(batch)) if step == "put back" else ()
            made.confirm(batch, unwritten)
            settled |= set() if unwritten else set(map(int, batch.records))
        elif step == "look":
            lists = lists or made.newest_first(count)
            seen |= set(map(int, next(lists, [])))
    assert before - settled <= seen
