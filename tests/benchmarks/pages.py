"""GET /logs: pages near and deep, with few and many records stored."""

import asyncio
import contextlib
import dataclasses
import itertools
import statistics
import time
from collections.abc import Iterator

import bson

from tornado_logsrv.readers.paging import Cursor
from tornado_logsrv.reading import position_of
from tornado_logsrv.store import RecordStore

from . import bars, samples
from .rows import Row, compared
from .scale import Scale
from .servers import Backing, LogServer, NotAnswered, backing

LIMIT = 100
_FEWEST = 2
_ENOUGH_SECONDS = 5.0


class Stored:
    """A collection that holds ``count`` records, and the server that reads it."""

    def __init__(self, servers: Backing, count: int) -> None:
        self.count = count
        self._records = samples.spread(count, _newest_ms())
        name = servers.new_name()
        asyncio.run(_write(servers.mongo_url, name, self._records))
        self.server = LogServer(servers, name, servers.mongo_url)

    def path(self, page: int, limit: int) -> str:
        """The request for a page, newest first; the first is 1."""
        last_before = (page - 1) * limit
        if not last_before:
            return f"/logs?limit={limit}"
        behind = self._document(last_before)
        position = position_of(behind)
        assert position is not None
        cursor = Cursor("desc", position)
        return f"/logs?limit={limit}&cursor={cursor}"

    def _document(self, place: int) -> dict[str, object]:
        """The record at ``place`` from the newest; the newest is 1."""
        codec = bson.CodecOptions[dict[str, object]](tz_aware=True)
        return bson.decode(self._records[-place], codec)

    def check(self, page: int, limit: int) -> None:
        """Raises RuntimeError when the server answers another page than this."""
        found = [document["_id"] for document in self.server.get(self.path(page, limit))]
        places = range((page - 1) * limit + 1, page * limit + 1)
        if found != [str(self._document(place)["_id"]) for place in places]:
            raise RuntimeError(f"page {page} of {limit} of {self.count} records is not the right one")


def _newest_ms() -> int:
    """Twenty seconds into the last whole minute: the newest minute of a log is always one that has not ended."""
    return (time.time_ns() // 60_000_000_000 - 1) * 60_000 + 20_000


async def _write(url: str, database: str, found: list[bytes]) -> None:
    # Through the store, so that what it keeps beside the records is there.
    store = RecordStore(url, database, "logs")
    for batch in samples.batches(iter(found)):
        await store.write(batch)
    await store.close()


@dataclasses.dataclass(frozen=True)
class Place:
    """A page of ``limit`` records that is asked for again and again, deep ones each time another beside it."""

    stored: Stored
    page: int
    limit: int

    def seconds(self, requests: int) -> float:
        """The median of the time of a request."""
        times: list[float] = []
        for page in itertools.islice(self._pages(), requests):
            times.append(self._time(self.stored.path(page, self.limit)))
            # A server that takes seconds for a page has shown what it is after a few.
            if len(times) >= _FEWEST and sum(times) > _ENOUGH_SECONDS:
                break
        return statistics.median(times)

    def _pages(self) -> Iterator[int]:
        # Downwards: the deepest page may be the last one.
        around = range(self.page, max(self.page - 40, 1), -1) if self.page > 1 else (1,)
        return itertools.cycle(around)

    def _time(self, path: str) -> float:
        began = time.perf_counter()
        # A page that the server gives up on counts with the time that took: it would have taken longer.
        with contextlib.suppress(NotAnswered):
            self.stored.server.get(path)
        return time.perf_counter() - began


def measure(scale: Scale) -> list[Row]:
    """Four rows: deep beside first with few and with many stored, and many beside few for each."""
    with backing() as servers:
        few, many = Stored(servers, scale.page), Stored(servers, scale.page * LIMIT)
        with few.server, many.server:
            for stored, limit in ((few, 1), (many, LIMIT), (many, 1)):
                stored.check(scale.page, limit)
            return _rows(scale, few, many)


def _rows(scale: Scale, few: Stored, many: Stored) -> list[Row]:
    near_one, deep_one = Place(few, 1, 1), Place(few, scale.page, 1)
    near, deep = Place(many, 1, LIMIT), Place(many, scale.page, LIMIT)
    near_few, deep_few = Place(few, 1, LIMIT), Place(many, scale.page, 1)
    times = _rounds(scale, (near_one, deep_one, near, deep, near_few, deep_few))
    page, note = f"page {scale.page:,}", f"median of {scale.page_requests} requests a round"
    fill = f"{samples.PER_MILLISECOND} records in each millisecond"
    return [
        _row(
            "deep-few",
            f"{page} of {few.count:,} stored",
            times[deep_one],
            times[near_one],
            f"of 1 record, beside the first; {note}; {fill}",
        ),
        _row(
            "deep-many",
            f"{page} of {many.count:,} stored",
            times[deep],
            times[near],
            f"of {LIMIT} records, beside the first; {note}",
        ),
        _row(
            "first-many",
            f"first page of {many.count:,} stored",
            times[near],
            times[near_few],
            f"of {LIMIT} records, beside the same of {few.count:,} stored; {note}",
        ),
        _row(
            "deep-growth",
            f"record {scale.page:,} of {many.count:,} stored",
            times[deep_few],
            times[deep_one],
            f"{page} of 1 record, beside the same of {few.count:,} stored; {note}",
        ),
    ]


def _rounds(scale: Scale, places: tuple[Place, ...]) -> dict[Place, list[float]]:
    times: dict[Place, list[float]] = {place: [] for place in places}
    for place in places:
        place.seconds(_FEWEST)
    for _ in range(scale.rounds):
        for place, found in times.items():
            found.append(1000 * place.seconds(scale.page_requests))
    return times


def _row(id: str, name: str, figures: list[float], besides: list[float], note: str) -> Row:
    return compared(f"pages-{id}", f"GET /logs, {name}", "ms", figures, besides, bars.FLAT, note)
