"""The search language: what is found, what is refused and where, and what filters look like to an index."""

import datetime
import re
import time
from typing import Any

import pytest
from bson import DatetimeMS, Decimal128, Int64, ObjectId

from tornado_logsrv.errors import Refused
from tornado_logsrv.query import QueryError, moment, parse
from tornado_logsrv.query.moments import span
from tornado_logsrv.query.regexes import RegexError, translate

NOW = 1_769_853_600_000  # 2026-01-31T10:00:00Z
ID = ObjectId("6b02b4f2482b5ecbf5257eed")


def record(data: Any = None, message: str = "Job processed", **more: Any) -> dict[str, Any]:
    timestamp = datetime.datetime(2026, 1, 31, 9, 59, tzinfo=datetime.UTC)
    return {"_id": ID, "message": message, "data": {} if data is None else data, "timestamp": timestamp, **more}


def finds(query: str, *arguments: Any, **more: Any) -> bool:
    return parse(query).matches(record(*arguments, **more), NOW)


@pytest.mark.parametrize("query", ["timeout", "TIMEOUT", '"read timeout"', "tim*", "*out", "t?meout", "/time.?out/"])
def test_words_phrases_wildcards_and_regular_expressions_find_text(query: str) -> None:
    assert finds(query, message="Read  timeout: gave up")


@pytest.mark.parametrize("text", ["timeouts", "xtimeout", "time out", "time_out", "_timeout", "timeout2"])
def test_a_word_is_a_whole_word(text: str) -> None:
    assert not finds("timeout", message=text)


@pytest.mark.parametrize(
    "data", ["a timeout", ["x", "timeout"], *({key: "timeout!"} for key in ("message", "msg", "log", "event", "error"))]
)
def test_words_are_looked_for_where_text_is_by_convention(data: Any) -> None:
    assert finds("timeout", data)


def test_words_are_not_looked_for_elsewhere() -> None:
    assert not finds("timeout", {"stack": "timeout", "nested": {"msg": "timeout"}}, source="timeout")


def test_a_space_in_a_phrase_is_any_run_of_spaces() -> None:
    assert finds('"read\u2003timeout"', message="read \n\u00a0 timeout")


def test_scripts_without_spaces_are_searched_anywhere() -> None:
    assert finds("错误", message="发生错误了")
    assert finds("ошибка", message="Ошибка!")
    assert not finds("ошибк", message="Ошибка!")


@pytest.mark.parametrize(
    ("query", "data"),
    [
        ("level:error", {"level": "ERROR"}),
        ("level:error", {"level": ["warn", "Error"]}),
        ("service:check*", {"service": "checkout v2"}),
        ("stage:*out", {"stage": "check-out"}),
        ("error:refused", {"error": "connection refused by peer"}),
        ("http.error.message:refused", {"http": {"error": {"message": "it was refused"}}}),
        ("status:200", {"status": 200}),
        ("status:200", {"status": 200.0}),
        ("status:200", {"status": Decimal128("200.00")}),
        ("status:200", {"status": "200"}),
        ('status:"200"', {"status": Int64(200)}),
        ("status:-5", {"status": -5}),
        ("f:0.1", {"f": 0.1}),
        ("f:0.1", {"f": Decimal128("0.1")}),
        ("big:12345678901234567890", {"big": Decimal128("12345678901234567890")}),
        ("ok:true", {"ok": True}),
        ("ok:true", {"ok": "True"}),
        ("user:null", {"user": None}),
        ("level:(error OR warn)", {"level": "warn"}),
        ("latency_ms:[100 TO *]", {"latency_ms": 100}),
        ("latency_ms:{99.5 TO 101}", {"latency_ms": "100.25"}),
        ("latency_ms:>=100", {"latency_ms": [1, 100]}),
        ("latency_ms:(>5 AND <10)", {"latency_ms": 7}),
        ("t:[-5 TO -1]", {"t": -3}),
        ("t:>-5", {"t": -3}),
        ("name:[a TO c]", {"name": "bob"}),
        ("a.b:x", {"a": {"b": "x"}}),
        ("a.b:x", {"a.b": "x"}),
        ("a.b.c:x", {"a": {"b.c": "x"}}),
        ("a.b.c:x", {"a.b": [{"c": "x"}]}),
        ("$x:1", {"$x": 1}),
        ("a.$x:>0", {"a": {"$x": 1}}),
        ("a\\ b:x", {"a b": "x"}),
        ("a\\:b:x", {"a:b": "x"}),
        ("$where:x*", {"$where": "xyz"}),
        ("tags.1:b", {"tags": ["a", "b"]}),
        ("items.n:2", {"items": [{"n": 1}, {"n": 2}]}),
        ("_exists_:trace_id", {"trace_id": None}),
        ("trace_id:*", {"trace_id": []}),
        ("_exists_:a.b", {"a.b": 1}),
        ("user:/^j(oe|im)$/", {"user": "jim"}),
        ("user:/JIM/i", {"user": "jim"}),
        ("data.message:x", {"message": "x"}),
        ("data.data:x", {"data": "x"}),
        ("timestamp.x:1", {"timestamp": {"x": 1}}),
        ("when:2026-01-31", {"when": datetime.datetime(2026, 1, 31, 23)}),
        ("when:[2026-01-30 TO 2026-01-31]", {"when": "2026-01-31T22:00:00"}),
        ("when:>now-1h", {"when": datetime.datetime(2026, 1, 31, 9, 30)}),
        ("url:http\\://x", {"url": "http://x"}),
        ('url:"http://x"', {"url": "http://x"}),
        ("path:\\/api\\/v1", {"path": "/api/v1"}),
        ('x:"a*"', {"x": "A*"}),
        ("x:a\\*", {"x": "a*"}),
        ('x:""', {"x": ""}),
        ("x:now", {"x": "now"}),
    ],
)
def test_a_field_is_found(query: str, data: Any) -> None:
    assert finds(query, data)


@pytest.mark.parametrize(
    ("query", "data"),
    [
        ("service:checkout", {"service": "checkout-v2"}),
        ("service:checkout", {"service": "the checkout"}),
        ("status:200", {"status": "200.0"}),
        ("status:1", {"status": True}),
        ("user:null", {}),
        ("latency_ms:[100 TO 200]", {"latency_ms": [50, 300]}),
        ("latency_ms:[100 TO 200]", {"latency_ms": [[150]]}),
        ("a.b:[100 TO 200]", [{"a.b": 50}, {"a.b": 300}]),
        ("latency_ms:{100 TO 200}", {"latency_ms": "100.0"}),
        ("latency_ms:>100", {"latency_ms": "999x"}),
        ("f:{0.1 TO 1]", {"f": 0.1}),
        ("n:<5", {"n": float("nan")}),
        ("n:>=9007199254740993", {"n": Int64(9007199254740992)}),
        ("a.b:x", {"a": {"c": "x"}, "b": "x"}),
        ("x:a\\*", {"x": "ab"}),
        ("_exists_:trace_id", {"a": {"trace_id": 1}}),
        ("user:/JIM/", {"user": "jim"}),
        ("name:[a TO c]", {"name": "Bob"}),
    ],
)
def test_a_field_is_not_found(query: str, data: Any) -> None:
    assert not finds(query, data)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("a b", "11000000"),
        ("a AND b", "11000000"),
        ("a && b", "11000000"),
        ("a OR b", "11111100"),
        ("a || b", "11111100"),
        ("a b OR c", "11101010"),
        ("c OR a b", "11101010"),
        ("a (b OR c)", "11100000"),
        ("a -b", "00110000"),
        ("a !b", "00110000"),
        ("a NOT b", "00110000"),
        ("+a -b", "00110000"),
        ("NOT a AND NOT b", "00000011"),
        ("-(a OR b) -c", "00000001"),
        ("NOT NOT a", "11110000"),
        ("*", "11111111"),
        ("", "11111111"),
        ("-*", "00000000"),
        ("* a", "11110000"),
        ("a OR *", "11111111"),
    ],
)
def test_operators(query: str, found: str) -> None:
    messages = [f"{'a' * a} {'b' * b} {'c' * c}" for a in (1, 0) for b in (1, 0) for c in (1, 0)]
    assert "".join(str(int(finds(query, message=each))) for each in messages) == found


def test_fields_of_the_record_mean_themselves() -> None:
    assert finds(f"_id:{ID}")
    assert finds("source:OTLP", source="otlp")
    assert finds("timestamp:2026-01-31T09:59")
    assert finds("timestamp:[now-15m TO now] message:job")
    assert not finds("message:job", {"message": "job"}, message="other")
    assert not finds("timestamp:<2026-01-31")


@pytest.mark.parametrize(
    ("query", "column", "said"),
    [
        ('level:error "abc', 13, 'not closed; write "abc"'),
        ("a AND", 3, 'quote it to look for the word: "AND"'),
        ("AND", 1, '"AND"'),
        ("OR a", 1, '"OR"'),
        ("a AND OR b", 3, "nothing stands behind AND"),
        ("NOT", 1, '"NOT"'),
        ("(a OR b", 1, "this ( is not closed"),
        ("a)", 2, "this ) closes nothing"),
        ("a ()", 3, "nothing stands between"),
        ("x:[1 TO 5", 3, "not closed"),
        ("x:[1 5]", 6, "[1 TO 5]"),
        ("[1 TO 5]", 1, "a range is for a field"),
        ("x:", 3, "x:*"),
        ("x:)", 3, "closes nothing"),
        (":x", 1, "name of a field"),
        ("a:b:c", 4, '"b:c"'),
        ("url:http://x/y", 10, '"http://x/y"'),
        ("http://x/y", 6, '"http://x/y"'),
        ("/api/v1/users", 1, '"/api/v1/users"'),
        ("path:/api", 6, '"/api"'),
        ("a  timestamp:yesterday", 14, "2026-01-31"),
        ("timestamp:[2026-02-30 TO *]", 12, "day is out of range"),
        ("timestamp:>now+8000y", 12, "outside the years"),
        ("a:now+8000y", 3, "outside the years"),
        ("a:[now TO now+8000y]", 3, "outside the years"),
        ("timestamp:2026*", 11, "no text"),
        ("_id:12", 5, "24 digits"),
        ("fuzzy~2", 6, "~"),
        ("boost^2", 6, "^"),
        ("f*:x", 1, "wildcards"),
        ("x:(a y:b)", 6, "x:… AND y:…"),
        ("x:[1 TO b*]", 9, "wildcards"),
        ("_exists_:(a b)", 10, "_exists_:trace_id"),
        ('""', 1, "nothing to look for"),
        ("a \\", 3, "\\\\"),
        ("a\0b", 2, "no text can hold"),
        ("a\ud800", 2, "no text can hold"),
        ("é && x:/a(b/", 10, "not closed"),
        ("/(a+)+/", 2, "(…){1,10}"),
        ("/(a)\\1/", 5, "back-references"),
        ("/(?=a)/", 2, "lookaround"),
        ("-", 1, '"-"'),
        ("x:>", 3, "status:>500"),
        ("a" * 2001, 2001, "2000 characters"),
        (" ".join("a" * 51), 101, "50 terms"),
        ("(" * 30 + "a" + ")" * 30, 22, "20 levels"),
        ("NOT " * 40 + "a", 85, "20 levels"),
        ("a*" * 11, 1, "10 wildcards"),
        ("x:" + "a" * 300, 3, "too long"),
        (".".join("a" * 21) + ":x", 1, "20 parts"),
        ("/" + "a" * 201 + "/", 202, "200 characters"),
        ("x:>12345678901234567890123", 3, "20 digits"),
    ],
)
def test_a_wrong_query_is_refused_at_its_column(query: str, column: int, said: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(query)
    assert isinstance(caught.value, Refused)
    assert said in str(caught.value)
    assert caught.value.column == column


@pytest.mark.parametrize(
    ("query", "nearest"),
    [
        ('level:error "abc', 'level:error "abc"'),
        ('(a AND "b c', '(a AND "b c")'),
        ("(a OR b", "(a OR b)"),
        ("((a", "((a))"),
        ("x:[1", "x:[1 TO *]"),
        ("x:(a OR [1 TO", "x:(a OR [1 TO *])"),
        ("x:[1 TO 5", "x:[1 TO 5]"),
        ("a)", "a"),
        ("a AND", "a"),
        ("OR a", "a"),
        ("a AND OR b", "a OR b"),
        ("NOT", '"NOT"'),
        ("fuzzy~2 AND b", "fuzzy AND b"),
        ("boost^1.5", "boost"),
        ("a \\", "a"),
        ("level:", "level:*"),
        ("a:b:c", 'a:"b:c"'),
        ("http://x/y", '"http://x/y"'),
        ("path:/api/v1", 'path:"/api/v1"'),
        ("é && x:/a b", 'é && x:"/a" b'),
        ("-", '"-"'),
        ("timestamp:yesterday", ""),
        ("x:{1 TO 5 b", ""),
        ("a\0", ""),
        ("(" + "a" * 300, ""),
    ],
)
def test_the_nearest_query_that_can_be_read_is_offered(query: str, nearest: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(query)
    assert caught.value.nearest == nearest


def test_filters_of_simple_fields_are_flat_so_that_an_index_can_serve_them() -> None:
    found = parse("timestamp:[now-1h TO now] level:error status:500 -service:b _exists_:x").filter(NOW)
    assert found["timestamp"] == {"$gte": DatetimeMS(NOW - 3_600_000), "$lt": DatetimeMS(NOW + 1)}
    assert found["data.level"]["$in"][:3] == ["error", "ERROR", "Error"]
    assert len(found["data.level"]["$in"]) == 32
    assert found["data.status"] == {"$in": ["500", 500]}
    assert found["data.service"] == {"$nin": ["b", "B"]}
    assert not any(key.startswith("$") for key in found)


def test_spellings_are_listed_for_an_index_and_a_pattern_is_used_without_one() -> None:
    query = parse("service:checkout")
    assert len(query.filter(NOW, indexed={"data.service"})["data.service"]["$in"]) == 256
    assert "$regex" in query.filter(NOW)["data.service"]
    assert "$regex" in query.filter(NOW, indexed=())["data.service"]


def test_an_empty_query_has_an_empty_filter() -> None:
    assert [parse(text).filter(NOW) for text in ("", "  ", "*", "* AND (* OR a)")] == [{}, {}, {}, {}]


def _operators(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(_operators, value))
    if not isinstance(value, dict):
        return set()
    here = {key for key in value if key.startswith("$")}
    # What stands in a literal is data.
    return here.union(*(_operators(each) for key, each in value.items() if key != "$literal"))


def test_nothing_of_a_query_becomes_an_operator() -> None:
    allowed = {"$or", "$and", "$in", "$regex", "$expr", "$gt", "$size", "$map", "$reduce", "$concatArrays", "$cond"}
    allowed |= {"$eq", "$type", "$isArray", "$filter", "$objectToArray", "$literal", "$anyElementTrue", "$regexMatch"}
    for query in (
        "$where:sleep*",
        "a.$function:x*",
        "$expr:*",
        "data.$ne:1",
        "a.$\\[\\]:x",
        "$:x",
        "a..b:$gt",
        "'$where'",
    ):
        assert _operators(parse(query).filter(NOW)) <= allowed | {"$not"}, query


def test_relative_times_count_from_now() -> None:
    query = parse("a timestamp:>=now-15m")
    assert query.filter(NOW)["timestamp"] == {"$gte": DatetimeMS(NOW - 900_000)}
    assert query.filter(NOW + 5)["timestamp"] == {"$gte": DatetimeMS(NOW - 899_995)}


@pytest.mark.parametrize(
    ("query", "low", "high"),
    [
        ("timestamp:[now-15m TO now}", NOW - 900_000, NOW),
        ("timestamp:>=now-15m timestamp:<now a", NOW - 900_000, NOW),
        ("timestamp:>now-1h timestamp:>now-2h", NOW - 3_599_999, None),
        ("timestamp:2026-01-31", NOW - 36_000_000, NOW + 50_400_000),
        ("a OR timestamp:2026-01-31", None, None),
        ("-timestamp:2026-01-31", None, None),
        ("a", None, None),
    ],
)
def test_a_query_tells_the_time_it_is_bound_to(query: str, low: int | None, high: int | None) -> None:
    assert parse(query).time_range(NOW) == (low, high)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026", "2026-01-01T00:00:00.000/31536000000"),
        ("2026-02", "2026-02-01T00:00:00.000/2419200000"),
        ("2026-01-31", "2026-01-31T00:00:00.000/86400000"),
        ("2026-01-31T10", "2026-01-31T10:00:00.000/3600000"),
        ("2026-01-31t10:05z", "2026-01-31T10:05:00.000/60000"),
        ("2026-01-31T10:05:30+01:00", "2026-01-31T09:05:30.000/1000"),
        ("2026-01-31T10:05:30 01:00", "2026-01-31T09:05:30.000/1000"),
        ("2026-01-31 10:05:30.2-0130", "2026-01-31T11:35:30.200/100"),
        ("2026-01-31T10:05:30.123456789Z", "2026-01-31T10:05:30.123/1"),
        ("now", "2026-01-31T10:00:00.000/1"),
        ("now-15m", "2026-01-31T09:45:00.000/1"),
        ("now-1d+2h", "2026-01-30T12:00:00.000/1"),
        ("now-1d/d", "2026-01-30T00:00:00.000/86400000"),
        ("now/w", "2026-01-26T00:00:00.000/604800000"),
        ("now/M", "2026-01-01T00:00:00.000/2678400000"),
        ("now+1M", "2026-02-28T10:00:00.000/1"),
        ("now-1y/y", "2025-01-01T00:00:00.000/31536000000"),
        ("9999-12-31", "9999-12-31T00:00:00.000/86400000"),
        ("0001", "0001-01-01T00:00:00.000/31536000000"),
    ],
)
def test_moments(text: str, expected: str) -> None:
    low, high = span(text, NOW)
    start = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=low)
    assert f"{start.isoformat(timespec='milliseconds')}/{high - low}" == expected
    assert moment(text, NOW) == low


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "2026-13", "2026-02-30", "2026-1-1", "2026-01-31T24:00", "2026-01-31T10:60", "now-", "now-1x"),
        *("nowish", "now-999999y", "2026-01-31T10:00+19:00", "0000", "1769853600000", "\u0662\u0660\u0662\u0666"),
        "9999-12-31T23:00-05:00",
    ],
)
def test_what_is_no_moment_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time|outside the years"):
        moment(text, NOW)


HARD = [
    "a.*a.*a.*a.*b",
    ".*.*.*b",
    "(a|a)(a|a)(a|a)(a|a)b",
    "(a{1,3}){5}b",
    "a{1,90}a{1,90}c",
    "[a-z]+[0-9]+[a-z]+x",
    "(.?a){3}b",
]


@pytest.mark.parametrize("source", HARD)
def test_a_regular_expression_takes_no_long_time(source: str) -> None:
    pattern = re.compile(translate(source))
    start = time.process_time()
    pattern.search("a" * 2000 + "1" * 100)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "source", [r"\w+\w+\w+b", "a*a*a*b", "(.*,){3}x", "(a|b|ab)*c", "(((a{9}){9}){9}){9}", "(x+x+)+y", "a**", "a{2}{3}"]
)
def test_one_that_could_is_refused(source: str) -> None:
    with pytest.raises(RegexError):
        translate(source)


@pytest.mark.parametrize("query", ["a*b*c*d*e", "x:a*b*c*d*e", "x:*a*a*a*a*a*b", "a?*a?*a?*b"])
def test_wildcards_take_no_long_time(query: str) -> None:
    text = "a-" * 20_000
    start = time.process_time()
    assert not finds(query, {"x": text}, message=text)
    assert time.process_time() - start < 2
