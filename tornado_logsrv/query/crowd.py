"""Many queries, and which of them select a document: at less than the cost of asking each.

    document → its fields → the values and words there → conditions that may hold → queries that may select it

A condition that can hold only where there is a certain value or word (``level:error``, ``timeout``) is kept under it,
and holds for no document without it, which is not even looked at; one with a bound (``took:>5``) is found by bisection
among all that have one for the field. A query that needs one of such conditions (``user:(a OR b) -path:x*``) is asked
when one of them is met; the others (``-path:x*``) are asked of every document. What several ask is looked at once: a
field that they name, and a condition that they have in common.
"""

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from . import Query
from .fields import Field
from .leaves import Leaves
from .nodes import And, Leaf, Node, Not, Or
from .ranges import Ranges
from .sight import Sight

K = TypeVar("K", bound=Hashable)
_Test = Callable[[Sight], bool]


@dataclasses.dataclass(eq=False)
class _Asked(Generic[K]):
    """One query: what it is of, what decides it, and its conditions."""

    of: K
    test: _Test
    leaves: "list[_Shared[K]]"
    #: One of these holds for whatever it selects; None: there may be none.
    needs: "frozenset[_Shared[K]] | None"


class _Shared(Generic[K]):
    """A condition that queries have in common: decided once for a document."""

    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf
        self.keys = leaf.keys
        self.threshold = leaf.threshold
        #: Whether it can hold only for a document that it has met.
        self.is_met = self.keys is not None or self.threshold is not None
        #: How many queries have it, and those of them that are asked when it may hold.
        self.uses = 0
        self.opens: dict[_Asked[K], None] = {}
        #: The number of the last sight that has one of the keys, or a number beyond the threshold, or what may be.
        self.met = 0
        self._decided = 0
        self._held = False

    def matches(self, sight: Sight) -> bool:
        """Whether it holds."""
        if self.is_met and self.met != sight.number:
            return False
        if self._decided != sight.number:
            self._decided, self._held = sight.number, self.leaf.matches(sight)
        return self._held

    def hold(self, sight: Sight) -> None:
        """It holds: nobody need look."""
        self.met = self._decided = sight.number
        self._held = True


class Crowd(Generic[K]):
    """Queries, each of something that wants to know of the documents it selects."""

    def __init__(self) -> None:
        self._asked: dict[K, _Asked[K]] = {}
        self._always: dict[_Asked[K], None] = {}
        #: By what a condition says of itself: a Decimal128 in it has no hash.
        self._shared: dict[str, _Shared[K]] = {}
        self._index: dict[tuple[Field, str], dict[Hashable, dict[_Shared[K], None]]] = {}
        self._ranges: dict[Field, Ranges[_Shared[K]]] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def __iter__(self) -> Iterator[K]:
        return iter(self._asked)

    # Who asks

    def add(self, of: K, query: Query) -> None:
        """Ask ``query``, for ``of``, which asks nothing else."""
        leaves: list[_Shared[K]] = []
        test = self._test(query.root, leaves)
        asked = self._asked[of] = _Asked(of, test, leaves, self._needs(query.root))
        for door in self._doors(asked):
            door[asked] = None

    def remove(self, of: K) -> None:
        """Ask no more for ``of``."""
        asked = self._asked.pop(of)
        for door in self._doors(asked):
            del door[asked]
        for shared in asked.leaves:
            self._leave(shared)

    def _doors(self, asked: _Asked[K]) -> list[dict[_Asked[K], None]]:
        return [self._always] if asked.needs is None else [shared.opens for shared in asked.needs]

    def _share(self, leaf: Leaf) -> _Shared[K]:
        shared = self._shared.get(repr(leaf))
        if shared is None:
            shared = self._shared[repr(leaf)] = _Shared(leaf)
            for reading, value in shared.keys or ():
                self._index.setdefault((leaf.field, reading), {}).setdefault(value, {})[shared] = None
            if shared.threshold is not None:
                self._ranges.setdefault(leaf.field, Ranges()).add(shared.threshold, shared)
        shared.uses += 1
        return shared

    def _leave(self, shared: _Shared[K]) -> None:
        shared.uses -= 1
        if shared.uses:
            return
        del self._shared[repr(shared.leaf)]
        for reading, value in shared.keys or ():
            self._unlist(shared, reading, value)
        if shared.threshold is not None:
            ranges = self._ranges[shared.leaf.field]
            ranges.remove(shared.threshold, shared)
            if not ranges:
                del self._ranges[shared.leaf.field]

    def _unlist(self, shared: _Shared[K], reading: str, value: Hashable) -> None:
        values = self._index[shared.leaf.field, reading]
        del values[value][shared]
        if not values[value]:
            del values[value]
        if not values:
            del self._index[shared.leaf.field, reading]

    # What is asked

    def selecting(self, sight: Sight) -> list[K]:
        """Whose queries select the document."""
        return [asked.of for asked in self._meet(sight) if asked.test(sight)]

    def _meet(self, sight: Sight) -> dict[_Asked[K], None]:
        """Those that may select it."""
        found = dict(self._always)
        for (field, reading), values in self._index.items():
            for leaves in sight.at(field):
                there = getattr(leaves, reading)
                for value in values if there is None else there & values.keys():
                    for shared in values[value]:
                        shared.met = sight.number
                        found |= shared.opens
        for field, ranges in self._ranges.items():
            for leaves in sight.at(field):
                for shared in self._meet_numbers(sight, leaves, ranges):
                    found |= shared.opens
        return found

    def _meet_numbers(self, sight: Sight, leaves: Leaves, ranges: Ranges[_Shared[K]]) -> Iterable[_Shared[K]]:
        """Those that hold for one of the numbers; where there are texts, which may be numbers, all, that may hold."""
        if leaves.texts:
            for shared in ranges:
                shared.met = sight.number
            return ranges
        beyond = ranges.beyond(min(leaves.numbers), max(leaves.numbers)) if leaves.numbers else []
        for shared in beyond:
            shared.hold(sight)
        return beyond

    # What decides a query

    def _test(self, node: Node, leaves: list[_Shared[K]]) -> _Test:
        """What decides ``node``; its conditions are added to ``leaves``."""
        if isinstance(node, Leaf):
            leaves.append(self._share(node))
            return leaves[-1].matches
        if isinstance(node, Not):
            negated = self._test(node.node, leaves)
            return lambda sight: not negated(sight)
        if not isinstance(node, And | Or):
            return node.matches
        tests = [self._test(each, leaves) for each in node.nodes]
        return _all(tests) if isinstance(node, And) else _any(tests)

    def _needs(self, node: Node) -> frozenset[_Shared[K]] | None:
        """One of these holds for every document that ``node`` selects; None: there may be none."""
        if isinstance(node, Leaf):
            shared = self._shared[repr(node)]
            return frozenset({shared}) if shared.is_met else None
        if isinstance(node, And):
            found = [needs for each in node.nodes if (needs := self._needs(each)) is not None]
            # The one that the fewest have: where all ask for one level and each for another user, it is the user.
            return min(found, key=lambda needs: max(len(shared.opens) for shared in needs), default=None)
        if isinstance(node, Or):
            every = [self._needs(each) for each in node.nodes]
            return None if None in every else frozenset(shared for needs in every for shared in needs or ())
        return None


# Loops: all() and any() of a generator take twice as long, of which there are many.


def _all(tests: list[_Test]) -> _Test:
    def test(sight: Sight) -> bool:
        for each in tests:  # noqa: SIM110
            if not each(sight):
                return False
        return True

    return test


def _any(tests: list[_Test]) -> _Test:
    def test(sight: Sight) -> bool:
        for each in tests:  # noqa: SIM110
            if each(sight):
                return True
        return False

    return test
