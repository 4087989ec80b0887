"""Which seconds hold records, and which hold many: a hint that keeps reads small where a store reads whole ranges.

SecantusDB fetches every document of an index range before it sorts and limits them, so a page costs what its ranges
hold. The hint places the ranges: next to the records, never across a gap into a crowd. It decides only where one range
ends and the next begins; together they always cover all of the time asked for, so a hint that is missing or wrong costs
time and never a record.
"""

import bisect
import collections
from collections.abc import Iterable, Iterator

#: So many records make a second a crowd, which is read by parts.
CROWD = 500
#: The first part of a crowd, in milliseconds, and how the parts, and the numbers of quiet seconds, grow.
FIRST_PART_MS = 10
PART_GROWTH = 4
QUIET_GROWTH = 8
MOST_QUIET = 4096
HOUR_MS = 3_600_000
_MINUTE_SECONDS = 60

Range = tuple[int | None, int | None]


class Occupancy:
    """Masks of 60 bits, one a minute: the seconds with records, and those of them with many."""

    def __init__(self) -> None:
        self._minutes: list[int] = []
        self._seconds: dict[int, int] = {}
        self._crowds: dict[int, int] = {}
        self._counts: collections.Counter[int] = collections.Counter()
        self._unsaved: set[int] = set()

    def note(self, timestamps_ms: Iterable[int]) -> None:
        """Records with these timestamps have been stored."""
        found = collections.Counter(moment // 1000 for moment in timestamps_ms)
        self._counts.update(found)
        for second in found:
            self._mark(second, self._counts[second] >= CROWD)
        if len(self._counts) > _MINUTE_SECONDS:
            # Only the seconds that are being written to need their counts.
            self._counts = collections.Counter(dict(self._counts.most_common(_MINUTE_SECONDS // 2)) | dict(found))

    def _mark(self, second: int, crowd: bool) -> None:
        minute, bit = divmod(second, _MINUTE_SECONDS)
        before = (self._seconds.get(minute, 0), self._crowds.get(minute, 0))
        self._load(minute, 1 << bit, (1 << bit) if crowd else 0)
        if before != (self._seconds[minute], self._crowds[minute]):
            self._unsaved.add(minute)

    def _load(self, minute: int, seconds: int, crowds: int) -> None:
        if minute not in self._seconds:
            bisect.insort(self._minutes, minute)
        self._seconds[minute] = self._seconds.get(minute, 0) | seconds
        self._crowds[minute] = self._crowds.get(minute, 0) | crowds

    def forget(self, before_ms: int) -> None:
        """There are no records from before this time."""
        end = bisect.bisect_left(self._minutes, before_ms // (1000 * _MINUTE_SECONDS))
        for minute in self._minutes[:end]:
            del self._seconds[minute], self._crowds[minute]
            self._unsaved.discard(minute)
        del self._minutes[:end]

    def unsaved(self) -> list[tuple[int, int, int, int]]:
        """What is not saved: start of the hour in milliseconds, number of the minute in it, and the two masks."""
        return [
            (minute // 60 * HOUR_MS, minute % 60, self._seconds[minute], self._crowds[minute])
            for minute in sorted(self._unsaved)
        ]

    def saved(self) -> None:
        """All that ``unsaved`` gave has been saved."""
        self._unsaved.clear()

    def load(self, hour_ms: int, minute: int, seconds: int, crowds: int) -> None:
        """Take in one saved minute."""
        self._load(hour_ms // HOUR_MS * 60 + minute, seconds, crowds)

    def ranges_down(self, low: int | None, high: int | None, most_quiet: int = MOST_QUIET) -> Iterator[Range]:
        """Ranges [from, to) that cover [low, high), newest first; None is no bound.

        None of them holds more than ``most_quiet`` seconds with records.
        """
        part, quiet = FIRST_PART_MS, 1
        while low is None or high is None or high > low:
            second = self._last_before(high)
            if second is None:
                yield low, high
                return
            if self._is_crowd(second):
                top = (second + 1) * 1000 if high is None else min(high, (second + 1) * 1000)
                start = max(second * 1000, top - part)
                part *= PART_GROWTH
            else:
                start = self._quiet_down(second, quiet) * 1000
                quiet = min(quiet * QUIET_GROWTH, most_quiet)
            start = start if low is None else max(low, start)
            yield start, high
            high = start

    def ranges_up(self, low: int | None, high: int | None, most_quiet: int = MOST_QUIET) -> Iterator[Range]:
        """Ranges [from, to) that cover [low, high), oldest first; the mirror of ``ranges_down``."""
        part, quiet = FIRST_PART_MS, 1
        while low is None or high is None or high > low:
            second = self._first_from(low)
            if second is None:
                yield low, high
                return
            if self._is_crowd(second):
                base = second * 1000 if low is None else max(low, second * 1000)
                end = min((second + 1) * 1000, base + part)
                part *= PART_GROWTH
            else:
                end = (self._quiet_up(second, quiet) + 1) * 1000
                quiet = min(quiet * QUIET_GROWTH, most_quiet)
            end = end if high is None else min(high, end)
            yield low, end
            low = end

    def _quiet_down(self, second: int, count: int) -> int:
        for _ in range(count - 1):
            before = self._last_before(second * 1000)
            if before is None or self._is_crowd(before):
                break
            second = before
        return second

    def _quiet_up(self, second: int, count: int) -> int:
        for _ in range(count - 1):
            after = self._first_from((second + 1) * 1000)
            if after is None or self._is_crowd(after):
                break
            second = after
        return second

    def _is_crowd(self, second: int) -> bool:
        minute, bit = divmod(second, _MINUTE_SECONDS)
        return bool(self._crowds[minute] >> bit & 1)

    def _last_before(self, high: int | None) -> int | None:
        """The newest second with records that begins before ``high``."""
        if high is None:
            minute, bits = (self._minutes[-1] if self._minutes else 0), _MINUTE_SECONDS
        else:
            minute, bits = divmod(-(-high // 1000), _MINUTE_SECONDS)
        at = bisect.bisect_right(self._minutes, minute)
        if at and self._minutes[at - 1] == minute:
            if mask := self._seconds[minute] & ((1 << bits) - 1):
                return minute * _MINUTE_SECONDS + mask.bit_length() - 1
            at -= 1
        if not at:
            return None
        minute = self._minutes[at - 1]
        return minute * _MINUTE_SECONDS + self._seconds[minute].bit_length() - 1

    def _first_from(self, low: int | None) -> int | None:
        """The oldest second with records that ends after ``low``."""
        if low is None:
            minute, bits = (self._minutes[0] if self._minutes else 0), 0
        else:
            minute, bits = divmod(low // 1000, _MINUTE_SECONDS)
        at = bisect.bisect_left(self._minutes, minute)
        if at < len(self._minutes) and self._minutes[at] == minute:
            if mask := self._seconds[minute] >> bits << bits:
                return minute * _MINUTE_SECONDS + (mask & -mask).bit_length() - 1
            at += 1
        if at == len(self._minutes):
            return None
        minute = self._minutes[at]
        mask = self._seconds[minute]
        return minute * _MINUTE_SECONDS + (mask & -mask).bit_length() - 1
