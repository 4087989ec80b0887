"""luqum's tree, read into what it asks for."""

import re
from collections.abc import Callable
from typing import TypeVar

from luqum import tree

from . import moments, patterns
from .conditions import Condition, Pattern, Present
from .fields import TEXT_PATHS, Field, field
from .nodes import And, Everything, Leaf, Node, Not, Or
from .patterns import ONE, STAR, Parts, Wildcard
from .regexes import RegexError, translate
from .tokens import Prepared, QueryError
from .values import Limit, between, equal_to

MAX_TERMS = 50
MAX_DEPTH = 20
MAX_WILDCARDS = 10

_EXISTS = "_exists_"

T = TypeVar("T")


class Reader:
    """Reads luqum's tree."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._terms = 0

    def node(self, item: tree.Item, name: Field | None, depth: int) -> Node:
        """What ``item`` asks for, of the field ``name`` or of the record's text."""
        if depth > MAX_DEPTH:
            raise self._error(item, f"a query may be {MAX_DEPTH} levels deep")
        if isinstance(item, tree.BaseOperation):
            return self._operation(item, name, depth + 1)
        if isinstance(item, tree.Group | tree.FieldGroup):
            return self.node(item.expr, name, depth + 1)
        if isinstance(item, tree.Plus):
            return self.node(item.a, name, depth + 1)
        if isinstance(item, tree.Not | tree.Prohibit):
            return Not(self.node(item.a, name, depth + 1))
        if isinstance(item, tree.SearchField):
            return self._field(item, name, depth + 1)
        return self._term(item, name)

    def _error(self, item: tree.Item, problem: str, offset: int = 0) -> QueryError:
        return QueryError(self._prepared.column((item.pos or 0) + offset), problem)

    def _operation(self, item: tree.BaseOperation, name: Field | None, depth: int) -> Node:
        # luqum lets an AND that is not written bind less tightly than OR. People do not: what has no parentheses is
        # one row of operands, which OR parts.
        alternatives: list[list[Node]] = [[]]
        for operand, after_or in _row(item):
            if after_or:
                alternatives.append([])
            alternatives[-1].append(self.node(operand, name, depth))
        return Or.of(And.of(operands) for operands in alternatives)

    def _field(self, item: tree.SearchField, outer: Field | None, depth: int) -> Node:
        parts = self._parts(item.name)
        if outer is not None:
            raise self._error(item, f"a field within the field {outer.name}; write {outer.name}:… AND {item.name}:…")
        if _text(parts) == _EXISTS:
            return self._exists(item.expr)
        return self.node(item.expr, self._named(item, parts), depth)

    def _named(self, item: tree.Item, parts: Parts) -> Field:
        if any(isinstance(part, Wildcard) for part in parts):
            raise self._error(item, "the name of a field takes no wildcards; write \\* for the character")
        return self._checked(item, lambda: field(_text(parts)))

    def _exists(self, item: tree.Item) -> Node:
        if not isinstance(item, tree.Word | tree.Phrase):
            raise self._error(item, f"{_EXISTS} is followed by the name of one field, as in {_EXISTS}:trace_id")
        self._count(item)
        return Leaf(self._named(item, self._value(item)), (Present(),))

    def _checked(self, item: tree.Item, make: Callable[[], T]) -> T:
        try:
            return make()
        except RegexError as error:
            raise self._error(item, str(error), 1 + error.offset) from None
        except ValueError as error:
            raise self._error(item, str(error)) from None

    def _count(self, item: tree.Item) -> None:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise self._error(item, f"a query may have {MAX_TERMS} terms")

    def _term(self, item: tree.Item, name: Field | None) -> Node:
        self._count(item)
        if isinstance(item, tree.Range | tree.OpenRange):
            return self._range(item, name)
        if isinstance(item, tree.Regex):
            pattern = self._checked(item, lambda: translate(item.value[1:-1]))
            return self._anywhere_or(name, Pattern(pattern), item)
        if isinstance(item, tree.Word | tree.Phrase):
            return self._word(item, name)
        raise self._error(item, "this is not offered; quote it to look for it as it stands")

    def _anywhere_or(self, name: Field | None, condition: Condition, item: tree.Item) -> Node:
        if name is None:
            return Or.of(Leaf(field(path), (condition,)) for path in TEXT_PATHS)
        if name.name in ("_id", "timestamp"):
            raise self._error(item, f"{name.name} is no text: wildcards and regular expressions do not fit it")
        return Leaf(name, (condition,))

    def _word(self, item: tree.Term, name: Field | None) -> Node:
        parts = self._value(item)
        if parts and all(part is STAR for part in parts):
            return Everything() if name is None else Leaf(name, (Present(),))
        if name is None:
            if not _text(parts).strip():
                raise self._error(item, "nothing to look for between the quotes")
            return self._anywhere_or(None, self._words(item, parts), item)
        if any(isinstance(part, Wildcard) for part in parts):
            if name.is_text:
                return self._anywhere_or(name, self._words(item, parts), item)
            return self._anywhere_or(name, Pattern(self._checked(item, lambda: patterns.whole(parts))), item)
        return Leaf(name, self._checked(item, lambda: equal_to(name, _text(parts))))

    def _words(self, item: tree.Item, parts: Parts) -> Pattern:
        return Pattern(self._checked(item, lambda: patterns.words(parts)), patterns.word_of(parts))

    def _value(self, item: tree.Term) -> Parts:
        """The characters and wildcards of a word or phrase."""
        if isinstance(item, tree.Phrase):
            return re.sub(r"\\(.)", r"\1", item.value[1:-1], flags=re.DOTALL)
        parts = self._parts(item.value)
        if sum(isinstance(part, Wildcard) for part in parts) > MAX_WILDCARDS:
            raise self._error(item, f"a word may have {MAX_WILDCARDS} wildcards")
        return parts

    @staticmethod
    def _parts(value: str) -> Parts:
        pieces = re.findall(r"\\?.", value, flags=re.DOTALL)
        wildcards: dict[str, str | Wildcard] = {"*": STAR, "?": ONE}
        return [wildcards.get(piece, piece[-1]) for piece in pieces]

    def _range(self, item: tree.Item, name: Field | None) -> Node:
        if name is None:
            raise self._error(item, "a range is for a field, as in status:>=500; quote < or > to look for it")
        low, high = self._bounds(item, name)
        if low is None and high is None:
            return Leaf(name, (Present(),))
        return Leaf(name, self._checked(item, lambda: between(name, low, high)))

    def _bounds(self, item: tree.Item, name: Field) -> tuple[Limit, Limit]:
        if isinstance(item, tree.Range):
            return self._bound(item.low, item.include_low, name), self._bound(item.high, item.include_high, name)
        bound = self._bound(item.a, item.include, name)
        return (bound, None) if isinstance(item, tree.From) else (None, bound)

    def _bound(self, item: tree.Item, included: bool, name: Field) -> Limit:
        if isinstance(item, tree.Prohibit):
            bound = self._bound(item.a, included, name)
            return None if bound is None else (f"-{bound[0]}", included)
        parts = self._value(item)
        if list(parts) == [STAR]:
            return None
        if any(isinstance(part, Wildcard) for part in parts):
            raise self._error(item, "a range takes no wildcards; * alone is no bound")
        if name.name == "timestamp":
            self._checked(item, lambda: moments.check(_text(parts)))
        return _text(parts), included


def _row(item: tree.Item, after_or: bool = False) -> list[tuple[tree.Item, bool]]:
    """The operands of an operation without parentheses, from left to right, and whether OR stands before each."""
    if not isinstance(item, tree.BaseOperation):
        return [(item, after_or)]
    row: list[tuple[tree.Item, bool]] = []
    for index, operand in enumerate(item.operands):
        row += _row(operand, after_or if index == 0 else isinstance(item, tree.OrOperation))
    return row


def _text(parts: Parts) -> str:
    return "".join(part if isinstance(part, str) else part.value for part in parts)
