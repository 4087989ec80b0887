"""--index: which names it takes, that its indexes are made beside all else, and that the search uses them."""

import logging

import pytest
from pymongo.errors import ExecutionTimeout

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


@pytest.fixture
def asked(store, monkeypatch):
    """The pipelines that the reader sends, as they are sent."""
    collection, sent = store.reader._collection, []

    class Noting:
        def aggregate(self, pipeline, **more):
            sent.append(pipeline)
            return collection.aggregate(pipeline, **more)

    monkeypatch.setattr(store.reader, "_collection", Noting())
    return sent


async def found(store, order, query, **more):
    page = await store.reader.page(Selection(query=parse(query)), order, **more)
    return [document["data"]["n"] for document in page.documents], page.next


@pytest.mark.gen_test(timeout=60)
async def test_a_rare_value_is_found_by_its_index_and_no_range_of_time_is_read_for_it(store, asked):
    # So far apart that SecantusDB is asked for many ranges.
    await stored(store, [{"n": n, "k": "Rare" if n in (103, 300) else "usual"} for n in range(600)])

    async def both():
        return [(await found(store, "asc", "k:rare"))[0], (await found(store, "desc", "k:rare AND n:<200"))[0]]

    assert await both() == [[103, 300], [103]]
    without = len(asked)
    await store.make_index("data.k")
    asked.clear()
    assert await both() == [[103, 300], [103]]
    if store.reader.occupancy is not None:
        assert len(asked) < without
        # Whether there is any is asked for each usual spelling, with a time; only then is it read, without one.
        reads = [pipeline for pipeline in asked if {"$limit": 1} not in pipeline]
        assert [list(pipeline[0]["$match"]) for pipeline in reads] == [["data.k"], ["data.k"]]


@pytest.mark.gen_test(timeout=60)
async def test_a_frequent_value_is_found_by_time_though_it_has_an_index(store, asked):
    await stored(store, [{"n": n, "k": "ERROR" if n % 2 else "info"} for n in range(600)])
    await store.make_index("data.k")
    asked.clear()
    assert (await found(store, "desc", "k:error", limit=10))[0] == list(range(599, 579, -2))
    if store.reader.occupancy is not None:
        reads = [pipeline for pipeline in asked if {"$limit": 1} not in pipeline]
        assert all("timestamp" in pipeline[0]["$match"] for pipeline in reads)


@pytest.mark.gen_test(timeout=60)
async def test_what_seems_to_be_rare_and_is_not_is_found_by_time(store, monkeypatch):
    # An unusual spelling is not looked for. With so few, reading all of them takes no time: that it does is made up.
    await stored(store, [{"n": n, "k": "iOS"} for n in range(600)])
    await store.make_index("data.k")
    collection, slow = store.reader._collection, []

    class Slow:
        def aggregate(self, pipeline, maxTimeMS):
            if list(pipeline[0]["$match"]) == ["data.k"]:
                slow.append(maxTimeMS)
                raise ExecutionTimeout("operation exceeded time limit", 50)
            return collection.aggregate(pipeline, maxTimeMS=maxTimeMS)

    monkeypatch.setattr(store.reader, "_collection", Slow())
    assert (await found(store, "desc", "k:ios", limit=10))[0] == list(range(599, 589, -1))
    if store.reader.occupancy is not None:
        assert len(slow) == 1
        assert slow[0] <= 500


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.gen_test(timeout=60)
async def test_pages_by_an_index_follow_one_another_whatever_the_spelling(store, order):
    # Unusual spellings are not among those that are looked for first: the guess is wrong, the pages are not.
    await stored(store, [{"n": n, "k": ("rArE", "RARE", "raRE")[n % 3] if n % 7 == 0 else "usual"} for n in range(600)])
    await store.make_index("data.k")
    pages, after = [], None
    while after is not None or not pages:
        page, after = await found(store, order, "k:rare", limit=20, after=after)
        pages.append(page)
    seen = [n for page in pages for n in page]
    assert seen == sorted(range(0, 600, 7), reverse=order == "desc")
    assert [len(page) for page in pages] == [20, 20, 20, 20, 6]


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
