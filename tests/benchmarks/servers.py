"""The servers of a measurement: the log server, and the MongoDB and Redis behind it."""

import asyncio
import contextlib
import http.client
import itertools
import json
import tempfile
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pymongo
import redis

from tornado_logsrv import embedded

from . import machine
from .processes import Process

#: The name of the server under test: part of its key in Redis.
INSTANCE = "bench"
#: Where no MongoDB listens (port 1 is tcpmux); half a second is the wait for it.
NO_MONGODB = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=500"
#: Entries of one round trip when Redis is filled.
_PIPELINE = 1000
#: Shorter waits as the queue empties, so that its end is seen at once and its work is not disturbed before.
_POLL_SECONDS = 0.005
_POLL_SECONDS_A_RECORD = 5e-6
_DRAIN_SECONDS = 300.0


class Backing:
    """An embedded MongoDB and Redis with data of their own, on the cores of what is not measured."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._loop = asyncio.new_event_loop()
        self._mongodb, self.mongo_url = embedded.mongodb(directory)
        self._redis, self.redis_url = embedded.redis(directory)
        for child in (self._mongodb, self._redis):
            self._run(child.start())
        self._names = 0

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        with machine.on(machine.REST):
            self._loop.run_until_complete(work)

    def stop(self) -> None:
        """End both."""
        for child in (self._mongodb, self._redis):
            self._run(child.stop())
        self._loop.close()

    @contextlib.contextmanager
    def mongodb_away(self) -> Iterator[None]:
        """MongoDB is stopped; it answers again, with all it had, when the block has ended."""
        self._run(self._mongodb.stop())
        yield
        self._run(self._mongodb.start())

    def new_name(self) -> str:
        """A name that no database, key prefix or directory here has."""
        self._names += 1
        return f"bench_{self._names}"

    def journal(self, name: str, entries: Iterator[list[bytes]]) -> None:
        """Put records into Redis as a server of this name would have left them."""
        with redis.Redis.from_url(self.redis_url) as client:
            for portion in _portions(entries):
                pipeline = client.pipeline(transaction=False)
                for entry in portion:
                    pipeline.xadd(_stream(name), {b"r": b"".join(entry)})
                pipeline.execute()

    def forget(self, name: str) -> None:
        """Remove what a server of this name has left in Redis."""
        with redis.Redis.from_url(self.redis_url) as client:
            client.unlink(_stream(name))

    def check_stored(self, name: str, count: int) -> None:
        """Raises RuntimeError unless ``count`` records are stored in the database of this name."""
        with pymongo.MongoClient[dict[str, object]](self.mongo_url) as client:
            stored = client[name]["logs"].count_documents({})
        if stored != count:
            raise RuntimeError(f"{stored} records are stored, not {count}")


def _stream(name: str) -> str:
    return f"{name}:backup:{INSTANCE}"


def _portions(entries: Iterator[list[bytes]]) -> Iterator[list[list[bytes]]]:
    while portion := list(itertools.islice(entries, _PIPELINE)):
        yield portion


@contextlib.contextmanager
def backing() -> Iterator[Backing]:
    """The backing servers, ended and forgotten afterwards."""
    with tempfile.TemporaryDirectory(prefix="logsrv-bench-") as directory:
        servers = Backing(Path(directory))
        try:
            yield servers
        finally:
            servers.stop()


class NotAnswered(RuntimeError):
    """The server did not answer 200."""


class LogServer(Process):
    """``python -m tornado_logsrv`` (or what ``module`` makes of it), listening."""

    def __init__(
        self,
        servers: Backing,
        name: str,
        mongo_url: str = NO_MONGODB,
        module: str = "tornado_logsrv",
        cores: set[int] = machine.MEASURED,
        **options: object,
    ) -> None:
        """``name`` is its database and key prefix; ``options`` are the server's own. Returns when it listens."""
        directory = servers.directory / name
        options = {
            "port": 0,
            "instance": INSTANCE,
            "data_dir": directory,
            "mongo_url": mongo_url,
            "mongo_db": name,
            "redis_url": servers.redis_url,
            "redis_prefix": name,
            "queue_max_bytes": "4GiB",
        } | options
        self.began = time.perf_counter()
        arguments = [f"--{option}={value}" for option, value in options.items()]
        super().__init__(module, arguments, servers.directory / f"{name}.log", cores)
        try:
            self.url = self.line(r"listens on (http://\S+)")
        except BaseException:
            # Nobody else could: there is no block to end yet.
            super().kill()
            raise
        self.listens = time.perf_counter()
        self._client = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=120)

    def get(self, path: str) -> Any:
        """The JSON that GET answers. Raises NotAnswered."""
        self._client.request("GET", path)
        answer = self._client.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise NotAnswered(f"GET {path}: {answer.status} {body[:500]!r}")
        return json.loads(body)

    def drained(self) -> float:
        """Wait until all is stored; the moment. Asks for the queue's size: counting in MongoDB would slow it."""
        until = time.perf_counter() + _DRAIN_SECONDS
        while waiting := self.waiting():
            if time.perf_counter() > until:
                raise RuntimeError("the queue does not become empty")
            time.sleep(max(_POLL_SECONDS, min(0.2, waiting * _POLL_SECONDS_A_RECORD)))
        return time.perf_counter()

    def waiting(self) -> int:
        """How many records are not stored."""
        return int(self.get("/queue-size")["queueSize"])

    def stop(self) -> tuple[float, int]:
        """End it, once no connection of ours is open."""
        self._client.close()
        return super().stop()

    def kill(self) -> None:
        """End it with kill -9."""
        self._client.close()
        super().kill()
