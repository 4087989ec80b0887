"""What a query selects on the real server, what Query.matches and Crowd say, and a small evaluator here, agree.

The evaluator knows nothing of the translation: a query is made together with a plain Python function that says of a
document whether it should be found.
"""

import datetime
import itertools
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from bson import Code, Decimal128, Int64, ObjectId, Regex
from bson.codec_options import CodecOptions, DatetimeConversion
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tornado_logsrv.query import QueryError, Sight, moment, parse
from tornado_logsrv.query.crowd import Crowd
from tornado_logsrv.query.patterns import number_between
from tornado_logsrv.query.regexes import RegexError, translate

NOW = 1_769_853_600_000  # 2026-01-31T10:00:00Z
DAY = 86_400_000
Document = dict[str, Any]


class Leaf(NamedTuple):
    """A value that a name leads to."""

    value: Any
    #: A key that no path can name led to it.
    literal: bool
    #: It is an array that a number in the name has picked out of another.
    placed: bool


class Asked(NamedTuple):
    """A query, and what it means."""

    text: str
    selects: Callable[[Document], bool]


# Documents

WORDS = [
    "error",
    "Error",
    "time",
    "timeout",
    "TIME_OUT",
    "time-out",
    "é",
    "École",
    "я",
    "Яма",
    "中文",
    "a.b",
    "1",
    "200",
]
words = st.sampled_from(WORDS)
texts = st.one_of(
    st.lists(words, min_size=1, max_size=4).flatmap(
        lambda found: st.sampled_from([" ", "\n", ", ", "", "  "]).map(lambda separator: separator.join(found))
    ),
    st.sampled_from(["", "error", "ERROR", "checkout", "Checkout-v2", "200", "200.0", "-1.50", "007", "true", "null"]),
    st.sampled_from(
        ["2026-01-31", "2026-01-31T09:00:00Z", "12", "1e3", "+3", "a*b", "$x", "ß", "\u017f", "K", "\u0131"]
    ),
    st.text(st.sampled_from("aAbB \n.*é中_"), max_size=6),
)
numbers = st.one_of(
    st.sampled_from([0, 1, 200, -1, 199, 201, 200.0, 0.1, 0.5, -1.5, 1e3, 1e300, float("nan"), float("inf")]),
    st.sampled_from([Int64(2**53 + 1), Int64(2**63 - 1), Decimal128("200.00"), Decimal128("0.1"), Decimal128("NaN")]),
    st.sampled_from([Decimal128("12345678901234567890"), Int64(-(2**63))]),
    st.integers(-300, 300),
)
dates = st.integers(NOW - 3 * DAY, NOW + DAY).map(
    lambda ms: datetime.datetime.fromtimestamp(ms // 1000, datetime.UTC) + datetime.timedelta(milliseconds=ms % 1000)
)
strange = st.sampled_from([None, True, False, ObjectId(), Code("error"), Regex("error"), b"error"])
scalars = st.one_of(texts, texts, numbers, dates, strange)
KEYS = ["level", "a", "b", "a.b", "b.c", "$x", "0", "1", "msg", "error", "message", "", "a.", "tags"]
keys = st.sampled_from(KEYS)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=6,
)
data = st.one_of(st.dictionaries(keys, values, max_size=5), st.dictionaries(keys, values, max_size=5), values)


@st.composite
def documents(draw: Any) -> Document:
    document = {"_id": ObjectId(), "message": draw(texts), "timestamp": draw(dates)}
    if draw(st.integers(0, 9)):
        document["data"] = draw(data)
    if draw(st.booleans()):
        document["source"] = draw(st.sampled_from(["otlp", "loki", "OTLP"]))
    return document


# The evaluator


def same(one: str, other: str) -> bool:
    """``one``, of the query, is ``other`` in some case."""
    return len(one) == len(other) and all(o in (q, q.lower(), q.upper()) for q, o in zip(one, other, strict=True))


def in_word(character: str) -> bool:
    return character == "_" or (character.isalnum() and not "\u2e80" <= character <= "\u9fff")


def glob(pattern: str, text: str, stars: str) -> list[int]:
    """Where ``pattern`` can end when it begins at the start of ``text``; ``*`` and ``?`` stand for ``stars``."""
    if not pattern:
        return [0]
    head, rest = pattern[0], pattern[1:]
    if head == "*":
        ends = glob(rest, text, stars)
        if text and re.fullmatch(stars, text[0]):
            ends += [end + 1 for end in glob(pattern, text[1:], stars)]
        return ends
    fits = bool(text) and (re.fullmatch(stars, text[0]) if head == "?" else same(head, text[0]))
    return [end + 1 for end in glob(rest, text[1:], stars)] if fits else []


def has_words(pattern: str, text: Any) -> bool:
    """``pattern``, with wildcards, stands as whole words in ``text``."""
    if not isinstance(text, str) or isinstance(text, Code):
        return False
    for start in range(len(text) + 1):
        if pattern[0] not in "*?" and in_word(pattern[0]) and start and in_word(text[start - 1]):
            continue
        for end in glob(pattern, text[start:], r"\S"):
            behind = text[start + end : start + end + 1]
            if pattern[-1] in "*?" or not in_word(pattern[-1]) or not (behind and in_word(behind)):
                return True
    return False


def leaves(value: Any, parts: list[str], literal: bool = False, placed: bool = False) -> Iterator[Leaf]:
    """What a name leads to."""
    if not parts:
        yield Leaf(value, literal, placed)
        return
    holders = [value, *(value if isinstance(value, list) else [])]
    for holder in holders:
        for count in range(1, len(parts) + 1):
            key = ".".join(parts[:count])
            no_path = count > 1 or key.startswith("$") or not key
            if isinstance(holder, dict) and key in holder:
                yield from leaves(holder[key], parts[count:], literal or no_path)
    if isinstance(value, list) and parts[0].isdigit() and int(parts[0]) < len(value):
        element = value[int(parts[0])]
        # Places in arrays are for paths, and a key with dots is not in one.
        yield from (leaf for leaf in leaves(element, parts[1:], literal, isinstance(element, list)) if not leaf.literal)


def found_at(document: Document, name: str) -> list[Leaf]:
    if name in ("message", "source", "timestamp", "data"):
        return [Leaf(document[name], False, False)] if name in document else []
    return list(leaves(document.get("data"), name.removeprefix("data.").split("."))) if "data" in document else []


def values_at(document: Document, name: str) -> list[Any]:
    result = []
    for value, _, placed in found_at(document, name):
        if not isinstance(value, list):
            result.append(value)
        elif not placed:
            result += value
    return result


def number(value: Any) -> Decimal | None:
    if isinstance(value, Decimal128):
        value = value.to_decimal()
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or value != value:
        return None
    return Decimal(value)


def plain_number(value: Any) -> Decimal | None:
    """The number of a number, or of a text that is one."""
    if isinstance(value, str) and not isinstance(value, Code):
        return Decimal(value) if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", value) else None
    return number(value)


# Queries

TEXT_NAMES = ["message", "data", "data.message", "data.msg", "data.log", "data.event", "data.error"]
NAMES = [
    "level",
    "a",
    "b",
    "a.b",
    "a.b.c",
    "b.c",
    "$x",
    "a.$x",
    "a.0",
    "0",
    "tags",
    "tags.1",
    "a.a",
    "source",
    "data.a",
]
names = st.sampled_from(NAMES)
text_names = st.sampled_from(["msg", "error", "message", "data.message", "data", "a.msg", "data.error"])


def anywhere(pattern: str) -> Asked:
    return Asked(pattern, lambda d: any(has_words(pattern, v) for name in TEXT_NAMES for v in values_at(d, name)))


def phrase(text: str) -> Asked:
    def holds(value: Any) -> bool:
        if not isinstance(value, str) or isinstance(value, Code):
            return False
        return has_words(re.sub(r"\s+", " ", text), re.sub(r"\s+", " ", value))

    return Asked(f'"{text}"', lambda d: any(holds(v) for name in TEXT_NAMES for v in values_at(d, name)))


def equal(name: str, text: str) -> Asked:
    def holds(value: Any) -> bool:
        if isinstance(value, str) and not isinstance(value, Code):
            return same(text, value)
        if isinstance(value, bool) or value is None:
            return same(text, {True: "true", False: "false", None: "null"}[value]) or text == str(value)
        asked = Decimal(text) if re.fullmatch(r"-?\d+(\.\d+)?(e\d+)?", text) else None
        return asked is not None and number(value) in (asked, Decimal(float(text)) if "." in text else asked)

    return Asked(f"{name}:{text}", lambda d: any(holds(v) for v in values_at(d, name)))


def pattern_of(name: str, pattern: str) -> Asked:
    def holds(value: Any) -> bool:
        if not isinstance(value, str) or isinstance(value, Code):
            return False
        return len(value) in glob(pattern, value, r"(?s:.)")

    return Asked(f"{name}:{pattern}", lambda d: any(holds(v) for v in values_at(d, name)))


def in_text(name: str, word: str) -> Asked:
    def holds(value: Any) -> bool:
        return has_words(word, value) or (number(value) is not None and word.isdigit() and number(value) == int(word))

    return Asked(f"{name}:{word}", lambda d: any(holds(v) for v in values_at(d, name)))


def exists(name: str, form: str) -> Asked:
    return Asked(form.format(name), lambda d: bool(found_at(d, name)))


def between(d: Document, name: str, above: Callable[[Any], bool], below: Callable[[Any], bool]) -> bool:
    """Both hold for one value; through an array of objects, MongoDB takes a value for each."""
    found = found_at(d, name)
    exact = [v for v, literal, placed in found if literal and not isinstance(v, list)]
    exact += [e for v, literal, placed in found if isinstance(v, list) for e in v if not (literal and placed)]
    if any(above(v) and below(v) for v in exact):
        return True
    path = [v for v, literal, _ in found if not literal]
    if any(isinstance(v, list) for v in path):
        return False
    return any(map(above, path)) and any(map(below, path))


def numeric(name: str, low: str, high: str, low_in: bool, high_in: bool) -> Asked:
    def above(value: Any) -> bool:
        return low == "*" or (value > Decimal(low)) or (low_in and value == Decimal(low))

    def below(value: Any) -> bool:
        return high == "*" or (value < Decimal(high)) or (high_in and value == Decimal(high))

    def selects(d: Document) -> bool:
        def on(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
            return lambda value: number(value) is not None and test(number(value))

        texts_found = [plain_number(v) for v in values_at(d, name) if isinstance(v, str)]
        if any(v is not None and above(v) and below(v) for v in texts_found):
            return True
        if "*" in (low, high):
            return any(on(above)(v) and on(below)(v) for v in values_at(d, name))
        return between(d, name, on(above), on(below))

    brackets = "{["[low_in] + f"{low} TO {high}" + "}]"[high_in]
    return Asked(f"{name}:{brackets}", selects)


def one_bound(name: str, sign: str, bound: str) -> Asked:
    if sign[0] == ">":
        return Asked(f"{name}:{sign}{bound}", numeric(name, bound, "*", "=" in sign, True).selects)
    return Asked(f"{name}:{sign}{bound}", numeric(name, "*", bound, True, "=" in sign).selects)


MOMENTS = {
    "2026-01-30": (NOW - DAY - 36_000_000, DAY),
    "2026-01-31T09": (NOW - 3_600_000, 3_600_000),
    "now-1d": (NOW - DAY, 1),
    "now/d": (NOW - 36_000_000, DAY),
    "2026-01-31T11:00:00+01:00": (NOW, 1000),
    "now-90m": (NOW - 5_400_000, 1),
}


def milliseconds(value: Any) -> int | None:
    return round(value.timestamp() * 1000) if isinstance(value, datetime.datetime) else None


def at_time(low: str, high: str, low_in: bool, high_in: bool) -> Asked:
    start = MOMENTS[low][0] + (0 if low_in else MOMENTS[low][1])
    end = MOMENTS[high][0] + (MOMENTS[high][1] if high_in else 0)
    text = "timestamp:" + "{["[low_in] + " TO ".join(f'"{m}"' if "+" in m else m for m in (low, high)) + "}]"[high_in]
    return Asked(text, lambda d: start <= milliseconds(d["timestamp"]) < end)


def on_moment(name: str, text: str) -> Asked:
    start, width = MOMENTS[text]

    def on(test: Callable[[int], bool]) -> Callable[[Any], bool]:
        return lambda value: (at := milliseconds(value)) is not None and test(at)

    def selects(d: Document) -> bool:
        if any(isinstance(v, str) and same(text, v) for v in values_at(d, name)):
            return True
        return between(d, name, on(lambda at: at >= start), on(lambda at: at < start + width))

    return Asked(f"{name}:{text}", selects)


REGEXES = [
    "time.?out",
    "^err",
    "(a|b){1,3}",
    "[0-9]{3}$",
    r"\btime\b",
    "t.*e",
    "[^a-z]",
    r"(\w+ ){2}",
    "é|я",
    ".*o.*t",
    r"a\.b",
]


def regex(name: str | None, source: str, ignore: bool) -> Asked:
    compiled = re.compile(source.replace("$", r"\Z"), re.ASCII if not ignore else re.ASCII | re.IGNORECASE)

    def selects(d: Document) -> bool:
        found = [v for each in ([name] if name else TEXT_NAMES) for v in values_at(d, each)]
        return any(isinstance(v, str) and not isinstance(v, Code) and compiled.search(v) for v in found)

    return Asked(f"{name}:/{source}/" + "i" * ignore if name else f"/{source}/" + "i" * ignore, selects)


WORD_QUERIES = [
    "error",
    "ERROR",
    "time",
    "time*",
    "*out",
    "t?me",
    "é",
    "ÉCOLE",
    "яма",
    "文",
    "a.b",
    "200",
    "ti*t",
    "*im*o*",
    "?",
]
VALUES = [
    "error",
    "ErroR",
    "checkout",
    "200",
    "200.0",
    "0.1",
    "-1",
    "1e3",
    "true",
    "null",
    "ß",
    "007",
    "-1.50",
    "\u017f",
    "1",
]
BOUNDS = [
    "0",
    "1",
    "-1",
    "-1.5",
    "12",
    "199.5",
    "200",
    "201",
    "0.5",
    "1000",
    "9007199254740993",
    "12345678901234567890",
]

terms = st.one_of(
    st.sampled_from(WORD_QUERIES).map(anywhere),
    st.sampled_from(["error time", "time out", "a.b 1", "time-out", "1, 200", "error"]).map(phrase),
    st.builds(equal, names, st.sampled_from(VALUES)),
    st.builds(equal, names, st.sampled_from(VALUES)),
    st.builds(
        pattern_of,
        names,
        st.sampled_from(["err*", "*or", "e*o?", "check*-v*", "*", "a*b", "?"]).filter(lambda p: p != "*"),
    ),
    st.builds(
        in_text, text_names.filter(lambda n: n != "message"), st.sampled_from(["error", "time", "200", "я", "time*"])
    ),
    st.builds(exists, names, st.sampled_from(["_exists_:{}", "{}:*", "{}:[* TO *]"])),
    st.builds(numeric, names, st.sampled_from([*BOUNDS, "*"]), st.sampled_from(BOUNDS), st.booleans(), st.booleans()),
    st.builds(one_bound, names, st.sampled_from([">", ">=", "<", "<="]), st.sampled_from(BOUNDS)),
    st.builds(at_time, *[st.sampled_from(list(MOMENTS))] * 2, st.booleans(), st.booleans()),
    st.builds(on_moment, names, st.sampled_from(["2026-01-30", "2026-01-31T09", "now-1d"])),
    st.builds(regex, st.one_of(st.none(), names), st.sampled_from(REGEXES), st.just(False)),
    st.builds(regex, st.one_of(st.none(), names), st.sampled_from(["TIME.?out", "^E[R]+", "[^A-F]"]), st.just(True)),
)


def negation(asked: Asked, sign: str) -> Asked:
    return Asked(f"{sign}({asked.text})", lambda d: not asked.selects(d))


@st.composite
def rows(draw: Any, inner: Any) -> Asked:
    """Operands without parentheses: what OR parts, AND (written or not) joins first."""
    operands = draw(st.lists(inner, min_size=2, max_size=4))
    joints = draw(st.lists(st.sampled_from([" ", " AND ", " OR ", " && ", " || "]), min_size=3, max_size=3))
    text, groups = operands[0].text, [[operands[0]]]
    for joint, operand in zip(joints, operands[1:], strict=False):
        text += joint + operand.text
        if joint in (" OR ", " || "):
            groups.append([])
        groups[-1].append(operand)
    return Asked(f"({text})", lambda d: any(all(each.selects(d) for each in group) for group in groups))


queries = st.recursive(
    terms,
    lambda inner: st.one_of(st.builds(negation, inner, st.sampled_from(["NOT ", "-", "!"])), rows(inner)),
    max_leaves=4,
)


# The server


@pytest.fixture
def logs(database: Any) -> Any:
    """A collection of this test alone."""
    collection = database.get_collection("logs", codec_options=CODEC)
    # What an index serves must be what is found without it: one field has one, others have none.
    for indexed in ("data.level", "data.a.b", "timestamp"):
        collection.create_index(indexed)
    return collection


CODEC = CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)
moderate = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


@moderate
@given(st.lists(documents(), min_size=1, max_size=8), st.lists(queries, min_size=1, max_size=8))
def test_server_live_tail_and_evaluator_agree(logs: Any, stored: list[Document], asked: list[Asked]) -> None:
    for document in stored:
        document["_id"] = ObjectId()
    logs.delete_many({})
    logs.insert_many(stored)
    decoded = list(logs.find({}))
    crowd: Crowd[str] = Crowd()
    for text in {each.text for each in asked}:
        crowd.add(text, parse(text))
    selected = {document["_id"]: crowd.selecting(Sight(document, NOW)) for document in decoded}
    for text, selects in asked:
        query = parse(text)
        found = {d["_id"] for d in logs.find(query.filter(NOW))}
        listed = {d["_id"] for d in logs.find(query.filter(NOW, indexed=["data.level"]))}
        for document in decoded:
            told = (
                selects(document),
                query.matches(document, NOW),
                text in selected[document["_id"]],
                document["_id"] in found,
                document["_id"] in listed,
            )
            assert len(set(told)) == 1, (text, document, query.filter(NOW), told)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.lists(documents(), min_size=1, max_size=8),
    st.lists(queries.map(lambda asked: asked.text), min_size=1, max_size=30, unique=True),
    st.data(),
)
def test_many_queries_at_once_select_what_each_alone_does(
    found: list[Document], texts: list[str], draws: st.DataObject
) -> None:
    """While some of them come and go."""
    crowd: Crowd[str] = Crowd()
    asked: set[str] = set()
    for document in found:
        for text in draws.draw(st.lists(st.sampled_from(texts), unique=True)):
            if text in asked:
                crowd.remove(text)
            else:
                crowd.add(text, parse(text))
            asked ^= {text}
        selected = crowd.selecting(Sight(document, NOW))
        assert sorted(selected) == sorted(text for text in asked if parse(text).matches(document, NOW))


# The parts, each against its definition


@settings(max_examples=120, deadline=None)
@given(
    st.tuples(*[st.one_of(st.none(), st.decimals(-1500, 1500, places=2).map(lambda d: d.normalize()))] * 2),
    st.booleans(),
    st.booleans(),
    st.lists(st.from_regex(r"\A[+-]?0{0,2}[0-9]{1,4}(\.[0-9]{1,3})?\Z"), min_size=1, max_size=30),
)
def test_a_pattern_compares_numbers_written_as_text(
    bounds: tuple[Decimal | None, Decimal | None], low_in: bool, high_in: bool, found: list[str]
) -> None:
    low, high = bounds
    pattern = re.compile(number_between(low, low_in, high, high_in))
    near = [f"{bound:f}{tail}" for bound in bounds if bound is not None for tail in ("", "0", "1", ".0", ".1")]
    for text in [*found, *near, "", "x", "1.", ".5", "--1", "1 ", "1\n", "1e3"]:
        value = plain_number(text)
        above = low is None or (value is not None and (value > low or (low_in and value == low)))
        below = high is None or (value is not None and (value < high or (high_in and value == high)))
        assert bool(pattern.search(text)) == (value is not None and above and below), (text, pattern.pattern)


ATOMS = ["a", "b", ".", r"\d", r"\w", r"\s", "[ab]", "[^a]", r"\.", "é", "[a-c1-3]", r"\W", "-", "(?:a|bc)", "(a|b|)"]
pieces = st.tuples(st.sampled_from(ATOMS), st.sampled_from(["", "", "?", "{2}", "{1,3}", "*", "+", "*?", "+?", "{2,}"]))
sources = st.one_of(
    st.lists(pieces, min_size=1, max_size=6).map(lambda found: "".join(itertools.chain(*found))),
    st.text(st.sampled_from("ab.*+?()[]{}|^$\\12,-dwsb "), max_size=12),
)


@settings(max_examples=250, deadline=None)
@given(sources, st.lists(st.text(st.sampled_from("abcABC12. -_é\n"), max_size=12), min_size=1, max_size=10))
def test_a_regular_expression_means_what_it_does_in_python(source: str, found: list[str]) -> None:
    try:
        pattern = re.compile(translate(source))
    except RegexError:
        return
    # Python's $ also matches before a last line feed.
    plain = re.compile(re.sub(r"(?<!\\)((?:\\\\)*)\$", r"\1\\Z", source) if "[" not in source else source, re.ASCII)
    for text in found:
        if "$" in source and text.endswith("\n"):
            continue
        assert bool(pattern.search(text)) == bool(plain.search(text)), (pattern.pattern, text)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("ab1*?:()[]{}\"/\\ -+!&|~^<>=.$_'TOANDRx\t\u3000é"), max_size=25))
def test_any_text_is_a_query_or_an_error_that_points_into_it(text: str) -> None:
    query, refusal = None, None
    try:
        query = parse(text)
    except QueryError as error:
        refusal = error
    if query is None:
        assert 1 <= refusal.column <= len(text) + 1
        assert str(refusal).startswith(f"q: column {refusal.column}: ")
        assert not refusal.nearest or parse(refusal.nearest)
    else:
        assert isinstance(query.filter(NOW), dict)
        query.matches({"message": text, "data": {"a": text}}, NOW)


@settings(max_examples=100, deadline=None)
@given(st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_a_moment_is_what_datetime_reads(at: datetime.datetime, offset: int) -> None:
    aware = at.replace(tzinfo=datetime.timezone(datetime.timedelta(minutes=offset)))
    text = aware.isoformat(timespec="milliseconds")
    assert moment(text, NOW) == (datetime.datetime.fromisoformat(text) - EPOCH) // datetime.timedelta(milliseconds=1)


EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
