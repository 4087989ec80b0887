"""The real servers the tests run against, the application on them, and ways to talk to it.

LOGSRV_TEST_MONGO_URL and LOGSRV_TEST_REDIS_URL name servers to use in place of those of the ``embedded`` extra;
LOGSRV_TEST_TRANSPORT chooses the transport, httptools or tornado.
Each test has a database and a key prefix of its own.
"""

import asyncio
import concurrent.futures
import dataclasses
import os
import signal
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
import redis

from tornado_logsrv import embedded
from tornado_logsrv.application import LogApplication
from tornado_logsrv.config import Options
from tornado_logsrv.server import http_server as make_http_server
from tornado_logsrv.store import RecordStore
from tornado_logsrv.streams import RecordStream, connect

TRANSPORT = os.environ.get("LOGSRV_TEST_TRANSPORT", "httptools")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


class Servers:
    """MongoDB- and Redis-compatible servers that a test can stop, kill and start."""

    def __init__(self, directory: Path, *extra: str, oplog: bool = False) -> None:
        self._loop = asyncio.new_event_loop()
        # A loop of its own in a thread of its own: the test may be in another one, as the browser's are.
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self.mongo, self.mongo_url = embedded.mongodb(directory, ["--enable-test-commands", *extra], oplog=oplog)
        self.redis, self.redis_url = embedded.redis(directory)

    def start(self, *children: embedded.Child) -> None:
        for child in children:
            self._run(child.start())

    def stop(self, *children: embedded.Child) -> None:
        for child in children:
            self._run(child.stop())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._thread.submit(self._loop.run_until_complete, work).result()

    def kill(self, *children: embedded.Child) -> None:
        """As by kill -9. The loop that would start them again does not run meanwhile."""
        for child in children:
            os.kill(child.pid, signal.SIGKILL)
        self.stop(*children)

    def close(self) -> None:
        self.stop(self.mongo, self.redis)
        self._thread.shutdown()
        self._loop.close()


@pytest.fixture(scope="session", autouse=True)
def default_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """What pytest-tornado finds when it asks for the loop before its own; else asyncio makes one that nobody closes."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    loop.close()


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """What this process ignores, the servers it starts ignore too, and a shell has what is in its background do so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@dataclasses.dataclass
class GivenServers:
    """Servers that somebody else runs."""

    mongo_url: str
    redis_url: str


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The servers of the session, which no test may harm."""
    mongo_url, redis_url = (os.environ.get(f"LOGSRV_TEST_{name}_URL", "") for name in ("MONGO", "REDIS"))
    if mongo_url and redis_url:
        yield GivenServers(mongo_url, redis_url)
        return
    started = Servers(tmp_path_factory.mktemp("servers"))
    started.start(started.mongo, started.redis)
    started.mongo_url, started.redis_url = mongo_url or started.mongo_url, redis_url or started.redis_url
    yield started
    started.close()


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[Servers]:
    """Servers of this test alone, running, to be stopped and killed."""
    started = Servers(tmp_path)
    started.start(started.mongo, started.redis)
    yield started
    started.close()


@pytest.fixture
def mongo(servers: Any) -> Iterator[Any]:
    """A client of the MongoDB server, to look from outside at what is stored."""
    with pymongo.MongoClient(servers.mongo_url, tz_aware=True) as client:
        yield client


@pytest.fixture
def database(mongo: Any) -> Iterator[Any]:
    """This test's own database."""
    name = f"logsrv_test_{uuid.uuid4().hex[:12]}"
    yield mongo[name]
    mongo.drop_database(name)


@pytest.fixture
def collection(database: Any) -> Any:
    """The collection that the tested server writes to."""
    return database["logs"]


@pytest.fixture
def prefix(servers: Any) -> Iterator[str]:
    """This test's own key prefix."""
    name = f"logsrv-test-{uuid.uuid4().hex[:12]}"
    yield name
    with redis.Redis.from_url(servers.redis_url) as client:
        for key in client.scan_iter(f"{name}:*"):
            client.delete(key)


@pytest.fixture
def redis_client(servers: Any) -> Iterator[Any]:
    with redis.Redis.from_url(servers.redis_url) as client:
        yield client


@pytest.fixture
def options(servers: Any, database: Any, prefix: str, tmp_path: Path) -> Options:
    """Options of a server for this test alone; its timer does not fire while the test runs."""
    return Options(
        port=0,
        mongo_url=servers.mongo_url,
        mongo_db=database.name,
        redis_url=servers.redis_url,
        redis_prefix=prefix,
        data_dir=str(tmp_path / "data"),
        instance="test",
        ack="memory",
        transport=TRANSPORT,
        flush_interval_ms=3_600_000,
        # No test that MongoDB confirms fails because the machine is slow.
        stored_timeout=60.0,
    )


@pytest.fixture
def app(options: Options, io_loop: Any) -> Iterator[LogApplication]:
    """The application, on the real store, as pytest-tornado serves it."""
    Path(options.data_dir).mkdir(exist_ok=True)
    store = RecordStore(options.mongo_url, options.mongo_db, options.mongo_collection, options.query_timeout)
    client = connect(options.redis_url)
    application = LogApplication(options, store, RecordStream(client, options.redis_prefix, options.instance_name))
    io_loop.run_sync(application.backup.find)
    application.writer.start()
    yield application
    application.watch.close()
    for end in (application.writer.stop, application.backup.stop, application.stop, store.close, client.aclose):
        io_loop.run_sync(end)
    # Whatever a test did to it, it has lost nothing and counted nothing twice.
    assert application.ledger.balance(application.unsettled) == 0


@pytest.fixture
def http_server(app: LogApplication, io_loop: Any, _unused_port: Any) -> Iterator[Any]:
    """The application behind the server's own HTTP server, with its limits."""
    started = make_http_server(app)
    started.add_socket(_unused_port[0])
    yield started
    started.stop()
    io_loop.run_sync(started.close_all_connections)


@pytest.fixture
def fetch(http_client: Any, base_url: str) -> Callable[..., Any]:
    """``await fetch(path, body=…)``: GET, or POST when there is a body; never raises for a status."""

    def fetch(path: str, body: bytes | None = None, **more: Any) -> Any:
        more.setdefault("method", "GET" if body is None else "POST")
        if body is not None:
            more["headers"] = {"Content-Type": "application/json", **more.get("headers", {})}
        return http_client.fetch(base_url + path, body=body, raise_error=False, **more)

    return fetch
