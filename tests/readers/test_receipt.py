"""GET /logs/{id}: every place a record can be in, on the real servers."""

import asyncio
import json

import bson
import pytest
from bson import ObjectId

from tornado_logsrv import records
from tornado_logsrv.config import Options
from tornado_logsrv.readers import receipt


async def added(fetch, body=b'{"n":1}', query=""):
    return json.loads((await fetch(f"/add-job{query}", body)).body)["id"]


async def asked(fetch, record_id):
    response = await fetch(f"/logs/{record_id}")
    return response.code, json.loads(response.body)


@pytest.mark.gen_test
async def test_a_record_is_queued_and_then_stored(fetch, app):
    record_id = await added(fetch)
    status, queued = await asked(fetch, record_id)
    assert (status, queued["_id"], queued["state"], queued["record"]["data"]) == (200, record_id, "queued", {"n": 1})
    await app.writer.flush()
    status, stored = await asked(fetch, record_id)
    assert (status, stored["state"], stored["record"]) == (200, "stored", queued["record"])


@pytest.mark.gen_test
async def test_a_record_in_a_write_is_in_flight(fetch, app, monkeypatch):
    gate, write = asyncio.Event(), app.store.write

    async def held(found):
        await gate.wait()
        return await write(found)

    monkeypatch.setattr(app.store, "write", held)
    record_id = await added(fetch)
    app.writer.flush_soon()
    await asyncio.sleep(0)
    assert (await asked(fetch, record_id))[1]["state"] == "in-flight"
    gate.set()
    await app.writer.flush()
    assert (await asked(fetch, record_id))[1]["state"] == "stored"


@pytest.mark.gen_test
async def test_what_mongodb_refuses_is_quarantined_with_why(fetch, app, collection):
    await app.store.prepare()
    collection.create_index("data.once", unique=True, sparse=True)
    await added(fetch, b'{"once":1}')
    record_id = await added(fetch, b'{"once":1}')
    await app.writer.flush()
    status, found = await asked(fetch, record_id)
    assert (status, found["state"], found["code"]) == (200, "quarantined", 11000)
    assert found["record"]["data"] == {"once": 1}
    assert "once" in found["reason"]


@pytest.mark.gen_test
async def test_a_line_that_is_no_json_is_queued_and_then_quarantined_as_it_was_sent(fetch, app):
    await fetch("/add-jobs", b"1\n{oops\n", headers={"Content-Type": "application/x-ndjson"})
    (bad,) = [record for record in app.records if records.is_bad(record)]
    record_id = ObjectId(records.id_of(bad))
    _, queued = await asked(fetch, record_id)
    assert (queued["state"], queued["record"].strip()) == ("queued", "{oops")
    await app.writer.flush()
    _, found = await asked(fetch, record_id)
    assert (found["state"], found["record"], found["reason"]) == ("quarantined", queued["record"], queued["reason"])


@pytest.mark.gen_test
async def test_what_nobody_knows_is_a_404_whose_state_is_unknown(fetch):
    status, problem = await asked(fetch, ObjectId())
    assert (status, problem["type"], problem["state"]) == (404, "urn:logsrv:problem:not-found", "unknown")
    for path in ("/logs/xyz", f"/logs/{'0' * 23}"):
        assert (await fetch(path)).code == 404


@pytest.mark.gen_test
async def test_it_cannot_be_told_while_records_of_before_are_read_back(fetch, app, monkeypatch):
    known, unknown = await added(fetch), ObjectId()
    monkeypatch.setattr(type(app.backup), "recovering", True)
    assert (await asked(fetch, known))[1]["state"] == "queued"
    response = await fetch(f"/logs/{unknown}")
    assert (response.code, response.headers["Retry-After"]) == (503, "1")


class TestAway:
    """MongoDB is not there, and the queue overflows into the spool."""

    @pytest.fixture
    def options(self, options: Options) -> Options:
        away = {"mongo_url": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"}
        return Options(**{**options.__dict__, **away, "queue_max_bytes": 1000, "spool_max_bytes": 10_000_000})

    @pytest.mark.gen_test
    async def test_what_is_queued_or_spooled_is_found_and_the_rest_cannot_be_told(self, fetch, app):
        found = [await added(fetch, b'{"n":"%b"}' % (b"x" * 400)) for _ in range(5)]
        states = [(await asked(fetch, record_id))[1] for record_id in found]
        assert [state["state"] for state in states] == ["queued"] * 5
        assert [state.get("spooled", False) for state in states] == [False] * 2 + [True] * 3
        assert all(state["record"]["_id"] == record_id for state, record_id in zip(states, found, strict=True))
        status, problem = await asked(fetch, ObjectId())
        assert (status, problem["type"]) == (503, "urn:logsrv:problem:store-unavailable")


@pytest.mark.gen_test
async def test_looking_through_a_long_queue_gives_others_their_turn(app, monkeypatch):
    """The longest that nobody else had a turn is one slice, not the queue."""
    monkeypatch.setattr(receipt, "SLICE", 100)
    ids = records.Ids()
    made = [records.encode_job(n, [], ids.next(), 0) for n in range(5000)]
    app.queue.offer(made)
    app.ledger.recovered(made)
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    waiting = asyncio.ensure_future(others())
    wanted = ObjectId(records.id_of(made[0]))
    found = await app.whereabouts.find(wanted)
    waiting.cancel()
    assert (found["state"], found["record"]["data"]) == ("queued", 0)
    assert turns >= 45


@pytest.mark.gen_test
async def test_the_same_bytes_within_another_record_are_not_it(fetch, app):
    wanted = ObjectId()
    inside = bson.encode({"_id": wanted})
    await fetch("/add-jobs", b"1\n\xff" + inside, headers={"Content-Type": "application/x-ndjson"})
    assert (await asked(fetch, wanted))[0] == 404
