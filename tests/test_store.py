"""The store on the real server; failures by the server's own fail points."""

import contextlib
import datetime
import gc
import json
import math

import pytest
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from hypothesis import given
from hypothesis import strategies as st

from tornado_logsrv import jsontext, records
from tornado_logsrv.errors import StartError, StoreUnavailable
from tornado_logsrv.occupancy import Occupancy
from tornado_logsrv.reading import Selection
from tornado_logsrv.store import RecordStore

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
async def test_only_what_the_server_refuses_is_quarantined(store, collection):
    await store.prepare()
    collection.create_index("data.once", unique=True, sparse=True)
    made = [job({"once": n}) for n in (1, 2, 1, 3)]
    outcome = await store.write(made)
    assert (list(outcome.unwritten), list(outcome.quarantined)) == ([], [2])
    assert collection.count_documents({}) == 3


async def written(store, made):
    """Write until it succeeds, as the writer does: the driver needs a heartbeat to trust the server again."""
    while True:
        if not (await store.write(made)).unwritten:
            return


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
    with fail(times=5, **how):
        outcome = await store.write(made)
    assert list(outcome.unwritten) == [0, 1]
    assert outcome.problem
    assert collection.count_documents({}) == 1 + stored
    await written(store, made)
    assert collection.count_documents({}) == 3


@pytest.mark.parametrize(
    ("how", "times"),
    [({"errorCode": 10107}, 5), ({"closeConnection": True}, 5), ({"errorCode": 121}, 3)],
    ids=["not primary", "network", "refused one by one"],
)
@pytest.mark.gen_test(timeout=30)
async def test_a_failed_write_does_not_hold_its_records_until_somebody_collects_garbage(store, fail, how, times):
    made = [job("x" * 100_000) for _ in range(2)]
    await store.write([job("before")])
    gc.collect()
    gc.disable()
    try:
        with fail(times=times, **how):
            await store.write(made)
        held = [each for each in gc.get_objects() if type(each) is RawBSONDocument and each.raw in made]
    finally:
        gc.enable()
    assert len(held) == 0


@pytest.mark.gen_test
async def test_a_server_that_is_away_is_a_failed_write_and_a_failed_read():
    away = RecordStore("mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=50", "x", "y")
    assert list((await away.write([job(1)])).unwritten) == [0]
    with pytest.raises(StoreUnavailable):
        await away.reader.page(Selection())
    await away.close()


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://",
        "mongodb://u:hunter2@h:port",
        "mongodb://h/?tls=true&tlsCAFile=/none.pem",
        f"mongodb://h/?tls=true&tlsCAFile={__file__}",
        f"mongodb://h/?tls=true&tlsCertificateKeyFile={__file__}&tlsCertificateKeyFilePassword=hunter2",
    ],
)
def test_a_url_that_is_none_is_named_and_its_password_is_not(url):
    with pytest.raises(StartError, match=r"^--mongo_url: .") as wrong:
        RecordStore(url, "x", "y")
    assert "hunter2" not in str(wrong.value)


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
    while True:
        page = await store.reader.page(Selection(low, high), order, after, limit)
        found += page.documents
        if page.next is None:
            return [document["data"] for document in found]
        assert len(page.documents) == limit
        after = page.next


#: A crowd, many in one millisecond, a gap of hours, one alone, a gap of years.
MOMENTS = [START - 10**11] + [START] * 7 + [START + n for n in range(40)] + [START + 7 * 3_600_000]


@pytest.mark.parametrize("hinted", [True, False])
@pytest.mark.parametrize("limit", [1, 3, 10, 100])
@pytest.mark.gen_test
async def test_pages_hold_every_record_once_and_in_order(store, limit, hinted):
    made = sorted(((moment, n) for n, moment in enumerate(MOMENTS)), key=lambda pair: pair[0])
    await store.write([job(n, moment) for moment, n in made])
    if not hinted:
        store.reader.occupancy = None
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
    if again.reader.occupancy is not None:
        assert again.reader.occupancy.unsaved() == []
    await again.close()


MOMENT_LISTS = st.lists(st.integers(-200_000, 200_000).map(lambda offset: START + offset), max_size=40)


@given(MOMENT_LISTS, st.none() | st.integers(-200_000, 200_000), st.none() | st.integers(1, 300_000), st.booleans())
def test_ranges_tile_the_time_asked_for(moments, low, length, crowded):
    occupancy = Occupancy()
    for moment in moments:
        occupancy.note([moment] * (600 if crowded and moment % 3 else 1))
    low = None if low is None else START + low
    high = None if length is None else (low or START) + length
    ranges = (occupancy.ranges_up(low, high), [*occupancy.ranges_down(low, high)][::-1])
    pieces = (occupancy.pieces_up(low, high), [*occupancy.pieces_down(low, high)][::-1])
    for tiles in map(list, (*ranges, *pieces)):
        assert (tiles[0][0], tiles[-1][1]) == (low, high)
        assert [end for _, end in tiles[:-1]] == [start for start, _ in tiles[1:]]


def held(occupied, start, end):
    return sum(count for moment, count in occupied.items() if start <= moment < end)


@pytest.mark.parametrize("hidden_behind", [0, 1, 50, 400])
def test_no_range_reaches_across_a_gap_or_quiet_records_into_a_crowd(hidden_behind):
    """A million records in half a minute, then little, then nothing for hours: what a page reads stays small."""
    occupied = {START + ms: 33 for ms in range(30_000)}
    occupied |= {START + 60_000 + n * 1700: 1 for n in range(hidden_behind)}
    occupancy = Occupancy()
    for moment, count in occupied.items():
        occupancy.note([moment] * count)
    read = 0
    for start, end in occupancy.ranges_down(None, START + 10**8):
        read += held(occupied, start or 0, end)
        if read >= hidden_behind + 100:
            break
    assert read <= hidden_behind + 1000


@pytest.mark.parametrize("quiet", [0, 1, 50, 5000])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pieces_for_an_index_are_few_and_none_reaches_from_beside_into_a_crowd(quiet, order):
    """Something each second, then a crowd, all of which is sought."""
    occupancy, sign = Occupancy(), 1 if order == "asc" else -1
    occupancy.note(START + sign * 1000 * n for n in range(quiet))
    crowd = START + sign * 1000 * (quiet + 5)
    sought = {crowd + ms: 33 for ms in range(1000)}
    for moment, count in sought.items():
        occupancy.note([moment] * count)
    read = pieces = 0
    for start, end in occupancy.pieces_up(None, None) if order == "asc" else occupancy.pieces_down(None, None):
        read, pieces = read + held(sought, start or 0, math.inf if end is None else end), pieces + 1
        if read >= 100:
            break
    assert 100 <= read <= 1000
    assert pieces <= 5 + (0 if quiet < 100 else 40)


def test_pieces_grow_with_what_they_have_passed_and_not_with_gaps():
    occupancy = Occupancy()
    occupancy.note(START + 1000 * n for n in range(36_000))
    occupancy.note([START + 10**11])
    pieces = list(occupancy.pieces_down(None, None))
    assert len(pieces) < 60
    passed = 0
    for start, end in pieces[1:-1]:
        width = min(end, START + 36_000_000) - start
        assert width <= max(64_000, passed / 8 + 1000)
        passed += width


def test_what_is_saved_is_what_is_loaded():
    occupancy, again = Occupancy(), Occupancy()
    occupancy.note([START] * 600 + [START + 5_000, START + 10**8])
    for hour_ms, minute, seconds, crowds in occupancy.unsaved():
        again.load(hour_ms, minute, seconds, crowds)
    assert list(again.ranges_down(None, None)) == list(occupancy.ranges_down(None, None))
    occupancy.saved()
    assert occupancy.unsaved() == []
