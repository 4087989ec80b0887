"""Which seconds hold records, and which hold many: a hint that keeps reads small where a store reads whole ranges.

SecantusDB fetches every document of an index range before it sorts and limits them, so a page costs what its ranges
hold. The hint places the ranges: next to the records, never across a gap into a crowd. It decides only where one range
ends and the next begins; together they always cover all of the time asked for, so a hint that is missing or wrong costs
time and never a record.
"""

import bisect
import collections
import itertools
from collections.abc import Iterable, Iterator

#: So many records make a second a crowd, which is read by parts.
CROWD = 500
#: The first part of a crowd, in milliseconds, and how the parts, and the numbers of quiet seconds, grow.
FIRST_PART_MS = 10
PART_GROWTH = 4
QUIET_GROWTH = 8
MOST_QUIET = 4096
#: So wide, in milliseconds, may a piece always be, and a piece of a crowd; beyond that it is a part of all before it.
WIDE_MS = 64_000
CROWD_WIDE_MS = 1_000
_PART_OF_PASSED = 8
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

    def forget(self, before_ms: int) -> float:
        """There are no records from before this time; how much is left of the time that had any."""
        before = len(self._minutes)
        end = bisect.bisect_left(self._minutes, before_ms // (1000 * _MINUTE_SECONDS))
        for minute in self._minutes[:end]:
            del self._seconds[minute], self._crowds[minute]
            self._unsaved.discard(minute)
        del self._minutes[:end]
        return len(self._minutes) / before if before else 1.0

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

    def pieces_down(self, low: int | None, high: int | None) -> Iterator[Range]:
        """Ranges that cover [low, high), newest first, for what an index finds.

        They grow with the time that has been passed, so all of it is passed in few of them; and since each is a small
        part of that, few records are fetched beyond those that are wanted. None reaches into a crowd from beside it.
        """
        growth = _Growth()
        while low is None or high is None or high > low:
            second = self._last_before(high)
            if second is None:
                yield low, high
                return
            top = (second + 1) * 1000 if high is None else min(high, (second + 1) * 1000)
            if self._is_crowd(second):
                start = top - growth.crowded()
            else:
                start = top - growth.quiet()
                crowd = self._crowd_in(start // 1000, second, newest=True)
                start = start if crowd is None else max(start, (crowd + 1) * 1000)
            start = start if low is None else max(low, start)
            yield start, high
            high = start

    def pieces_up(self, low: int | None, high: int | None) -> Iterator[Range]:
        """Ranges that cover [low, high), oldest first; the mirror of ``pieces_down``."""
        growth = _Growth()
        while low is None or high is None or high > low:
            second = self._first_from(low)
            if second is None:
                yield low, high
                return
            base = second * 1000 if low is None else max(low, second * 1000)
            if self._is_crowd(second):
                end = base + growth.crowded()
            else:
                end = base + growth.quiet()
                crowd = self._crowd_in(second + 1, -(-end // 1000), newest=False)
                end = end if crowd is None else min(end, crowd * 1000)
            end = end if high is None else min(high, end)
            yield low, end
            low = end

    def sample(self, count: int) -> Iterator[tuple[int, int, float]]:
        """About ``count`` short ranges [from, to) from all the time that holds records, and as many from crowds.

        With each, how many times as much there is.
        """
        quiet = [(minute, self._seconds[minute] & ~self._crowds[minute]) for minute in self._minutes]
        crowded = [(minute, self._crowds[minute]) for minute in self._minutes]
        for masks, length in ((quiet, 1000), (crowded, FIRST_PART_MS)):
            totals = [*itertools.accumulate(mask.bit_count() for _, mask in masks)]
            total = totals[-1] if totals else 0
            step = max(1.0, total / count)
            for number in range(min(count, total)):
                rank = int((number + 0.5) * step)
                at = bisect.bisect_right(totals, rank)
                minute, mask = masks[at]
                start = (minute * _MINUTE_SECONDS + _nth_bit(mask, rank - totals[at] + mask.bit_count())) * 1000
                yield start, start + length, step * 1000 / length

    def _crowd_in(self, first: int, end: int, newest: bool) -> int | None:
        """The newest, or the oldest, crowd of the seconds [first, end)."""
        minutes = self._minutes[
            bisect.bisect_left(self._minutes, first // _MINUTE_SECONDS) : bisect.bisect_right(
                self._minutes, (end - 1) // _MINUTE_SECONDS
            )
        ]
        for minute in reversed(minutes) if newest else minutes:
            base = minute * _MINUTE_SECONDS
            above = self._crowds[minute] & ((1 << max(0, min(_MINUTE_SECONDS, end - base))) - 1)
            below = max(0, first - base)
            if mask := above >> below << below:
                return base + (mask.bit_length() if newest else (mask & -mask).bit_length()) - 1
        return None

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


class _Growth:
    """How wide the next piece may be, in milliseconds."""

    def __init__(self) -> None:
        self._width, self._passed = 1000, 0
        self._crowded, self._crowded_passed = FIRST_PART_MS, 0

    def quiet(self) -> int:
        """The width of a piece that begins with a quiet second."""
        width = self._width
        self._passed += width
        self._width = min(width * PART_GROWTH, max(WIDE_MS, self._passed // _PART_OF_PASSED))
        return width

    def crowded(self) -> int:
        """The width of a piece that begins with a crowd."""
        width = self._crowded
        self._crowded_passed += width
        self._crowded = min(width * PART_GROWTH, max(CROWD_WIDE_MS, self._crowded_passed // _PART_OF_PASSED))
        return width


def _nth_bit(mask: int, number: int) -> int:
    """The place of the bit of ``mask`` that has ``number`` others below it."""
    for _ in range(number):
        mask &= mask - 1
    return (mask & -mask).bit_length() - 1
