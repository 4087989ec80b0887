"""The way of a record as a state machine against a model: whatever happens in whatever order, nothing is lost.

The real application and the real life of the server run here, on a Redis and a MongoDB in memory whose every answer
can be held back, cut off, or lost after the work was done. HYPOTHESIS_PROFILE=long looks for longer.
"""

import asyncio
import contextvars
import inspect
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tornado_logsrv import backup, journal, records, segments, server
from tornado_logsrv.application import LogApplication
from tornado_logsrv.config import Options
from tornado_logsrv.errors import LeaseHeld, StartError, StoredTimeout, Unavailable
from tornado_logsrv.leases import Leases
from tornado_logsrv.streams import RecordStream, connect
from tornado_logsrv.writer import Backoff

from .fakes import OWNER, FakeRedis, FakeStore, Loop, RedisData, StoreData

pytestmark = pytest.mark.long

COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("model-short", max_examples=400, stateful_step_count=40, **COMMON)
settings.register_profile("model-long", max_examples=20_000, stateful_step_count=60, **COMMON)
PROFILE = settings.get_profile(f"model-{os.environ.get('HYPOTHESIS_PROFILE', 'short')}")

NAMES = ("a", "b")
BAD_MARK = b"refused for good"
QUEUE_BYTES = 1200
#: Small, so that a few records are many portions, groups and files.
SIZES = [
    (backup, "ENTRY_BYTES", 250),
    (backup, "ROUND_TRIP_ENTRIES", 2),
    (journal, "ENTRY_BYTES", 600),
    (journal, "GROUP_BYTES", 1200),
    (segments, "SEGMENT_BYTES", 600),
    (segments, "_READ_BYTES", 250),
]
REQUESTS = st.tuples(
    st.sampled_from(["memory", "journal", "journal", "stored"]),
    st.lists(st.sampled_from([0, 40, 150]), min_size=1, max_size=4),
    st.sampled_from([False, False, False, True]),
)
MODES = ["prompt", "held", "held", "nothing", "half", "all"]


class Nothing:
    """Stands for the HTTP server, which has nothing to do here."""

    def stop(self) -> None:
        pass

    async def close_all_connections(self) -> None:
        pass


class Process(server.Server):
    """A server without its sockets and signals, on a fake Redis and a fake MongoDB."""

    def __init__(self, options: Options, number: int, redis: FakeRedis, store: FakeStore, loop: Loop) -> None:
        super().__init__(options)
        self.name = options.instance
        self.tasks: list[asyncio.Task] = []
        self.redis, self.store = redis, store
        self._store, self._redis, self._http = store, redis, Nothing()
        stream = RecordStream(redis, options.redis_prefix, options.instance_name)
        self._leases = Leases(redis, options.redis_prefix, self.name, f"directory-{self.name}", str(number))
        self.app = self._application = LogApplication(options, store, stream)
        self.app.may_journal = lambda: self._leases.valid
        self.app.journal._clock = self.app.writer._clock = loop.time
        self.app.writer._backoff = Backoff(1.0, 8.0, rand=lambda: 1.0)
        self.serving = self.stopping = self.stopped = self.gone = False
        #: Ids of what it was sent and has not refused, in that order: by ack=memory, and by the others.
        self.taken: dict[bool, list[bytes]] = {True: [], False: []}
        #: What it has taken and, by what it has answered, may lose in a crash only.
        self.in_memory: set[bytes] = set()

        self.disk, self.disk_failures = "good", 0
        segments, spool = self.app.backup._segments, self.app.spool
        segments.read = self.unless("unreadable", segments.read)
        segments.write = self.unless("full", segments.write)
        spool._write = self.unless("full", spool._write)

    def unless(self, trouble: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work``, on a disk that may be in ``trouble``, also between two blocks of a file."""

        def each(blocks: Any) -> Iterator[Any]:
            for block in blocks:
                yield block
                self.fail_if(trouble)

        def careful(*args: Any) -> Any:
            self.fail_if(trouble)
            result = work(*args)
            return each(result) if isinstance(result, Iterator) else result

        return careful

    def fail_if(self, trouble: str) -> None:
        if self.disk == trouble:
            self.disk_failures += 1
            raise OSError(trouble)

    async def live(self) -> None:
        """Server.run, without what is not here."""
        try:
            await self._claim_name()
            await self._read_back()
            self._tasks.append(asyncio.ensure_future(self._tend()))
            self.app.writer.start()
            self.serving = True
            await self._stop.wait()
            self.stopping = True
            self.stopped = await self.shutdown() == 0
            assert self.stopped or self.disk == "full"
        except StartError:
            pass
        finally:
            self.gone = True

    @property
    def untroubled(self) -> bool:
        """Whether no call of it has failed yet."""
        return not (self.redis.wire.failures or self.store.wire.failures or self.disk_failures)

    def tick(self) -> None:
        """What the timer does."""
        if self.app.writer._ticks.is_running():
            self.app.writer.flush_soon()

    def held(self) -> list[bytes]:
        """The records in its memory."""
        batches = self.app.queue._taken.values()
        return [*self.app.records, *(record for batch in batches for record in batch.records)]


class World(RuleBasedStateMachine):
    """Two servers, one Redis, one MongoDB; clients, faults, and time."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for module, name, value in SIZES:
            self.patch.setattr(module, name, value)
        self.directory = Path(tempfile.mkdtemp())
        self.loop = Loop()
        self.redis = RedisData(self.loop.time)
        self.store = StoreData(BAD_MARK)
        self.ids = records.Ids(clock=lambda: 1_700_000_000, process=b"model")
        self.processes: dict[str, Process] = {}
        self.started = 0
        self.sent: dict[bytes, bytes] = {}
        #: By id: those that were acknowledged, by how.
        self.journaled: set[bytes] = set()
        self.stored: set[bytes] = set()
        self.kept: set[bytes] = set()

    @initialize(spool_bytes=st.sampled_from([0, 0, 900, 100_000]))
    def begin(self, spool_bytes: int) -> None:
        self.spool_bytes = spool_bytes
        for name in NAMES:
            (self.directory / name).mkdir()
            self.start(name)

    # What happens

    @rule(name=st.sampled_from(NAMES))
    def start(self, name: str, redis: str = "prompt") -> None:
        if name in self.processes:
            return
        self.started += 1
        options = Options(
            data_dir=str(self.directory / name),
            instance=name,
            batch_size=3,
            flush_interval_ms=3_600_000,
            queue_max_bytes=QUEUE_BYTES,
            spool_max_bytes=self.spool_bytes,
            stored_timeout=30.0,
            shutdown_timeout=10.0,
        )
        process = Process(options, self.started, FakeRedis(self.redis), FakeStore(self.store), self.loop)
        process.redis.wire.mode = redis
        self.processes[name] = process
        self.let(process, lambda: asyncio.ensure_future(process.live()))

    @rule(name=st.sampled_from(NAMES), requests=st.lists(REQUESTS, min_size=1, max_size=4))
    def requests_come(self, name: str, requests: list[tuple[str, list[int], bool]]) -> None:
        """Some at the same moment, each with its ack, the sizes of its records, and whether they are bad."""
        process = self.one(name)
        if process is not None and process.serving and not process.stopping:
            self.let(process, lambda: [self.send(process, *request) for request in requests])

    def send(self, process: Process, ack: str, sizes: list[int], bad: bool) -> asyncio.Task:
        ids = [self.ids.next() for _ in sizes]
        mark = BAD_MARK.decode() if bad else ""
        found = [records.encode_job(mark + "x" * size, [], i, 0) for i, size in zip(ids, sizes, strict=True)]
        self.sent.update(zip(ids, found, strict=True))
        return asyncio.ensure_future(self.request(process, ids, found, ack))

    async def request(self, process: Process, ids: list[bytes], found: list[bytes], ack: str) -> None:
        """A client's request, and what its answer promises."""
        handler: Any = object()
        sent = process.taken[ack == "memory"]
        sent += ids
        process.app.request_began(handler)
        try:
            receipt = process.app.intake.accept(found, ack, records.JOB_SOURCE)
            if inspect.isawaitable(receipt):
                await receipt
            {"memory": process.in_memory, "journal": self.journaled, "stored": self.stored}[ack].update(ids)
        except StoredTimeout:
            process.in_memory.update(ids)
        except Unavailable:
            sent[:] = [record_id for record_id in sent if record_id not in ids]
        finally:
            process.app.request_ended(handler)

    @rule(name=st.sampled_from(NAMES))
    def tick(self, name: str) -> None:
        self.when_there(name, lambda process: process.tick())

    @rule(seconds=st.sampled_from([1, 6, 11, 31]))
    def time_passes(self, seconds: int) -> None:
        for _ in range(seconds):
            self.loop.advance(1.0)
        self.bury()

    @rule(name=st.sampled_from(NAMES), mode=st.sampled_from(MODES))
    def redis_becomes(self, name: str, mode: str) -> None:
        self.when_there(name, lambda process: process.redis.wire.set_mode(mode))

    @rule(name=st.sampled_from(NAMES), done=st.sampled_from(["answered", "answered", "nothing", "half", "all"]))
    def redis_answers(self, name: str, done: str) -> None:
        self.when_there(name, lambda process: _answer(process.redis.wire, done))

    @rule(
        name=st.sampled_from(NAMES),
        mode=st.sampled_from(MODES),
        fates=st.lists(st.sampled_from(["confirmed", "stored", "lost"]), min_size=1, max_size=3),
        raises=st.booleans(),
    )
    def mongodb_becomes(self, name: str, mode: str, fates: list[str], raises: bool) -> None:
        def become(process: Process) -> None:
            process.store.fates, process.store.raises = fates, raises
            process.store.wire.set_mode(mode)

        self.when_there(name, become)

    @rule(name=st.sampled_from(NAMES), done=st.sampled_from(["answered", "answered", "nothing", "half", "all"]))
    def mongodb_answers(self, name: str, done: str) -> None:
        self.when_there(name, lambda process: _answer(process.store.wire, done))

    @rule(name=st.sampled_from(NAMES), disk=st.sampled_from(["good", "full", "unreadable"]))
    def disk_becomes(self, name: str, disk: str) -> None:
        self.when_there(name, lambda process: setattr(process, "disk", disk))

    @rule(name=st.sampled_from(NAMES))
    def signal_arrives(self, name: str) -> None:
        """The first begins an orderly stop, the second hurries it."""
        process = self.one(name)
        if process is not None and process.serving:
            self.let(process, process._signalled)

    @rule(name=st.sampled_from(NAMES), done=st.lists(st.sampled_from(["nothing", "half", "all"]), max_size=4))
    def crash(self, name: str, done: list[str]) -> None:
        """As by kill -9; of what was on the way to a server, some is still ``done``."""
        process = self.one(name)
        if process is None:
            return
        self.let(process, lambda: self.kill(process, done))

    def kill(self, process: Process, done: list[str]) -> None:
        for task in process.tasks:
            task.cancel()
        for wire in (process.redis.wire, process.store.wire):
            calls, wire.waiting, wire.mode = wire.waiting, [], "dead"
            for call, how in zip(calls, done, strict=False):
                call.answer.cancel()
                call.fail(how)
        process.app.writer._ticks.stop()
        process.app.writer._forget_retry()
        process.app.spool.close()
        process.gone = True

    # How it happens

    def one(self, name: str) -> Process | None:
        """The process of that name or, when it is gone, the other."""
        return self.processes.get(name) or next(iter(self.processes.values()), None)

    def let(self, process: Process, act: Callable[[], Any]) -> None:
        """Do ``act`` on the loop, on behalf of ``process``, and all that follows from it."""
        context = contextvars.copy_context()
        context.run(OWNER.set, process)
        self.loop.call_soon(act, context=context)
        self.loop.idle()
        self.bury()

    def when_there(self, name: str, act: Callable[[Process], Any]) -> None:
        process = self.one(name)
        if process is not None:
            self.let(process, lambda: act(process))

    def bury(self) -> None:
        """Take away the processes that are gone, with all they had in memory."""
        for name, process in list(self.processes.items()):
            for task in process.tasks:
                if task.done() and not task.cancelled() and task.exception():
                    raise task.exception()
            process.tasks = [task for task in process.tasks if not task.done()]
            if process.gone:
                del self.processes[name]
                if process.stopped:
                    self.kept |= process.in_memory
                context = contextvars.copy_context()
                context.run(OWNER.set, process)
                self.loop.call_soon(self.kill, process, [], context=context)
                self.loop.idle()

    # What must hold

    def settled(self) -> set[bytes]:
        return {*self.store.documents, *self.store.quarantine}

    def in_streams(self) -> set[bytes]:
        return {records.id_of(record) for record in self.redis.records()}

    def in_files(self) -> set[bytes]:
        paths = self.directory.glob("*/*.bson*")
        return {records.id_of(record) for path in paths for record in records.split(path.read_bytes()).records}

    @invariant()
    def no_task_has_failed(self) -> None:
        assert not self.loop.problems

    @invariant()
    def what_is_stored_is_what_was_sent_and_is_stored_once(self) -> None:
        for data in (self.store.documents, self.store.quarantine):
            assert all(self.sent[record_id] == record for record_id, record in data.items())
        assert not self.store.documents.keys() & self.store.quarantine.keys()

    @invariant()
    def what_is_acknowledged_as_stored_is_stored(self) -> None:
        assert self.stored <= self.settled()

    @invariant()
    def what_is_journaled_is_in_redis_until_it_is_stored(self) -> None:
        assert self.journaled <= self.settled() | self.in_streams()

    @invariant()
    def what_is_in_memory_is_lost_in_a_crash_only(self) -> None:
        if missing := self.kept - self.settled() - self.in_streams():
            assert missing <= self.in_files()
        for process in self.processes.values():
            if missing := process.in_memory - self.settled() - set(map(records.id_of, process.held())):
                assert missing <= self.in_streams() | self.in_files()

    @invariant()
    def the_ledger_balances(self) -> None:
        for process in self.processes.values():
            ledger, unsettled = process.app.ledger, process.app.unsettled
            assert ledger.balance(unsettled) == 0
            assert all(min(ledger.row(source).values()) >= 0 for source in ledger.sources)

    @invariant()
    def the_queue_keeps_its_order_and_knows_its_floor(self) -> None:
        for process in self.processes.values():
            queue = process.app.queue
            waiting = [place for place, _ in queue.unstored()]
            taken = [place for batch in queue._taken.values() for place in batch.places]
            assert waiting == sorted(waiting)
            assert queue.floor == min([*waiting, *taken], default=queue.next_place)

    @invariant()
    def records_are_stored_in_their_order_unless_something_fails(self) -> None:
        order = {record_id: place for place, record_id in enumerate(self.store.order)}
        for process in self.processes.values():
            if process.untroubled:
                for taken in process.taken.values():
                    places = [order[record_id] for record_id in taken if record_id in order]
                    assert places == sorted(places)

    # The end

    def teardown(self) -> None:
        try:
            if hasattr(self, "spool_bytes"):
                self.everything_is_stored_in_the_end()
        finally:
            self.close()

    def everything_is_stored_in_the_end(self) -> None:
        self.drain()
        self.kept |= {record_id for process in self.processes.values() for record_id in process.in_memory}
        # A file that could not be read waits for the next start.
        assert self.journaled | self.stored | self.kept <= self.settled() | self.in_files()
        for process in list(self.processes.values()):
            self.let(process, process._signalled)
        self.drain()
        assert self.journaled | self.stored | self.kept <= self.settled()
        assert not self.in_streams()
        assert not self.in_files()

    def drain(self) -> None:
        """All is well, everything runs, and nothing is sent any more."""
        for _ in range(40):
            for name in NAMES:
                self.start(name)
                self.redis_becomes(name, "prompt")
                self.mongodb_becomes(name, "prompt", ["confirmed"], False)
                self.disk_becomes(name, "good")
                self.tick(name)
            self.time_passes(1)
            if not self.in_streams() and not self.in_files() and self.all_is_settled():
                return

    def all_is_settled(self) -> bool:
        """Whether every process runs and has nothing left to do."""
        running = [process for process in self.processes.values() if process.serving and not process.stopping]
        return len(running) == len(NAMES) and not any(process.app.unsettled for process in running)

    def close(self) -> None:
        for process in self.processes.values():
            process.gone = True
        self.bury()
        self.loop.close()
        self.patch.undo()
        shutil.rmtree(self.directory)


@pytest.fixture
def world() -> Iterator[World]:
    """Two servers, to which a test does what it says; all has to be stored in the end."""
    made = World()
    made.begin(spool_bytes=0)
    yield made
    made.teardown()


def test_an_entry_of_two_requests_stays_until_both_are_stored(world: World) -> None:
    world.mongodb_becomes("a", "held", ["confirmed"], False)
    world.requests_come("a", [("journal", [0, 0], False), ("journal", [0, 0], False)])
    world.mongodb_answers("a", "answered")
    world.what_is_journaled_is_in_redis_until_it_is_stored()


@pytest.mark.parametrize("seconds", [0, 7])
def test_a_second_signal_while_redis_is_slow_loses_nothing(world: World, seconds: int) -> None:
    world.mongodb_becomes("a", "nothing", ["lost"], False)
    world.requests_come("a", [("memory", [150, 150, 0, 0], False), ("memory", [150, 150], False)])
    world.redis_becomes("a", "held")
    world.requests_come("a", [("journal", [0], False)])
    world.signal_arrives("a")
    world.signal_arrives("a")
    world.mongodb_becomes("a", "held", ["confirmed"], False)
    world.time_passes(seconds)
    world.redis_becomes("a", "prompt")
    world.what_is_in_memory_is_lost_in_a_crash_only()
    assert "a" not in world.processes


def test_reading_back_is_tried_again_though_nobody_sends(world: World) -> None:
    world.requests_come("a", [("journal", [0], False)])
    world.crash("a", [])
    world.start("a", redis="held")
    for done in ("answered", "answered", "answered", "nothing"):
        world.redis_answers("a", done)


def test_trimming_is_tried_again_though_nobody_sends(world: World) -> None:
    world.requests_come("a", [("journal", [0], False)])
    world.redis_becomes("a", "nothing")
    world.tick("a")
    world.redis_becomes("a", "prompt")
    world.time_passes(6)
    assert not world.in_streams()


OWNERS = st.sampled_from(["x/1", "x/2", "y/1"])
COMMANDS = st.one_of(
    st.tuples(st.just("append"), st.lists(st.integers(1, 3), min_size=1, max_size=3)),
    st.tuples(st.just("read"), st.integers(0, 5), st.integers(1, 4)),
    st.tuples(st.just("trim"), st.integers(0, 5)),
    st.tuples(st.just("length")),
    st.tuples(st.just("drop_if_empty")),
    st.tuples(st.sampled_from(["acquire", "release", "adopt", "orphans"]), OWNERS, st.sampled_from(NAMES)),
    st.tuples(st.just("adopted"), OWNERS, st.sampled_from(NAMES), st.booleans()),
)


class Caller:
    """Streams and leases on one Redis, whose entries are told by the order in which they were appended."""

    def __init__(self, redis: Any, prefix: str) -> None:
        self.redis, self.prefix = redis, prefix
        self.stream = RecordStream(redis, prefix, "a")
        self.entries: list[bytes] = []

    async def call(self, name: str, *arguments: Any) -> Any:
        """What a command gives, or the kind of error it raises."""
        if hasattr(self, name):
            return await getattr(self, name)(*arguments)
        if hasattr(self.stream, name):
            return await getattr(self.stream, name)()
        owner, instance, *more = arguments
        leases = Leases(self.redis, self.prefix, instance, *owner.split("/"))
        try:
            return await getattr(leases, name)(*([instance, *more] if name.startswith("adopt") else more))
        except LeaseHeld:
            return LeaseHeld

    async def append(self, counts: list[int]) -> None:
        record = records.encode_job(1, [], bytes(12), 0)
        self.entries += await self.stream.append([[record] * count for count in counts])

    async def read(self, after: int, count: int) -> list[tuple[int, int]] | None:
        if not self.entries:
            return None
        start = self.entries[after] if after < len(self.entries) else None
        found = await self.stream.read(start, self.entries[-1], count)
        return [(self.entries.index(entry), len(read)) for entry, read in found]

    async def trim(self, last: int) -> None:
        if last < len(self.entries):
            await self.stream.trim(self.entries[last])


def test_the_redis_in_memory_does_what_the_real_one_does(servers: Any, prefix: str) -> None:
    @settings(PROFILE, max_examples=40)
    @given(st.lists(COMMANDS, max_size=25))
    def same(commands: list[tuple[Any, ...]]) -> None:
        asyncio.run(both(commands))

    async def both(commands: list[tuple[Any, ...]]) -> None:
        async with connect(servers.redis_url) as real:
            own = f"{prefix}:{uuid.uuid4().hex[:8]}"
            callers = Caller(real, own), Caller(FakeRedis(RedisData(time.time)), own)
            for command in commands:
                answers = [await caller.call(*command) for caller in callers]
                assert answers[0] == answers[1], command

    same()


def _answer(wire: Any, done: str) -> None:
    if done == "answered":
        wire.release()
    else:
        wire.cut(done)


TestWorld = World.TestCase
TestWorld.settings = PROFILE
