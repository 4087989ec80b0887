import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tornado_logsrv import records
from tornado_logsrv.errors import TooLarge, Unreadable
from tornado_logsrv.receivers import rows
from tornado_logsrv.receivers.rows import Bad, Row, Rows

from .batches import batch_of, documents

NOW = 1_700_000_000_000
TEXTS = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
DATA = st.dictionaries(TEXTS, VALUES, max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TEXTS | st.text(st.characters(), max_size=5), DATA, DATA), max_size=20))
def test_rows_together_are_as_each_alone(given_rows):
    found = []
    for message, data, labels in given_rows:
        shared, notes = rows.shared("labels", labels, True)
        found.append(Row(message, data, notes, None, b"raw", shared))
    alone = [documents(batch_of("x", [Row(r.message, r.data, [*r.notes], None, b"", r.shared)], NOW)) for r in found]
    together = documents(batch_of("x", found, NOW))
    assert [{**each, "_id": 0} for (each,) in alone] == [{**each, "_id": 0} for each in together]


TIMES = st.none() | st.integers(-1, 2 * NOW * 1_000_000)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(TEXTS | st.text(st.characters(), max_size=5), DATA, TIMES), min_size=1, max_size=20), DATA)
def test_rows_in_columns_are_as_each_by_itself(given_rows, labels):
    messages, data, times = zip(*given_rows, strict=True)
    shared, notes = rows.shared("labels", labels, True)
    found = Rows(messages, data, times, [b"raw"] * len(data), b"" if notes else shared)
    alone = batch_of("x", [Row("before", {}, [], None, b""), *found, Bad(b"raw", "no")], NOW)
    together = batch_of("x", [Row("before", {}, [], None, b""), found, Bad(b"raw", "no")], NOW)
    assert (together.records, together.ids, together.rejected) == (alone.records, alone.ids, alone.rejected)


def test_so_many_rows_in_columns_and_others_have_their_turn_between(monkeypatch):
    monkeypatch.setattr(rows, "MAX_ROWS", 300)
    monkeypatch.setattr(rows, "BREATH", 0)
    found = Rows([""] * 100, [{}] * 100, [None] * 100, [b""] * 100)
    turns = []
    assert len(batch_of("x", [found] * 3, NOW, turns).records) == 300
    assert turns == [100, 200, 300]
    with pytest.raises(TooLarge, match="more than 300"):
        batch_of("x", [found] * 4, NOW)


@pytest.mark.parametrize("sizes", [[], [1] * 2500, [1 << 17] * 5, [1, rows.PORTION_BYTES + 1, 1]])
def test_portions_have_so_many_items_and_bytes(sizes):
    found = [bytes(size) for size in sizes]
    portions = [*rows.portions(found)]
    assert [each for portion in portions for each in portion] == found
    for portion in portions:
        assert 1 <= len(portion) <= rows.PORTION
        assert len(portion) == 1 or sum(map(len, portion)) <= rows.PORTION_BYTES
    assert len(portions) <= 1 + 2 * len(found) // rows.PORTION + 2 * sum(sizes) // rows.PORTION_BYTES


@pytest.mark.parametrize("depth", [90, 97, 98, 150])
def test_what_is_too_deep_is_found_among_many(depth):
    deep: object = {"end": "x" * 2000}
    for _ in range(depth):
        deep = {"a": deep}
    shallow, found, _ = documents(batch_of("x", [Row("", {"d": d}, [], None, b"") for d in ({}, deep, {})], NOW))
    assert ("notes" in shallow, "notes" in found) == (False, depth >= 98)


def test_a_row_too_large_for_mongodb_costs_no_neighbour():
    large = Row("", {"a": "x" * records.MAX_RECORD_BYTES}, [], None, b"raw")
    batch = batch_of("x", [Row("a", {}, [], None, b""), large, Row("b", {}, [], None, b"")], NOW)
    first, bad, last = documents(batch)
    assert (first["message"], last["message"]) == ("a", "b")
    assert (bad["bad"], bad["code"], bad["original"], list(batch.rejected), batch.lost) == (
        "x",
        "too-large",
        b"raw",
        [1],
        set(),
    )


def test_one_request_has_so_many_rows_and_so_many_bad_ones(monkeypatch):
    monkeypatch.setattr(rows, "MAX_ROWS", 300)
    monkeypatch.setattr(rows, "MAX_BAD", 200)
    assert len(batch_of("x", [Row("", {}, [], None, b"")] * 300, NOW).records) == 300
    with pytest.raises(TooLarge, match="more than 300"):
        batch_of("x", [Row("", {}, [], None, b"")] * 301, NOW)
    with pytest.raises(Unreadable, match="more than 200"):
        batch_of("x", [Bad(b"", "bad")] * 201, NOW)


def test_rows_of_a_megabyte_each_from_a_few_bytes_are_refused_before_they_are_made():
    shared = bson.encode({"labels": {"a": "x" * (1 << 20)}})[4:-1]
    with pytest.raises(TooLarge, match="queue_max_bytes"):
        batch_of("x", (Row("", {}, [], None, b"", shared) for _ in range(300)), NOW)


def test_bad_rows_are_in_their_place():
    found = [Row("a", {}, [], None, b""), Bad(b"raw", "no"), Row("b", {}, [], None, b"", b"", b"i" * 12)]
    batch = batch_of("x", found, NOW)
    assert [records.is_bad(record) for record in batch.records] == [False, True, False]
    assert batch.reasons == ["record 1: no"]
    assert (batch.ids[2], records.id_of(batch.records[2])) == (b"i" * 12, b"i" * 12)


def test_others_have_their_turn_after_a_row_that_took_long_and_where_there_is_none(monkeypatch):
    monkeypatch.setattr(rows, "BREATH", 0)
    found = [None, *(Row(str(n), {}, [], None, b"") for n in range(2)), None]
    turns = []
    batch = batch_of("t", found, 0, turns)
    assert turns == [0, 1, 2, 2]
    assert [document["message"] for document in documents(batch)] == ["0", "1"]
