"""How late the event loop is: what blocks it holds up every request, so it is measured, and told when it is bad."""

import asyncio
import logging
import time
from collections.abc import Callable

log = logging.getLogger("logsrv.loop")

#: How often it is looked: a hundredth of a percent of a core.
TICK_SECONDS = 0.1
#: From here on it is in the log.
BLOCKED_SECONDS = 0.5
#: How far back ``recent`` looks, at least; at most twice as far.
RECENT_SECONDS = 60.0


class LoopLag:
    """Runs a callback again and again, and sees how long after its time it ran. Seconds everywhere."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._turned = 0.0
        self._before = self._since = 0.0
        #: How long the loop did nothing, in all, counting only what is in the log.
        self.blocked_seconds = 0.0

    @property
    def recent(self) -> float:
        """The latest that anything ran in the last minute."""
        return max(self._before, self._since)

    def start(self) -> None:
        """Begin to look, on the running loop."""
        self._turned = self._clock()
        self._again()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _again(self) -> None:
        self._due = self._clock() + TICK_SECONDS
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        now = self._clock()
        self._note(now, max(0.0, now - self._due))
        self._again()

    def _note(self, now: float, lag: float) -> None:
        if now - self._turned >= RECENT_SECONDS:
            self._before, self._since, self._turned = self._since, 0.0, now
        self._since = max(self._since, lag)
        if lag >= BLOCKED_SECONDS:
            self.blocked_seconds += lag
            log.warning(
                "the event loop did nothing for %.1f s: something blocked it, or this process was not run", lag
            )  # fmt: skip
