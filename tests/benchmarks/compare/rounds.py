"""Who is measured how often. Every round has a process of its own, and one server at a time runs."""

import dataclasses
import sys

from ..processes import Process
from ..servers import Backing, LogServer, backing
from . import install, load
from .processes import NODE, OURS, driver_microseconds, others, started

#: Records on the queue when it is full.
FULL_QUEUE = 1_000_000
MANY_CONNECTIONS = 512
FEW_CONNECTIONS = 32


@dataclasses.dataclass(frozen=True)
class Scale:
    """The counts of one run."""

    rounds: int
    seconds: float
    #: With this many connections it takes longer until all of them have their turns.
    seconds_of_many: float
    warm_seconds: float
    full_queue: int
    stored: int


FULL = Scale(rounds=3, seconds=3, seconds_of_many=5, warm_seconds=1, full_queue=FULL_QUEUE, stored=100_000)
QUICK = Scale(rounds=1, seconds=1, seconds_of_many=3, warm_seconds=1, full_queue=20_000, stored=5_000)


@dataclasses.dataclass(frozen=True)
class Level:
    """How a load went, and the server's processor time for a record of it, in microseconds."""

    went: load.Went
    processor: float


@dataclasses.dataclass(frozen=True)
class Growth:
    """One record a request with an empty queue and a full one, and the memory of a queued record, in bytes."""

    empty: Level
    full: Level
    memory: float


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found, by server: one of each a round."""

    one: dict[str, list[Level]]
    crowd: dict[str, list[Level]]
    many: dict[str, list[Level]]
    growth: dict[str, Growth]
    stored: list[float]
    driver: list[float]


def run(scale: Scale) -> Found:
    """Install what is missing, and measure."""
    install.everything()
    names = [*OURS, *others()]
    found = Found({n: [] for n in names}, {n: [] for n in names}, {n: [] for n in names}, {}, [], [])
    with backing() as servers:
        for number in range(scale.rounds):
            _tell(f"round {number + 1} of {scale.rounds}")
            _round(scale, servers, names, found)
        for name in names:
            _tell(f"a queue of {scale.full_queue:,}: {name}")
            found.growth[name] = _growth(scale, servers, name)
    return found


def _tell(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)


def _round(scale: Scale, servers: Backing, names: list[str], found: Found) -> None:
    for name in names:
        found.one[name].append(_one(scale, servers, name, FEW_CONNECTIONS, scale.seconds))
    for name in names:
        found.crowd[name].append(_one(scale, servers, name, MANY_CONNECTIONS, scale.seconds_of_many))
    for name in names:
        found.many[name].append(_many(scale, servers, name))
    found.stored.append(_stored(servers, scale.stored))
    if set(NODE) <= set(names):
        found.driver.append(driver_microseconds(servers, scale.stored))


def _one(scale: Scale, servers: Backing, name: str, connections: int, seconds: float) -> Level:
    with started(name, servers) as (server, url):
        load.post(f"{url}/add-job", load.ONE, connections, scale.warm_seconds)
        return _level(server, f"{url}/add-job", load.ONE, connections, seconds, 1)


def _many(scale: Scale, servers: Backing, name: str) -> Level:
    with started(name, servers) as (server, url):
        # Not for long: each of these fills the memory with a record every few microseconds.
        load.post(f"{url}/add-job", load.ONE, FEW_CONNECTIONS, scale.warm_seconds)
        return _level(server, f"{url}/add-jobs", load.MANY, FEW_CONNECTIONS, min(2, scale.seconds), load.BATCH)


def _level(server: Process, url: str, bodies: list[bytes], connections: int, seconds: float, records: int) -> Level:
    before = server.processor_seconds()
    went = load.post(url, bodies, connections, seconds)
    return Level(went, 1e6 * (server.processor_seconds() - before) / went.answered / records)


def _growth(scale: Scale, servers: Backing, name: str) -> Growth:
    with started(name, servers) as (server, url):
        load.post(f"{url}/add-job", load.ONE, FEW_CONNECTIONS, scale.warm_seconds)
        empty = _level(server, f"{url}/add-job", load.ONE, FEW_CONNECTIONS, scale.seconds, 1)
        before = server.rss()
        count = _fill(url, scale.full_queue)
        memory = (server.rss() - before) / count
        full = _level(server, f"{url}/add-job", load.ONE, FEW_CONNECTIONS, scale.seconds, 1)
    return Growth(empty, full, memory)


def _fill(url: str, count: int) -> int:
    # One at a time: what several requests hold while they are dealt with is not the queue's.
    filled = load.post_count(f"{url}/add-jobs", load.MANY[0], count // load.BATCH)
    return filled * load.BATCH


def _stored(servers: Backing, count: int) -> float:
    """Processor time of our process, from the first byte of a record to its being stored, in microseconds."""
    name = servers.new_name()
    with LogServer(servers, name, servers.mongo_url, ack="memory") as server:
        load.post_count(f"{server.url}/add-jobs", load.MANY[0], max(1, count // load.BATCH // 10))
        server.drained()
        before = server.processor_seconds()
        posted = load.post_count(f"{server.url}/add-jobs", load.MANY[0], count // load.BATCH) * load.BATCH
        server.drained()
        return 1e6 * (server.processor_seconds() - before) / posted
