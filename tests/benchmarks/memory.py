"""Memory of a queued record, beside its size as BSON."""

from . import bars, load, samples
from .rows import Row, compared
from .scale import Scale
from .servers import Backing, LogServer, backing


def measure(scale: Scale) -> list[Row]:
    """Two rows: at ack=memory, and at ack=journal, where it is also remembered what Redis holds."""
    samples.check()
    with backing() as servers:
        return [_row(servers, scale, "memory", "memory"), _row(servers, scale, "memory-journal", "journal")]


def _row(servers: Backing, scale: Scale, id: str, ack: str) -> Row:
    grown, sizes = [], []
    with LogServer(servers, servers.new_name(), ack=ack) as server:
        # Whatever the server needs besides its queue, it has after these.
        load.of_count(f"{server.url}/add-job", max(1000, scale.queued // 20))
        for _ in range(scale.long_rounds):
            memory, size = _round(server, scale.queued)
            grown.append(memory)
            sizes.append(size)
        server.kill()
    note = (
        f"growth of the server's resident memory over {scale.queued:,} records, posted one by one at ack={ack} on "
        f"{load.CONNECTIONS} connections while MongoDB is away, after a warm-up; the rounds follow each other on one "
        f"server; beside the BSON size of the same records"
    )
    name = f"memory of a queued record of {samples.RECORD_BYTES} bytes, ack={ack}"
    return compared(id, name, "bytes", grown, sizes, bars.MEMORY, note)


def _round(server: LogServer, count: int) -> tuple[float, float]:
    before, memory = server.get("/queue-size"), server.rss()
    load.of_count(f"{server.url}/add-job", count)
    after = server.get("/queue-size")
    if after["queueSize"] - before["queueSize"] != count:
        raise RuntimeError(f"the queue grew by {after['queueSize'] - before['queueSize']} records, not {count}")
    return (server.rss() - memory) / count, (after["queueBytes"] - before["queueBytes"]) / count
