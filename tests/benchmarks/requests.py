"""POST /add-job: requests a second, beside the bare handler."""

from . import bars, load
from .processes import Process
from .rows import Row, compared
from .scale import Scale
from .servers import LogServer, backing

_BARE = "a bare Tornado RequestHandler doing json.loads and deque.append"


def measure(scale: Scale) -> list[Row]:
    """Three rows: what accepting costs, the same with the records written meanwhile, and on the default transport."""
    with (
        backing() as servers,
        Process(f"{__package__}.bare_handler", [], servers.directory / "bare.log") as bare,
        LogServer(servers, servers.new_name(), ack="memory", transport="tornado") as accepting,
        LogServer(servers, servers.new_name(), servers.mongo_url, ack="memory", transport="tornado") as storing,
        LogServer(servers, servers.new_name(), ack="memory") as usual,
    ):
        bare_url = bare.line(r"listens on (\S+)")
        return _rows(_rounds(scale, bare_url, accepting, storing, usual))


def _rounds(
    scale: Scale, bare_url: str, accepting: LogServer, storing: LogServer, usual: LogServer
) -> list[tuple[float, ...]]:
    rounds = []
    for _ in range(scale.warm_rounds + scale.rounds):
        urls = (bare_url, accepting.url, usual.url, storing.url)
        rounds.append(tuple(load.for_seconds(f"{url}/add-job", scale.seconds).rate for url in urls))
        # What is still to be written must not disturb the next round.
        storing.drained()
    return rounds[scale.warm_rounds :]


def _rows(rounds: list[tuple[float, ...]]) -> list[Row]:
    bare, alone, usual, stored = (list(column) for column in zip(*rounds, strict=True))
    how = f"{load.CONNECTIONS} keep-alive connections from {load.generator()}, ack=memory, MongoDB away"
    like = f"beside {_BARE} on the same core"
    return [
        compared(
            "requests",
            "POST /add-job, Tornado's transport",
            "requests/s",
            alone,
            bare,
            bars.REQUESTS,
            f"--transport=tornado, {how}; {like}: like for like",
        ),
        compared(
            "requests-storing",
            "POST /add-job, stored meanwhile",
            "requests/s",
            stored,
            bare,
            None,
            "the same with MongoDB there, so that the server's core also writes what it accepts (the bare handler "
            "writes nothing) and the load generator shares its core with MongoDB; no bar",
        ),
        compared(
            "requests-usual",
            "POST /add-job, default transport",
            "requests/s",
            usual,
            bare,
            None,
            f"the default transport, as installed, {how}; {like}; no bar, as the handler does not have this transport",
        ),
    ]
