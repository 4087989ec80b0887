"""--index: which names it takes, that its indexes are made beside all else, and that the search uses them."""

import logging

import pytest

from tornado_logsrv import indexes, records
from tornado_logsrv.config import load
from tornado_logsrv.errors import OptionError
from tornado_logsrv.indexer import LOOK_SECONDS, Indexer
from tornado_logsrv.query import parse
from tornado_logsrv.reading import Selection
from tornado_logsrv.store import RecordStore

START = 1_767_323_045_678


@pytest.fixture
def store(options, io_loop):
    made = RecordStore(options.mongo_url, options.mongo_db, options.mongo_collection)
    yield made
    io_loop.run_sync(made.close)


async def stored(store, values, step_ms=1000):
    ids = records.Ids(lambda: 1_700_000_000)
    await store.write([records.encode_job(v, [], ids.next(), START + n * step_ms) for n, v in enumerate(values)])


def keys(collection):
    return {name: index["key"] for name, index in collection.index_information().items()}


def test_names_are_those_of_q():
    given = indexes.parse("level, data.service,trace_id,source,level")
    assert given == ("data.level", "data.service", "data.trace_id", "source")


@pytest.mark.parametrize(
    "name", ["timestamp", "_id", "data", "message", "data.msg", "a.b", "$x", "a..b", "x\x07y", "data."]
)
def test_a_field_that_no_index_would_help_is_an_option_error(name):
    with pytest.raises(OptionError, match="--index: must be names such as"):
        load([f"--index=level,{name},b"], {})


@pytest.mark.gen_test
async def test_an_index_is_in_the_reading_order_and_made_once(store, collection, caplog):
    caplog.set_level(logging.INFO)
    indexer = Indexer(store, ["data.level", "source"])
    indexer.tenants = lambda: ["acme"]
    for _ in range(2):
        assert await indexer.try_make() == LOOK_SECONDS
    await Indexer(store, ["data.level", "source"]).try_make()
    for each in (collection, collection.database[f"{collection.name}_acme"]):
        assert keys(each)["logsrv_data.level"] == [("data.level", 1), ("timestamp", 1), ("_id", 1)]
        assert "logsrv_source" in keys(each)
    assert caplog.text.count("has an index for") == 4
    assert store.reader.indexed >= {"data.level", "source", "timestamp"}


@pytest.mark.gen_test
async def test_an_index_of_somebody_else_with_the_same_keys_is_left_and_used(store, collection):
    await store.prepare()
    collection.create_index(indexes.keys("data.level"), name="mine")
    await Indexer(store, ["data.level"]).try_make()
    assert "mine" in keys(collection)
    assert "logsrv_data.level" not in keys(collection)


@pytest.mark.gen_test
async def test_an_index_stays_when_its_option_is_taken_away(store, collection):
    await Indexer(store, ["data.level"]).try_make()
    await Indexer(store, []).try_make()
    assert "logsrv_data.level" in keys(collection)


@pytest.mark.gen_test
async def test_what_cannot_be_made_is_told_once_and_tried_again(store, collection, mongo, caplog):
    await store.prepare()
    fail = {"configureFailPoint": "failCommand", "data": {"failCommands": ["createIndexes"], "errorCode": 10107}}
    mongo.admin.command({**fail, "mode": {"times": 2}})
    indexer = Indexer(store, ["data.level"])
    waits = [await indexer.try_make() for _ in range(3)]
    assert max(waits[:2]) < LOOK_SECONDS == waits[2]
    assert caplog.text.count("an index of --index cannot be made") == 1
    assert "logsrv_data.level" in keys(collection)


@pytest.mark.gen_test
async def test_a_server_makes_them_while_it_serves(app, collection):
    app.indexer._paths = indexes.parse("level")
    await app.indexer.try_make()
    assert "logsrv_data.level" in keys(collection)


@pytest.mark.gen_test
async def test_a_rare_value_is_found_by_its_index_in_few_readings(store, collection, monkeypatch):
    # So far apart that SecantusDB is asked for many ranges.
    await stored(store, [{"n": n, "k": "Rare" if n in (3, 500) else "usual"} for n in range(600)])
    aggregate, asked = store.reader._collection.aggregate, []

    class Counting:
        def aggregate(self, *given, **more):
            asked.append(given)
            return aggregate(*given, **more)

    monkeypatch.setattr(store.reader, "_collection", Counting())

    async def found(order, query):
        asked.clear()
        page = await store.reader.page(Selection(query=parse(query)), order, limit=100)
        return [document["data"]["n"] for document in page.documents], len(asked)

    (without, many), (backwards, _) = await found("asc", "k:rare"), await found("desc", "k:rare AND n:<400")
    assert (without, backwards) == ([3, 500], [3])
    await store.make_index("data.k")
    monkeypatch.setattr(store.reader, "_collection", Counting())
    (with_index, few), (backwards, _) = await found("asc", "k:rare"), await found("desc", "k:rare AND n:<400")
    assert (with_index, backwards) == ([3, 500], [3])
    assert few < many or store.reader.occupancy is None


QUERIES = ("k:a", "k:7", "m:5", "m:5 AND k:a", "k:b OR m:3", "NOT m:4", "m:5 AND n:>300")


@pytest.mark.gen_test(timeout=60)
async def test_the_same_is_found_with_an_index_as_without_one(store):
    kinds = ["A", "a", 7, "7", None, ["a", "b"], {"x": 1}]
    await stored(store, [{"n": n, "k": kinds[n % 7], "m": n % 97} for n in range(600)])

    async def found():
        return [
            [document["data"]["n"] for document in (await store.reader.page(selection, order)).documents]
            for selection in (Selection(query=parse(query)) for query in QUERIES)
            for order in ("asc", "desc")
        ]

    before = await found()
    for path in ("data.k", "data.m"):
        await store.make_index(path)
    assert await found() == before
    assert before[4][:3] == [5, 102, 199]
