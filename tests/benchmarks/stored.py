"""Records stored a second, beside the bare loop."""

from . import bars, load, samples
from .processes import Process
from .rows import Row, compared
from .scale import Scale
from .servers import Backing, LogServer, backing

BARE = "a bare pymongo loop that bulk_writes 1000 prepared raw documents at a time, equally indexed, majority and j"
#: So few connections that requests are few, and so many that the server never waits for one.
_CONNECTIONS = 4


def measure(scale: Scale) -> list[Row]:
    """Two rows: from requests with many records each, and from requests with one."""
    with backing() as servers:
        rounds = [_round(scale, servers) for _ in range(scale.warm_rounds + scale.rounds)][scale.warm_rounds :]
    batches, posted, loop = (list(column) for column in zip(*rounds, strict=True))
    first_to_last = "from the first request to the last record stored (the server's queue empty, nothing in flight)"
    beside = (
        f"beside {BARE}, on the core of the server; both to the same MongoDB on another core, in turns, each into a "
        f"new collection; the documents are counted at the end"
    )
    return [
        compared(
            "stored",
            "records stored, requests not the limit",
            "records/s",
            batches,
            loop,
            bars.STORED,
            f"{scale.stored:,} records by POST /add-jobs of {samples.BATCH}, ack=memory, on {_CONNECTIONS} "
            f"connections, {first_to_last}; {beside}",
        ),
        compared(
            "stored-posted",
            "records stored, from POST /add-job",
            "records/s",
            posted,
            loop,
            None,
            f"{scale.posted:,} single requests, ack=memory, on {load.CONNECTIONS} connections, {first_to_last}, "
            f"flushed every 100 ms; no bar: here the requests are the limit",
        ),
    ]


def _round(scale: Scale, servers: Backing) -> tuple[float, float, float]:
    name = servers.new_name()
    batches = _from_batches(servers, name, scale.stored)
    loop = bare(servers, name, scale.stored)
    return batches, _from_requests(servers, scale.posted), loop


def _from_batches(servers: Backing, name: str, count: int) -> float:
    with LogServer(servers, name, servers.mongo_url, ack="memory") as server:
        _warm(server)
        went = load.of_count(f"{server.url}/add-jobs", count // samples.BATCH, _CONNECTIONS, samples.BATCH_BODY)
        seconds = server.drained() - went.began
    servers.check_stored(name, count + samples.BATCH)
    return count / seconds


def _from_requests(servers: Backing, count: int) -> float:
    name = servers.new_name()
    with LogServer(servers, name, servers.mongo_url, ack="memory", flush_interval_ms=100) as server:
        _warm(server)
        went = load.of_count(f"{server.url}/add-job", count)
        seconds = server.drained() - went.began
    servers.check_stored(name, count + samples.BATCH)
    return count / seconds


def _warm(server: LogServer) -> None:
    """The connection to MongoDB and the index are there before the first request that counts, as they are for BARE."""
    load.of_count(f"{server.url}/add-jobs", 1, 1, samples.BATCH_BODY)
    server.drained()


def bare(servers: Backing, like: str, count: int) -> float:
    """Records a second of the bare loop, into a new collection with the indexes of that of the database ``like``."""
    name = servers.new_name()
    arguments = [servers.mongo_url, name, like, str(count)]
    with Process(f"{__package__}.bare_writer", arguments, servers.directory / "bare.log") as writer:
        seconds = float(writer.line(r"wrote in (\S+) s"))
    servers.check_stored(name, count)
    return count / seconds
