"""Thresholds, and which of many of them a number is beyond: found by bisection, not by comparing each."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from .leaves import Number

T = TypeVar("T")


class Threshold(NamedTuple):
    """What a number has to be above, or else below; ``included``: it may also be that."""

    limit: Number
    above: bool
    included: bool


class _Row(Generic[T]):
    """Things by their limits, in ascending order."""

    def __init__(self) -> None:
        self.limits: list[Number] = []
        self.things: list[T] = []

    def add(self, limit: Number, thing: T) -> None:
        at = bisect_right(self.limits, limit)
        self.limits.insert(at, limit)
        self.things.insert(at, thing)

    def remove(self, limit: Number, thing: T) -> None:
        at = self.things.index(thing, bisect_left(self.limits, limit))
        del self.limits[at], self.things[at]


class Ranges(Generic[T]):
    """Things, each with a threshold."""

    def __init__(self) -> None:
        self._rows: dict[tuple[bool, bool], _Row[T]] = {
            (above, included): _Row() for above in (True, False) for included in (True, False)
        }

    def __iter__(self) -> Iterator[T]:
        for row in self._rows.values():
            yield from row.things

    def __len__(self) -> int:
        return sum(len(row.things) for row in self._rows.values())

    def add(self, threshold: Threshold, thing: T) -> None:
        """``thing`` has this threshold."""
        self._rows[threshold.above, threshold.included].add(threshold.limit, thing)

    def remove(self, threshold: Threshold, thing: T) -> None:
        """``thing``, which has been added with it, has it no more."""
        self._rows[threshold.above, threshold.included].remove(threshold.limit, thing)

    def beyond(self, lowest: Number, highest: Number) -> list[T]:
        """The things beyond whose threshold one of some numbers is, between ``lowest`` and ``highest``."""
        found: list[T] = []
        for (above, included), row in self._rows.items():
            # Equal ones are behind the place, or before it, as they count or not.
            at = (bisect_right if above == included else bisect_left)(row.limits, highest if above else lowest)
            found += row.things[:at] if above else row.things[at:]
        return found
