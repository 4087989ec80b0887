"""How many lines of one kind a log gets: neither an outage nor a stranger may fill the disk."""

import time
from collections.abc import Callable

#: Lines that are written at once, and a second after that.
AT_ONCE = 20
A_SECOND = 1.0

Clock = Callable[[], float]


class Burst:
    """Lets so many through, and counts those that it does not. A token bucket."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._room = float(AT_ONCE)
        self._then = clock()
        self._left_out = 0

    def admits(self) -> bool:
        """Whether one more is written."""
        now = self._clock()
        self._room = min(float(AT_ONCE), self._room + (now - self._then) * A_SECOND)
        self._then = now
        if self._room < 1:
            self._left_out += 1
            return False
        self._room -= 1
        return True

    def left_out(self) -> int:
        """How many were not, since this was asked last."""
        count, self._left_out = self._left_out, 0
        return count


def told(left_out: int) -> str:
    """What a line says of those before it that were left out."""
    return f" ({left_out} others like it are not in this log)" if left_out else ""
