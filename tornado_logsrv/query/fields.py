"""The fields a query names, and where in a record they can be.

``_id``, ``message``, ``timestamp``, ``source`` and ``data`` mean themselves, and so does what begins with ``data.``;
every other name is a key in ``data``. The name ``a.b`` means the key ``b`` of ``a``, and also a key ``a.b``. MongoDB's
paths reach only the first; the others take an expression, which can name every key and uses no index.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from .conditions import Condition, Context, Document, Present
from .leaves import Leaves, Positional, spread

#: Keys that hold text by convention: there a word is looked for within the text.
TEXT_KEYS = frozenset({"message", "msg", "log", "event", "error"})
#: Where a word without a field is looked for.
TEXT_PATHS = ("message", "data", "data.message", "data.msg", "data.log", "data.event", "data.error")
#: Keys in a path.
MAX_KEYS = 20
#: Up to so many parts of a name are joined by dots in every way; of more, into one key or two.
_JOINED = 4

_THEMSELVES = frozenset({"_id", "message", "timestamp", "source", "data"})
_MISSING = object()


@dataclasses.dataclass(frozen=True)
class Field:
    """A field by its name: the path to it, if it has one, and the ways to it that are no path."""

    name: str
    path: str | None
    keys: tuple[tuple[str, ...], ...] = ()

    @property
    def is_text(self) -> bool:
        """Whether it holds text by convention."""
        return self.name == "data" or self.name.rpartition(".")[2] in TEXT_KEYS

    def __hash__(self) -> int:
        # The rest is made of the name.
        return hash(self.name)

    def leaves(self, document: Mapping[str, Any]) -> list[Leaves]:
        """What MongoDB finds at the path, and what is at the end of each other way; no way that ends nowhere."""
        ways = [] if self.path is None else [Leaves(_follow_path(document, self.path.split(".")), by_path=True)]
        ways += [Leaves(_follow_keys(document.get("data"), keys), by_path=False) for keys in self.keys]
        return [way for way in ways if way.found]

    def expression(self, conditions: Sequence[Condition], context: Context) -> Document:
        """One of ``conditions`` holds at the end of one of the other ways."""
        tests = [test for keys in self.keys for test in _tests(_leaves_expression(keys), conditions, context)]
        return tests[0] if len(tests) == 1 else {"$or": tests}


@functools.lru_cache(maxsize=256)
def field(name: str) -> Field:
    """The field called ``name``. Raises ValueError when it has too many keys."""
    if name in _THEMSELVES:
        return Field(name, name)
    parts = tuple(name.removeprefix("data.").split("."))
    if len(parts) > MAX_KEYS:
        raise ValueError(f"a name may have {MAX_KEYS} parts")
    # To MongoDB a $ in front means an operator, and an empty part is no path.
    nameable = all(part and not part.startswith("$") for part in parts)
    others = [joined for joined in _joinings(parts) if not (nameable and joined == parts)]
    return Field(name, ".".join(("data", *parts)) if nameable else None, tuple(others))


def _joinings(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The ways to read ``parts`` as keys with dots in them."""
    if len(parts) <= _JOINED:
        return _all_joinings(parts)
    halves = [(".".join(parts[:at]), ".".join(parts[at:])) for at in range(1, len(parts))]
    return [parts, (".".join(parts),), *halves]


def _all_joinings(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for at in range(1, len(parts) + 1):
        first = ".".join(parts[:at])
        found += [(first, *rest) for rest in _all_joinings(parts[at:])] if at < len(parts) else [(first,)]
    return found


def _follow_path(document: Mapping[str, Any], parts: Sequence[str]) -> list[Any]:
    """As MongoDB's matcher does: through arrays, where a number also means a place in the array."""
    current: list[Any] = [document]
    for part in parts:
        found: list[Any] = []
        for value in current:
            if isinstance(value, Mapping):
                found.append(value.get(part, _MISSING))
            elif isinstance(value, list):
                found += _in_array(value, part)
        current = [value for value in found if value is not _MISSING]
    return current


def _in_array(array: Sequence[Any], part: str) -> list[Any]:
    found = [element.get(part, _MISSING) for element in array if isinstance(element, Mapping)]
    if part.isascii() and part.isdigit() and int(part) < len(array):
        element = array[int(part)]
        found.append(Positional(element) if isinstance(element, list) else element)
    return found


def _follow_keys(data: Any, keys: Sequence[str]) -> list[Any]:
    current = [data]
    for key in keys:
        objects = [value for value in spread(current) if isinstance(value, Mapping) and key in value]
        current = [value[key] for value in objects]
    return current


def _tests(leaves: Document, conditions: Sequence[Condition], context: Context) -> list[Document]:
    if any(isinstance(condition, Present) for condition in conditions):
        return [{"$gt": [{"$size": leaves}, 0]}]
    tests = [condition.expression(context) for condition in conditions]
    test = tests[0] if len(tests) == 1 else {"$or": tests}
    return [{"$anyElementTrue": [{"$map": {"input": _spread_expression(leaves), "in": test}}]}]


def _leaves_expression(keys: Sequence[str]) -> Document:
    values: Any = {"$cond": [{"$isArray": ["$data"]}, "$data", ["$data"]]}
    for index, key in enumerate(keys):
        # The name is a literal that keys are compared with: one such as $x is not evaluated. Not $getField, of which
        # SecantusDB 0.7 cannot tell whether the key is there.
        named = {"$eq": ["$$entry.k", {"$literal": key}]}
        entries = {"$filter": {"input": {"$objectToArray": "$$this"}, "as": "entry", "cond": named}}
        found = {"$cond": [{"$eq": [{"$type": "$$this"}, "object"]}, entries, []]}
        values = {
            "$map": {"input": _concatenated(_spread_expression(values) if index else values, found), "in": "$$this.v"}
        }
    return dict(values)


def _spread_expression(values: Any) -> Document:
    return _concatenated(values, {"$cond": [{"$isArray": ["$$this"]}, "$$this", ["$$this"]]})


def _concatenated(values: Any, each: Document) -> Document:
    """The arrays that ``each`` makes of every one of ``values``, as one."""
    return {"$reduce": {"input": values, "initialValue": [], "in": {"$concatArrays": ["$$value", each]}}}
