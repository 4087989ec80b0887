"""The regular expressions clients may write between slashes: a subset that cannot take long, in one dialect.

    characters  .  [a-z]  [^a-z]  \\d \\w \\s \\D \\W \\S  \\t \\n \\r
    \\b  ^  $  (…)  (?:…)  |  ?  *  +  {2}  {2,5}  {2,}

As with RE2 there are no back-references and no lookaround. A group may repeat a few times (it is written out), not
without end. A repetition whose characters cannot be those that follow it never has to be tried at another length: it
is made possessive. The others multiply the work, and a product over ``MAX_WORK`` is refused: the time for a text
grows with its length and with nothing else.

The pattern is read here and written anew (see patterns.py): nothing of the client's text reaches an engine unread.
Letters and digits of ``\\w`` and ``\\d`` are those of ASCII; a match may be anywhere in the text.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterable

from .patterns import MAX_PATTERN, cases

#: Characters between the slashes.
MAX_LENGTH = 200
#: How far a repetition without an end of its own reaches.
REACH = 1000
#: Ways to try at one place of a text, at most.
MAX_WORK = 10_000
#: Copies of a group.
MAX_COPIES = 10
_MAX_DEPTH = 10
_LAST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)

Ranges = tuple[tuple[int, int], ...]

_DIGITS: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_BLANK: Ranges = ((9, 13), (32, 32))
_LINE_FEED: Ranges = ((10, 10),)
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v"}
_EDGE = "(?:(?<=[0-9A-Za-z_])(?![0-9A-Za-z_])|(?<![0-9A-Za-z_])(?=[0-9A-Za-z_]))"


class RegexError(ValueError):
    """The expression is not one of those allowed; ``offset`` is where, counted from behind the first slash."""

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(problem)
        self.offset = offset


def translate(source: str) -> str:
    """The pattern to search with for the expression ``source``; ``(?i)`` at its beginning ignores case.

    Raises RegexError.
    """
    if len(source) > MAX_LENGTH:
        raise RegexError(MAX_LENGTH, f"a regular expression may have {MAX_LENGTH} characters, this has {len(source)}")
    ignore_case = source.startswith("(?i)")
    reader = _Reader(source, 4 if ignore_case else 0, ignore_case)
    written = reader.whole().write(_Rest())
    if written.work > MAX_WORK:
        raise RegexError(
            0, "this could take too long: use fewer .* and alternatives, or [^ ]* and the like in place of .*"
        )
    if len(written.pattern) > MAX_PATTERN:
        raise RegexError(0, "this becomes too long once its counts are written out: use smaller counts")
    return written.pattern


def complement(ranges: Ranges) -> Ranges:
    """The characters that are not in ``ranges``."""
    result, start = [], 0
    for low, high in ranges:
        if low > start:
            result.append((start, low - 1))
        start = high + 1
    return (*result, (start, _LAST)) if start <= _LAST else tuple(result)


def _joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if result and low <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        else:
            result.append((low, high))
    return tuple(result)


def _meet(one: Ranges, other: Ranges) -> bool:
    return any(low <= high2 and low2 <= high for low, high in one for low2, high2 in other)


def _in_both_cases(ranges: Ranges) -> Ranges:
    # Beyond ASCII only what stands there by itself: a range of letters has no cases in the alphabet's order.
    more = [*ranges]
    for low, high in ranges:
        codes = range(low, high + 1) if high - low < 256 else range(max(low, 65), min(high, 122) + 1)
        more += [(ord(case), ord(case)) for code in codes for case in cases(chr(code))]
    return _joined(more)


@dataclasses.dataclass(frozen=True)
class _Rest:
    """What follows a place in the expression: its pattern is written already, from right to left."""

    pattern: str = ""
    #: The characters it can begin with; at the end of the expression there are none, for then all has been found.
    first: Ranges = ()
    #: How many ways there may be to try.
    work: int = 1


class _Node:
    @abstractmethod
    def write(self, rest: _Rest) -> _Rest:
        """This node and ``rest`` behind it."""

    def size(self) -> int:
        """How many pieces it is written as."""
        return 1


@dataclasses.dataclass(frozen=True)
class _Set(_Node):
    ranges: Ranges
    low: int = 1
    high: int = 1

    def write(self, rest: _Rest) -> _Rest:
        first = _joined(self.ranges + rest.first) if self.low == 0 else self.ranges
        if self.low == self.high:
            return _Rest(_class(self.ranges) + _count(self.low, self.high) + rest.pattern, first, rest.work)
        if not _meet(self.ranges, rest.first):
            possessive = f"{_class(self.ranges)}{_count(self.low, self.high)}+"
            return _Rest(possessive + rest.pattern, first, rest.work)
        work = rest.work * (self.high - self.low + 1)
        return _Rest(_class(self.ranges) + _count(self.low, self.high) + rest.pattern, first, work)


@dataclasses.dataclass(frozen=True)
class _Anchor(_Node):
    pattern: str

    def write(self, rest: _Rest) -> _Rest:
        # It can fail where a character fits: whatever is before it may have to be tried again.
        return _Rest(self.pattern + rest.pattern, ((0, _LAST),), rest.work)


@dataclasses.dataclass(frozen=True)
class _Sequence(_Node):
    nodes: tuple[_Node, ...]

    def write(self, rest: _Rest) -> _Rest:
        written = [rest]
        for index in reversed(range(len(self.nodes))):
            written.append(self._once(index, written) or self.nodes[index].write(written[-1]))
        return written[-1]

    def _once(self, index: int, written: list[_Rest]) -> _Rest | None:
        """A run such as .* before characters and another run: it need not be tried at other lengths.

        Where those characters first come is as good as any later place, for the second run can take what is between.
        """
        run, segment = self.nodes[index], []
        if not isinstance(run, _Set) or run.high < REACH:
            return None
        for behind in range(index + 1, len(self.nodes)):
            node = self.nodes[behind]
            if not isinstance(node, _Set):
                return None
            if node.high >= REACH and node.low <= 1:
                break
            if node.low != node.high:
                return None
            segment.append(node)
        else:
            return None
        if not segment or any(_meet(each.ranges, complement(node.ranges)) for each in (run, *segment)):
            return None
        rest = written[len(self.nodes) - behind]
        once = "".join(_class(each.ranges) + _count(each.low, each.high) for each in segment)
        first = _joined(run.ranges + written[-1].first) if run.low == 0 else run.ranges
        return _Rest(f"(?>{_class(run.ranges)}{_count(run.low, run.high)}?{once}){rest.pattern}", first, rest.work)

    def size(self) -> int:
        return 1 + sum(node.size() for node in self.nodes)


@dataclasses.dataclass(frozen=True)
class _Choice(_Node):
    nodes: tuple[_Node, ...]

    def write(self, rest: _Rest) -> _Rest:
        behind = _Rest("", rest.first, rest.work)
        written = [node.write(behind) for node in self.nodes]
        first = _joined(one for each in written for one in each.first)
        pattern = "|".join(each.pattern for each in written)
        return _Rest(f"(?:{pattern}){rest.pattern}", first, sum(each.work for each in written))

    def size(self) -> int:
        return 1 + sum(node.size() for node in self.nodes)


def _class(ranges: Ranges) -> str:
    if ranges == ((0, _LAST),):
        return r"[\s\S]"
    if not ranges:
        return "(?!)"
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return _character(ranges[0][0])
    inverse = complement(ranges)
    negated = len(inverse) < len(ranges)
    body = "".join(map(_range, inverse if negated else ranges))
    return f"[{'^' if negated else ''}{body}]"


def _range(ends: tuple[int, int]) -> str:
    # UTF-8 holds no surrogates, and no text does either.
    low = _SURROGATES.stop if ends[0] in _SURROGATES else ends[0]
    high = _SURROGATES.start - 1 if ends[1] in _SURROGATES else ends[1]
    return _character(low) if low == high else f"{_character(low)}-{_character(high)}" if low < high else ""


def _character(code: int) -> str:
    if code < 32:
        # NUL cannot be in a BSON pattern.
        return f"\\x{code:02x}"
    character = chr(code)
    return character if character.isalnum() or code > 127 or character == "_" else f"\\{character}"


def _count(low: int, high: int) -> str:
    if (low, high) == (1, 1):
        return ""
    return f"{{{low}}}" if low == high else f"{{{low},{high}}}"


class _Reader:
    """Reads an expression by recursive descent."""

    def __init__(self, source: str, at: int, ignore_case: bool) -> None:
        self._source = source
        self._at = at
        self._ignore_case = ignore_case
        self._depth = 0

    def whole(self) -> _Node:
        """The expression. Raises RegexError."""
        node = self._choice()
        if self._at < len(self._source):
            raise self._error("this ) closes nothing; write \\) for the character")
        return self._without_open_ends(node)

    def _without_open_ends(self, node: _Node) -> _Node:
        # .* at either end asks for nothing: a match may be anywhere.
        nodes = list(node.nodes) if isinstance(node, _Sequence) else [node]
        while nodes and self._is_any_run(nodes[0]):
            del nodes[0]
        while nodes and self._is_any_run(nodes[-1]):
            del nodes[-1]
        return _Sequence(tuple(nodes))

    @staticmethod
    def _is_any_run(node: _Node) -> bool:
        return isinstance(node, _Set) and (node.ranges, node.low, node.high) == (complement(_LINE_FEED), 0, REACH)

    def _error(self, problem: str, at: int | None = None) -> RegexError:
        return RegexError(self._at if at is None else at, problem)

    def _peek(self, text: str) -> bool:
        return self._source.startswith(text, self._at)

    def _take(self) -> str:
        character = self._source[self._at]
        self._at += 1
        return character

    def _choice(self) -> _Node:
        nodes = [self._sequence()]
        while self._peek("|"):
            self._at += 1
            nodes.append(self._sequence())
        return nodes[0] if len(nodes) == 1 else _Choice(tuple(nodes))

    def _sequence(self) -> _Node:
        nodes = []
        while self._at < len(self._source) and self._source[self._at] not in "|)":
            start = self._at
            nodes.append(self._repeated(self._atom(), start))
        return _Sequence(tuple(nodes))

    def _atom(self) -> _Node:
        start = self._at
        character = self._take()
        if character in "*+?{":
            raise self._error(f"{character} repeats nothing; write \\{character} for the character", start)
        simple: dict[str, Callable[[], _Node]] = {
            "(": self._group,
            "[": self._bracket,
            "\\": self._escape,
            ".": lambda: _Set(complement(_LINE_FEED)),
            "^": lambda: _Anchor("^"),
            "$": lambda: _Anchor(r"(?![\s\S])"),
        }
        return simple[character]() if character in simple else self._literal(character)

    def _literal(self, character: str) -> _Set:
        ranges = ((ord(character), ord(character)),)
        return _Set(_in_both_cases(ranges) if self._ignore_case else ranges)

    def _group(self) -> _Node:
        start = self._at - 1
        if self._peek("?:"):
            self._at += 2
        elif self._peek("?"):
            raise self._error("lookaround, names and flags are not offered: of (?…) only (?:…) is", start)
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(f"groups may stand {_MAX_DEPTH} deep", start)
        node = self._choice()
        self._depth -= 1
        if not self._peek(")"):
            raise self._error("this ( is not closed; write \\( for the character", start)
        self._at += 1
        return node

    def _escape(self) -> _Node:
        start = self._at - 1
        if self._at == len(self._source):
            raise self._error("\\ at the end stands before nothing; write \\\\ for the character", start)
        character = self._take()
        if character == "b":
            return _Anchor(_EDGE)
        return self._escaped(character, start)

    def _escaped(self, character: str, start: int) -> _Set:
        classes = {"d": _DIGITS, "w": _WORD, "s": _BLANK}
        if character.lower() in classes:
            ranges = classes[character.lower()]
            return _Set(ranges if character.islower() else complement(ranges))
        if character in _CONTROLS:
            return self._literal(_CONTROLS[character])
        if character.isascii() and character.isdigit():
            raise self._error("back-references are not offered", start)
        if character.isascii() and character.isalpha():
            raise self._error(f"\\{character} is not offered; there are \\d \\w \\s \\D \\W \\S \\b \\t \\n \\r", start)
        return self._literal(character)

    def _bracket(self) -> _Set:
        start = self._at - 1
        negated = self._peek("^")
        self._at += negated
        ranges: list[tuple[int, int]] = []
        first = True
        while first or not self._peek("]"):
            if self._at >= len(self._source):
                raise self._error("this [ is not closed; write \\[ for the character", start)
            ranges += self._bracket_item(start)
            first = False
        self._at += 1
        joined = _joined(ranges)
        joined = _in_both_cases(joined) if self._ignore_case else joined
        return _Set(complement(joined) if negated else joined)

    def _bracket_item(self, start: int) -> Ranges:
        low = self._bracket_character(start)
        dash = self._peek("-") and not self._peek("-]") and self._at + 1 < len(self._source)
        if not dash or len(low) > 1 or low[0][0] != low[0][1]:
            return low
        self._at += 1
        high = self._bracket_character(start)
        if len(high) > 1 or high[0][0] != high[0][1] or high[0] < low[0]:
            raise self._error("a range in [ ] goes from a lower character to a higher one", start)
        return ((low[0][0], high[0][0]),)

    def _bracket_character(self, start: int) -> Ranges:
        if self._at >= len(self._source):
            raise self._error("this [ is not closed; write \\[ for the character", start)
        character = self._take()
        if character == "[" and self._source[self._at : self._at + 1] in (":", ".", "="):
            raise self._error("[: :] is not offered; write a-z, 0-9, \\d, \\w or \\s", start)
        if character != "\\":
            return ((ord(character), ord(character)),)
        if self._at >= len(self._source):
            raise self._error("this [ is not closed; write \\[ for the character", start)
        folded, self._ignore_case = self._ignore_case, False
        try:
            return self._escaped(self._take(), self._at - 2).ranges
        finally:
            self._ignore_case = folded

    def _repeated(self, node: _Node, start: int) -> _Node:
        counts = self._counts()
        if counts is None:
            return node
        if self._peek("?"):
            # Lazy or not: there is a match, or there is none.
            self._at += 1
        if self._at < len(self._source) and (self._source[self._at] in "*+?" or self._counts() is not None):
            raise self._error("a repetition cannot itself be repeated", start)
        low, high = counts
        if isinstance(node, _Anchor):
            raise self._error("^, $ and \\b cannot be repeated", start)
        if isinstance(node, _Set) and (node.low, node.high) == (1, 1):
            return _Set(node.ranges, low, high)
        return self._copies(node, low, high, start)

    def _copies(self, node: _Node, low: int, high: int, start: int) -> _Node:
        if high > MAX_COPIES:
            raise self._error(
                f"a group may repeat at most {MAX_COPIES} times, as in (…){{1,{MAX_COPIES}}}; "
                "only single characters and [ ] repeat without end",
                start,
            )
        if high * node.size() > MAX_PATTERN:
            raise self._error("this becomes too long once its counts are written out: use smaller counts", start)
        optional: _Node = _Sequence(())
        for _ in range(high - low):
            optional = _Choice((_Sequence((node, optional)), _Sequence(())))
        return _Sequence((*[node] * low, optional))

    def _counts(self) -> tuple[int, int] | None:
        for sign, counts in (("*", (0, REACH)), ("+", (1, REACH)), ("?", (0, 1))):
            if self._peek(sign):
                self._at += 1
                return counts
        return self._braces() if self._peek("{") else None

    def _braces(self) -> tuple[int, int]:
        start = self._at
        end = self._source.find("}", start)
        low, comma, high = self._source[start + 1 : max(end, start + 1)].partition(",")
        parts = [low, high] if comma and high else [low]
        if end < 0 or not all(part.isascii() and part.isdigit() and len(part) <= 4 for part in parts):
            raise self._error("{ begins a count such as {2} or {2,5}; write \\{ for the character", start)
        self._at = end + 1
        counts = int(low), int(high) if high else REACH if comma else int(low)
        if counts[0] > counts[1] or counts[1] > REACH:
            raise self._error(f"a count goes from a lower number to a higher one, {REACH} at most", start)
        return counts
