"""When cycles of objects are freed: what is there at the start never, what comes later once a minute.

The collector counts the objects that are made and not freed. A batch written makes two objects a record for a moment:
at the usual threshold they cost three collections a batch, an eighth of all processor time from the first byte to
stored. So the threshold is high; but an error of a driver that holds its own traceback is such a cycle, and at the high
threshold alone an hour of them would stay (measured: 10 MiB with a fault a minute).
"""

import asyncio
import gc

COLLECT_SECONDS = 60.0
_THRESHOLDS = (50_000, 20, 100)


def spare() -> None:
    """What is there now stays: the collector need not walk it. From now on it hardly runs by itself."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


async def collect_regularly(seconds: float = COLLECT_SECONDS) -> None:
    """For ever, free what is in cycles: some milliseconds each time."""
    while True:
        await asyncio.sleep(seconds)
        gc.collect()
