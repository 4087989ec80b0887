"""Cycles are freed while the server runs, though its collector hardly runs by itself."""

import asyncio
import gc
import weakref

import pytest

from tornado_logsrv import garbage


class Cycle:
    def __init__(self):
        self.itself = self


@pytest.fixture
def spared():
    before = gc.get_threshold()
    garbage.spare()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("spared")
@pytest.mark.gen_test
async def test_a_cycle_is_freed_in_time_whatever_its_generation():
    freed = asyncio.Queue()
    made = [Cycle() for _ in range(2)]
    # The first has lived for long: it is of the oldest generation.
    refs = [weakref.ref(made[0], freed.put_nowait)]
    gc.collect()
    refs.append(weakref.ref(made[1], freed.put_nowait))
    del made
    # More objects than the collector usually lets pass.
    kept = [[] for _ in range(10_000)]
    assert [freed.qsize(), len(kept)] == [0, 10_000]
    collecting = asyncio.ensure_future(garbage.collect_regularly(seconds=0))
    gone = [await freed.get() for _ in refs]
    assert [ref() for ref in gone] == [None, None]
    collecting.cancel()
