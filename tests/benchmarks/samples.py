"""The records that are measured: jobs of 170 bytes as BSON."""

import itertools
import json
import time
from collections.abc import Iterator

from bson import ObjectId

from tornado_logsrv import records

JOB = {"level": "notice", "service": "shop-checkout", "event": "order is placed", "order": 1234567, "ms": 12}
BODY = json.dumps(JOB, separators=(",", ":")).encode()
#: The body of a request that is many jobs, and how many it has.
BATCH = 1000
BATCH_BODY = b"[%b]" % b",".join([BODY] * BATCH)
RECORD_BYTES = 170
#: Records of one millisecond, where their times are spread.
PER_MILLISECOND = 30


def encoded(count: int) -> Iterator[bytes]:
    """``count`` new records of now, as the server encodes them."""
    ids = records.Ids()
    for _ in range(count):
        yield records.encode_job(JOB, [], ids.next(), time.time_ns() // 1_000_000)


def spread(count: int, newest_ms: int) -> list[bytes]:
    """``count`` new records, oldest first, PER_MILLISECOND in each millisecond up to ``newest_ms``."""
    ids = records.Ids()
    times = (newest_ms - behind // PER_MILLISECOND for behind in range(count - 1, -1, -1))
    return [records.encode_job(JOB, [], ids.next(), moment) for moment in times]


def batches(found: Iterator[bytes], size: int = 1000) -> Iterator[list[bytes]]:
    """``found`` in lists of ``size``."""
    while batch := list(itertools.islice(found, size)):
        yield batch


def check() -> None:
    """Raises ValueError when a record is not as large as these measurements say."""
    size = len(records.encode_job(JOB, [], ObjectId().binary, 0))
    if size != RECORD_BYTES:
        raise ValueError(f"a record of the benchmarks takes {size} bytes, not {RECORD_BYTES}")
