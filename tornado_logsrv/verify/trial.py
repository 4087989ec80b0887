"""One trial from start to end."""

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import Sequence
from pathlib import Path

from .balance import Balance, balance, table
from .faults import Faults
from .found import COLLECTION, Places
from .load import Load
from .processes import Behind, LogServer
from .progress import Progress
from .samples import Sample, courses
from .samples import table as courses_table
from .wire import Broken

#: How long the clients may take to settle what has a key, and the servers to store all, once everything runs.
_SETTLE_SECONDS = 60.0
_DRAIN_SECONDS = 180.0
_SAMPLE_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done. URLs are "" for servers of the trial's own; ``fault_every`` is as Faults has it."""

    seconds: float
    seed: int
    mongo_url: str
    redis_url: str
    connections: int
    instances: int
    rate: float
    fault_every: float = 0.0


class Trial:
    """Loads the servers, lets the faults loose, and counts."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        """Raises StartError when a server that is needed is not installed."""
        self._plan = plan
        self._directory = directory
        self._rand = random.Random(plan.seed)
        self._faults_seen: list[str] = []
        self._name = f"logsrv_verify_{time.time_ns():x}"
        self._behind = Behind(directory, plan.mongo_url, plan.redis_url, random.Random())
        self._servers = [self._server(f"verify-{number}") for number in range(1, plan.instances + 1)]
        self._load = Load(plan.seed, self._servers, self._report, plan.rate)
        self._faults = Faults(
            random.Random(plan.seed), self._servers, self._behind, directory / "faults.log", plan.fault_every
        )
        self.samples: list[Sample] = []
        self._places = Places(self._behind.mongo_url, self._behind.redis_url, self._name, self._name)

    def _report(self, fault: str) -> None:
        self._faults_seen.append(fault)

    def _server(self, name: str) -> LogServer:
        return LogServer(name, self._directory / f"{name}.err", lambda: self._options(name), self._report)

    def _options(self, name: str) -> Sequence[str]:
        """Other bounds for each process: now and then the queue is so small that it fills, with a spool or without."""
        queue = self._rand.choice(("150kB", "1MiB", "256MiB"))
        spool = self._rand.choice(("0", "0", "500kB", "64MiB"))
        quick = f"{self._behind.mongo_url}&serverSelectionTimeoutMS=500" if self._behind.mongo else ""
        values = {
            "port": 0, "instance": name, "data_dir": self._directory / name,
            "mongo_url": quick or self._behind.mongo_url, "mongo_db": self._name, "mongo_collection": COLLECTION,
            "redis_url": self._behind.redis_url, "redis_prefix": self._name,
            "flush_interval_ms": self._rand.choice((50, 300, 1500)), "batch_size": self._rand.choice((50, 1000)),
            "queue_max_bytes": queue, "spool_max_bytes": spool,
            "stored_timeout": "3s", "shutdown_timeout": "2s", "log_level": "info",
        }  # fmt: skip
        return [f"--{option}={value}" for option, value in values.items()]

    async def run(self) -> Balance:
        """Start, load, kill, count. Raises StartError."""
        try:
            await self._behind.start(*self._behind.children)
            await asyncio.to_thread(self._places.prepare)
            await asyncio.gather(*(server.start() for server in self._servers))
            progress = asyncio.ensure_future(Progress(self._plan.seconds, self._tell).run())
            try:
                await self._disturb()
                await self._drain()
            finally:
                progress.cancel()
                await asyncio.wait([progress])
            for server in self._servers:
                await server.stop()
            return await asyncio.to_thread(self._count)
        finally:
            await self._end()

    async def _disturb(self) -> None:
        faults = asyncio.ensure_future(self._faults.run())
        clients = asyncio.ensure_future(self._load.run_clients(self._plan.connections))
        watch = asyncio.ensure_future(self._watch())
        look = asyncio.ensure_future(self._look())
        tasks = (faults, clients, watch, look)
        try:
            # None of them ends before its time, unless by an exception.
            done, _ = await asyncio.wait(tasks, timeout=self._plan.seconds, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            self._faults.over.set()
            await faults
            self._load.over.set()
            await asyncio.wait([clients], timeout=_SETTLE_SECONDS)
            if not clients.done():
                self._report(f"clients that resend are not answered within {_SETTLE_SECONDS:g} s")
                clients.cancel()
            await asyncio.wait([clients])
            if not clients.cancelled():
                clients.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _tell(self) -> str:
        return f"acknowledged {self._load.acknowledged}  kills {self._faults.kills}"

    async def _watch(self) -> None:
        """Look at the ledgers while all goes on."""
        while True:
            await asyncio.sleep(1.0)
            await self._servers[int(time.monotonic()) % len(self._servers)].check()

    async def _look(self) -> None:
        """See what the servers take while all goes on."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(_SAMPLE_SECONDS)
            elapsed = time.monotonic() - began
            found = await asyncio.gather(*(server.sample(elapsed) for server in self._servers))
            self.samples += filter(None, found)

    async def _drain(self) -> None:
        """Wait until all is stored and nothing is kept for a next start."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while left := await self._left():
            if time.monotonic() > deadline:
                self._report(f"after {_DRAIN_SECONDS:g} s without faults there is left: {left}")
                break
            await asyncio.sleep(0.5)

    async def _left(self) -> str:
        try:
            queued = [await server.queue_size() for server in self._servers]
        except Broken as error:
            return f"a server that does not answer: {error}"
        if any(queued):
            return f"queues of {queued}"
        entries = await asyncio.to_thread(self._places.entries)
        files = [path.name for path in self._directory.glob("*/*.bson*")]
        return f"{entries} entries in Redis, files {files}" if entries or files else ""

    def _count(self) -> Balance:
        for stream in self._places.damaged():
            self._report(f"{stream} holds entries that could not be read")
        result = balance(self._load.sent, self._places.stored(), self._places.quarantined())
        for sentence in self._faults_seen:
            result.fault(sentence)
        return result

    async def _end(self) -> None:
        with contextlib.suppress(Exception):
            for server in self._servers:
                await server.kill()
        if len(self._behind.children) < 2:
            with contextlib.suppress(Exception):
                await asyncio.to_thread(self._places.remove)
        self._places.close()
        await self._behind.close()

    def summary(self, result: Balance) -> str:
        """The table, and what happened while it came about."""
        happened = [f"{count:6}  {name}" for name, count in sorted(self._faults.counts.items())]
        checks = sum(server.balances_read for server in self._servers)
        long = courses(self.samples)
        return "\n".join(
            [
                table(result.rows, result.total),
                "",
                *(happened or ["nothing befell the servers"]),
                "",
                f"{len(self._load.sent)} requests, {self._load.resent} resends; ledgers read {checks} times",
                *(["", courses_table(long)] if long else []),
            ]
        )
