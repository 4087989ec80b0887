"""looplag.py: a loop that is late is measured and told."""

import asyncio
import logging

import pytest

from tornado_logsrv.looplag import BLOCKED_SECONDS, RECENT_SECONDS, TICK_SECONDS, LoopLag

from .fakes import OWNER, Loop


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


class Watched:
    """A LoopLag on a loop whose time passes when it is told to: in one step, as when something blocks."""

    def __init__(self, loop: Loop) -> None:
        self.tasks: list[asyncio.Task] = []
        OWNER.set(self)
        self._loop = loop
        self.lag = LoopLag(loop.time)
        loop.call_soon(self.lag.start)
        loop.idle()

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_SECONDS)):
            self._loop.advance(TICK_SECONDS)

    def block(self, seconds: float) -> None:
        self._loop.advance(TICK_SECONDS + seconds)


def test_a_loop_that_is_free_is_not_late(loop, caplog):
    watched = Watched(loop)
    watched.run(5)
    assert watched.lag.recent == pytest.approx(0, abs=1e-6)
    assert (watched.lag.blocked_seconds, caplog.records) == (0, [])


def test_one_that_is_blocked_for_a_second_is_told(loop, caplog):
    watched = Watched(loop)
    with caplog.at_level(logging.WARNING, "logsrv.loop"):
        watched.block(1.0)
        watched.run(5)
    assert watched.lag.recent == pytest.approx(1.0)
    assert watched.lag.blocked_seconds == pytest.approx(1.0)
    assert [record.getMessage()[:42] for record in caplog.records] == ["the event loop did nothing for 1.0 s: some"]


def test_a_little_late_is_measured_and_not_told(loop, caplog):
    watched = Watched(loop)
    watched.block(BLOCKED_SECONDS / 2)
    assert watched.lag.recent == pytest.approx(BLOCKED_SECONDS / 2)
    assert (watched.lag.blocked_seconds, caplog.records) == (0, [])


def test_what_was_long_ago_is_forgotten_and_counted_for_good(loop):
    watched = Watched(loop)
    watched.block(2.0)
    watched.run(RECENT_SECONDS - 5)
    assert watched.lag.recent == pytest.approx(2.0)
    watched.run(RECENT_SECONDS + 10)
    assert watched.lag.recent == pytest.approx(0, abs=1e-6)
    assert watched.lag.blocked_seconds == pytest.approx(2.0)


def test_once_stopped_it_looks_no_more(loop):
    watched = Watched(loop)
    watched.lag.stop()
    watched.block(5.0)
    assert watched.lag.recent == 0
