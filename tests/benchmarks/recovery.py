"""What comes back after kill -9: the records that were journaled, how soon, and at what cost of memory."""

import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence

from . import bars, load, samples
from .rows import Row, alone, compared
from .scale import Scale
from .servers import Backing, LogServer, backing

_CONNECTIONS = 4
_MIB = 1 << 20
_POLL_SECONDS = 0.01
_KILLED = f"posted to /add-jobs, {samples.BATCH} a request, at ack=journal; kill -9; started again"
_SINGLES = (
    "put into Redis as requests of one record, one after the other, leave them: one entry of the stream a record, the "
    "most entries there can be"
)


@dataclasses.dataclass(frozen=True)
class Recovered:
    """One recovery: seconds from the start of the process, and its peak memory."""

    listens: float
    queued: float
    peak: int


def measure(scale: Scale) -> list[Row]:
    """Six rows: until it listens, until all is on the queue, and memory, of large and of the smallest entries."""
    with backing() as servers:
        rounds = [
            (
                _restarted(servers, servers.new_name(), 0).peak,
                _queue_bytes(servers, scale.recovered),
                _after_kill(servers, scale.recovered),
                _queue_bytes(servers, scale.singles),
                _of_singles(servers, scale.singles),
            )
            for _ in range(scale.long_rounds)
        ]
    idle, own, killed, own_singles, singles = (list(column) for column in zip(*rounds, strict=True))
    base = statistics.median(idle)
    return [
        *_rows("recovery", f"recovery of {scale.recovered:,}", killed, base, own, _KILLED),
        *_rows("recovery-singles", f"recovery of {scale.singles:,} entries", singles, base, own_singles, _SINGLES),
    ]


def _queue_bytes(servers: Backing, count: int) -> int:
    """What the memory of a server grows by when ``count`` records come on its queue."""
    with LogServer(servers, servers.new_name(), module=f"{__package__}.filled", bench_count=count) as server:
        before, after = map(int, server.line(r"filled (\d+ \d+)").split())
        server.kill()
    return after - before


def _after_kill(servers: Backing, count: int) -> Recovered:
    name = servers.new_name()
    with LogServer(servers, name, ack="journal") as server:
        load.of_count(f"{server.url}/add-jobs", count // samples.BATCH, _CONNECTIONS, samples.BATCH_BODY)
        server.kill()
    return _restarted(servers, name, count)


def _of_singles(servers: Backing, count: int) -> Recovered:
    name = servers.new_name()
    servers.journal(name, _singles(count))
    return _restarted(servers, name, count)


def _singles(count: int) -> Iterator[list[bytes]]:
    return ([record] for record in samples.encoded(count))


def _restarted(servers: Backing, name: str, count: int) -> Recovered:
    """Start a server and wait for its records, which are then forgotten. Raises RuntimeError for another count."""
    with LogServer(servers, name) as server:
        while server.waiting() < count:
            time.sleep(_POLL_SECONDS)
        queued = time.perf_counter()
        if server.waiting() != count:
            raise RuntimeError(f"{server.waiting()} records came back, not {count}")
        found = Recovered(server.listens - server.began, queued - server.began, server.peak())
        server.kill()
    servers.forget(name)
    return found


def _rows(id: str, name: str, found: Sequence[Recovered], idle: float, own: Sequence[int], how: str) -> list[Row]:
    """Three rows; ``idle`` is the peak of a server without records, ``own`` what a queue of so many takes."""
    beside = [size / _MIB for size in own]
    peaks = [(each.peak - idle) / _MIB for each in found]
    listens, queued = [each.listens for each in found], [each.queued for each in found]
    start = "from the start of the process, imports and all"
    memory = (
        "most resident memory above that of a server without records, beside the queue's own size: what the memory "
        "of a server grows by when as many records come on its queue"
    )
    return [
        alone(f"{id}-listens", f"{name}, listens", "s", listens, f"{how}; {start}, until it listens; MongoDB is away"),
        alone(f"{id}-queued", f"{name}, all queued", "s", queued, f"{start}, until all are on the queue"),
        compared(f"{id}-memory", f"{name}, peak memory", "MiB", peaks, beside, bars.DUMP_MEMORY, memory),
    ]
