"""Bytes of a record in Redis and in MongoDB, beside its size as BSON; for the queue see ``memory``."""

import redis

from . import load, samples
from .rows import Row, compared
from .scale import Scale
from .servers import INSTANCE, Backing, LogServer, backing

#: Files of WiredTiger that hold collections and indexes, and neither its log nor what it has set aside for that.
_DATA_FILES = "**/*.wt"


def measure(scale: Scale) -> list[Row]:
    """Three rows: in Redis when posted one by one and by the thousand, and in MongoDB with its indexes."""
    samples.check()
    with backing() as servers:
        return [
            _row("sizes-journal", "one by one", _in_redis(servers, scale.queued, 1), "32 connections"),
            _row(
                "sizes-journal-batch",
                "1000 a request",
                _in_redis(servers, scale.queued, samples.BATCH),
                "4 connections",
            ),
            compared(
                "sizes-mongodb",
                f"a record of {samples.RECORD_BYTES} bytes in MongoDB",
                "bytes",
                [_in_mongodb(servers, scale.stored)],
                [samples.RECORD_BYTES],
                None,
                f"growth of SecantusDB's data files (WiredTiger) by {scale.stored:,} records, with the indexes on _id "
                "and (timestamp, _id); beside their BSON. All are alike: others compress less, where that is done",
            ),
        ]


def _row(id: str, posted: str, size: float, how: str) -> Row:
    return compared(
        id,
        f"a record of {samples.RECORD_BYTES} bytes in Redis, {posted}",
        "bytes",
        [size],
        [samples.RECORD_BYTES],
        None,
        f"MEMORY USAGE of the stream, a record, posted at ack=journal on {how} while MongoDB is away; beside its BSON. "
        "Requests of one moment share an entry",
    )


def _in_redis(servers: Backing, count: int, batch: int) -> float:
    name = servers.new_name()
    with LogServer(servers, name, ack="journal") as server, redis.Redis.from_url(servers.redis_url) as client:
        if batch == 1:
            load.of_count(f"{server.url}/add-job", count)
        else:
            load.of_count(f"{server.url}/add-jobs", count // batch, 4, samples.BATCH_BODY)
        size = client.memory_usage(f"{name}:backup:{INSTANCE}", samples=0)
        taken = server.waiting()
        server.kill()
    servers.forget(name)
    return float(size) / taken


def _in_mongodb(servers: Backing, count: int) -> float:
    name, before = servers.new_name(), _data_bytes(servers)
    with LogServer(servers, name, servers.mongo_url, ack="memory") as server:
        load.of_count(f"{server.url}/add-jobs", count // samples.BATCH, 4, samples.BATCH_BODY)
        server.drained()
    # What is only in its cache and its log is in its files when it has been stopped.
    with servers.mongodb_away():
        return (_data_bytes(servers) - before) / count


def _data_bytes(servers: Backing) -> int:
    return sum(path.stat().st_size for path in (servers.directory / "mongodb").glob(_DATA_FILES))
