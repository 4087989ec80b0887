import json

import bson
import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from tornado_logsrv import jsontext, records
from tornado_logsrv.errors import TooLarge

ID = bytes(range(12))


def encode(body: bytes, moment: int = 1_700_000_000_123) -> bytes:
    return records.encode_job(*jsontext.read(body), ID, moment)


@pytest.mark.parametrize(
    "value", [{"a": 1, "b": [True, None, "x"]}, [], "text", 5, None, 1.5, {"_id": 7, "$set": {"a.b": 1}}]
)
def test_a_record_is_the_document_of_the_design(value):
    document = bson.decode(encode(json.dumps(value).encode()), bson.CodecOptions(tz_aware=True))
    assert list(document) == ["_id", "message", "data", "timestamp"]
    assert document["_id"] == ObjectId(ID)
    assert (document["message"], document["data"]) == ("Job processed", value)
    assert document["timestamp"].timestamp() * 1000 == pytest.approx(1_700_000_000_123)


def test_identity_and_time_are_read_from_the_bytes():
    record = encode(b'{"a":12345678901234567890}')
    assert records.id_of(record) == ID
    assert records.timestamp_of(record) == 1_700_000_000_123


@pytest.mark.parametrize("levels", [98, 99, 150, 400])
def test_every_depth_is_stored_within_mongodbs_levels(levels):
    document = bson.decode(encode(b"[" * levels + b"]" * levels))
    assert ("notes" in document) == (levels > jsontext.MAX_DEPTH)


def test_what_the_encoder_refuses_is_changed_and_noted():
    document = bson.decode(encode(b'{"n":12345678901234567890,"a\\u0000":1}'))
    assert [n["path"] for n in document["notes"]] == ["/data/n", "/data/a\\u0000"]


def test_a_record_beyond_mongodbs_limit_is_refused():
    room = records.MAX_RECORD_BYTES - len(encode(b'""'))
    assert len(encode(b'"' + b"x" * room + b'"')) == records.MAX_RECORD_BYTES
    with pytest.raises(TooLarge):
        encode(b'"' + b"x" * (room + 1) + b'"')


def test_ids_ascend_also_when_the_clock_steps_back():
    now = [100.0]
    ids = records.Ids(lambda: now[0])
    made = list(ids.take(3))
    now[0] = 50.0
    made += ids.take(3)
    now[0] = 101.0
    made += ids.take(3)
    assert made == sorted(set(made))
    assert ObjectId(made[0]).generation_time.timestamp() == 100


def test_a_second_of_more_ids_than_the_counter_holds_borrows_from_the_next():
    ids = records.Ids(lambda: 100.0, b"12345")
    before = ids.next()
    ids._count = 0xFFFFFF
    last, first = ids.next(), ids.next()
    assert before < last < first
    assert first[:4] == (101).to_bytes(4, "big")


@given(
    st.lists(
        st.dictionaries(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.integers(-9, 9)),
        max_size=5,
    ),
    st.integers(0, 200),
)
def test_records_are_found_again_in_a_string_of_them(values, cut):
    made = [encode(json.dumps(value).encode()) for value in values]
    text = b"".join(made)
    assert records.split(text) == (made, b"", "")
    found, rest, problem = records.split(text[:cut])
    assert (b"".join(found) + rest, problem) == (text[:cut], "")


@pytest.mark.parametrize("damage", [b"\x00\x00\x00\x00rest", b"\xff\xff\xff\xff", b"\x16\x00\x00\x00" + b"x" * 30])
def test_bytes_that_are_no_records_are_told_from_those_before_them(damage):
    found, rest, problem = records.split(encode(b"1") + damage)
    assert (found, rest) == ([encode(b"1")], damage)
    assert problem


def test_chunks_keep_the_order_and_hold_at_least_one():
    items = [b"a" * n for n in (5, 1, 1, 9, 2)]
    assert list(records.chunks(items, 6)) == [items[:2], items[2:4], items[4:]]
    assert list(records.chunks([], 6)) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=120))
def test_many_jobs_are_encoded_as_each_of_them(values):
    ids = records.Ids().take(len(values))
    each = [records.encode_job(value, [], i, 1_700_000_000_000) for value, i in zip(values, ids, strict=True)]
    assert records.encode_jobs(values, ids, 1_700_000_000_000) == each


def test_a_deep_job_among_many_is_changed_as_it_is_alone():
    deep = json.loads('{"a":' * 150 + "1" + "}" * 150)
    ids = records.Ids().take(1200)
    made = records.encode_jobs([{"n": n} for n in range(1199)] + [deep], ids, 5)
    assert made[-1] == records.encode_job(deep, [], ids[-1], 5)
    assert [bson.decode(record)["data"]["n"] for record in made[:-1]] == list(range(1199))
