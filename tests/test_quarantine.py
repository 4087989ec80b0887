"""What MongoDB refuses for good, on the real server: isolated, kept whole, and its neighbours stored with it."""

import asyncio
import json
import os

import bson
import pytest
from bson import ObjectId

from tornado_logsrv import records
from tornado_logsrv.outcome import Outcome

IDS = records.Ids()


def job(value):
    return records.encode_job(value, [], IDS.next(), 1_700_000_000_000)


async def put(app, *made):
    """Write ``made`` by way of the queue; what is in quarantine then, by the API."""
    app.queue.offer(made)
    app.ledger.accepted("jobs", len(made))
    await app.writer.flush()


@pytest.fixture
def validated(database, collection, app, io_loop):
    """The collection refuses data.n that is negative."""
    database.create_collection("logs")
    rule = {"$jsonSchema": {"properties": {"data": {"properties": {"n": {"minimum": 0}}}}}}
    database.command({"collMod": "logs", "validator": rule})
    return collection


@pytest.mark.gen_test
async def test_a_schema_validator_refuses_one_and_its_neighbours_are_stored(fetch, app, validated):
    bad = job({"n": -1})
    await put(app, job({"n": 1}), bad, job({"n": 2}))
    assert sorted(document["data"]["n"] for document in validated.find()) == [1, 2]
    (kept,) = json.loads((await fetch("/quarantine")).body)
    assert kept["_id"] == records.id_of(bad).hex()
    assert (kept["code"], kept["source"], kept["form"]) == (121, "jobs", "bson")
    assert "validation" in kept["reason"]
    assert kept["original"]["data"] == {"n": -1}
    assert app.ledger.row("jobs") == {"received": 3, "stored": 2, "quarantined": 1, "refused": 0, "queued": 0}


@pytest.mark.gen_test
async def test_another_unique_index_refuses_one_and_its_neighbours_are_stored(fetch, app, collection):
    await app.store.prepare()
    collection.create_index("data.once", unique=True)
    await put(app, job({"once": 1}), job({"once": 1}), job({"once": 2}))
    assert collection.count_documents({}) == 2
    (kept,) = json.loads((await fetch("/quarantine")).body)
    assert kept["code"] == 11000


@pytest.mark.gen_test(timeout=30)
async def test_an_oversize_document_is_kept_whole_and_its_neighbours_are_stored(app, collection, database):
    noise = os.urandom(9_000_000).hex()
    oversize = bson.encode({"_id": ObjectId(), "message": "m", "data": noise, "timestamp": bson.DatetimeMS(1)})
    assert len(oversize) > 16 * 1024 * 1024
    await put(app, job(1), oversize, job(2))
    assert sorted(document["data"] for document in collection.find()) == [1, 2]
    kept = await app.store.quarantine.get(ObjectId(records.id_of(oversize)))
    assert kept["original"] == oversize
    assert database["logs_quarantine"].count_documents({}) == 3
    assert await app.store.quarantine.remove(kept["_id"])
    assert database["logs_quarantine"].count_documents({}) == 0


@pytest.mark.gen_test
async def test_what_the_driver_itself_refuses_is_found_by_bisection(app, collection):
    broken = job("x")[:-3] + b"\x01\x02\x03"
    await put(app, *(job(n) for n in range(5)), broken, *(job(n) for n in range(5, 9)))
    assert sorted(document["data"] for document in collection.find()) == list(range(9))
    kept = await app.store.quarantine.get(ObjectId(records.id_of(broken)))
    assert (kept["original"], kept["code"]) == (broken, "InvalidBSON")


@pytest.mark.gen_test
async def test_when_quarantine_cannot_be_written_the_record_is_kept_and_tried_again(app, validated, mongo):
    await app.store.prepare()
    bad = job({"n": -1})
    fail = {"failCommands": ["update"], "errorCode": 8000}
    mongo.admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": fail})
    try:
        await put(app, job({"n": 1}), bad)
        assert [record for _, record in app.queue.unstored()] == [bad]
    finally:
        mongo.admin.command({"configureFailPoint": "failCommand", "mode": "off"})
    while app.queue.unstored_count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert (app.queue.unstored_count, (await app.store.quarantine.get(ObjectId(records.id_of(bad))))["code"]) == (
        0,
        121,
    )


@pytest.mark.gen_test
async def test_stored_says_that_a_record_is_in_quarantine(fetch, validated):
    answer = json.loads((await fetch("/add-job?ack=stored", b'{"n":-1}')).body)
    assert (answer["message"], "validation" in answer["reason"]) == ("Job quarantined", True)
    answer = json.loads((await fetch("/add-jobs?ack=stored", b'[{"n":-1},{"n":1}]')).body)
    assert (answer["accepted"], answer["quarantined"]) == (1, 1)


@pytest.fixture
def one_bad(fetch, app, validated, io_loop):
    answer = io_loop.run_sync(lambda: fetch("/add-job?ack=stored", b'{"n":-1,"t":"x"}'))
    return json.loads(answer.body)["id"]


@pytest.mark.gen_test
async def test_replay_stores_the_record_once_nothing_is_in_its_way(fetch, one_bad, validated, database):
    refused = await fetch(f"/quarantine/{one_bad}/replay", b"")
    assert (refused.code, json.loads(refused.body)["type"]) == (409, "urn:logsrv:problem:still-refused")
    assert len(json.loads((await fetch("/quarantine")).body)) == 1
    database.command({"collMod": "logs", "validator": {}})
    stored = await fetch(f"/quarantine/{one_bad}/replay", b"")
    assert json.loads(stored.body) == {"message": "Record stored", "id": one_bad, "ack": "stored"}
    assert [str(document["_id"]) for document in validated.find()] == [one_bad]
    assert (await fetch("/quarantine")).body == b"[]"


@pytest.mark.gen_test
async def test_replay_with_a_body_corrects_the_data_and_keeps_the_rest(fetch, one_bad, validated):
    before = json.loads((await fetch(f"/quarantine/{one_bad}")).body)["original"]
    assert (await fetch(f"/quarantine/{one_bad}/replay", b'{"n":1}')).code == 200
    (stored,) = json.loads((await fetch("/logs")).body)
    assert stored == {**before, "data": {"n": 1}}


@pytest.mark.gen_test
async def test_a_line_that_was_no_json_is_replayed_with_a_correction(fetch, collection):
    ndjson = {"Content-Type": "application/x-ndjson"}
    await fetch("/add-jobs?ack=stored", b'1\n{"n":\n', headers=ndjson)
    (kept,) = json.loads((await fetch("/quarantine")).body)
    assert (kept["form"], kept["original"]) == ("raw", '{"n":')
    assert (await fetch(f"/quarantine/{kept['_id']}/replay", b"")).code == 400
    assert (await fetch(f"/quarantine/{kept['_id']}/replay", b'{"n":2}')).code == 200
    assert str(collection.find_one({"data.n": 2})["_id"]) == kept["_id"]


@pytest.mark.gen_test
async def test_delete_forgets_it(fetch, one_bad):
    assert (await fetch(f"/quarantine/{one_bad}", method="DELETE")).code == 204
    assert (await fetch(f"/quarantine/{one_bad}", method="DELETE")).code == 404
    assert (await fetch(f"/quarantine/{one_bad}")).code == 404
    assert (await fetch(f"/quarantine/{one_bad}/replay", b"1")).code == 404
    assert (await fetch("/quarantine/nonsense")).code == 404


@pytest.mark.gen_test
async def test_pages_lead_through_all_of_it_newest_first(fetch, app, validated):
    for n in range(1, 8):
        await put(app, job({"n": -n}))
    path, found = "/quarantine?limit=3", []
    while path:
        response = await fetch(path)
        found += [kept["original"]["data"]["n"] for kept in json.loads(response.body)]
        path = response.headers["Link"].partition(">")[0][1:] if "Link" in response.headers else None
    assert found == [-7, -6, -5, -4, -3, -2, -1]
    assert (await fetch("/quarantine?limit=0")).code == 400


@pytest.mark.gen_test
async def test_the_balance_is_a_gauge_and_tells_when_something_is_wrong(fetch, app, one_bad):
    text = (await fetch("/metrics")).body.decode()
    assert "logsrv_ledger_balance 0.0" in text
    assert 'logsrv_records_quarantined_total{source="jobs"} 1.0' in text
    app.queue.offer([job(1)])
    assert "logsrv_ledger_balance -1.0" in (await fetch("/metrics")).body.decode()
    app.writer._settle(app.queue.take(1, 1 << 20), Outcome())
    app.ledger.accepted("jobs", 1)
