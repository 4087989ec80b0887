"""When this server's order was how long, by the clock of MongoDB: where a watcher of another server can go on."""

import bisect
import collections

#: Of an hour, at one a second.
KEEP = 3600


class Moments:
    """Seconds, and from which number on all stands that is stored later."""

    def __init__(self) -> None:
        self._moments: collections.deque[tuple[int, int]] = collections.deque(maxlen=KEEP)

    def add(self, second: int, number: int) -> None:
        """Whatever is stored after ``second`` has ``number``, or will have a higher one."""
        if not self._moments or second > self._moments[-1][0]:
            self._moments.append((second, number))

    def clear(self) -> None:
        """What was stored since is not all in the order."""
        self._moments.clear()

    def number_at(self, second: int) -> int | None:
        """From which number on all stands that was stored since ``second``; None when not all of it is in the order."""
        at = bisect.bisect_right(self._moments, second, key=lambda moment: moment[0])
        return self._moments[at - 1][1] if at else None
