"""Dumping the queue at a stop, and reading it back at the next start: time and memory."""

import dataclasses
import statistics
from collections.abc import Sequence

from . import bars
from .rows import Row, alone, compared
from .scale import Scale
from .servers import Backing, LogServer, backing

#: Seconds that a difference of two times is at least: what is smaller cannot be told from nothing.
_LEAST = 0.001
_MIB = 1 << 20
#: Resident memory grows by pages: few records may find room in those that are there.
_PAGE = 4096


@dataclasses.dataclass(frozen=True)
class Cycle:
    """One dump and read back of ``count`` records."""

    count: int
    queue_bytes: int
    dump_seconds: float
    dump_bytes: int
    read_seconds: float
    read_bytes: int


def measure(scale: Scale) -> list[Row]:
    """Eight rows: seconds and peak memory, of a dump and of reading it back, with few and many records."""
    few, many = scale.dumped
    cycles: dict[int, list[Cycle]] = {0: [], few: [], many: []}
    with backing() as servers:
        for count in [*[0, few] * scale.short_turns, many] * scale.long_rounds:
            cycles[count].append(_cycle(servers, count))
    return [
        *_seconds_rows(*cycles.values()),
        *_memory_rows("few", cycles[0], cycles[few]),
        *_memory_rows("many", cycles[0], cycles[many]),
    ]


def _cycle(servers: Backing, count: int) -> Cycle:
    name = servers.new_name()
    return Cycle(count, *_dump(servers, name, count), *_read_back(servers, name, count))


def _dump(servers: Backing, name: str, count: int) -> tuple[int, float, int]:
    # No flush, or the stop would also wait for MongoDB.
    module = f"{__package__}.filled"
    with LogServer(servers, name, module=module, bench_count=count, flush_interval_ms=3_600_000) as server:
        before, after = map(int, server.line(r"filled (\d+ \d+)").split())
        server.forget_peak()
        seconds, peak = server.stop()
    return after - before, seconds, max(peak, after) - before


def _read_back(servers: Backing, name: str, count: int) -> tuple[float, int]:
    with LogServer(servers, name, flush_interval_ms=3_600_000) as server:
        peak = server.peak()
        waiting = server.get("/queue-size")["queueSize"]
        if waiting != count:
            raise RuntimeError(f"{waiting} records were read back, not {count}")
        return server.listens - server.began, peak


def _seconds_rows(empty: Sequence[Cycle], few: Sequence[Cycle], many: Sequence[Cycle]) -> list[Row]:
    best = "the best round counts, as everything else on the machine only adds"
    dump_note = f"from SIGTERM to the end of the process, less what an empty server takes; MongoDB is away; {best}"
    read_note = f"from the start of the process until it listens, less what an empty server takes; {best}"
    dumped = [min(cycle.dump_seconds for cycle in cycles) for cycles in (empty, few, many)]
    read = [min(cycle.read_seconds for cycle in cycles) for cycles in (empty, few, many)]
    counts = few[0].count, many[0].count
    return [*_linear("dump", counts, dumped, dump_note), *_linear("read-back", counts, read, read_note)]


def _linear(id: str, counts: tuple[int, int], seconds: Sequence[float], note: str) -> list[Row]:
    empty, *filled = seconds
    few, many = (max(_LEAST, each - empty) for each in filled)
    name, times = id.replace("-", " "), counts[1] / counts[0]
    linear = f"{note}; beside {times:g} times the seconds of {counts[0]:,}, which is what linear would be"
    return [
        alone(f"{id}-few", f"{name} {counts[0]:,}", "s", [few], note),
        compared(f"{id}-many", f"{name} {counts[1]:,}", "s", [many], [times * few], bars.LINEAR, linear),
    ]


def _memory_rows(few_or_many: str, empty: Sequence[Cycle], cycles: Sequence[Cycle]) -> list[Row]:
    count = f"{cycles[0].count:,}"
    idle = statistics.median(cycle.read_bytes for cycle in empty)
    own = [max(cycle.queue_bytes, _PAGE) / _MIB for cycle in cycles]
    note = (
        "most resident memory above that of the server before it had records, beside the queue's own size: what the "
        "memory grew by when the records came on the queue"
    )
    return [
        compared(
            f"{id}-memory-{few_or_many}", f"{name} {count}, peak memory", "MiB", peaks, own, bars.DUMP_MEMORY, note
        )
        for id, name, peaks in (
            ("dump", "dump", [cycle.dump_bytes / _MIB for cycle in cycles]),
            ("read-back", "read back", [(cycle.read_bytes - idle) / _MIB for cycle in cycles]),
        )
    ]
