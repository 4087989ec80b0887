"""What befalls the servers: who is killed, stopped or frozen when, by chance."""

import asyncio
import collections
import datetime
import random
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from .processes import Behind, LogServer, send

#: Seconds between two faults, at least, at most and on the average: as long as it takes to get something done.
_SERVER_GAP = (0.3, 6.0, 1.5)
_BEHIND_GAP = (0.5, 8.0, 3.0)
#: Longer than a lease, so that another server takes over.
_ABSENCE = (16.0, 22.0)

_Fault = Callable[[], Coroutine[Any, Any, None]]


class Faults:
    """Two series of faults that go on at the same time: of the log servers, and of the servers behind them.

    With ``every`` they are one series, a fault each so many seconds, and the first log server is spared.
    """

    def __init__(
        self, rand: random.Random, servers: Sequence[LogServer], behind: Behind, log_file: Path, every: float = 0.0
    ) -> None:
        """``log_file`` gets a line for each."""
        self._log_file = log_file
        self._rand = rand
        self._every = every
        self._servers = servers[1:] if every else servers
        self._behind = behind
        self._absent: set[LogServer] = set()
        self._absences: set[asyncio.Task[None]] = set()
        self.over = asyncio.Event()
        self.counts: collections.Counter[str] = collections.Counter()

    @property
    def kills(self) -> int:
        """How often a log server was killed with -9."""
        return self.counts["log server killed"]

    async def run(self) -> None:
        """Go on until ``over`` is set; then everything runs. Raises StartError when something does not start."""
        if self._every:
            await self._regular([*self._of_servers(), *self._of_behind()])
        else:
            await asyncio.gather(
                self._series(_SERVER_GAP, self._of_servers()), self._series(_BEHIND_GAP, self._of_behind())
            )
        await asyncio.gather(*self._absences)

    async def _regular(self, faults: Sequence[_Fault]) -> None:
        # Each once a round, however often it is in the pack of the other series.
        rand, began = random.Random(self._rand.getrandbits(64)), asyncio.get_running_loop().time()
        for count, fault in enumerate(_dealt(rand, list(dict.fromkeys(faults))), 1):
            await self._pause(began + count * self._every - asyncio.get_running_loop().time())
            if self.over.is_set():
                return
            await fault()

    async def _series(self, gap: tuple[float, float, float], faults: Sequence[_Fault]) -> None:
        # Its own, so that what happens in the other series does not change what comes next in this.
        rand = random.Random(self._rand.getrandbits(64))
        least, most, mean = gap
        for fault in _dealt(rand, faults):
            await self._pause(min(most, least + rand.expovariate(1 / mean)))
            if self.over.is_set():
                return
            await fault()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than the trial goes on."""
        try:
            async with asyncio.timeout(seconds):
                await self.over.wait()
        except TimeoutError:
            pass

    def _note(self, name: str, life: str = "") -> None:
        self.counts[name] += 1
        with self._log_file.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.datetime.now().time()} {name} {life}\n")

    # The log servers

    def _of_servers(self) -> Sequence[_Fault]:
        if not self._servers:
            return []
        faults: list[_Fault] = [self._kill] * 4 + [self._stop] * 2 + [self._kill_at_start, self._kill_at_stop]
        return faults + ([self._leave] if len(self._servers) > 1 else [])

    def _one(self) -> LogServer:
        return self._rand.choice([server for server in self._servers if server not in self._absent])

    async def _killed(self, server: LogServer) -> None:
        self._note("log server killed", server.life.name)
        await server.kill()

    async def _kill(self) -> None:
        server = self._one()
        async with server.lock:
            await self._killed(server)
            await self._pause(self._rand.choice((0.0, 0.0, 0.5)))
            await server.start()

    async def _kill_at_start(self) -> None:
        server = self._one()
        async with server.lock:
            await self._killed(server)
            await server.spawn()
            await self._pause(self._rand.uniform(0.2, 1.5))
            await self._killed(server)
            await server.start()

    async def _stop(self) -> None:
        server = self._one()
        async with server.lock:
            self._note("log server stopped", server.life.name)
            await server.stop()
            await server.start()

    async def _kill_at_stop(self) -> None:
        server = self._one()
        async with server.lock:
            server.terminate()
            await self._pause(self._rand.uniform(0.0, 0.2))
            await self._killed(server)
            await server.start()

    async def _leave(self) -> None:
        """One server is away, or frozen, for so long that another adopts its stream."""
        if self._absent:
            await self._kill()
            return
        server = self._one()
        self._absent.add(server)
        self._note("log server away for long", server.life.name)
        task = asyncio.ensure_future(self._absence(server))
        self._absences.add(task)
        task.add_done_callback(self._absences.discard)

    async def _absence(self, server: LogServer) -> None:
        async with server.lock:
            if self._rand.random() < 0.5:
                await self._killed(server)
                await self._pause(self._rand.uniform(*_ABSENCE))
                await server.start()
            else:
                # Both store the same then: it does not know that its lease has run out.
                server.send(signal.SIGSTOP)
                await self._pause(self._rand.uniform(*_ABSENCE))
                server.send(signal.SIGCONT)
        self._absent.discard(server)

    # The servers behind them

    def _of_behind(self) -> Sequence[_Fault]:
        mongo: list[_Fault] = [self._kill_mongo, self._kill_mongo, self._stop_mongo] + [self._freeze_mongo] * 2
        redis: list[_Fault] = [self._kill_redis, self._kill_redis, self._stop_redis]
        redis += [self._stop_without_redis] if self._servers else []
        both: list[_Fault] = [self._kill_both, self._kill_all, self._kill_all]
        has_mongo, has_redis = self._behind.mongo is not None, self._behind.redis is not None
        return mongo * has_mongo + redis * has_redis + both * (has_mongo and has_redis)

    async def _kill_mongo(self) -> None:
        await self._down("MongoDB killed", kill=True, mongo=True)

    async def _stop_mongo(self) -> None:
        await self._down("MongoDB stopped", kill=False, mongo=True)

    async def _kill_redis(self) -> None:
        await self._down("Redis killed", kill=True, redis=True)

    async def _stop_redis(self) -> None:
        await self._down("Redis stopped", kill=False, redis=True)

    async def _kill_both(self) -> None:
        await self._down("MongoDB and Redis killed", kill=True, mongo=True, redis=True)

    async def _down(self, name: str, *, kill: bool, mongo: bool = False, redis: bool = False) -> None:
        chosen = ((self._behind.mongo, mongo), (self._behind.redis, redis))
        children = [child for child, wanted in chosen if child is not None and wanted]
        self._note(name)
        if kill:
            await self._behind.kill(*children)
        else:
            for child in children:
                await child.stop()
        await self._pause(self._rand.uniform(0.0, 2.5))
        await self._behind.start(*children)

    async def _freeze_mongo(self) -> None:
        """It neither answers nor ends its connections: queues fill."""
        assert self._behind.mongo is not None
        self._note("MongoDB frozen")
        send(self._behind.mongo, signal.SIGSTOP)
        await self._pause(self._rand.uniform(1.0, 5.0))
        send(self._behind.mongo, signal.SIGCONT)

    async def _stop_without_redis(self) -> None:
        """What a server that stops cannot give to Redis, it has to keep in a file."""
        assert self._behind.redis is not None
        server = self._one()
        async with server.lock:
            self._note("log server stopped without Redis", server.life.name)
            await self._behind.kill(self._behind.redis)
            await server.stop()
            starts = [lambda: self._behind.start(*self._behind.children[-1:]), server.start]
            self._rand.shuffle(starts)
            for start in starts:
                await start()

    async def _kill_all(self) -> None:
        """Everything at the same moment, as when the power fails but for what the kernel has."""
        present = [server for server in self._servers if server not in self._absent]
        for server in present:
            await server.lock.acquire()
        try:
            self._note("all killed at once")
            for server in present:
                server.kill_soon()
            await self._behind.kill(*self._behind.children)
            for server in present:
                await self._killed(server)
            await asyncio.gather(self._behind.start(*self._behind.children), *(server.start() for server in present))
        finally:
            for server in present:
                server.lock.release()


def _dealt(rand: random.Random, faults: Sequence[_Fault]) -> Iterator[_Fault]:
    """As from a pack of cards: each has its turn, so that a short trial has some of everything."""
    while faults:
        yield from rand.sample(faults, len(faults))
