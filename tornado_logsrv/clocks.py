"""The time by which old records are deleted: a clock that jumps ahead must not make what is young old."""

import logging
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger("logsrv.retention")

#: Clocks that differ by more than this are told of.
TOLERANCE_MS = 3_600_000


def _since_boot() -> float:
    # Goes on while the machine is suspended, and cannot be set.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Cautious:
    """The earliest of three clocks, in milliseconds since 1970: nothing is deleted unless all say that it is old.

    They are this machine's; what that said when this was made, and the time that has passed since; and another
    machine's. An hour between them is an error in the log, once.
    """

    def __init__(
        self,
        now_ms: Callable[[], int],
        other_ms: Callable[[], Awaitable[int]],
        elapsed: Callable[[], float] = _since_boot,
    ) -> None:
        """``elapsed`` is seconds since any moment."""
        self._now_ms = now_ms
        self._other_ms = other_ms
        self._elapsed = elapsed
        self._start_ms = now_ms() - int(elapsed() * 1000)
        self._agree = True

    async def now_ms(self) -> int:
        """The earliest of them. Raises what asking the other machine raises."""
        clocks = (self._now_ms(), self._start_ms + int(self._elapsed() * 1000), await self._other_ms())
        apart = max(clocks) - min(clocks)
        if (apart <= TOLERANCE_MS) != self._agree:
            self._agree = not self._agree
            if self._agree:
                log.info("the clocks agree again")
            else:
                log.error(
                    "a clock has jumped, or this machine's and MongoDB's differ, by %.1f h: what is old is deleted by "
                    "the earliest of them", apart / 3_600_000,
                )  # fmt: skip
        return min(clocks)
