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
