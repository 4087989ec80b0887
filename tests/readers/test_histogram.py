"""GET /logs/histogram on the real store, and its intervals."""

import collections
import datetime
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_logsrv import jsontext, records
from tornado_logsrv.errors import BadParameter
from tornado_logsrv.readers import histogram, intervals

START = 1_767_323_040_000  # 2026-01-02T03:04:00Z
IDS = records.Ids(lambda: 1_700_000_000)
SPAN = "from=2026-01-02T03:04:00Z&to=2026-01-02T03:09:00Z"


def job(value, moment):
    return records.encode_job(*jsontext.read(json.dumps(value).encode()), IDS.next(), moment)


async def histogram_of(fetch, query):
    response = await fetch(f"/logs/histogram?{query}")
    assert response.code == 200, response.body
    return json.loads(response.body)


@pytest.mark.gen_test
async def test_counts_by_level_without_a_gap(fetch, app):
    made = [({"level": "error"}, 0), ({"level": "ERROR"}, 1), ({"level": "info"}, 59_999), ({"n": 1}, 60_000)]
    made += [("text", 180_000), ({"level": 30}, 180_001), ({"level": ["error"]}, 299_999), ({"level": "late"}, 300_000)]
    await app.store.write([job(value, START + moment) for value, moment in made])
    found = await histogram_of(fetch, f"{SPAN}&interval=1m")
    assert (found["from"], found["to"]) == ("2026-01-02T03:04:00.000Z", "2026-01-02T03:09:00.000Z")
    assert (found["interval"], found["interval_ms"], found["total"]) == ("1m", 60_000, 7)
    assert found["levels"] == {"": 3, "error": 2, "info": 1, "30": 1}
    assert [bucket["time"][14:16] for bucket in found["buckets"]] == ["04", "05", "06", "07", "08"]
    assert [bucket["total"] for bucket in found["buckets"]] == [3, 1, 0, 2, 1]
    assert [bucket["levels"] for bucket in found["buckets"]] == [
        {"error": 2, "info": 1},
        {"": 1},
        {},
        {"": 1, "30": 1},
        {"": 1},
    ]


@pytest.mark.gen_test
async def test_only_what_the_query_selects_is_counted(fetch, app):
    await app.store.write([job({"level": "error", "n": n}, START + 1000 * n) for n in range(100)])
    query = quote("n:[10 TO 19] OR n:99")
    assert (await histogram_of(fetch, f"{SPAN}&q={query}"))["levels"] == {"error": 11}
    within = quote("timestamp:<2026-01-02T03:04:05Z")
    assert (await histogram_of(fetch, f"{SPAN}&q={within}"))["total"] == 5


@pytest.mark.gen_test
async def test_the_first_bucket_begins_at_a_round_time_and_has_only_what_was_asked_for(fetch, app):
    await app.store.write([job(n, START + 1000 * n) for n in range(60)])
    found = await histogram_of(fetch, "from=2026-01-02T03:04:50Z&to=2026-01-02T03:05:30Z&interval=1m")
    assert [(bucket["time"], bucket["total"]) for bucket in found["buckets"]] == [
        ("2026-01-02T03:04:00.000Z", 10),
        ("2026-01-02T03:05:00.000Z", 0),
    ]


@pytest.mark.gen_test
async def test_the_last_hour_in_about_sixty_buckets_is_the_default(fetch, app):
    now = app.now_ms()
    await app.store.write([job({"level": "info"}, now - 60_000), job({"level": "info"}, now - 2 * 3_600_000)])
    found = await histogram_of(fetch, "")
    assert (found["interval"], found["total"], found["levels"]) == ("1m", 1, {"info": 1})
    assert len(found["buckets"]) in (60, 61)
    low, high = (datetime.datetime.fromisoformat(found[end]) for end in ("from", "to"))
    assert high - low == datetime.timedelta(hours=1)


@pytest.mark.gen_test
async def test_many_levels_are_counted_together_but_for_the_most_frequent(fetch, app):
    made = [job({"level": f"l{n}"}, START + n) for n in range(30) for _ in range(2 if n < 20 else 1)]
    await app.store.write([*made, job({"level": "x" * 1000}, START)])
    levels = (await histogram_of(fetch, SPAN))["levels"]
    assert levels == {**{f"l{n}": 2 for n in range(20)}, "other": 11}


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("interval=1x", "interval"),
        ("interval=0s", "interval"),
        ("interval=1s&from=now-1d", "interval"),
        ("from=now&to=now-1h", "from"),
        ("q=level:", "q"),
        ("limit=5", "limit"),
        ("interval=1m&interval=2m", "interval"),
    ],
)
@pytest.mark.gen_test
async def test_a_wrong_parameter_is_a_400_that_names_it(fetch, query, parameter):
    response = await fetch(f"/logs/histogram?{query}")
    assert (response.code, json.loads(response.body)["parameter"]) == (400, parameter)


def test_too_many_buckets_are_refused_with_what_would_do():
    with pytest.raises(BadParameter, match="1000 buckets; 30m makes fewer"):
        histogram.parse({"from": "now-1d", "interval": "1m"}, START)


@given(st.integers(0, 4 * 10**12), st.integers(1, 4 * 10**12))
def test_the_length_that_is_chosen_makes_a_few_buckets_that_tile_the_span(low, span):
    interval = intervals.milliseconds(intervals.chosen(span))
    found = intervals.starts(low, low + span, interval)
    assert 1 <= len(found) <= intervals.WANTED + 1
    assert found[0] <= low < found[0] + interval
    assert found[-1] < low + span <= found[-1] + interval


def test_weeks_begin_on_mondays():
    start = intervals.beginning(START, intervals.milliseconds("1w"))
    assert datetime.datetime.fromtimestamp(start / 1000, datetime.UTC).isoformat() == "2025-12-29T00:00:00+00:00"


@pytest.mark.gen_test
async def test_the_sum_of_all_buckets_is_what_a_page_finds(fetch, app):
    moments = [START + n * n * 7 % 300_000 for n in range(400)]
    await app.store.write([job({"level": ["error", "info"][n % 2]}, moment) for n, moment in enumerate(moments)])
    found = await histogram_of(fetch, f"{SPAN}&interval=10s")
    expected = collections.Counter((moment - START) // 10_000 for moment in moments)
    assert [bucket["total"] for bucket in found["buckets"]] == [expected[n] for n in range(30)]
