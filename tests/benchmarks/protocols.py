"""Every protocol beside NDJSON to /add-jobs: the same records, a thousand a request."""

import dataclasses
import gc
import time
from collections.abc import Sequence

from tornado_logsrv.receivers.rows import apart

from . import bodies, load, machine, samples
from .bodies import NDJSON, PROTOCOLS, Protocol
from .rows import Row, compared
from .scale import Scale
from .servers import Backing, LogServer, backing

#: So many different requests take turns: what a receiver keeps of one it has forgotten when that one comes again.
_DIFFERENT = 8
_MICROSECONDS = 1e6


@dataclasses.dataclass(frozen=True)
class Level:
    """How a load went: records a second, and microseconds of processor for each, of which decoding."""

    rate: float
    processor_us: float
    decoding_us: float


def measure(scale: Scale) -> list[Row]:
    """Three rows for each protocol: records a second, processor time for one, and what of that is decoding."""
    requests = {each.id: _requests(each) for each in (NDJSON, *PROTOCOLS)}
    with backing() as servers:
        rounds = [_round(scale, servers, requests) for _ in range(scale.rounds)]
    plain = [each[NDJSON.id] for each in rounds]
    rows = [row for each in PROTOCOLS for row in _rows(each, [found[each.id] for found in rounds], plain)]
    return [*rows, _decoding(NDJSON, plain)]


def _requests(protocol: Protocol) -> list[bytes]:
    """The bodies. Raises RuntimeError unless each has its records, and no other."""
    made = [protocol.write(bodies.entries(n * samples.BATCH, samples.BATCH)) for n in range(_DIFFERENT)]
    for body in made:
        if (count := sum(1 for _ in apart(protocol.read(body)))) != samples.BATCH:
            raise RuntimeError(f"{count} records in a request of {protocol.name}, not {samples.BATCH}")
    return made


def _round(scale: Scale, servers: Backing, requests: dict[str, list[bytes]]) -> dict[str, Level]:
    with LogServer(servers, servers.new_name(), ack="memory") as server:
        levels = {each.id: _level(scale, server, each, requests[each.id]) for each in (NDJSON, *PROTOCOLS)}
        # Dumping what was never to be stored would take its time.
        server.kill()
    return levels


def _level(scale: Scale, server: LogServer, protocol: Protocol, requests: Sequence[bytes]) -> Level:
    url, count = server.url + protocol.path, scale.protocol // samples.BATCH
    records = count * samples.BATCH
    load.of_requests(url, 2 * _DIFFERENT, protocol.media_type, requests)
    before, waiting = server.processor_seconds(), server.waiting()
    went = load.of_requests(url, count, protocol.media_type, requests)
    processor = server.processor_seconds() - before
    if (taken := server.waiting() - waiting) != records:
        raise RuntimeError(f"{taken} records of {protocol.name} were taken, not {records}")
    decoding = _decoding_us(protocol, requests, scale.short_turns)
    return Level(went.rate * samples.BATCH, _MICROSECONDS * processor / records, decoding)


def _decoding_us(protocol: Protocol, requests: Sequence[bytes], turns: int) -> float:
    """Processor time of this process to read a record."""
    gc.collect()
    gc.disable()
    try:
        with machine.on(machine.MEASURED):
            began = time.process_time()
            for body in requests * turns:
                for _ in protocol.read(body):
                    pass
            spent = time.process_time() - began
    finally:
        gc.enable()
    return _MICROSECONDS * spent / (len(requests) * turns * samples.BATCH)


def _rows(protocol: Protocol, levels: Sequence[Level], plain: Sequence[Level]) -> list[Row]:
    id, name = f"protocols-{protocol.id}", protocol.name
    note = (
        f"requests of {samples.BATCH} records on {load.CONNECTIONS} connections from the client of these benchmarks to "
        f"a server, ack=memory, alone on its core; MongoDB away; beside {NDJSON.name}, with the same level, "
        f"service, message and two fields more, in the same round, all on one server; the times, action lines "
        f"and headers that a protocol wants besides are its own cost"
    )
    rates, plain_rates = [level.rate for level in levels], [level.rate for level in plain]
    times, plain_times = [level.processor_us for level in levels], [level.processor_us for level in plain]
    time_note = f"processor time of the server, all its threads, for a record; beside {NDJSON.name}; no bar"
    return [
        compared(id, name, "records/s", rates, plain_rates, protocol.bar, note),
        compared(f"{id}-cpu", f"{name}, processor", "us a record", times, plain_times, None, time_note),
        _decoding(protocol, levels),
    ]


def _decoding(protocol: Protocol, levels: Sequence[Level]) -> Row:
    note = (
        "processor time of the receiver's parse alone, from the body to rows that are not encoded yet, in another "
        "process on the same core over the same bodies, while the server is idle, without the collection of garbage; "
        "beside all that the server took for a record: the ratio is the share of decoding; no bar"
    )
    decoding, processor = [level.decoding_us for level in levels], [level.processor_us for level in levels]
    name = f"{protocol.name}, decoding"
    return compared(f"protocols-{protocol.id}-decoding", name, "us a record", decoding, processor, None, note)
