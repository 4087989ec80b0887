"""ack=journal beside ack=memory: requests a second, and the time to an answer."""

import dataclasses
from collections.abc import Sequence

from . import bars, load, samples
from .rows import Bar, Row, compared
from .scale import Scale
from .servers import Backing, LogServer, backing

_WARM = 200


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of load."""

    id: str
    path: str
    connections: int
    body: bytes
    bar: Bar | None
    #: Whether MongoDB is there.
    storing: bool = False

    @property
    def name(self) -> str:
        """What the table says."""
        many = f" of {samples.BATCH}" if self.path == "/add-jobs" else ""
        return f"POST {self.path}{many}, {self.connections} connections" + (", stored" if self.storing else "")


@dataclasses.dataclass(frozen=True)
class Level:
    """How a load went at one level: answers a second, their p99, and the server's processor time for one."""

    rate: float
    p99_ms: float
    processor_us: float


CASES = (
    Case("journal-1", "/add-job", 1, samples.BODY, None),
    Case("journal-32", "/add-job", 32, samples.BODY, bars.JOURNAL),
    Case("journal-256", "/add-job", 256, samples.BODY, bars.JOURNAL),
    Case("journal-batch", "/add-jobs", 32, samples.BATCH_BODY, bars.JOURNAL_BATCH),
    Case("journal-storing", "/add-job", 32, samples.BODY, None, storing=True),
)


def measure(scale: Scale) -> list[Row]:
    """Three rows for each case: requests a second, the 99th percentile of the time to an answer, processor time."""
    with backing() as servers:
        rounds = [_round(scale, servers) for _ in range(scale.rounds)]
    return [row for case, pairs in zip(CASES, zip(*rounds, strict=True), strict=True) for row in _rows(case, pairs)]


def _round(scale: Scale, servers: Backing) -> list[tuple[Level, Level]]:
    return [(_load(scale, servers, case, "journal"), _load(scale, servers, case, "memory")) for case in CASES]


def _load(scale: Scale, servers: Backing, case: Case, ack: str) -> Level:
    name = servers.new_name()
    mongo = {"mongo_url": servers.mongo_url} if case.storing else {}
    # A new server each time: neither queue nor stream are those of the load before.
    with LogServer(servers, name, ack=ack, **mongo) as server:
        load.of_count(f"{server.url}/add-job", _WARM)
        before = server.processor_seconds()
        went = load.for_seconds(server.url + case.path, scale.seconds, case.connections, case.body)
        processor = server.processor_seconds() - before
        # Dumping what was never to be stored would take its time.
        server.kill()
    servers.forget(name)
    return Level(went.rate, went.p99_ms, 1e6 * processor / went.answered)


def _rows(case: Case, pairs: Sequence[tuple[Level, Level]]) -> list[Row]:
    how = f"{load.generator()} posts for seconds to a new server on the default transport, its core its own; "
    if case.storing:
        how += "MongoDB is there, and shares the other core with the load and Redis; no bar"
    else:
        how += "MongoDB is away, the embedded Redis shares the other core with the load"
    journal, memory = (list(column) for column in zip(*pairs, strict=True))
    rates, memory_rates = [level.rate for level in journal], [level.rate for level in memory]
    p99s, memory_p99s = [level.p99_ms for level in journal], [level.p99_ms for level in memory]
    times, memory_times = [level.processor_us for level in journal], [level.processor_us for level in memory]
    note = f"ack=journal beside ack=memory; {how}"
    p99_note = "the time to an answer that 99 of 100 of these requests do not pass; no bar"
    time_note = "processor time of the server, all its threads, for one of these requests; no bar"
    return [
        compared(case.id, case.name, "requests/s", rates, memory_rates, case.bar, note),
        compared(f"{case.id}-p99", f"{case.name}, p99", "ms", p99s, memory_p99s, None, p99_note),
        compared(f"{case.id}-cpu", f"{case.name}, processor", "us", times, memory_times, None, time_note),
    ]
