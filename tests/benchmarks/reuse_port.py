"""``--reuse_port``: two processes on one port, beside one."""

import contextlib
import dataclasses
import http.client
import json
import socket
from collections.abc import Iterator, Sequence

from . import load, machine
from .rows import Row, alone, compared
from .scale import Scale
from .servers import Backing, LogServer, backing

#: So many that the kernel, which deals by a hash of the addresses, deals nearly evenly.
_CONNECTIONS = 64


@dataclasses.dataclass(frozen=True)
class Turn:
    """One load: answers a second, answers for each second of the servers' processor time, and each server's share."""

    rate: float
    for_processor_second: float
    shares: tuple[float, ...]


def measure(scale: Scale) -> list[Row]:
    """Three rows: the rate, the rate for each second of processor time, and how even the shares are."""
    with backing() as servers, _together(servers, 1) as one, _together(servers, 2) as two:
        rounds = [
            (_turn(one, scale.seconds), _turn(two, scale.seconds)) for _ in range(scale.warm_rounds + scale.rounds)
        ][scale.warm_rounds :]
    ones, twos = zip(*rounds, strict=True)
    how = (
        f"POST /add-job, ack=memory, {_CONNECTIONS} connections from {load.generator()}. The servers may use all cores "
        "and the load generator all but the first: where there are two, it shares the second with a server, so the "
        "rate cannot double, and the next row says what a core does"
    )
    return [
        compared(
            "reuse-port",
            "two processes on one port",
            "requests/s",
            [turn.rate for turn in twos],
            [turn.rate for turn in ones],
            None,
            f"{how}; beside one process",
        ),
        compared(
            "reuse-port-cpu",
            "two processes on one port, a CPU second",
            "requests",
            [turn.for_processor_second for turn in twos],
            [turn.for_processor_second for turn in ones],
            None,
            "requests answered for each second of processor time of all server processes; beside one process: what is "
            "below 1 is lost by there being two, to caches and to the scheduler",
        ),
        alone(
            "reuse-port-share",
            "share of the busier of two",
            "%",
            [100 * max(turn.shares) for turn in twos],
            "of the requests; 50 is even. The kernel deals connections, by a hash: few of them may fall unevenly",
        ),
    ]


@contextlib.contextmanager
def _together(servers: Backing, count: int) -> Iterator[list[LogServer]]:
    """So many servers on one port."""
    port = _free_port()
    with contextlib.ExitStack() as undo:
        together = []
        for number in range(count):
            shared = {"port": port, "reuse_port": "yes", "instance": f"bench-{number}", "ack": "memory"}
            server = LogServer(servers, servers.new_name(), cores=machine.ALL, **shared)
            # What is on the queue is wanted by nobody.
            undo.callback(server.kill)
            together.append(server)
        yield together


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _turn(together: Sequence[LogServer], seconds: int) -> Turn:
    before, began = _received(together), sum(server.processor_seconds() for server in together)
    went = load.for_seconds(f"{together[0].url}/add-job", seconds, _CONNECTIONS)
    spent = sum(server.processor_seconds() for server in together) - began
    taken = {name: count - before[name] for name, count in _received(together).items()}
    shares = tuple(count / sum(taken.values()) for count in taken.values())
    return Turn(went.rate, went.answered / spent, shares)


def _received(together: Sequence[LogServer]) -> dict[str, int]:
    """What each has taken, by its name: a new connection is answered by any of them, so ask until all have."""
    address, found = together[0].url.removeprefix("http://"), dict[str, int]()
    while len(found) < len(together):
        with contextlib.closing(http.client.HTTPConnection(address, timeout=60)) as client:
            client.request("GET", "/ledger")
            ledger = json.loads(client.getresponse().read())
            found[ledger["instance"]] = ledger["total"]["received"]
    return found
