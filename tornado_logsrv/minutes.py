"""Which minutes hold records: a hint that keeps reads small where a store reads a whole range at once.

SecantusDB fetches every document of an index range before it sorts and limits them, so a page costs what its range
holds. The hint places the ranges: next to the records, never across a gap into a crowd. It decides only where one
range ends and the next begins; together the ranges always cover all of the time asked for, so a hint that is
missing or wrong costs time and never a record.
"""

import bisect
from collections.abc import Iterable, Iterator

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
#: The first range beside a gap, in milliseconds; it grows until a page is full.
FIRST_WIDTH_MS = 10
GROWTH = 8

Range = tuple[int | None, int | None]


class Minutes:
    """The minutes (milliseconds // 60000) that are known to hold records."""

    def __init__(self) -> None:
        self._minutes: list[int] = []
        self._unsaved: set[int] = set()
        self.width_ms = FIRST_WIDTH_MS

    def note(self, timestamps_ms: Iterable[int]) -> None:
        """Records with these timestamps are about to be stored."""
        for minute in {moment // MINUTE_MS for moment in timestamps_ms}:
            self._add(minute, self._unsaved)

    def _add(self, minute: int, unsaved: set[int]) -> None:
        at = bisect.bisect_left(self._minutes, minute)
        if at == len(self._minutes) or self._minutes[at] != minute:
            self._minutes.insert(at, minute)
            unsaved.add(minute)

    def unsaved(self) -> dict[int, int]:
        """What is not yet saved: start of the hour in milliseconds → mask of its minutes."""
        masks: dict[int, int] = {}
        for minute in self._unsaved:
            hour, bit = divmod(minute, 60)
            masks[hour * HOUR_MS] = masks.get(hour * HOUR_MS, 0) | 1 << bit
        return masks

    def saved(self) -> None:
        """All that ``unsaved`` gave has been saved."""
        self._unsaved.clear()

    def load(self, hour_ms: int, mask: int) -> None:
        """Take in one saved hour."""
        for bit in range(60):
            if mask >> bit & 1:
                self._add(hour_ms // MINUTE_MS + bit, set())

    def ranges_down(self, low: int | None, high: int | None) -> Iterator[Range]:
        """Ranges [from, to) that cover [low, high), newest first; None is no bound.

        ``width_ms``, which the reader sets by what it finds, is how far each reaches below its first record.
        """
        while low is None or high is None or high > low:
            newest = self._last_before(high)
            if newest is None:
                yield low, high
                return
            edge = (newest + 1) * MINUTE_MS
            base = edge if high is None else min(high, edge)
            if high is not None and base < high:
                self.width_ms = FIRST_WIDTH_MS
            start = base - self.width_ms if low is None else max(low, base - self.width_ms)
            yield start, high
            high = start
            self.width_ms *= GROWTH

    def ranges_up(self, low: int | None, high: int | None) -> Iterator[Range]:
        """Ranges [from, to) that cover [low, high), oldest first; the mirror of ``ranges_down``."""
        while low is None or high is None or high > low:
            oldest = self._first_from(low)
            if oldest is None:
                yield low, high
                return
            base = oldest * MINUTE_MS if low is None else max(low, oldest * MINUTE_MS)
            if low is not None and base > low:
                self.width_ms = FIRST_WIDTH_MS
            end = base + self.width_ms if high is None else min(high, base + self.width_ms)
            yield low, end
            low = end
            self.width_ms *= GROWTH

    def _last_before(self, high: int | None) -> int | None:
        at = len(self._minutes) if high is None else bisect.bisect_left(self._minutes, -(-high // MINUTE_MS))
        return self._minutes[at - 1] if at else None

    def _first_from(self, low: int | None) -> int | None:
        at = 0 if low is None else bisect.bisect_left(self._minutes, low // MINUTE_MS)
        return self._minutes[at] if at < len(self._minutes) else None
