"""--index: which names it takes, that its indexes are made beside all else, and that the search uses them."""

import logging

import pytest
from pymongo.errors import ExecutionTimeout

from tornado_logsrv import frequency, indexes, records
from tornado_logsrv.config import load
from tornado_logsrv.errors import OptionError
from tornado_logsrv.frequency import Frequency
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
        # First it is learned, once, what is frequent; then one command has all of it, in every spelling.
        reads = [pipeline for pipeline in asked if {"$limit": 101} in pipeline]
        assert [list(pipeline[0]["$match"]) for pipeline in reads] == [["data.k"], ["data.k"]]
        asked.clear()
        assert await both() == [[103, 300], [103]]
        assert len(asked) == 2 < without


def pieces_of(asked, path):
    """The ranges of time that a value of ``path`` was asked for in, and the values."""
    matches = [pipeline[0]["$match"] for pipeline in asked if path in pipeline[0]["$match"]]
    within = [match for match in matches if "timestamp" in match]
    return [match["timestamp"] for match in within], {match[path] for match in within}


@pytest.mark.gen_test(timeout=60)
async def test_a_frequent_value_is_found_by_its_index_a_range_of_time_at_once(store, asked):
    await stored(store, [{"n": n, "k": "ERROR" if n % 2 else "info"} for n in range(2000)])
    await store.make_index("data.k")
    await found(store, "desc", "k:error")
    asked.clear()
    assert (await found(store, "desc", "k:error", limit=10))[0] == list(range(1999, 1979, -2))
    if store.reader.occupancy is not None:
        pieces, values = pieces_of(asked, "data.k")
        assert values == {"ERROR"}
        # The first ones, of seconds; not all that there is.
        assert len(pieces) <= 4
        others = [each[0]["$match"]["data.k"]["$in"] for each in asked if list(each[0]["$match"]) == ["data.k"]]
        assert len(others) == 1
        assert "ERROR" not in others[0]
        assert "error" in others[0]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.gen_test(timeout=120)
async def test_what_was_frequent_and_is_no_more_is_not_fetched_whole(store, asked, order):
    """For half of the time nothing has it, then everything, three times as much as a page."""
    kinds = ["info"] * 1800 + ["ERROR"] * 1800
    await stored(store, [{"n": n, "k": k} for n, k in enumerate(kinds if order == "asc" else kinds[::-1])])
    await store.make_index("data.k")
    expected = list(range(1800, 1910)) if order == "asc" else list(range(1799, 1689, -1))
    assert (await found(store, order, "k:error", limit=110))[0] == expected
    if store.reader.occupancy is not None:
        pieces, values = pieces_of(asked, "data.k")
        assert values == {"ERROR"}
        widths = [(int(each["$lt"]) - int(each["$gte"])) // 1000 for each in pieces if len(each) == 2]
        # None is wider than a part of what was passed in vain, and there are few.
        assert max(widths) <= max(64, 1800 // 8 + 64)
        assert len(pieces) < 40


@pytest.mark.gen_test(timeout=60)
async def test_a_time_that_is_asked_for_holds_for_what_is_found_by_an_index(store):
    await stored(store, [{"n": n, "k": "rare" if n % 200 == 7 else "ERROR"} for n in range(600)])
    await store.make_index("data.k")
    for query, bounds, expected in (
        ("k:rare", (100, 500), [207, 407]),
        ("k:rare", (None, 207), [7]),
        ("k:error", (205, 210), [205, 206, 208, 209]),
        ("k:(error OR rare)", (205, 210), [205, 206, 207, 208, 209]),
        ("k:error", (210, 210), []),
        ("k:error AND timestamp:>=now", (0, 10), []),
    ):
        low, high = (None if second is None else START + 1000 * second for second in bounds)
        page = await store.reader.page(Selection(low, high, parse(query), START + 10**9), "asc")
        assert [document["data"]["n"] for document in page.documents] == expected


@pytest.mark.gen_test(timeout=60)
async def test_the_field_that_leaves_least_is_the_one_that_is_looked_for(store, asked):
    await stored(store, [{"n": n, "a": "many", "b": "few" if n == 300 else "many"} for n in range(600)])
    for path in ("data.a", "data.b"):
        await store.make_index(path)
    assert (await found(store, "desc", "a:many AND b:few"))[0] == [300]
    if store.reader.occupancy is not None:
        reads = [pipeline for pipeline in asked if {"$limit": 101} in pipeline]
        assert [list(pipeline[0]["$match"]) for pipeline in reads] == [["data.b"]]


@pytest.mark.gen_test(timeout=60)
async def test_a_record_with_several_of_the_values_is_found_once(store, monkeypatch):
    monkeypatch.setattr(frequency, "MANY", 50)
    kinds = [["ERROR", "error"], "ERROR", ["Error", "error", "other"], "error", "info", ["ERROR", "eRRor"]]
    await stored(store, [{"n": n, "k": kinds[n % 6]} for n in range(600)])
    await store.make_index("data.k")
    pages, after = [], None
    while after is not None or not pages:
        page, after = await found(store, "desc", "k:error", limit=70, after=after)
        pages.append(page)
    assert [n for page in pages for n in page] == [n for n in range(599, -1, -1) if n % 6 != 4]


@pytest.mark.gen_test(timeout=60)
async def test_what_seems_to_be_rare_and_is_not_is_found_by_time_and_learned(store, monkeypatch):
    # With so few, reading all of them takes no time: that it does is made up, and so is that nothing is known of them.
    await stored(store, [{"n": n, "k": "iOS"} for n in range(600)])
    await store.make_index("data.k")
    collection, slow = store.reader._collection, []

    class Slow:
        def aggregate(self, pipeline, maxTimeMS, **more):
            match = pipeline[0]["$match"]
            if list(match) == ["data.k"] and "iOS" in match["data.k"]["$in"]:
                slow.append(maxTimeMS)
                raise ExecutionTimeout("operation exceeded time limit", 50)
            return collection.aggregate(pipeline, maxTimeMS=maxTimeMS, **more)

    monkeypatch.setattr(store.reader, "_collection", Slow())
    store.reader.frequency.take(Frequency(store.reader.indexed))
    for _ in range(2):
        assert (await found(store, "desc", "k:ios", limit=10))[0] == list(range(599, 589, -1))
    if store.reader.occupancy is not None:
        assert len(slow) == 1
        assert slow[0] <= 500


@pytest.mark.gen_test(timeout=60)
async def test_learning_what_is_frequent_ends_also_where_seconds_are_slow_and_what_was_learned_counts(
    store, monkeypatch
):
    await stored(store, [{"n": n, "k": "often"} for n in range(600)])
    await store.make_index("data.k")
    collection, sampled = store.reader._collection, []

    class Slow:
        def aggregate(self, pipeline, maxTimeMS, **more):
            if "$project" in pipeline[-1]:
                sampled.append(maxTimeMS)
                if len(sampled) == 7:
                    raise ExecutionTimeout("operation exceeded time limit", 50)
            return collection.aggregate(pipeline, maxTimeMS=maxTimeMS, **more)

    monkeypatch.setattr(store.reader, "_collection", Slow())
    assert (await found(store, "desc", "k:often", limit=10))[0] == list(range(599, 589, -1))
    if store.reader.occupancy is not None:
        assert len(sampled) == 7
        assert max(sampled) <= 3000
        assert store.reader.frequency.about("data.k", ["often"]) == pytest.approx(600, rel=0.1)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.gen_test(timeout=60)
async def test_pages_by_an_index_follow_one_another_whatever_the_spelling(store, order):
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
async def test_the_same_is_found_with_an_index_as_without_one(store, monkeypatch):
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
    # Whatever is known of how frequent they are.
    for many in (-1, 10**9):
        monkeypatch.setattr(frequency, "MANY", many)
        assert await found() == before
