"""GET /logs with q, GET /logs/histogram and the web page over many stored records.

The answers stand beside the bare motor calls that do the same.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pymongo
from motor.motor_asyncio import AsyncIOMotorClient

from tornado_logsrv import indexes, records
from tornado_logsrv.readers import paging
from tornado_logsrv.store import RecordStore

from . import bars, browsed, samples
from .rows import Row, alone, compared
from .scale import Scale
from .servers import Backing, LogServer, backing

_HOUR_MS = 3_600_000
#: The hours over which the records are spread: the histogram is of the last one.
_HOURS = 10
_LIMIT = 100
#: A call is made so often in each round, and for so many seconds where it is short: short ones are disturbed easily.
_TURNS = 3
_TURN_SECONDS = 0.5
#: One record in so many is an error; and so many records have the rare service.
_ERRORS = 10
_RARE = 10
_ADDED = ("data.level", "data.service", "data.user")


def measure(scale: Scale) -> list[Row]:
    """Rows: first pages of a frequent and of a rare value, the histogram, the web page, and what each index costs."""
    with backing() as servers:
        return [*_cost(scale, servers), *_search(scale, servers)]


def _made(count: int, newest_ms: int) -> list[bytes]:
    """Records of the last hours, oldest first."""
    span_ms = _HOURS * _HOUR_MS
    ids, rare = records.Ids(), max(count // _RARE, 1)
    return [
        records.encode_job(
            {
                "level": "error" if n % _ERRORS == 0 else "info",
                "service": "rare" if n % rare == 0 else f"shop-{n % 20}",
                "user": f"u{n % 1000}",
                "event": "order is placed",
            },
            [],
            ids.next(),
            newest_ms - span_ms + n * span_ms // count,
        )
        for n in range(count)
    ]


async def _write(url: str, name: str, found: list[bytes], paths: tuple[str, ...]) -> float:
    """Seconds to write ``found`` into a collection that has indexes for ``paths``."""
    store = RecordStore(url, name, "logs")
    await store.prepare()
    for path in paths:
        await store.make_index(path)
    began = time.perf_counter()
    for batch in samples.batches(iter(found)):
        await store.write(batch)
    seconds = time.perf_counter() - began
    await store.close()
    return seconds


def _cost(scale: Scale, servers: Backing) -> list[Row]:
    found, rates = _made(scale.indexed, time.time_ns() // 1_000_000), dict[int, list[float]]()
    name = ""
    for number in range(scale.warm_rounds + scale.rounds):
        for added in (0, 1, len(_ADDED)):
            name = servers.new_name()
            seconds = asyncio.run(_write(servers.mongo_url, name, found, _ADDED[:added]))
            if number >= scale.warm_rounds:
                rates.setdefault(added, []).append(len(found) / seconds)
    note = f"{len(found):,} records of {len(found[0])} bytes, 1000 a write, beside the same without added indexes"
    return [
        *(
            compared(f"index-insert-{n}", f"stored with {n} added indexes", "records/s", rates[n], rates[0], None, note)
            for n in (1, len(_ADDED))
        ),
        alone("index-bytes", "size of an added index", "bytes", _sizes(servers, name, len(found)), "of keys, a record"),
    ]


def _sizes(servers: Backing, name: str, count: int) -> list[float]:
    with pymongo.MongoClient[dict[str, Any]](servers.mongo_url) as client:
        sizes = client[name].command("collStats", "logs")["indexSizes"]
    return [sizes[indexes.name(path)] / count for path in _ADDED]


def _search(scale: Scale, servers: Backing) -> list[Row]:
    newest_ms, name = time.time_ns() // 1_000_000, servers.new_name()
    asyncio.run(_write(servers.mongo_url, name, _made(scale.searched, newest_ms), _ADDED[:2]))
    start = paging.moment(newest_ms - _HOUR_MS)
    pages = {"frequent": ("level", "error"), "rare": ("service", "rare")}
    with LogServer(servers, name, servers.mongo_url, index="level,service") as server:
        rows = []
        for kind, (field, value) in pages.items():
            path = f"/logs?limit={_LIMIT}&q={quote(f'{field}:{value}')}"
            bare = _bare(servers.mongo_url, name, lambda logs, f=field, v=value: _page(logs, f"data.{f}", v))
            rows.append(_row(scale, server, f"search-{kind}", f"first page of {field}:{value}", path, bare))
        path = f"/logs/histogram?from={quote(start.isoformat())}&interval=1m"
        bare = _bare(servers.mongo_url, name, lambda logs: _histogram(logs, start))
        rows.append(_row(scale, server, "search-histogram", "histogram of an hour", path, bare))
        return [*rows, *browsed.measure(scale, servers, server)]


def _row(scale: Scale, server: LogServer, id: str, name: str, path: str, bare: Callable[[], float]) -> Row:
    ours, theirs = [], []
    for number in range(scale.warm_rounds + scale.rounds):
        one, other = _ours(server, path), bare()
        if number >= scale.warm_rounds:
            ours.append(1000 * one)
            theirs.append(1000 * other)
    note = f"{scale.searched:,} records stored, of {_HOURS} hours; beside the bare motor call, without HTTP"
    return compared(id, f"GET {name}", "ms", ours, theirs, bars.SEARCH, note)


def _enough(times: list[float]) -> bool:
    return len(times) >= _TURNS and sum(times) >= _TURN_SECONDS


def _ours(server: LogServer, path: str) -> float:
    times: list[float] = []
    while not _enough(times):
        began = time.perf_counter()
        server.get(path)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _bare(url: str, name: str, work: Callable[[Any], Awaitable[object]]) -> Callable[[], float]:
    async def timed() -> float:
        client: Any = AsyncIOMotorClient(url)
        logs, times = client[name]["logs"], list[float]()
        await logs.find_one()
        while not _enough(times):
            began = time.perf_counter()
            await work(logs)
            times.append(time.perf_counter() - began)
        client.close()
        return statistics.median(times)

    return lambda: asyncio.run(timed())


async def _page(logs: Any, path: str, value: str) -> object:
    return await logs.find({path: value}).sort([("timestamp", -1), ("_id", -1)]).limit(_LIMIT).to_list(_LIMIT)


async def _histogram(logs: Any, start: object) -> object:
    bucket = {"$floor": {"$divide": [{"$subtract": ["$timestamp", start]}, 60_000]}}
    group = {"_id": {"bucket": bucket, "level": "$data.level"}, "count": {"$sum": 1}}
    return await logs.aggregate([{"$match": {"timestamp": {"$gte": start}}}, {"$group": group}]).to_list(None)
