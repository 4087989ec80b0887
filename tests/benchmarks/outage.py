"""MongoDB comes back after an outage: how fast what has gathered is stored, beside the bare loop."""

import dataclasses
import time

from . import bars, load, samples
from .rows import Row, alone, compared
from .scale import Scale
from .servers import Backing, LogServer, backing
from .stored import BARE, bare

_CONNECTIONS = 4
_MINUTES = 5
_POLL_SECONDS = 0.01


@dataclasses.dataclass(frozen=True)
class Drain:
    """After one outage: seconds until the first batch was stored, and records a second from then on."""

    wait: float
    rate: float


def measure(scale: Scale) -> list[Row]:
    """Two rows: the rate, and the wait before it."""
    with backing() as servers:
        rounds = [_round(servers, scale.outage) for _ in range(scale.long_rounds)]
    drains, loop = zip(*rounds, strict=True)
    each_second = scale.outage / (_MINUTES * 60)
    backlog = f"{scale.outage:,} records: those of {_MINUTES} minutes at {each_second:,.0f} a second"
    return [
        compared(
            "outage",
            f"drain of {scale.outage:,} after an outage",
            "records/s",
            [drain.rate for drain in drains],
            loop,
            bars.DRAINED,
            f"{backlog}, posted as fast as they are taken (POST /add-jobs, ack=journal) while MongoDB is stopped, in "
            f"place of waiting so long; MongoDB is then started; from the first batch stored to the last; removal from "
            f"Redis is included; beside {BARE}, of as many records",
        ),
        alone(
            "outage-wait",
            "wait after an outage",
            "s",
            [drain.wait for drain in drains],
            "from MongoDB answering again to the first batch stored: the backoff and the driver's discovery; this "
            "outage is of seconds, after minutes the backoff is a random time of up to 30 s",
        ),
    ]


def _round(servers: Backing, count: int) -> tuple[Drain, float]:
    name = servers.new_name()
    with LogServer(servers, name, servers.mongo_url, ack="journal") as server:
        _post(server, samples.BATCH)
        server.drained()
        with servers.mongodb_away():
            _post(server, count)
        drain = _drain(server, count)
    servers.check_stored(name, count + samples.BATCH)
    servers.forget(name)
    return drain, bare(servers, name, count)


def _post(server: LogServer, count: int) -> None:
    load.of_count(f"{server.url}/add-jobs", count // samples.BATCH, _CONNECTIONS, samples.BATCH_BODY)


def _drain(server: LogServer, count: int) -> Drain:
    back = time.perf_counter()
    while (left := server.waiting()) == count:
        time.sleep(_POLL_SECONDS)
    began = time.perf_counter()
    return Drain(began - back, left / max(server.drained() - began, 1e-6))
