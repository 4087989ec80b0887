"""Redis and MongoDB in memory, on wires that a test holds, cuts and lets go, and a clock that it moves.

What is faked is what the real servers cannot be made to do on demand: to fail after having done what was asked, to
answer in the middle of something else, to let fifteen seconds pass. Redis is faked below redis-py's interface, so
that the real RecordStream and Leases run on it.
"""

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from redis.exceptions import ConnectionError

from tornado_logsrv import leases, records, streams
from tornado_logsrv.outcome import Outcome
from tornado_logsrv.shares import Held

Id = tuple[int, int]

#: Whose the code that runs is: tasks are noted there, so that a crash ends them.
OWNER: contextvars.ContextVar[Any] = contextvars.ContextVar("OWNER")


class Loop(asyncio.SelectorEventLoop):
    """An event loop on which time passes only when it is told to."""

    def __init__(self) -> None:
        self._now = 1_000_000.0
        super().__init__()
        self.problems: list[str] = []
        self.set_exception_handler(lambda _, context: self.problems.append(repr(context)))
        self.set_task_factory(_owned_task)

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self.idle()

    def idle(self) -> None:
        """Run until nothing can go on."""
        while True:
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready:
                return


def _owned_task(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task:
    task = asyncio.Task(work, loop=loop, **more)
    OWNER.get().tasks.append(task)
    return task


def _cut(done: str, result: Any) -> Any:
    return ConnectionError("cut")


class Call:
    """Something asked of a server: done, half done or not, and answered or not."""

    def __init__(
        self,
        whole: Callable[[], Any],
        half: Callable[[], Any] = lambda: None,
        broken: Callable[[str, Any], Any] = _cut,
    ) -> None:
        """``broken`` gives the answer, or the error, when the connection breaks with so much done."""
        self._work = {"all": whole, "half": half, "nothing": lambda: None}
        self._broken = broken
        self.answer = asyncio.get_running_loop().create_future()

    def fulfil(self) -> None:
        self._end(self._work["all"]())

    def fail(self, done: str) -> None:
        """The connection breaks, with ``all``, ``half`` or ``nothing`` of it done."""
        self._end(self._broken(done, self._work[done]()))

    def _end(self, answer: Any) -> None:
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class Wire:
    """The connection of one process to one server.

    ``mode`` is ``prompt``: all is done at once; ``held``: it waits for ``release`` or ``cut``; or how much is done,
    ``nothing``, ``half`` or ``all``, before the connection breaks.
    """

    def __init__(self) -> None:
        self.mode = "prompt"
        self.waiting: list[Call] = []
        self.failures = 0

    async def ask(self, call: Call) -> Any:
        self.waiting.append(call)
        if self.mode == "prompt":
            asyncio.get_running_loop().call_soon(self.release)
        elif self.mode != "held":
            asyncio.get_running_loop().call_soon(self.cut, self.mode)
        return await call.answer

    def set_mode(self, mode: str) -> None:
        self.mode = mode
        while self.waiting and mode != "held":
            self.release() if mode == "prompt" else self.cut(mode)

    def release(self) -> None:
        """Do and answer the oldest call."""
        if self.waiting:
            self.waiting.pop(0).fulfil()

    def cut(self, done: str) -> None:
        """Let the oldest call fail."""
        if self.waiting:
            self.failures += 1
            self.waiting.pop(0).fail(done)


class RedisData:
    """What a Redis server holds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.streams: dict[str, dict[Id, dict[bytes, bytes]]] = {}
        self.sets: dict[str, set[bytes]] = {}
        self._strings: dict[str, tuple[bytes, float]] = {}
        self._last_ids: dict[str, Id] = {}
        self._scripts = {
            leases._ACQUIRE: self._acquire,
            leases._RELEASE: self._release,
            leases._ADOPT: self._adopt,
            leases._FORGET: self._forget,
            streams._DROP_EMPTY: self._drop_empty,
        }

    def records(self) -> list[bytes]:
        """Every record of every stream."""
        entries = [entry[b"r"] for stream in self.streams.values() for entry in stream.values()]
        return [record for entry in entries for record in records.split(entry).records]

    def get(self, key: str) -> bytes | None:
        value, end = self._strings.get(key, (None, 0.0))
        return value if end > self._clock() else None

    def xadd(self, key: str, fields: dict[bytes, bytes]) -> bytes:
        milliseconds, sequence = self._last_ids.get(key, (0, 0))
        now = int(self._clock() * 1000)
        new = (now, 0) if now > milliseconds else (milliseconds, sequence + 1)
        self._last_ids[key] = new
        self.streams.setdefault(key, {})[new] = fields
        return _text(new)

    def xadd_all(self, key: str, field: bytes, values: Sequence[bytes]) -> list[bytes]:
        return [self.xadd(key, {field: value}) for value in values]

    def xrevrange(self, key: str, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        return [(_text(i), fields) for i, fields in sorted(self.streams.get(key, {}).items())[::-1][:count]]

    def xrange(self, key: str, min: bytes, max: bytes, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        low, behind = ((0, 0), min[1:]) if min.startswith(b"(") else ((0, 0), b"")
        found = [(i, fields) for i, fields in sorted(self.streams.get(key, {}).items()) if low <= i <= _id(max)]
        found = [(i, fields) for i, fields in found if not behind or i > _id(behind)]
        return [(_text(i), fields) for i, fields in found[:count]]

    def xtrim(self, key: str, minid: bytes, approximate: bool) -> None:
        assert not approximate
        stream = self.streams.get(key, {})
        for entry in [i for i in stream if i < _id(minid)]:
            del stream[entry]

    def xlen(self, key: str) -> int:
        return len(self.streams.get(key, {}))

    def exists(self, key: str) -> int:
        return int(key in self.streams or self.get(key) is not None)

    def pttl(self, key: str) -> int:
        return int(1000 * (self._strings.get(key, (b"", 0.0))[1] - self._clock()))

    def sadd(self, key: str, member: str) -> None:
        self.sets.setdefault(key, set()).add(member.encode())

    def srem(self, key: str, member: str) -> None:
        self.sets.get(key, set()).discard(member.encode())

    def smembers(self, key: str) -> set[bytes]:
        return set(self.sets.get(key, set()))

    def eval(self, script: str, count: int, *arguments: Any) -> Any:
        return self._scripts[script](arguments[:count], arguments[count:])

    def _set(self, key: str, value: str, seconds: float) -> None:
        self._strings[key] = (value.encode(), self._clock() + seconds)

    def _acquire(self, keys: Sequence[str], args: Sequence[Any]) -> bytes:
        owner = self.get(keys[0])
        if owner is not None and not owner.startswith(args[1].encode()):
            return owner
        self._set(keys[0], args[0], args[2])
        return args[0].encode()

    def _release(self, keys: Sequence[str], args: Sequence[Any]) -> int:
        return int(self.get(keys[0]) == args[0].encode() and self._strings.pop(keys[0]) is not None)

    def _adopt(self, keys: Sequence[str], args: Sequence[Any]) -> int:
        if self.exists(keys[0]) or self.get(keys[1]) not in (None, args[0].encode()):
            return 0
        self._set(keys[1], args[0], args[1])
        return 1

    def _forget(self, keys: Sequence[str], args: Sequence[Any]) -> int:
        if self.exists(keys[1]) or self.exists(keys[2]):
            return 0
        known = args[0].encode() in self.sets.get(keys[0], set())
        self.srem(keys[0], args[0])
        return int(known)

    def _drop_empty(self, keys: Sequence[str], args: Sequence[Any]) -> int:
        if self.xlen(keys[0]) or keys[0] not in self.streams:
            return 0
        del self.streams[keys[0]], self._last_ids[keys[0]]
        return 1


def _text(entry: Id) -> bytes:
    return b"%d-%d" % entry


def _id(text: bytes) -> Id:
    milliseconds, _, sequence = text.partition(b"-")
    return int(milliseconds), int(sequence or 0)


class FakeRedis:
    """redis-py's client, as far as the server uses it, for one process."""

    #: One server, as a rule; a test may say that another one is written to now.
    primary: tuple[str, int] | None = None

    def __init__(self, data: RedisData) -> None:
        self._data = data
        self.wire = Wire()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        command = getattr(self._data, name)
        return lambda *args, **more: self.wire.ask(Call(lambda: command(*args, **more)))

    async def xadd_all(self, key: str, field: bytes, values: Sequence[bytes]) -> list[bytes]:
        """XADDs in one round trip, not in a transaction: of those that fail, some may have been done."""
        half = values[: (len(values) + 1) // 2]
        data = self._data
        return await self.wire.ask(
            Call(lambda: data.xadd_all(key, field, values), lambda: data.xadd_all(key, field, half))
        )

    async def aclose(self) -> None:
        pass


class StoreData:
    """What MongoDB holds: the records, and those it refuses for good, which are the ones with ``bad_mark``."""

    def __init__(self, bad_mark: bytes) -> None:
        self._bad_mark = bad_mark
        self.documents: dict[bytes, bytes] = {}
        self.quarantine: dict[bytes, bytes] = {}
        #: The ids, in the order in which they came.
        self.order: list[bytes] = []

    def is_bad(self, record: bytes) -> bool:
        return self._bad_mark in record

    def insert(self, found: Sequence[bytes]) -> None:
        for record in found:
            # What is there already is left as it is, as a duplicate _id is.
            into = self.quarantine if self.is_bad(record) else self.documents
            if records.id_of(record) not in into:
                into[records.id_of(record)] = record
                self.order.append(records.id_of(record))


class FakeStore:
    """The application's store, for one process."""

    def __init__(self, data: StoreData) -> None:
        self._data = data
        self.wire = Wire()
        self.held = Held()
        #: Nobody reads here.
        self.reader = SimpleNamespace()
        self.now_ms = lambda: None
        #: What becomes of the records of a write that is half done, in turn.
        self.fates = ["confirmed", "stored", "lost"]
        #: Whether a write that fails ends in an error that nobody has foreseen.
        self.raises = False

    async def write(self, found: Sequence[bytes]) -> Outcome:
        fates = [self.fates[index % len(self.fates)] for index in range(len(found))]
        raises = self.raises

        def broken(done: str, outcome: Outcome | None) -> Outcome | Exception:
            if raises:
                return ZeroDivisionError("nobody has foreseen this")
            return outcome if outcome and done == "half" else Outcome(range(len(found)), problem="cut")

        whole = ["confirmed"] * len(found)
        return await self.wire.ask(Call(lambda: self._write(found, whole), lambda: self._write(found, fates), broken))

    def _write(self, found: Sequence[bytes], fates: Sequence[str]) -> Outcome:
        self._data.insert([record for record, fate in zip(found, fates, strict=True) if fate != "lost"])
        unwritten = [index for index, fate in enumerate(fates) if fate != "confirmed"]
        refused = {i: "bad" for i, record in enumerate(found) if i not in unwritten and self._data.is_bad(record)}
        return Outcome(unwritten, refused, "cut" if unwritten else "")

    async def close(self) -> None:
        pass
