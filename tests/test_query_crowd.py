"""Many queries at once: the same documents are selected as by each alone, and few of them are asked."""

import datetime
import gc
import sys
import weakref
from typing import Any

import pytest
from bson import Code, Decimal128, Int64, ObjectId

from tornado_logsrv.query import Sight, leaves, parse
from tornado_logsrv.query.crowd import Crowd
from tornado_logsrv.query.fields import Field
from tornado_logsrv.query.nodes import Leaf
from tornado_logsrv.query.patterns import cases, fold, folded_words, word_of

NOW = 1_769_853_600_000  # 2026-01-31T10:00:00Z
ID = ObjectId("6b02b4f2482b5ecbf5257eed")
MANY = 500


def record(data: Any = None, message: str = "Job processed", **more: Any) -> dict[str, Any]:
    timestamp = datetime.datetime(2026, 1, 31, 9, 59, tzinfo=datetime.UTC)
    return {"_id": ID, "message": message, "data": {} if data is None else data, "timestamp": timestamp, **more}


def crowd_of(*queries: str) -> Crowd[str]:
    crowd: Crowd[str] = Crowd()
    for query in queries:
        crowd.add(query, parse(query))
    return crowd


def selecting(crowd: Crowd[str], document: dict[str, Any]) -> set[str]:
    found = crowd.selecting(Sight(document, NOW))
    assert len(found) == len(set(found))
    return set(found)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Leaf]:
    """The conditions that are looked at, one after the other."""
    looked: list[Leaf] = []
    matches = Leaf.matches

    def noted(leaf: Leaf, sight: Sight) -> bool:
        looked.append(leaf)
        return matches(leaf, sight)

    monkeypatch.setattr(Leaf, "matches", noted)
    return looked


# What is asked


def test_of_many_queries_for_a_value_only_those_for_it_are_asked(looks: list[Leaf]) -> None:
    crowd = crowd_of(*(f"user:u{n}" for n in range(MANY)))
    for n in (7, 8, MANY):
        assert selecting(crowd, record({"user": f"U{n}"})) == ({f"user:u{n}"} if n < MANY else set())
    assert len(looks) == 2


def test_of_many_queries_for_a_word_only_those_for_it_are_asked(looks: list[Leaf]) -> None:
    crowd = crowd_of(*(f"word{n}" for n in range(MANY)))
    assert selecting(crowd, record({"msg": "say Word7 and word8."})) == {"word7", "word8"}
    # message, data, and five keys of it: only one of them has the word.
    assert len(looks) == 2


def test_what_all_ask_is_looked_at_once(looks: list[Leaf]) -> None:
    queries = [f"path:x* NOT user:u{n}" for n in range(MANY)]
    crowd = crowd_of(*queries)
    assert selecting(crowd, record({"path": "xyz", "user": "u7"})) == {*queries} - {"path:x* NOT user:u7"}
    assert len(looks) == 2


def test_a_query_is_found_by_the_rarer_of_its_conditions(looks: list[Leaf]) -> None:
    crowd = crowd_of(*(f"level:info user:u{n} took:>{n}" for n in range(MANY)))
    assert selecting(crowd, record({"level": "info", "user": "u7", "took": 8})) == {"level:info user:u7 took:>7"}
    assert len(looks) == 2


def test_of_many_ranges_those_that_a_number_is_in_are_found_without_a_look(looks: list[Leaf]) -> None:
    crowd = crowd_of(*(f"n:>={n}" for n in range(MANY)), *(f"n:<{n}" for n in range(MANY)))
    for n in (0, 7, MANY, -1, 7.5):
        wanted = {query for at in range(MANY) for query in [f"n:>={at}" if n >= at else f"n:<{at}"]}
        assert selecting(crowd, record({"n": n})) == wanted
    assert selecting(crowd, record({"m": 7})) == set()
    assert looks == []
    # A text may be a number.
    assert len(selecting(crowd, record({"n": "7"}))) == MANY
    assert len(looks) == 2 * MANY


def test_a_field_that_many_ask_for_is_followed_once_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = []
    leaves_of = Field.leaves

    def noted(field: Field, document: dict[str, Any]) -> Any:
        followed.append(field.name)
        return leaves_of(field, document)

    monkeypatch.setattr(Field, "leaves", noted)
    crowd = crowd_of(*(f"n:{n} OR n:>{n} OR n:[{n} TO 9] OR -n:x{n}*" for n in range(MANY)))
    for n in range(3):
        assert selecting(crowd, record({"n": n}))
    assert followed == ["n"] * 3


def test_a_query_that_is_asked_no_more_leaves_nothing_behind() -> None:
    queries = [
        "user:a",
        "user:(a OR b) level:error",
        "a b",
        "NOT took:5",
        "took:>5",
        "*",
        '"a b" OR user:a',
        "_id:" + str(ID),
    ]
    crowd = crowd_of(*queries, *(f"NOT ({query})" for query in queries))
    assert len(crowd) == len(list(crowd)) == 2 * len(queries)
    for query in list(crowd):
        crowd.remove(query)
    assert (len(crowd), crowd._always, crowd._shared, crowd._index, crowd._ranges) == (0, {}, {}, {}, {})


def test_no_document_is_kept() -> None:
    class Kept(dict[str, Any]):
        """One that a weak reference can be had of."""

    crowd = crowd_of("user:a", "took:>5", "path:x*", "word", "NOT user:b took:>=1")
    document = Kept(record({"user": "a", "took": 7, "path": "xy", "msg": "a word"}))
    assert len(selecting(crowd, document)) == 5
    gone = weakref.ref(document)
    del document
    gc.collect()
    assert gone() is None


def test_those_that_stay_are_asked_still() -> None:
    crowd = crowd_of("user:a level:error", "user:a", "user:b OR level:error", "level:error")
    crowd.remove("user:a")
    crowd.remove("level:error")
    assert selecting(crowd, record({"user": "a", "level": "error"})) == {"user:a level:error", "user:b OR level:error"}


NUMBERS = [
    0,
    1,
    1.0,
    Decimal128("1"),
    0.1,
    Decimal128("0.1"),
    Int64(2**53 + 1),
    2.0**53,
    -1,
    float("nan"),
    float("inf"),
]


def test_a_number_is_in_the_same_ranges_as_alone() -> None:
    limits = ["0", "0.1", "1", "1.0", "-1", "9007199254740993", "9007199254740992", "12345678901234567890"]
    queries = [f"n:{sign}{limit}" for sign in (">", ">=", "<", "<=") for limit in limits]
    queries += [f"n:[{limit} TO 5]" for limit in limits] + ["n:>a", "n:<=2026-01-31", "n:>1 OR n:<0"]
    crowd, parsed = crowd_of(*queries), {query: parse(query) for query in queries}
    for one in (*NUMBERS, *map(str, NUMBERS), True, None, {}):
        for found in (one, [one], [one, 1], [one, "1"], [[one]], {"0": one}):
            document = record({"n": found})
            assert selecting(crowd, document) == {
                text for text, query in parsed.items() if query.matches(document, NOW)
            }


# What is there


VALUES = {
    "200": [200, 200.0, Int64(200), Decimal128("200.00"), "200", [1, 200], [["x"], "200"], {"b": 1}, "0200"],
    "0.1": [0.1, Decimal128("0.1"), "0.1", Decimal128("0.10"), 0.2],
    "true": [True, "true", "TRUE", 1, [True]],
    "1": [1, True, "1", [[1]], 1.0],
    "null": [None, "null", [None], {}, 0],
    "\u017f": ["\u017f", "S", "s", "\u017fs"],
    "s": ["s", "S", "\u017f", Code("s")],
    "k": ["K", "\u212a", "k"],
    "\u212a": ["\u212a", "k", "K"],
    "ß": ["ß", "SS", "ẞ", "ss"],
    "Δς": ["ΔΣ", "δς", "Δ\u03c3", "δ\u03c3"],
    "İ": ["İ", "i", "I", "i̇"],
    "2026-01-31": ["2026-01-31", datetime.datetime(2026, 1, 31, 5, tzinfo=datetime.UTC), 20260131],
    "9007199254740993": [Int64(2**53 + 1), 2.0**53, Decimal128("9007199254740993")],
    "x" * 150: ["X" * 150, "x" * 3000],
}


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_found_whatever_its_type_and_case(value: str) -> None:
    queries = [f"a:{value}", f"b.c:{value}", f"d:({value} OR zzz)"]
    crowd = crowd_of(*queries)
    for found in VALUES[value]:
        for data in ({"a": found}, {"b": {"c": found}}, {"b.c": found}, {"b": [{"c": found}]}, {"d": [found]}):
            document = record(data)
            assert selecting(crowd, document) == {query for query in queries if parse(query).matches(document, NOW)}


WORDS = [
    "timeout",
    "time-out",
    '"connection  refused"',
    "K9",
    "\u212a9",
    "time*",
    "*out",
    "t?me",
    "ɐɐ",
    "中文",
    "a中b",
    "-x-",
]
TEXTS = [
    *("timeout", "a TIMEOUT.", "timeouts", "time-out", "time_out", "Connection\nrefused!", "connection refuse"),
    *(
        "k9",
        "\u212a9",
        "a\u212a9",
        "timely",
        "knockout",
        "ⱯⱯ",
        "ɐɐ",
        "x ɐⱯ y",
        "说中文的",
        "a中b",
        "xa中b",
        "-x-",
        "a-x-a",
    ),
]


def test_a_word_is_found_in_every_text_where_it_is() -> None:
    queries = [*WORDS, *(f"msg:{word}" for word in WORDS), *(f"NOT {word}" for word in WORDS)]
    crowd, parsed = crowd_of(*queries), {query: parse(query) for query in queries}
    for text in TEXTS:
        for document in (record(message=text), record(text), record({"msg": [text, "x"]}), record({"log": text})):
            assert selecting(crowd, document) == {
                text for text, query in parsed.items() if query.matches(document, NOW)
            }


@pytest.mark.parametrize("value", ["x " * leaves.MAX_LISTED_TEXT, ["x"] * (leaves.MAX_LISTED_VALUES + 1)])
def test_what_is_too_much_to_be_listed_is_looked_through(value: Any) -> None:
    queries = ["msg:error", "msg:x", "a:error", "a:x", "error", "NOT a:error"]
    crowd = crowd_of(*queries)
    for last in ("error", "none"):
        found = [*value, last] if isinstance(value, list) else value + last
        document = record({"msg": found, "a": found})
        assert selecting(crowd, document) == {query for query in queries if parse(query).matches(document, NOW)}


def test_texts_that_are_one_but_for_the_case_are_folded_to_one() -> None:
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        if character.lower() != character or character.upper() != character:
            assert len({fold(case) for case in cases(character)}) == 1, character


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        *(("timeout", "timeout"), ("TIME-out", "time"), ("connection refused", "connection"), ("中文 ab", "ab")),
        # These may stand in a text as parts of longer words.
        *(("中文", ""), ("\u212aab", ""), ("ab\u212a cde", "cde"), ("ɐb", "")),
    ],
)
def test_the_word_of_what_is_sought_is_one_of_the_texts_words(parts: str, word: str) -> None:
    assert word_of(parts) == word
    assert not word or word in folded_words(f"({parts})")
