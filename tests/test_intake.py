"""The levels of acknowledgement over HTTP, on the real MongoDB and Redis."""

import asyncio
import gzip
import json

import bson
import pytest

from tornado_logsrv.config import Options
from tornado_logsrv.outcome import Outcome
from tornado_logsrv.streams import connect

AWAY = "redis://127.0.0.1:9"


def with_options(options: Options, **changed: object) -> Options:
    return Options(**{**options.__dict__, **changed})


@pytest.fixture
def stream(redis_client, prefix):
    """The records in this instance's stream, decoded."""

    def stream():
        entries = redis_client.xrange(f"{prefix}:backup:test")
        return [document for _, fields in entries for document in bson.decode_all(fields[b"r"])]

    return stream


async def settled(app):
    await app.writer.flush()
    for task in (app.backup._trimming, app.backup._filling):
        if task:
            await task


@pytest.mark.gen_test
async def test_memory_is_on_the_queue_alone(fetch, app, stream):
    assert json.loads((await fetch("/add-job?ack=memory", b"1")).body)["ack"] == "memory"
    assert (len(app.records), stream()) == (1, [])


@pytest.mark.gen_test
async def test_journal_is_in_redis_before_the_answer_and_leaves_when_stored(fetch, app, stream, collection):
    answer = json.loads((await fetch("/add-job?ack=journal", b'{"a":1}')).body)
    assert answer["ack"] == "journal"
    assert [(str(document["_id"]), document["data"]) for document in stream()] == [(answer["id"], {"a": 1})]
    await settled(app)
    assert (stream(), collection.count_documents({})) == ([], 1)


@pytest.mark.gen_test
async def test_stored_is_in_mongodb_before_the_answer_without_a_tick(fetch, collection):
    answer = json.loads((await fetch("/add-job?ack=stored", b'{"a":1}')).body)
    assert answer["ack"] == "stored"
    assert str(collection.find_one()["_id"]) == answer["id"]


@pytest.mark.gen_test
async def test_many_waiting_for_storage_share_writes(fetch, app, collection):
    answers = await asyncio.gather(*(fetch("/add-job?ack=stored", b"%d" % n) for n in range(50)))
    assert {answer.code for answer in answers} == {202}
    assert collection.count_documents({}) == 50


@pytest.mark.gen_test
async def test_an_ack_that_there_is_not_is_a_400(fetch):
    problem = json.loads((await fetch("/add-job?ack=maybe", b"1")).body)
    assert (problem["status"], problem["parameter"]) == (400, "ack")


@pytest.mark.gen_test
async def test_appends_of_concurrent_requests_share_round_trips(fetch, app):
    append, groups, gate = app.journal._stream.append, [], asyncio.Event()

    async def counted(entries):
        groups.append([len(entry) for entry in entries])
        await gate.wait()
        return await append(entries)

    app.journal._stream.append = counted
    first = asyncio.ensure_future(app.intake.accept([record(0)], "journal", "jobs"))
    while not groups:  # noqa: ASYNC110
        await asyncio.sleep(0)
    others = [asyncio.ensure_future(app.intake.accept([record(n)], "journal", "jobs")) for n in range(1, 100)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, *others)
    assert groups == [[1], [99]]


def record(n):
    return bson.encode({"_id": bson.ObjectId(), "message": "m", "data": n, "timestamp": bson.DatetimeMS(n)})


@pytest.mark.gen_test
async def test_an_entry_of_several_requests_stays_until_all_of_them_are_stored(app, stream):
    await asyncio.gather(*(app.intake.accept([record(n)], "journal", "jobs") for n in range(3)))
    batch = app.queue.take(2, 1 << 20)
    app.writer._settle(batch, Outcome())
    for task in (app.backup._trimming, app.backup._filling):
        if task:
            await task
    assert [document["data"] for document in stream()] == [0, 1, 2]
    await settled(app)
    assert stream() == []


class TestRedisAway:
    @pytest.fixture
    def options(self, options):
        return with_options(options, redis_url=AWAY, ack="journal")

    @pytest.mark.gen_test
    async def test_journal_is_503_and_nothing_is_taken_but_memory_and_stored_go_on(self, fetch, app, collection):
        refused = await fetch("/add-job", b"1")
        assert (refused.code, refused.headers["Retry-After"]) == (503, "1")
        assert json.loads(refused.body)["type"] == "urn:logsrv:problem:journal-unavailable"
        assert (len(app.records), app.queue._reserved) == (0, 0)
        assert (await fetch("/add-job?ack=memory", b"2")).code == 202
        assert (await fetch("/add-job?ack=stored", b"3")).code == 202
        assert app.ledger.row("jobs")["refused"] == 1
        assert collection.count_documents({}) == 2


@pytest.mark.gen_test
async def test_redis_going_away_in_the_middle_refuses_all_that_wait_and_it_comes_back(fetch, app, options, stream):
    working, app.journal._stream._redis = app.journal._stream._redis, connect(AWAY)
    answers = await asyncio.gather(*(fetch("/add-job?ack=journal", b"%d" % n) for n in range(20)))
    assert {answer.code for answer in answers} == {503}
    assert (len(app.records), app.queue._reserved) == (0, 0)
    await app.journal._stream._redis.aclose()
    app.journal._stream._redis = working
    app.journal._pause_until = 0.0
    assert (await fetch("/add-job?ack=journal", b"1")).code == 202
    assert len(stream()) == 1


class TestMongoAway:
    @pytest.fixture
    def options(self, options):
        away = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
        return with_options(options, mongo_url=away, stored_timeout=0.3)

    @pytest.mark.gen_test
    async def test_stored_is_504_and_the_records_are_safe(self, fetch, app, stream):
        answer = await fetch("/add-job?ack=stored", b'{"a":1}')
        assert (answer.code, json.loads(answer.body)["type"]) == (504, "urn:logsrv:problem:stored-timeout")
        assert app.queue.unstored_count == 1
        assert [document["data"] for document in stream()] == [{"a": 1}]
        assert not app.queue.awaited
        assert app.ledger.row("jobs") == {"received": 1, "stored": 0, "quarantined": 0, "refused": 0, "queued": 1}


class TestFull:
    @pytest.fixture
    def options(self, options):
        return with_options(options, queue_max_bytes=200)

    @pytest.mark.parametrize("ack", ["memory", "journal", "stored"])
    @pytest.mark.gen_test
    async def test_a_request_that_does_not_fit_is_refused_whole_and_not_journaled(self, fetch, app, stream, ack):
        response = await fetch(f"/add-jobs?ack={ack}", b'["aaaa","bbbb","cccc","dddd"]')
        assert response.code == 503
        assert (len(app.records), stream(), app.queue._reserved) == (0, [], 0)
        assert app.ledger.row("jobs")["refused"] == 4


@pytest.mark.gen_test
async def test_a_resend_with_the_same_key_is_stored_once_and_answered_as_success(fetch, app, collection):
    key = {"Idempotency-Key": '"order-17"'}
    first = json.loads((await fetch("/add-job", b'{"a":1}', headers=key)).body)
    again = json.loads((await fetch("/add-job?ack=stored", b'{"a":1}', headers=key)).body)
    later = json.loads((await fetch("/add-job?ack=stored", b'{"a":1}', headers={"Idempotency-Key": "order-17"})).body)
    assert first["id"] == again["id"] == later["id"]
    assert (later["message"], collection.count_documents({})) == ("Job added", 1)
    other = json.loads((await fetch("/add-job", b'{"a":1}', headers={"Idempotency-Key": "order-18"})).body)
    assert other["id"] != first["id"]


@pytest.mark.parametrize("key", ["", '""', "x" * 256])
@pytest.mark.gen_test
async def test_a_key_that_cannot_be_one_is_a_400(fetch, key):
    response = await fetch("/add-job", b"1", headers={"Idempotency-Key": key})
    assert (response.code, json.loads(response.body)["parameter"]) == (400, "Idempotency-Key")


@pytest.mark.gen_test
async def test_the_records_of_a_request_have_keys_of_their_own(fetch, app, collection):
    body = b'[{"id":"a","n":1},{"id":"b","n":2},{"n":3}]'
    for _ in range(2):
        response = await fetch("/add-jobs?ack=stored&key_field=id", body)
        assert json.loads(response.body) == {"message": "Jobs added", "accepted": 3, "quarantined": 0, "ack": "stored"}
    assert sorted(document["data"]["n"] for document in collection.find()) == [1, 2, 3, 3]
    for _ in range(2):
        await fetch("/add-jobs?ack=stored", b"[1,2]", headers={"Idempotency-Key": "k"})
    assert collection.count_documents({"data": {"$in": [1, 2]}}) == 2


LINES = b'{"n":1}\nnot json\n\n{"n":2}\r\n{"n":'


@pytest.mark.gen_test
async def test_a_line_that_is_not_json_goes_to_quarantine_and_costs_no_other(fetch, app, collection, database):
    response = await fetch("/add-jobs?ack=stored", LINES, headers={"Content-Type": "application/x-ndjson"})
    assert json.loads(response.body) == {"message": "Jobs added", "accepted": 2, "quarantined": 2, "ack": "stored"}
    assert sorted(document["data"]["n"] for document in collection.find()) == [1, 2]
    kept = list(database["logs_quarantine"].find().sort("_id"))
    assert [(document["original"], document["code"], document["form"]) for document in kept] == [
        (b"not json", "unreadable", "raw"),
        (b'{"n":', "unreadable", "raw"),
    ]
    assert kept[0]["reason"].startswith("line 2: ")
    assert app.ledger.row("jobs") == {"received": 4, "stored": 2, "quarantined": 2, "refused": 0, "queued": 0}


@pytest.mark.gen_test
async def test_only_when_no_line_is_json_is_it_a_400(fetch, app):
    response = await fetch("/add-jobs", b"a\nb\n", headers={"Content-Type": "application/x-ndjson"})
    assert (response.code, len(app.records)) == (400, 0)
    assert (await fetch("/add-jobs", b"[1,2")).code == 400
    assert (await fetch("/add-jobs", b"")).code == 400
    assert json.loads((await fetch("/add-jobs", b"[]")).body)["accepted"] == 0


@pytest.mark.gen_test
async def test_bodies_may_be_compressed_and_limits_hold_after(fetch, app, options):
    packed = gzip.compress(b"[1,2,3]")
    response = await fetch("/add-jobs", packed, headers={"Content-Encoding": "gzip"})
    assert json.loads(response.body)["accepted"] == 3
    bomb = gzip.compress(b"[" + b" " * (options.max_body_bytes + 1) + b"]")
    response = await fetch("/add-jobs", bomb, headers={"Content-Encoding": "gzip"})
    assert (response.code, len(app.records)) == (413, 3)
    broken = await fetch("/add-jobs", packed[:-9], headers={"Content-Encoding": "gzip"})
    assert broken.code == 400


class TestSpool:
    """A queue of a few records and a spool behind it."""

    @pytest.fixture
    def options(self, options):
        return with_options(options, queue_max_bytes=1000, spool_max_bytes=5000)

    @pytest.mark.parametrize("ack", ["memory", "journal"])
    @pytest.mark.gen_test
    async def test_a_full_queue_overflows_to_files_and_is_stored_in_order(self, fetch, app, collection, stream, ack):
        for n in range(40):
            assert (await fetch(f"/add-job?ack={ack}", b"%d" % n)).code == 202
        assert app.queue.size_bytes <= 1000
        assert app.spool.count == 40 - len(app.records)
        assert app.ledger.row("jobs")["queued"] == 40
        while app.unsettled:
            await settled(app)
        assert [document["data"] for document in collection.find().sort("$natural", 1)] == list(range(40))
        assert (app.spool.size_bytes, stream()) == (0, [])
        assert not list(app.spool._segments._directory.glob("spool-*"))

    @pytest.mark.gen_test
    async def test_when_both_are_full_it_is_503(self, fetch, app):
        codes = [(await fetch("/add-job", b"%d" % n)).code for n in range(100)]
        taken = codes.count(202)
        assert codes == [202] * taken + [503] * (100 - taken)
        assert app.queue.size_bytes + app.spool.size_bytes <= 6000
        assert app.ledger.row("jobs")["refused"] == 100 - taken

    @pytest.mark.gen_test
    async def test_a_full_disk_refuses_and_hides_no_record(self, fetch, app, monkeypatch, collection):
        for n in range(20):
            await fetch("/add-job", b"%d" % n)
        path, file = app.spool._open

        class Full:
            def write(self, data):
                file.write(data[:10])
                raise OSError(28, "No space left on device")

            def __getattr__(self, name):
                return getattr(file, name)

        app.spool._open = (path, Full())
        refused = await fetch("/add-job", b'"does not fit"')
        assert (refused.code, "No space left" in json.loads(refused.body)["detail"]) == (503, True)
        app.spool._open = (path, file)
        assert (await fetch("/add-job", b'"fits"')).code == 202
        while app.unsettled:
            await settled(app)
        stored = [document["data"] for document in collection.find().sort("$natural", 1)]
        assert stored == [*range(20), "fits"]
