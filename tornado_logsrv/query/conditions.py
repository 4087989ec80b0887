"""Conditions on a field, each in three forms that mean the same: for MongoDB's matcher and expressions, in Python.

The matcher's form can use an index. The form as an expression is for keys that a path cannot name (with dots in
them, or a dollar in front). The form in Python is for documents that are on their way, in the live tail.

A condition holds for a field that holds an array when it holds for one of its elements, as in MongoDB.
"""

import dataclasses
import datetime
import functools
import re
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from decimal import Decimal
from typing import Any

from bson import Code, DatetimeMS, Decimal128

from . import moments, patterns

Document = dict[str, Any]

#: Spellings (eE)(rR)… that are listed one by one, so that an index can find them: where nothing is known of the
#: indexes, and for a field that is known to have one. With more letters, or without an index, one pattern is faster.
SPELLINGS_UNKNOWN = 32
SPELLINGS_INDEXED = 1024

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MILLISECOND = datetime.timedelta(milliseconds=1)
_INFINITY = float("inf")
#: In an expression: the value that is looked at.
_IT = "$$this"


@dataclasses.dataclass(frozen=True)
class Context:
    """What a condition is translated for."""

    now_ms: int
    #: Paths that have an index; None is not known.
    indexed: Collection[str] | None = None

    def spellings(self, path: str) -> int:
        """How many spellings of a text in ``path`` to list."""
        if self.indexed is None:
            return SPELLINGS_UNKNOWN
        return SPELLINGS_INDEXED if path in self.indexed else 0


class Condition:
    """One condition on a value."""

    @abstractmethod
    def matcher(self, path: str, context: Context) -> list[Document]:
        """Operators of MongoDB's matcher, of which one has to hold for ``path``."""

    @abstractmethod
    def expression(self, context: Context) -> Document:
        """An expression over ``$$this``, which is no array."""

    @abstractmethod
    def accepts(self, value: Any, context: Context) -> bool:
        """Whether ``value``, which is no array, meets it."""

    def holds(self, leaves: Sequence[Any], context: Context) -> bool:
        """Whether one of the values that a path leads to meets it, as the matcher decides."""
        return any(self.accepts(value, context) for value in spread(leaves))

    def holds_in_expression(self, leaves: Sequence[Any], context: Context) -> bool:
        """The same as the expression decides."""
        return any(self.accepts(value, context) for value in spread(leaves))


class Positional(list[Any]):
    """An array that a number in the path has picked out of another: MongoDB does not look into it once more."""


def spread(leaves: Sequence[Any]) -> Iterator[Any]:
    """The values, and in place of those that are arrays their elements."""
    for leaf in leaves:
        if not isinstance(leaf, list):
            yield leaf
        elif not isinstance(leaf, Positional):
            yield from leaf


@dataclasses.dataclass(frozen=True)
class Values(Condition):
    """One of a few numbers and booleans, numbers of every type alike."""

    values: tuple[Any, ...]

    def matcher(self, path: str, context: Context) -> list[Document]:
        """Operators, of which one has to hold."""
        return [{"$in": list(self.values)}]

    def expression(self, context: Context) -> Document:
        """The same over ``$$this``."""
        return {"$in": [_IT, {"$literal": list(self.values)}]}

    def accepts(self, value: Any, context: Context) -> bool:
        """Whether ``value`` meets it."""
        if isinstance(value, bool):
            return any(value is each for each in self.values)
        number = as_number(value)
        return number is not None and any(
            not isinstance(each, bool) and as_number(each) == number for each in self.values
        )


@dataclasses.dataclass(frozen=True)
class Text(Condition):
    """A text that is this one from end to end, in any case."""

    text: str

    def matcher(self, path: str, context: Context) -> list[Document]:
        """Operators, of which one has to hold."""
        listed = patterns.spellings(self.text, max(1, context.spellings(path)))
        return [{"$in": listed}] if listed else [{"$regex": self._pattern()}]

    def expression(self, context: Context) -> Document:
        """The same over ``$$this``."""
        return Pattern(self._pattern()).expression(context)

    def accepts(self, value: Any, context: Context) -> bool:
        """Whether ``value`` meets it."""
        if not is_text(value) or len(value) != len(self.text):
            return False
        return all(one == other or other in patterns.cases(one) for one, other in zip(self.text, value, strict=True))

    def _pattern(self) -> str:
        return patterns.whole(self.text)


@dataclasses.dataclass(frozen=True)
class Pattern(Condition):
    """A text in which a pattern of the dialect of patterns.py is found."""

    pattern: str

    def matcher(self, path: str, context: Context) -> list[Document]:
        """Operators, of which one has to hold."""
        return [{"$regex": self.pattern}]

    def expression(self, context: Context) -> Document:
        """The same over ``$$this``."""
        found = {"$regexMatch": {"input": _IT, "regex": {"$literal": self.pattern}}}
        # $regexMatch fails on anything but text, so it must not see it.
        return {"$cond": [_has_type("string"), found, False]}

    def accepts(self, value: Any, context: Context) -> bool:
        """Whether ``value`` meets it."""
        return is_text(value) and _compiled(self.pattern).search(value) is not None


@dataclasses.dataclass(frozen=True)
class Null(Condition):
    """The value null (not a field that is missing)."""

    def matcher(self, path: str, context: Context) -> list[Document]:
        """Operators, of which one has to hold."""
        return [{"$type": "null"}]

    def expression(self, context: Context) -> Document:
        """The same over ``$$this``."""
        return _has_type("null")

    def accepts(self, value: Any, context: Context) -> bool:
        """Whether ``value`` meets it."""
        return value is None


@dataclasses.dataclass(frozen=True)
class Bound:
    """One end of a range."""

    value: Any
    included: bool


@dataclasses.dataclass(frozen=True)
class Between(Condition):
    """A value between two bounds of one type; at least one is there."""

    low: Bound | None
    high: Bound | None

    def matcher(self, path: str, context: Context) -> list[Document]:
        """Operators, of which one has to hold."""
        operators = self._operators()
        if len(operators) < 2 or path in SCALARS:
            return [operators]
        # In an array each operator may hold for another element, so [50, 300] would be between 100 and 200.
        return [{**operators, "$not": {"$type": "array"}}, {"$elemMatch": operators}]

    def _operators(self) -> Document:
        operators = {}
        if self.low is not None:
            operators["$gte" if self.low.included else "$gt"] = self.low.value
        if self.high is not None:
            operators["$lte" if self.high.included else "$lt"] = self.high.value
        return operators

    def expression(self, context: Context) -> Document:
        """The same over ``$$this``."""
        tests = [{operator: [_IT, {"$literal": bound}]} for operator, bound in self._operators().items()]
        # Expressions compare values of different types, and NaN as less than every number: the matcher does neither.
        sample = (self.low or self.high or Bound(None, False)).value
        if isinstance(sample, str):
            return {"$and": [_has_type("string"), *tests]}
        if isinstance(sample, DatetimeMS):
            return {"$and": [_has_type("date"), *tests]}
        return {"$and": [{"$isNumber": _IT}, {"$gte": [_IT, -_INFINITY]}, *tests]}

    def accepts(self, value: Any, context: Context) -> bool:
        """Whether ``value`` meets it."""
        return self._above(value) and self._below(value)

    def _above(self, value: Any) -> bool:
        return self.low is None or _compares(value, self.low, lambda one, other: one > other)

    def _below(self, value: Any) -> bool:
        return self.high is None or _compares(value, self.high, lambda one, other: one < other)

    def holds(self, leaves: Sequence[Any], context: Context) -> bool:
        """As MongoDB decides it: a path through an array of objects can have other values for either bound."""
        if self.low is None or self.high is None:
            return super().holds(leaves, context)
        if any(self.accepts(each, context) for leaf in leaves if isinstance(leaf, list) for each in leaf):
            return True
        if any(isinstance(leaf, list) for leaf in leaves):
            return False
        return any(map(self._above, leaves)) and any(map(self._below, leaves))


@dataclasses.dataclass(frozen=True)
class Dates(Condition):
    """A date between two moments as the query writes them, which may be relative to now."""

    low: tuple[str, bool] | None
    high: tuple[str, bool] | None

    def range(self, now_ms: int) -> tuple[int | None, int | None]:
        """[first millisecond, first one behind); None is no bound."""
        low = high = None
        if self.low is not None:
            low = moments.span(self.low[0], now_ms)[0 if self.low[1] else 1]
        if self.high is not None:
            high = moments.span(self.high[0], now_ms)[1 if self.high[1] else 0]
        return low, high

    def _between(self, context: Context) -> Between:
        low, high = self.range(context.now_ms)
        return Between(
            None if low is None else Bound(DatetimeMS(low), True),
            None if high is None else Bound(DatetimeMS(high), False),
        )

    def matcher(self, path: str, context: Context) -> list[Document]:
        """Operators, of which one has to hold."""
        return self._between(context).matcher(path, context)

    def expression(self, context: Context) -> Document:
        """The same over ``$$this``."""
        return self._between(context).expression(context)

    def accepts(self, value: Any, context: Context) -> bool:
        """Whether ``value`` meets it."""
        return self._between(context).accepts(value, context)

    def holds(self, leaves: Sequence[Any], context: Context) -> bool:
        """Whether one of the values meets it."""
        return self._between(context).holds(leaves, context)


@dataclasses.dataclass(frozen=True)
class Present(Condition):
    """The field is there, whatever it holds."""

    def matcher(self, path: str, context: Context) -> list[Document]:
        """Operators, of which one has to hold."""
        return [{"$exists": True}]

    def expression(self, context: Context) -> Document:
        """The same over ``$$this``."""
        return {"$ne": [{"$type": _IT}, "missing"]}

    def accepts(self, value: Any, context: Context) -> bool:
        """Whether ``value`` meets it."""
        return True

    def holds(self, leaves: Sequence[Any], context: Context) -> bool:
        """Whether one of the values meets it."""
        return bool(leaves)

    def holds_in_expression(self, leaves: Sequence[Any], context: Context) -> bool:
        """Whether one of the values meets it, in an expression."""
        return bool(leaves)


@dataclasses.dataclass(frozen=True)
class Same(Condition):
    """A value of a type that nothing else is equal to: an ObjectId."""

    value: Any

    def matcher(self, path: str, context: Context) -> list[Document]:
        """Operators, of which one has to hold."""
        return [{"$eq": self.value}]

    def expression(self, context: Context) -> Document:
        """The same over ``$$this``."""
        return {"$eq": [_IT, {"$literal": self.value}]}

    def accepts(self, value: Any, context: Context) -> bool:
        """Whether ``value`` meets it."""
        return bool(value == self.value)


#: Fields of a record that never hold an array.
SCALARS = frozenset({"_id", "message", "source", "timestamp"})


_compiled = functools.lru_cache(maxsize=2048)(re.compile)


def is_text(value: Any) -> bool:
    """Whether ``value`` is a text to MongoDB (bson.Code is a str in Python, and none to MongoDB)."""
    return isinstance(value, str) and not isinstance(value, Code)


def as_number(value: Any) -> int | float | Decimal | None:
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


def _compares(value: Any, bound: Bound, beyond: Callable[[Any, Any], bool]) -> bool:
    for read in (as_number, as_milliseconds, lambda text: text if is_text(text) else None):
        limit = read(bound.value)
        if limit is not None:
            found = read(value)
            return found is not None and ((bound.included and found == limit) or beyond(found, limit))
    return False


def _has_type(name: str) -> Document:
    return {"$eq": [{"$type": _IT}, name]}
