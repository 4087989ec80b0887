"""A query as a tree: conditions on fields, joined by and, or and not.

Filters are kept flat, {"timestamp": …, "data.level": …}, wherever they can be: MongoDB plans any form as well, but
SecantusDB uses no index for a filter that has $and or $or at its top.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from .conditions import Between, Condition, Context, Dates, Document, Pattern
from .fields import Field
from .leaves import Key
from .ranges import Threshold
from .sight import Sight

_NOTHING: Document = {"_id": {"$in": []}}


class Node:
    """What is asked of a record."""

    @abstractmethod
    def filter(self, context: Context) -> Document:
        """The filter for MongoDB."""

    @abstractmethod
    def matches(self, sight: Sight) -> bool:
        """Whether the document is one of those the filter selects."""

    def negated(self, context: Context) -> Document:
        """The filter for all others."""
        return {"$nor": [self.filter(context)]}


class Everything(Node):
    """Nothing is asked."""

    def filter(self, context: Context) -> Document:
        """The filter for MongoDB."""
        return {}

    def matches(self, sight: Sight) -> bool:
        """Whether the document is selected."""
        return True

    def negated(self, context: Context) -> Document:
        """The filter for all others."""
        return _NOTHING


@dataclasses.dataclass(frozen=True)
class Leaf(Node):
    """One of some conditions holds for a field."""

    field: Field
    conditions: tuple[Condition, ...]

    def filter(self, context: Context) -> Document:
        """The filter for MongoDB."""
        return _any(self._alternatives(context))

    def _alternatives(self, context: Context) -> list[Document]:
        found: list[Document] = []
        if self.field.path is not None:
            operators = [each for c in self.conditions for each in c.matcher(self.field.path, context)]
            found += [{self.field.path: each} for each in _with_one_in(operators)]
        if self.field.keys:
            found.append({"$expr": self.field.expression(self.conditions, context)})
        return found

    def negated(self, context: Context) -> Document:
        """The filter for all others."""
        return _all(map(_negated, self._alternatives(context)))

    @property
    def keys(self) -> frozenset[Key] | None:
        """Of every document that is selected, the leaves have one of these; None: there are no such."""
        found = [condition.keys for condition in self.conditions]
        return None if None in found else frozenset(key for keys in found for key in keys or ())

    @property
    def threshold(self) -> Threshold | None:
        """A document with a number beyond it is selected; without a text in the field, no other is."""
        others = [condition for condition in self.conditions if not isinstance(condition, Pattern)]
        return others[0].threshold if len(others) == 1 and isinstance(others[0], Between) else None

    def matches(self, sight: Sight) -> bool:
        """Whether the document is selected."""
        for leaves in sight.at(self.field):
            for condition in self.conditions:
                if condition.holds(leaves, sight.context):
                    return True
        return False


@dataclasses.dataclass(frozen=True)
class And(Node):
    """All of several."""

    nodes: tuple[Node, ...]

    @staticmethod
    def of(nodes: Iterable[Node]) -> Node:
        """``nodes`` joined; one alone is itself."""
        every = tuple(nodes)
        return every[0] if len(every) == 1 else And(every)

    def filter(self, context: Context) -> Document:
        """The filter for MongoDB."""
        return _all(node.filter(context) for node in self.nodes)

    def matches(self, sight: Sight) -> bool:
        """Whether the document is selected."""
        return all(node.matches(sight) for node in self.nodes)


@dataclasses.dataclass(frozen=True)
class Or(Node):
    """At least one of several."""

    nodes: tuple[Node, ...]

    @staticmethod
    def of(nodes: Iterable[Node]) -> Node:
        """``nodes`` joined; one alone is itself, and those on one field are one."""
        every = list(nodes)
        joined: dict[Field, tuple[Condition, ...]] = {}
        for node in every:
            if isinstance(node, Leaf):
                joined[node.field] = joined.get(node.field, ()) + node.conditions
        leaves: list[Node] = [Leaf(field, conditions) for field, conditions in joined.items()]
        result = (*leaves, *(node for node in every if not isinstance(node, Leaf)))
        return result[0] if len(result) == 1 else Or(result)

    def filter(self, context: Context) -> Document:
        """The filter for MongoDB."""
        return _any([node.filter(context) for node in self.nodes])

    def negated(self, context: Context) -> Document:
        """The filter for all others."""
        return _all(node.negated(context) for node in self.nodes)

    def matches(self, sight: Sight) -> bool:
        """Whether the document is selected."""
        return any(node.matches(sight) for node in self.nodes)


@dataclasses.dataclass(frozen=True)
class Not(Node):
    """None of it."""

    node: Node

    def filter(self, context: Context) -> Document:
        """The filter for MongoDB."""
        return self.node.negated(context)

    def negated(self, context: Context) -> Document:
        """The filter for all others."""
        return self.node.filter(context)

    def matches(self, sight: Sight) -> bool:
        """Whether the document is selected."""
        return not self.node.matches(sight)


def time_range(node: Node, now_ms: int) -> tuple[int | None, int | None]:
    """[first millisecond, first one behind) that the timestamp of every match is in; None is no bound."""
    if isinstance(node, And):
        ranges = [time_range(each, now_ms) for each in node.nodes]
        lows = [low for low, _ in ranges if low is not None]
        highs = [high for _, high in ranges if high is not None]
        return max(lows, default=None), min(highs, default=None)
    if isinstance(node, Leaf) and node.field.name == "timestamp" and len(node.conditions) == 1:
        condition = node.conditions[0]
        return condition.range(now_ms) if isinstance(condition, Dates) else (None, None)
    return None, None


def _with_one_in(operators: Sequence[Document]) -> list[Document]:
    """Several $in as one."""
    listed = [value for each in operators if list(each) == ["$in"] for value in each["$in"]]
    others = [each for each in operators if list(each) != ["$in"]]
    return [{"$in": listed}, *others] if listed else others


def _any(filters: Sequence[Document]) -> Document:
    if any(not each for each in filters):
        return {}
    return filters[0] if len(filters) == 1 else {"$or": list(filters)}


def _negated(filter_: Document) -> Document:
    ((key, operators),) = filter_.items()
    if key == "$expr":
        return {"$expr": {"$not": [operators]}}
    opposites = {"$in": "$nin", "$eq": "$ne"}
    if len(operators) == 1:
        ((operator, value),) = operators.items()
        if operator in opposites:
            return {key: {opposites[operator]: value}}
        if operator == "$exists":
            return {key: {"$exists": not value}}
        return {key: {"$not": operators}}
    return {"$nor": [filter_]}


def _all(filters: Iterable[Document]) -> Document:
    """One filter for all of ``filters``: their fields side by side, and what names a field again under $and."""
    flat: Document = {}
    rest: list[Document] = []
    for each in filters:
        for key, value in each.items():
            if key == "$and":
                rest += value
            elif key not in flat:
                flat[key] = value
            elif not _merge(flat, key, value):
                rest.append({key: value})
    return {**flat, "$and": rest} if rest else flat


def _merge(flat: Document, key: str, value: Any) -> bool:
    """Put ``value`` beside what ``key`` has in ``flat``, if both can stand there."""
    there = flat[key]
    if key == "$nor":
        flat[key] = there + value
    elif key.startswith("$"):
        return False
    elif set(there) == set(value) == {"$nin"}:
        flat[key] = {"$nin": [*there["$nin"], *value["$nin"]]}
    elif set(there) & set(value):
        return False
    else:
        flat[key] = {**there, **value}
    return True
