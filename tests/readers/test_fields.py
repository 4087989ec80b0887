"""GET /logs/fields on the real store."""

import json

import bson
import pytest

from tornado_logsrv import jsontext, records
from tornado_logsrv.readers import fields
from tornado_logsrv.readers.fields import Fields, flattened

IDS = records.Ids(lambda: 1_700_000_000)


async def store(app, values):
    made = [records.encode_job(*jsontext.read(json.dumps(v).encode()), IDS.next(), n) for n, v in enumerate(values)]
    await app.store.write(made)


async def fields_of(fetch, query=""):
    response = await fetch(f"/logs/fields?{query}")
    assert response.code == 200, response.body
    found = json.loads(response.body)
    return found, {each["name"]: each for each in found["fields"]}


@pytest.mark.gen_test
async def test_fields_and_their_most_frequent_values(fetch, app):
    await store(app, [{"level": "error" if n % 3 else "info", "user": {"id": n}} for n in range(9)])
    found, by_name = await fields_of(fetch)
    assert (found["sampled"], found["complete"]) == (9, True)
    assert by_name["level"] == {
        "name": "level",
        "count": 9,
        "values": [{"value": "error", "count": 6}, {"value": "info", "count": 3}],
    }
    assert by_name["message"]["values"] == [{"value": "Job processed", "count": 9}]
    assert by_name["user.id"]["count"] == 9
    assert len(by_name["user.id"]["values"]) == 9


@pytest.mark.gen_test
async def test_the_sample_is_the_newest_of_what_the_query_selects(fetch, app):
    await store(app, [{"n": n, "odd": n % 2 == 1} for n in range(40)])
    found, by_name = await fields_of(fetch, "q=odd:true&limit=5")
    assert (found["sampled"], found["complete"]) == (5, False)
    assert [each["value"] for each in by_name["n"]["values"]] == [39, 37, 35, 33, 31]
    assert by_name["odd"]["values"] == [{"value": True, "count": 5}]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "q=level:", "order=asc"])
@pytest.mark.gen_test
async def test_a_wrong_parameter_is_a_400_that_names_it(fetch, query):
    response = await fetch(f"/logs/fields?{query}")
    assert (response.code, json.loads(response.body)["parameter"]) == (400, query.partition("=")[0])


def test_names_are_those_of_a_query():
    data = {"a": {"b": [1, {"c": 2}]}, "message": "x", "data.y": 3, "e.f": 4, "deep": {"er": {}}}
    found = list(flattened({"_id": 1, "message": "m", "source": "s", "data": data, "timestamp": 0}))
    assert found == [
        *(("message", "m"), ("source", "s"), ("a.b", 1), ("a.b.c", 2)),
        *(("data.message", "x"), ("data.data.y", 3), ("e.f", 4)),
    ]
    assert list(flattened({"data": "text"})) == [("data", "text")]


def test_a_field_counts_once_a_record_and_true_is_not_one():
    counted = Fields()
    for value in ([True, True, 1, 1.0], [1], [bson.Decimal128("12345678901234567890"), "x" * 101, None]):
        counted.add({"data": {"a": value}})
    (described,) = counted.describe()
    assert described["count"] == 3
    assert {repr(each["value"]): each["count"] for each in described["values"]} == {
        "True": 1,
        "1": 2,
        "Decimal('12345678901234567890')": 1,
        "None": 1,
    }


def test_what_is_answered_is_bounded():
    counted = Fields()
    for number in range(50):
        counted.add({"data": {f"k{number}.{n}": number for n in range(10)} | {"same": number}})
    found = counted.describe()
    assert len(found) == fields.MOST_FIELDS
    assert (found[0]["name"], len(found[0]["values"])) == ("same", fields.MOST_VALUES)
