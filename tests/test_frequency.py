"""frequency.py: how frequent values are, from a sample."""

import itertools

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_logsrv.frequency import EVERY, MANY, MOST_VALUES, Frequency
from tornado_logsrv.occupancy import CROWD, Occupancy

START = 1_767_323_045_000


def record(**data: object) -> bytes:
    return bson.encode({"_id": bson.ObjectId(), "message": "", "data": data, "source": "otlp"})


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_of_what_is_stored_one_record_of_many_is_counted_whatever_the_batches(batch):
    frequency = Frequency(["data.level", "source"])
    records = [record(level="error" if n % 3 else "info") for n in range(100 * EVERY)]
    for start in range(0, len(records), batch):
        frequency.note(records[start : start + batch])
    assert frequency.about("source", ["otlp"]) == len(records)
    assert frequency.about("data.level", ["error", "info"]) == len(records)
    assert frequency.about("data.level", ["error"]) == pytest.approx(len(records) * 2 / 3, rel=0.02)


def test_values_are_divided_by_how_many_records_have_them():
    frequency = Frequency(["data.k"])
    for value, times in (("often", 20), (7, 20), ("seldom", 1)):
        for _ in range(times):
            frequency.count({"data": {"k": value}})
    listed = ["seldom", "never", "often", 7, None]
    assert frequency.divided("data.k", listed) == (["seldom", "never", None], ["often", 7])
    assert 1 * EVERY < MANY < 20 * EVERY
    # Of a path that is not counted nothing is known.
    assert frequency.divided("data.j", ["often"]) == (["often"], [])


def test_the_elements_of_arrays_are_values_and_no_others_than_plain_ones():
    frequency = Frequency(["data.a.b"])
    frequency.count({"data": [{"a": {"b": ["x", ["y"], {"z": 1}]}}, {"a": {"b": "x"}}, {"a": 5}]}, 10)
    frequency.count({"data": {"a": {"b": "x" * 1000}}}, 10)
    frequency.count({"message": "no data"}, 10)
    assert [frequency.about("data.a.b", [value]) for value in ("x", "y", "z", 1, "x" * 1000)] == [10, 10, 0, 0, 0]


def test_what_is_remembered_is_bounded_and_the_frequent_stay():
    frequency = Frequency(["k"])
    for n in range(10 * MOST_VALUES):
        frequency.count({"k": n})
        frequency.count({"k": "often"})
    assert len(frequency._counts["k"]) <= 2 * MOST_VALUES
    assert frequency.about("k", ["often"]) == 10 * MOST_VALUES * EVERY


def test_a_record_that_cannot_be_read_is_passed_over():
    frequency = Frequency(["data.k"])
    frequency.note([b"\x05\x00\x00\x00\x01", *([record(k=1)] * EVERY)])
    assert frequency.about("data.k", [1]) == EVERY


def test_what_was_deleted_counts_no_more_and_what_is_learned_later_is_taken():
    frequency, counted = Frequency(["k"]), Frequency(["k"])
    frequency.count({"k": 1}, 100)
    frequency.scale(0.25)
    assert frequency.about("k", [1]) == 25
    counted.count({"k": 1}, 5)
    frequency.take(counted)
    assert frequency.about("k", [1]) == 5


def test_what_has_turned_out_to_be_frequent_is_that_for_its_path_alone():
    frequency = Frequency(["j", "k"])
    frequency.take_for_many("k", [{"k": 1, "j": 1}, {"j": 2}])
    assert (frequency.divided("k", [1, 2]), frequency.divided("j", [1, 2])) == (([2], [1]), ([1, 2], []))


def test_a_sample_is_spread_over_all_that_holds_records_and_has_its_weight():
    occupancy = Occupancy()
    occupancy.note(START + 1000 * n for n in range(3600))
    for n in range(60):
        occupancy.note([START + 10**9 + 1000 * n + ms for ms in range(CROWD)])
    ranges = list(occupancy.sample(24))
    assert all(end - start in (10, 1000) for start, end, _ in ranges)
    quiet = [(start, times) for start, end, times in ranges if end - start == 1000]
    crowds = [(start, times) for start, end, times in ranges if end - start == 10]
    assert len(quiet) == len(crowds) == 24
    assert {times for _, times in quiet} == {3600 / 24}
    assert {times for _, times in crowds} == {60 / 24 * 100}
    for found, seconds in ((quiet, 3600), (crowds, 60)):
        gaps = [(after - before) / 1000 for (before, _), (after, _) in itertools.pairwise(found)]
        assert seconds / 24 - 1 <= min(gaps)
        assert max(gaps) <= seconds / 24 + 1


@given(st.lists(st.integers(0, 400), max_size=30), st.integers(1, 40))
def test_a_sample_of_little_is_each_second_once(seconds, count):
    occupancy = Occupancy()
    occupancy.note(START + 1000 * second for second in seconds)
    found = [start for start, _, _ in occupancy.sample(count)]
    assert len(set(found)) == len(found) == min(count, len(set(seconds)))
    assert set(found) <= {START + 1000 * second for second in seconds}
