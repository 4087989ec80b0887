"""Conditions on a field, each in three forms that mean the same: for MongoDB's matcher and expressions, in Python.

The matcher's form can use an index. The form as an expression is for keys that a path cannot name (with dots in
them, or a dollar in front). The form in Python is for documents that are on their way, in the live tail.

A condition holds for a field that holds an array when it holds for one of its elements, as in MongoDB.
"""

import dataclasses
import functools
import operator
import re
from abc import abstractmethod
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from bson import DatetimeMS

from . import moments, patterns
from .leaves import MAX_NAMED, Key, Leaves, as_number
from .ranges import Threshold

Document = dict[str, Any]

#: Spellings (eE)(rR)… that are listed one by one, so that an index can find them: where nothing is known of the
#: indexes, and for a field that is known to have one. With more letters, or without an index, one pattern is faster.
SPELLINGS_UNKNOWN = 32
SPELLINGS_INDEXED = 1024

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
    def holds(self, leaves: Leaves, context: Context) -> bool:
        """Whether one of the values meets it, as the matcher decides, or the expression where that is asked."""

    @property
    def keys(self) -> frozenset[Key] | None:
        """All leaves for which it holds have one of these; None when there are no such."""
        return None


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

    @functools.cached_property
    def _numbers(self) -> frozenset[Any]:
        numbers = (as_number(each) for each in self.values if not isinstance(each, bool))
        return frozenset(each for each in numbers if each is not None)

    @functools.cached_property
    def _booleans(self) -> list[bool]:
        return [each for each in self.values if isinstance(each, bool)]

    def holds(self, leaves: Leaves, context: Context) -> bool:
        """Whether one of the values meets it."""
        if not self._numbers.isdisjoint(leaves.numbers):
            return True
        return any(value is each for each in self._booleans for value in leaves.values)

    @property
    def keys(self) -> frozenset[Key] | None:
        """Whatever meets it has one of these."""
        return frozenset(Key("named", value) for value in (*self._numbers, *self._booleans))


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

    def holds(self, leaves: Leaves, context: Context) -> bool:
        """Whether one of the values meets it."""
        return any(map(self._is, leaves.texts))

    def _is(self, value: str) -> bool:
        if len(value) != len(self.text):
            return False
        return all(one == other or other in patterns.cases(one) for one, other in zip(self.text, value, strict=True))

    @property
    def keys(self) -> frozenset[Key] | None:
        """Whatever meets it has one of these."""
        return frozenset({Key("named", patterns.fold(self.text))}) if len(self.text) <= MAX_NAMED else None

    def _pattern(self) -> str:
        return patterns.whole(self.text)


@dataclasses.dataclass(frozen=True)
class Pattern(Condition):
    """A text in which a pattern of the dialect of patterns.py is found.

    ``word``, folded, is one of the words of each such text; it is empty when there is none for sure.
    """

    pattern: str
    word: str = ""

    def matcher(self, path: str, context: Context) -> list[Document]:
        """Operators, of which one has to hold."""
        return [{"$regex": self.pattern}]

    def expression(self, context: Context) -> Document:
        """The same over ``$$this``."""
        found = {"$regexMatch": {"input": _IT, "regex": {"$literal": self.pattern}}}
        # $regexMatch fails on anything but text, so it must not see it.
        return {"$cond": [_has_type("string"), found, False]}

    @functools.cached_property
    def _search(self) -> Callable[[str], re.Match[str] | None]:
        return _compiled(self.pattern).search

    def holds(self, leaves: Leaves, context: Context) -> bool:
        """Whether one of the values meets it."""
        return any(map(self._search, leaves.texts))

    @property
    def keys(self) -> frozenset[Key] | None:
        """Whatever meets it has this."""
        return frozenset({Key("words", self.word)}) if self.word else None


@dataclasses.dataclass(frozen=True)
class Null(Condition):
    """The value null (not a field that is missing)."""

    def matcher(self, path: str, context: Context) -> list[Document]:
        """Operators, of which one has to hold."""
        return [{"$type": "null"}]

    def expression(self, context: Context) -> Document:
        """The same over ``$$this``."""
        return _has_type("null")

    def holds(self, leaves: Leaves, context: Context) -> bool:
        """Whether one of the values meets it."""
        return any(value is None for value in leaves.values)

    @property
    def keys(self) -> frozenset[Key] | None:
        """Whatever meets it has this."""
        return frozenset({Key("named", None)})


@dataclasses.dataclass(frozen=True)
class Bound:
    """One end of a range."""

    value: Any
    included: bool


_Test = Callable[[Any], bool]
_Comparison = Callable[[Any, Any], bool]


class _Tests(NamedTuple):
    """Which of the readings of leaves a range is about, and what is asked of the values there; None is no bound."""

    reading: str
    above: _Test | None
    below: _Test | None


def _beyond(bound: Bound, without: _Comparison, including: _Comparison) -> _Test:
    """Whether the bound, in front, compares so with a value."""
    value = bound.value
    if isinstance(value, DatetimeMS):
        value = int(value)
    elif not isinstance(value, str):
        value = as_number(value)
    return functools.partial(including if bound.included else without, value)


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
        if isinstance(self._sample, str):
            return {"$and": [_has_type("string"), *tests]}
        if isinstance(self._sample, DatetimeMS):
            return {"$and": [_has_type("date"), *tests]}
        return {"$and": [{"$isNumber": _IT}, {"$gte": [_IT, -_INFINITY]}, *tests]}

    def holds(self, leaves: Leaves, context: Context) -> bool:
        """As MongoDB decides it: a path through an array of objects can have other values for either bound."""
        name, above, below = self._tests
        if above is None or below is None:
            return any(map(above or below or bool, getattr(leaves, name)))
        if leaves.by_path and not leaves.arrays:
            return any(map(above, getattr(leaves, name))) and any(map(below, getattr(leaves, name)))
        values = getattr(leaves.elements if leaves.by_path else leaves, name)
        return any(above(value) and below(value) for value in values)

    @functools.cached_property
    def _tests(self) -> _Tests:
        above = None if self.low is None else _beyond(self.low, operator.lt, operator.le)
        below = None if self.high is None else _beyond(self.high, operator.gt, operator.ge)
        if isinstance(self._sample, str):
            return _Tests("texts", above, below)
        return _Tests("dates" if isinstance(self._sample, DatetimeMS) else "numbers", above, below)

    @property
    def threshold(self) -> Threshold | None:
        """That of the numbers for which it holds, if it is for numbers and there is but one bound."""
        bound = self.high if self.low is None else self.low
        if self._tests.reading != "numbers" or bound is None or None not in (self.low, self.high):
            return None
        limit = as_number(bound.value)
        return None if limit is None else Threshold(limit, self.high is None, bound.included)

    @property
    def _sample(self) -> Any:
        return (self.low or self.high or Bound(None, False)).value


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
        return _between(self, context.now_ms if self._is_relative else 0)

    @functools.cached_property
    def _is_relative(self) -> bool:
        return any(moments.is_relative(bound[0]) for bound in (self.low, self.high) if bound is not None)

    def matcher(self, path: str, context: Context) -> list[Document]:
        """Operators, of which one has to hold."""
        return self._between(context).matcher(path, context)

    def expression(self, context: Context) -> Document:
        """The same over ``$$this``."""
        return self._between(context).expression(context)

    def holds(self, leaves: Leaves, context: Context) -> bool:
        """Whether one of the values meets it."""
        return self._between(context).holds(leaves, context)


# Of the same moment, many records are asked.
@functools.lru_cache(maxsize=1024)
def _between(dates: Dates, now_ms: int) -> Between:
    low, high = dates.range(now_ms)
    return Between(
        None if low is None else Bound(DatetimeMS(low), True),
        None if high is None else Bound(DatetimeMS(high), False),
    )


@dataclasses.dataclass(frozen=True)
class Present(Condition):
    """The field is there, whatever it holds."""

    def matcher(self, path: str, context: Context) -> list[Document]:
        """Operators, of which one has to hold."""
        return [{"$exists": True}]

    def expression(self, context: Context) -> Document:
        """The same over ``$$this``."""
        return {"$ne": [{"$type": _IT}, "missing"]}

    def holds(self, leaves: Leaves, context: Context) -> bool:
        """Whether there is a value."""
        return bool(leaves.found)


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

    def holds(self, leaves: Leaves, context: Context) -> bool:
        """Whether one of the values meets it."""
        return self.value in leaves.values

    @property
    def keys(self) -> frozenset[Key] | None:
        """Whatever meets it has this."""
        return frozenset({Key("named", self.value)})


#: Fields of a record that never hold an array.
SCALARS = frozenset({"_id", "message", "source", "timestamp"})


_compiled = functools.lru_cache(maxsize=2048)(re.compile)


def _has_type(name: str) -> Document:
    return {"$eq": [{"$type": _IT}, name]}
