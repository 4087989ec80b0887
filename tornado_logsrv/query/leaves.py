"""What a field leads to in one document, and how the values there are read.

Each reading is made once, however many conditions ask for it.
"""

import datetime
import functools
from collections.abc import Hashable, Iterable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from bson import Code, DatetimeMS, Decimal128, ObjectId

from . import patterns

#: A query is not longer, so no longer text is one that it names from end to end.
MAX_NAMED = 2000
#: Of more values, or of texts with more characters in all, no list is made: it would take more memory than they do.
MAX_LISTED_VALUES = 10_000
MAX_LISTED_TEXT = 1 << 16

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)


class Key(NamedTuple):
    """What has to be there for a condition to hold: ``value`` in the ``reading`` of leaves, "named" or "words".

    Where that is not listed, it may be there.
    """

    reading: str
    value: Hashable


#: A number that compares exactly with others.
Number = int | float | Decimal


class Positional(list[Any]):
    """An array that a number in the path has picked out of another: MongoDB does not look into it once more."""


class Leaves:
    """What is at the end of one way to a field; ``by_path``: a way that MongoDB's matcher goes, not an expression."""

    def __init__(self, found: list[Any], by_path: bool) -> None:
        self.found = found
        self.by_path = by_path

    @functools.cached_property
    def values(self) -> list[Any]:
        """The values, and in place of those that are arrays their elements."""
        return list(spread(self.found))

    @functools.cached_property
    def arrays(self) -> bool:
        """Whether some of what is found is an array."""
        return any(isinstance(leaf, list) for leaf in self.found)

    @functools.cached_property
    def elements(self) -> "Leaves":
        """The elements of all the arrays, as they are: those that are arrays are not looked into."""
        elements = Leaves([each for leaf in self.found if isinstance(leaf, list) for each in leaf], self.by_path)
        elements.values = elements.found
        return elements

    @functools.cached_property
    def texts(self) -> list[str]:
        """The values that are texts."""
        return [value for value in self.values if is_text(value)]

    @functools.cached_property
    def numbers(self) -> list[Number]:
        """The values that are numbers, of whatever type."""
        return _without_none(map(as_number, self.values))

    @functools.cached_property
    def dates(self) -> list[int]:
        """The values that are dates, in milliseconds since 1970."""
        return _without_none(map(as_milliseconds, self.values))

    @functools.cached_property
    def named(self) -> set[Hashable] | None:
        """Those values that a query can name from end to end; of texts, what they have in common with the name.

        None when they are too many.
        """
        if len(self.values) > MAX_LISTED_VALUES:
            return None
        others = (value for value in self.values if value is None or isinstance(value, bool | ObjectId))
        return {*(patterns.fold(text) for text in self.texts if len(text) <= MAX_NAMED), *self.numbers, *others}

    @functools.cached_property
    def words(self) -> set[Hashable] | None:
        """The words in the texts, folded; None when they are too many."""
        if sum(map(len, self.texts)) > MAX_LISTED_TEXT:
            return None
        return {word for text in self.texts for word in patterns.folded_words(text)}


def spread(leaves: Iterable[Any]) -> Iterator[Any]:
    """The values, and in place of those that are arrays their elements."""
    for leaf in leaves:
        if not isinstance(leaf, list):
            yield leaf
        elif not isinstance(leaf, Positional):
            yield from leaf


def is_text(value: Any) -> bool:
    """Whether ``value`` is a text to MongoDB (bson.Code is a str in Python, and none to MongoDB)."""
    return isinstance(value, str) and not isinstance(value, Code)


def as_number(value: Any) -> Number | None:
    """A number that compares exactly with others; None for NaN, for booleans and for all else."""
    if isinstance(value, Decimal128):
        value = value.to_decimal()
        return None if value.is_nan() else value
    if isinstance(value, int | float) and not isinstance(value, bool | DatetimeMS):
        return value if value == value else None
    return None


def as_milliseconds(value: Any) -> int | None:
    """A date in milliseconds since 1970; None for what is none."""
    if isinstance(value, DatetimeMS):
        return int(value)
    if isinstance(value, datetime.datetime):
        # bson gives dates without a zone where it is not asked for one; they are UTC.
        aware = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return (aware - _EPOCH) // _MILLISECOND
    return None


def _without_none(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]
