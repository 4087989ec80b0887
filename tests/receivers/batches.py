"""Rows made into records without a server."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import bson

from tornado_logsrv.binding import UNBOUND
from tornado_logsrv.receivers.rows import Bad, Batch, Row
from tornado_logsrv.records import DerivedIds

#: An array in JSON that a body has room for, and a document of MongoDB does not: there each number has its index.
BEYOND_MONGODB = b'[%b"%b"]' % (b"1," * 240_000, b"x" * (14 << 20))


def batch_of(source: str, found: Iterable[Row | Bad | None], now_ms: int, turns: list[int] | None = None) -> Batch:
    """The batch of a request that is received at ``now_ms``; ``turns``: how many rows it had at each turn of others."""
    options = SimpleNamespace(queue_max_bytes=1 << 28)
    application = SimpleNamespace(now_ms=lambda: now_ms, options=options)
    handler: Any = SimpleNamespace(
        source=source, application=application, record_ids=DerivedIds("test"), binding=UNBOUND
    )
    batch = Batch(handler)
    encoding = batch.encode(found)
    try:
        # What it waits for is only that others have their turn.
        while True:
            encoding.send(None)
            if turns is not None:
                turns.append(len(batch.ids))
    except StopIteration:
        return batch


def documents(batch: Batch) -> list[dict[str, Any]]:
    """What is stored."""
    return [bson.decode(record, bson.CodecOptions(tz_aware=True)) for record in batch.records]
