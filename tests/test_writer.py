"""The writer's decisions, with a sink that fails as it is told: faults that no real server gives on demand."""

import asyncio
import collections
import logging

import pytest

from tornado_logsrv.metrics import Ledger
from tornado_logsrv.outcome import Outcome
from tornado_logsrv.queues import RecordQueue
from tornado_logsrv.writer import Backoff, BatchWriter


class Sink:
    """Stores batches; each of ``faults``, in turn, is what becomes of one."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.faults: list = []
        self.gate: asyncio.Event | None = None

    async def write(self, records):
        if self.gate is not None:
            await self.gate.wait()
        outcome = self.faults.pop(0) if self.faults else Outcome()
        if isinstance(outcome, Exception):
            raise outcome
        settled = {*range(len(records))} - {*outcome.unwritten} - {*outcome.quarantined}
        if settled:
            self.batches.append([records[index] for index in sorted(settled)])
        return outcome

    @property
    def stored(self):
        return [record for batch in self.batches for record in batch]


def down(count):
    return Outcome(range(count), problem="away")


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def queue():
    return RecordQueue(collections.deque(), 1 << 20)


@pytest.fixture
def writer(io_loop, queue, sink):
    made = BatchWriter(
        queue, sink, Ledger(), interval_ms=3_600_000, batch_size=3, backoff=Backoff(0.01, 0.01, rand=lambda: 1.0)
    )
    yield made
    io_loop.run_sync(made.stop)


def records(count):
    return [b"%03d" % n for n in range(count)]


async def until(condition):
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@pytest.mark.gen_test
async def test_a_full_batch_starts_a_flush_and_less_does_not(queue, sink, writer):
    queue.offer(records(2))
    writer.offered()
    await asyncio.sleep(0)
    assert sink.batches == []
    queue.offer([b"x"])
    writer.offered()
    await until(lambda: sink.batches)
    assert sink.batches == [[b"000", b"001", b"x"]]


@pytest.mark.gen_test
async def test_a_flush_writes_all_that_stood_there_in_batches(queue, sink, writer):
    queue.offer(records(8))
    writer.flush_soon()
    await until(lambda: not queue.size_bytes)
    assert [len(batch) for batch in sink.batches] == [3, 3, 2]
    assert sink.stored == records(8)


@pytest.mark.gen_test
async def test_the_timer_writes_what_is_less_than_a_batch(queue, sink):
    timed = BatchWriter(queue, sink, Ledger(), interval_ms=10, batch_size=1000)
    timed.start()
    queue.offer(records(2))
    await until(lambda: sink.batches)
    await timed.stop()
    assert sink.batches == [records(2)]


@pytest.mark.gen_test
async def test_what_failed_is_written_again_first_and_in_order(queue, sink, writer):
    sink.faults = [down(3), Outcome([0, 2], problem="some")]
    queue.offer(records(7))
    writer.flush_soon()
    await until(lambda: not queue.size_bytes)
    assert sink.stored == [b"001", b"000", b"002", b"003", b"004", b"005", b"006"]


@pytest.mark.gen_test
async def test_an_unknown_error_drops_nothing(queue, sink, writer, caplog):
    sink.faults = [ZeroDivisionError("who knows")]
    queue.offer(records(3))
    writer.offered()
    await until(lambda: not queue.size_bytes)
    assert sink.stored == records(3)
    assert "does not know" in caplog.text


@pytest.mark.gen_test
async def test_an_outage_is_one_line_and_its_end_another(queue, sink, writer, caplog):
    caplog.set_level(logging.INFO)
    sink.faults = [down(3)] * 5
    queue.offer(records(3))
    writer.offered()
    await until(lambda: not queue.size_bytes)
    lines = [record.message for record in caplog.records if record.name == "logsrv.writer"]
    assert [line.split(",")[0].split(";")[0] for line in lines] == [
        "cannot write to MongoDB",
        "writing to MongoDB again",
    ]


@pytest.mark.gen_test
async def test_neither_tick_nor_full_batch_cuts_the_backoff_short(queue, sink, io_loop):
    slow = BatchWriter(
        queue, sink, Ledger(), interval_ms=3_600_000, batch_size=3, backoff=Backoff(1e6, 1e6, rand=lambda: 1.0)
    )
    sink.faults = [down(3)]
    queue.offer(records(3))
    slow.offered()
    await until(lambda: not sink.faults and not queue.in_flight)
    queue.offer(records(3))
    slow.offered()
    slow.flush_soon()
    await asyncio.sleep(0.01)
    assert sink.batches == []
    await slow.stop()


@pytest.mark.gen_test
async def test_stop_waits_for_the_batch_in_flight_and_begins_no_other(queue, sink, writer):
    sink.gate = asyncio.Event()
    queue.offer(records(6))
    writer.offered()
    await until(lambda: queue.in_flight)
    stopping = asyncio.ensure_future(writer.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    sink.gate.set()
    await stopping
    assert sink.stored == records(3)
    assert len(queue) == 3


@pytest.mark.gen_test
async def test_a_batch_that_is_abandoned_is_put_back(queue, sink, writer):
    sink.gate = asyncio.Event()
    queue.offer(records(4))
    writer.offered()
    await until(lambda: queue.in_flight)
    await writer.abandon()
    assert [record for _, record in queue.unstored()] == records(4)


def test_backoff_is_full_jitter_up_to_its_bound():
    full = Backoff(0.1, 30.0, rand=lambda: 1.0)
    assert [full.next() for _ in range(11)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    full.reset()
    assert full.next() == 0.1
    assert Backoff(0.1, 30.0, rand=lambda: 0.0).next() == 0.0


@pytest.mark.gen_test
async def test_retry_after_follows_the_measured_drain_rate(io_loop):
    now = [0.0]
    queue = RecordQueue(collections.deque(), 100)

    class Slow(Sink):
        async def write(self, records):
            now[0] += 1.0
            return await super().write(records)

    writer = BatchWriter(queue, Slow(), Ledger(), interval_ms=3_600_000, batch_size=2, clock=lambda: now[0])
    queue.offer([b"12345"] * 20)
    writer.flush_soon()
    await until(lambda: not queue.size_bytes)
    # A batch of ten bytes took a second: half of a queue of 100 bytes takes 5 s.
    assert writer.retry_after() == 5
    await writer.stop()
