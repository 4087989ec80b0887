import datetime
import json
import math

import bson
import pytest
from bson import Decimal128, ObjectId
from hypothesis import given
from hypothesis import strategies as st

from tornado_logsrv import jsontext
from tornado_logsrv.errors import TooLarge, Unreadable


@pytest.mark.parametrize(
    "value", [None, True, 0, -1, 2**63 - 1, 1.5, "", "ä", [], {}, {"a": [1, {"b": None}]}, {"": 1, "$a.b": 2, "_id": 3}]
)
def test_what_bson_can_hold_is_read_as_it_is(value):
    assert jsontext.read(json.dumps(value).encode()) == (value, [])


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
))  # fmt: skip
def test_fast_and_exact_reading_agree(value):
    text = json.dumps(value).encode()
    assert jsontext.storable(jsontext.read(text)[0]) == jsontext.storable(json.loads(text))


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b'{"a":', "line 1 column 6"),
        (b'{"a":1} x', "line 1 column 9"),
        (b"nope", "line 1 column 1"),
        (b'{"a":"\xff"}', "byte 6 (0xff)"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 100_000, "nested deeper"),
        (b"01", "line 1 column 2"),
        (b'"a\tb"', "line 1 column 3"),
    ],
)
def test_what_is_not_json_is_refused_and_says_where(body, where):
    with pytest.raises(Unreadable) as refused:
        jsontext.read(body)
    assert where in str(refused.value)


def test_a_byte_order_mark_is_read_past():
    assert jsontext.read(b'\xef\xbb\xbf{"a":1}') == ({"a": 1}, [])


BIG = 12345678901234567890


def note(path, original):
    return {"path": path, "original": original}


def plain_notes(notes):
    return [note(n["path"], n["original"]) for n in notes]


@pytest.mark.parametrize(
    ("body", "value", "notes"),
    [
        (b'{"n":%d}' % BIG, {"n": Decimal128(str(BIG))}, [note("/data/n", str(BIG))]),
        (b"[-9223372036854775809]", [Decimal128("-9223372036854775809")], [note("/data/0", "-9223372036854775809")]),
        (b"1" * 40, "1" * 40, [note("/data", "1" * 40)]),
        (b"1" * 5000, "1" * 5000, [note("/data", "1" * 5000)]),
        (b"[1e400]", ["1e400"], [note("/data/0", "1e400")]),
        (b'{"a":1,"a":2}', {"a#1": 1, "a": 2}, [note("/data/a", '"a"')]),
        (b'{"a": 1, "a" : 2, "a":3}', {"a#1": 1, "a#2": 2, "a": 3}, [note("/data/a", '"a"')] * 2),
        (b'{"a#1":0,"a":1,"a":2}', {"a#1": 0, "a#2": 1, "a": 2}, [note("/data/a", '"a"')]),
        (b'{"x":{"\\u0022:":1,"b":1,"b":2}}', {"x": {'":': 1, "b#1": 1, "b": 2}}, [note("/data/x/b", '"b"')]),
        (b'{"a\\u0000b":1}', {"a\\u0000b": 1}, [note("/data/a\\u0000b", '"a\\u0000b"')]),
        (b'["\\ud800x"]', ["\\ud800x"], [note("/data/0", '"\\ud800x"')]),
        (b'{"\\udfff":1}', {"\\udfff": 1}, [note("/data/\\udfff", '"\\udfff"')]),
        (b'{"a/b~":12345678901234567890}', {"a/b~": Decimal128("12345678901234567890")},
         [note("/data/a~1b~0", "12345678901234567890")]),
    ],
)  # fmt: skip
def test_what_bson_cannot_hold_is_kept_without_loss_and_noted(body, value, notes):
    read, made = jsontext.read(body)
    if not made:
        read, made = jsontext.storable(read)
    assert (read, plain_notes(made)) == (value, notes)
    bson.encode({"data": read, "notes": made})


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity"])
def test_tokens_that_are_no_json_numbers_are_kept_as_doubles(token):
    value, notes = jsontext.read(f'{{"x":{token}}}'.encode())
    assert not math.isfinite(value["x"])
    assert plain_notes(notes) == [note("/data/x", token)]
    assert json.loads(jsontext.write(value)) == {"x": token}


def nested(levels):
    return b'{"a":' * levels + b"1" + b"}" * levels


def test_nesting_over_the_limit_becomes_json_text():
    value, notes = jsontext.storable(json.loads(nested(150)))
    depth = 0
    while isinstance(value, dict):
        value, depth = value["a"], depth + 1
    assert depth == jsontext.MAX_DEPTH
    assert json.loads(value) == json.loads(nested(150 - depth))
    assert len(notes) == 1


def test_a_record_does_not_get_notes_without_end():
    with pytest.raises(TooLarge):
        jsontext.read(b"[" + b"NaN," * 2000 + b"1]")


def test_documents_are_written_as_the_contract_says():
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=datetime.UTC)
    document = {
        "_id": ObjectId("0" * 24),
        "timestamp": moment,
        "n": Decimal128("12345678901234567890"),
        "b": b"\x00\x01",
    }
    assert json.loads(jsontext.write([document])) == [
        {"_id": "0" * 24, "timestamp": "2026-01-02T03:04:05.678Z", "n": 12345678901234567890, "b": "AAE="}
    ]


# How much is read in one go


def allowed(text, most=100):
    try:
        jsontext.check_values(text, most)
    except TooLarge:
        return False
    return True


@pytest.mark.parametrize(
    ("dense", "sparse"),
    [
        (b"[%b]" % b",".join([b"{}"] * 80), b"[%b]" % b", ".join([b"{}"] * 50)),
        (b"[%b]" % b",".join([b"10"] * 101), b"[%b]" % b",".join([b"10"] * 99)),
        (b"[" * 250, b"[" * 99 + b" " * 200),
        (b"{%b}" % b",".join([b'"a":1'] * 101), b"{%b}" % b",".join([b'"a":12345'] * 50)),
        (b"[%b]" % b",".join([b'"a"'] * 101), b"[%b]" % b",".join([b'"a,b"'] * 99)),
        (b'["%b"%b]' % (b"x" * 200, b",1" * 101), b'["%b\\""%b]' % (b"[{," * 200, b",1" * 90)),
        (b'"a\\\\"' + b", 1" * 101, b'"a\\\\\\"' + b"[,{" * 500),
        (b'"a\\\\\\\\"' + b", 1" * 101, b'"a\\\\\\\\\\"' + b"[,{" * 500),
    ],
)
def test_values_are_counted_and_what_looks_like_them_in_a_text_is_not(dense, sparse):
    assert (allowed(dense), allowed(sparse)) == (False, True)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(st.sampled_from('a,{["\\'), max_size=6),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=6),
)


def count(value):
    inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return 1 + sum(map(count, inner))


@given(st.lists(values, min_size=1), st.integers(1, 30), st.sampled_from([(",", ":"), (", ", ": ")]))
def test_no_text_of_more_values_passes(value, most, separators):
    text = json.dumps(value, separators=separators).encode()
    # A value that begins the text has nothing before it.
    if count(value) - 1 > most:
        assert not allowed(text, most)


@given(st.lists(values, min_size=1))
def test_a_text_of_half_as_many_values_passes(value):
    """An empty object or array counts as two."""
    assert allowed(json.dumps(value).encode(), 2 * count(value))


@pytest.mark.parametrize("begin", [b'"', b'"\\\\', b'"\\"'])
def test_a_text_without_an_end_is_one(begin):
    text = begin + b'\\"' * 40_000 + b"," * 500_000
    assert allowed(b"[" * 90_000 + text, 100_000)
    assert not allowed(b"[" * 110_000 + text, 100_000)


def test_a_body_may_have_more_values_than_a_record_and_a_larger_one_more_still():
    body = b"[%b]" % b",".join([b"1234567890"] * (jsontext.MAX_BODY_VALUES - 2))
    jsontext.check_body(body)
    with pytest.raises(TooLarge):
        jsontext.check_values(body)
    jsontext.check_body(body + body)
    with pytest.raises(TooLarge):
        jsontext.check_body(body + b"," * 1_000_000)


def test_a_record_of_too_many_values_is_not_read():
    with pytest.raises(TooLarge, match=f"more than {jsontext.MAX_VALUES} JSON values"):
        jsontext.read(b"[%b]" % b",".join([b"1"] * (jsontext.MAX_VALUES + 1)))


def test_a_pointer_escapes_what_is_special_in_it():
    _, notes = jsontext.read(b'{"a/b":[{"c~d":"\\ud800"},NaN]}')
    assert [note["path"] for note in notes] == ["/data/a~1b/0/c~0d", "/data/a~1b/1"]
