"""The store on the real server; failures by the server's own fail points."""

import contextlib
import datetime
import json

import pytest
from bson import ObjectId

from tornado_logsrv import jsontext, records
from tornado_logsrv.errors import StartError, StoreUnavailable, WriteFailed
from tornado_logsrv.minutes import Minutes
from tornado_logsrv.store import Position, RecordStore

START = 1_700_000_000_000


@pytest.fixture
def store(options, io_loop):
    made = RecordStore(options.mongo_url, options.mongo_db, options.mongo_collection)
    yield made
    io_loop.run_sync(made.close)


IDS = records.Ids()


def job(value, moment=START):
    return records.encode_job(*jsontext.read(json.dumps(value).encode()), IDS.next(), moment)


@pytest.fixture
def fail(mongo):
    """``with fail(times=1, errorCode=…)``: the server fails the next insert commands."""

    @contextlib.contextmanager
    def fail(times=1, commands=("insert",), **how):
        admin = mongo.admin
        data = {"failCommands": list(commands), **how}
        admin.command({"configureFailPoint": "failCommand", "mode": {"times": times}, "data": data})
        yield
        admin.command({"configureFailPoint": "failCommand", "mode": "off"})

    return fail


@pytest.mark.gen_test
async def test_records_are_stored_as_they_are(store, collection):
    made = [job({"n": n, "$a.b": {"": 1}}) for n in range(3)]
    await store.write(made)
    assert [document["data"]["n"] for document in collection.find().sort("_id")] == [0, 1, 2]
    assert collection.find_one()["data"]["$a.b"] == {"": 1}


@pytest.mark.gen_test
async def test_a_record_that_is_there_already_is_stored(store, collection):
    made = [job(n) for n in range(4)]
    await store.write(made[:2])
    await store.write(made)
    assert collection.count_documents({}) == 4


@pytest.mark.gen_test
async def test_only_what_the_server_refuses_is_unwritten(store, collection):
    await store.prepare()
    collection.create_index("data.once", unique=True, sparse=True)
    made = [job({"once": n}) for n in (1, 2, 1, 3)]
    with pytest.raises(WriteFailed) as failed:
        await store.write(made)
    assert failed.value.unwritten == [2]
    assert collection.count_documents({}) == 3


async def written(store, made):
    """Write until it succeeds, as the writer does: the driver needs a heartbeat to trust the server again."""
    while True:
        with contextlib.suppress(WriteFailed):
            return await store.write(made)


@pytest.mark.parametrize(
    ("how", "stored"),
    [
        ({"errorCode": 10107}, 0),
        ({"errorCode": 462, "errorLabels": ["SystemOverloadedError"]}, 0),
        ({"closeConnection": True}, 0),
        ({"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}, 2),
    ],
    ids=["not primary", "overloaded", "network", "write concern"],
)
@pytest.mark.gen_test(timeout=30)
async def test_after_a_failed_write_nothing_counts_as_stored_and_the_next_makes_it_so(
    store, collection, fail, how, stored
):
    made = [job(n) for n in range(2)]
    await store.write([job("before")])
    with fail(times=5, **how), pytest.raises(WriteFailed) as failed:
        await store.write(made)
    assert list(failed.value.unwritten) == [0, 1]
    assert collection.count_documents({}) == 1 + stored
    await written(store, made)
    assert collection.count_documents({}) == 3


@pytest.mark.gen_test
async def test_a_server_that_is_away_is_a_failed_write_and_a_failed_read():
    away = RecordStore("mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=50", "x", "y")
    with pytest.raises(WriteFailed):
        await away.write([job(1)])
    with pytest.raises(StoreUnavailable):
        await away.page("desc", None, None, None, 1)
    await away.close()


def test_a_url_that_is_none_is_named():
    with pytest.raises(StartError, match="--mongo_url"):
        RecordStore("mongodb://", "x", "y")


@pytest.mark.gen_test
async def test_the_reading_order_has_its_index_and_a_page_is_a_range_of_it(store, collection):
    await store.write([job(n, START + n) for n in range(50)])
    assert [("timestamp", 1), ("_id", 1)] in [index["key"] for index in map(key_of, collection.list_indexes())]
    low = datetime.datetime.fromtimestamp(START / 1000, datetime.UTC)
    for query in ({"timestamp": {"$gte": low}}, {"timestamp": low, "_id": {"$lt": ObjectId()}}):
        plan = collection.find(query).sort([("timestamp", -1), ("_id", -1)]).explain()["queryPlanner"]["winningPlan"]
        assert "IXSCAN" in str(plan)
        assert "COLLSCAN" not in str(plan)


def key_of(index):
    return {"key": list(index["key"].items())}


async def walk(store, order, limit, low=None, high=None):
    after, found = None, []
    while page := await store.page(order, low, high, after, limit):
        found += page
        last = page[-1]
        after = Position(round(last["timestamp"].timestamp() * 1000), last["_id"])
    return [document["data"] for document in found]


#: A crowd, many in one millisecond, a gap of hours, one alone, a gap of years.
MOMENTS = [START - 10**11] + [START] * 7 + [START + n for n in range(40)] + [START + 7 * 3_600_000]


@pytest.mark.parametrize("hinted", [True, False])
@pytest.mark.parametrize("limit", [1, 3, 10, 100])
@pytest.mark.gen_test
async def test_pages_hold_every_record_once_and_in_order(store, limit, hinted):
    made = sorted(((moment, n) for n, moment in enumerate(MOMENTS)), key=lambda pair: pair[0])
    await store.write([job(n, moment) for moment, n in made])
    if not hinted:
        store._minutes = None
    ascending = [n for _, n in made]
    assert await walk(store, "asc", limit) == ascending
    assert await walk(store, "desc", limit) == ascending[::-1]
    inside = [n for moment, n in made if START <= moment < START + 5]
    assert await walk(store, "desc", limit, START, START + 5) == inside[::-1]
    assert await walk(store, "asc", limit, START, START + 5) == inside


@pytest.mark.gen_test
async def test_the_hint_outlives_the_process_and_records_it_does_not_know_are_found(store, options, collection):
    await store.write([job(1, START)])
    collection.insert_one({"data": 2, "timestamp": datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC)})
    again = RecordStore(options.mongo_url, options.mongo_db, options.mongo_collection)
    assert await walk(again, "desc", 10) == [1, 2]
    if again._minutes is not None:
        assert again._minutes.unsaved() == {}
    await again.close()


@pytest.mark.parametrize("low", [None, START - 5, START + 90_000])
@pytest.mark.parametrize("high", [None, START + 200_000, START + 10**9])
def test_ranges_tile_the_time_asked_for(low, high):
    minutes = Minutes()
    minutes.note([START, START + 100_000, START + 10**8])
    up = list(minutes.ranges_up(low, high))
    down = list(minutes.ranges_down(low, high))[::-1]
    for tiles in (up, down):
        assert (tiles[0][0], tiles[-1][1]) == (low, high)
        assert [end for _, end in tiles[:-1]] == [start for start, _ in tiles[1:]]
