"""Tails that show what other servers store: on a MongoDB that has change streams."""

import asyncio
import dataclasses
import time

import bson
import pymongo
import pytest

from tests.conftest import Servers
from tests.failpoints import failing
from tests.readers.test_tail import post, tail  # noqa: F401
from tests.tails import until
from tornado_logsrv import feed, records, watch
from tornado_logsrv.changes import Batch
from tornado_logsrv.config import Options
from tornado_logsrv.places import since
from tornado_logsrv.store import RecordStore


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A replica set of one, and a Valkey, of this module."""
    started = Servers(tmp_path_factory.mktemp("cluster"), "--oplog-max-entries", "400", oplog=True)
    started.start(started.mongo, started.redis)
    yield started
    started.close()


@pytest.fixture
def other(servers, database, io_loop):
    """``await other(count)``: another server stores so many records; their ids."""
    store = RecordStore(servers.mongo_url, database.name, "logs")
    ids = records.Ids()

    async def other(count=1, **data):
        encoded = [records.encode_job(data, [], ids.next(), time.time_ns() // 1_000_000) for _ in range(count)]
        outcome = await store.write(encoded)
        assert not outcome.unwritten
        return [records.id_of(each).hex() for each in encoded]

    yield other
    io_loop.run_sync(store.close)


@pytest.fixture
def follow(tail, app):  # noqa: F811
    """``await follow(query)``: a watcher, and MongoDB tells what others store."""

    async def follow(*arguments, **more):
        watcher = await tail(*arguments, **more)
        await until(lambda: app.watch.others.follows)
        return watcher

    return follow


@pytest.mark.gen_test
async def test_what_another_server_stores_is_shown_as_stored(follow, other):
    errors, everything = await follow("q=level:error"), await follow()
    wanted = await other(2, level="error")
    rest = await other(1, level="info")
    await until(lambda: len(everything.ids) == 3 and len(errors.ids) == 2)
    assert (errors.ids, everything.ids) == (wanted, wanted + rest)
    assert {record["state"] for record in everything.of("record")} == {"stored"}
    assert everything.of("stored") == []


@pytest.mark.gen_test
async def test_what_this_server_stores_is_shown_once(follow, other, post, app):  # noqa: F811
    watcher = await follow()
    own = [await post(), await post(headers={"Idempotency-Key": "k"})]
    await app.writer.flush()
    others = await other()
    await until(lambda: len(watcher.ids) == 3)
    last = await post()
    await until(lambda: last in watcher.ids)
    assert watcher.ids == [*own, *others, last]
    await until(lambda: set(own) <= watcher.settled)


@pytest.mark.gen_test
async def test_who_comes_back_is_shown_what_others_stored_meanwhile(follow, other, post, app):  # noqa: F811
    watcher = await follow()
    await other()
    await until(lambda: watcher.ids)
    watcher.close()
    await until(lambda: not app.watch.watchers)
    missed = [await post(), *await other(3)]
    await until(lambda: app.watch.order.end == 5)
    again = await follow(last_id=watcher.last_id)
    new = await other()
    await until(lambda: len(again.ids) == 5)
    assert again.ids == [*missed, *new]


@pytest.mark.gen_test
async def test_from_shows_what_others_store_once_and_all_of_it(follow, other, app):
    old = await other(700)
    storing = asyncio.ensure_future(other(300))
    watcher = await follow("from=now-30m")
    new = await storing + await other(5)
    await until(lambda: len(watcher.ids) >= 1005)
    await until(lambda: not app.watch._untold)
    assert sorted(watcher.ids) == sorted(old + new)


@pytest.mark.parametrize(
    "fault",
    [
        {"failCommands": ["getMore"], "errorCode": 189},
        {"failCommands": ["getMore"], "closeConnection": True},
        {"failCommands": ["getMore", "aggregate"], "errorCode": 10107},
        {"failCommands": ["getMore"], "errorCode": 43},
    ],
    ids=["stepped down", "cut", "not primary", "cursor gone"],
)
@pytest.mark.gen_test
async def test_a_stream_that_fails_goes_on_without_gap_or_double(follow, other, mongo, app, fault):
    watcher = await follow()
    ids = await other(3)
    await until(lambda: len(watcher.ids) == 3)
    with failing(mongo, {"times": 3}, **fault):
        ids += await other(250)
        await until(lambda: app.feed._backoff.failures or len(watcher.ids) == 253)
        ids += await other(3)
    await until(lambda: len(watcher.ids) == 256)
    assert watcher.ids == ids
    assert watcher.of("missed") == []


@pytest.mark.gen_test
async def test_a_place_that_mongodb_has_forgotten_is_told_to_all(follow, other, mongo, app):
    watcher = await follow()
    await other()
    await until(lambda: watcher.ids)
    gone = await follow(last_id=watcher.last_id)
    gone.close()
    with failing(mongo, "alwaysOn", failCommands=["getMore"], errorCode=189):
        await until(lambda: app.feed._backoff.failures)
        for _ in range(6):
            # The oplog has 400 entries.
            await other(200)
    await until(lambda: watcher.of("missed"))
    await until(lambda: not app.feed._backoff.failures)
    last = await other()
    await until(lambda: last[0] in watcher.ids)
    assert watcher.of("missed") == [{"missed": None}]
    again = await follow(last_id=gone.last_id)
    await until(lambda: again.ids)
    assert (again.of("missed"), again.ids) == ([{"missed": None}], last)


@pytest.mark.gen_test
async def test_a_collection_that_is_dropped_is_told_and_followed_again(follow, other, collection, app):
    watcher = await follow()
    await other()
    await until(lambda: watcher.ids)
    collection.drop()
    await until(lambda: watcher.of("missed") == [{"missed": None}])
    await until(lambda: not app.feed._backoff.failures)
    new = await other()
    await until(lambda: new[0] in watcher.ids)


@pytest.mark.gen_test
async def test_more_than_can_be_shown_is_held_back_in_mongodb(follow, other, app, monkeypatch):
    monkeypatch.setattr(watch, "UNTOLD_COUNT", 400)
    monkeypatch.setattr(watch, "SLICE_SECONDS", 0)
    watcher = await follow()
    most = 0
    ids = await other(300) + await other(300)
    while len(watcher.ids) < 300:
        most = max(most, len(app.watch._untold))
        app.watch._tell()
        await asyncio.sleep(0)
        monkeypatch.setattr(watch, "SLICE_SECONDS", 0.02)
    await until(lambda: len(watcher.ids) == 600)
    assert watcher.ids == ids
    assert most <= 400


@pytest.mark.gen_test
async def test_who_comes_from_another_server_is_shown_what_is_stored_since(follow, other, post, app):  # noqa: F811
    watcher = await follow()
    # As one that has followed for a minute.
    app.watch.others._moments.clear()
    app.watch.others._moments.add(int(time.time()) - 60, 0)
    before = await other(3) + [await post()]
    await app.writer.flush()
    await until(lambda: len(watcher.ids) == 4)
    foreign = "abcdef01234567" + watcher.last_id[14:]
    # What has a time of long ago is found by when it was stored.
    late = bson.ObjectId()
    app.store.reader._collection.delegate.database.logs.insert_one({"_id": late, "timestamp": bson.DatetimeMS(0)})
    await until(lambda: late.binary.hex() in watcher.ids)
    again = await follow(last_id=foreign)
    new = await other()
    await until(lambda: new[0] in again.ids)
    assert again.ids == [*before, late.binary.hex(), *new]


@pytest.mark.gen_test
async def test_the_first_who_comes_from_another_server_misses_nothing_either(follow, other, post, app, collection):  # noqa: F811
    now_ms = time.time_ns() // 1_000_000
    others = await other(3)
    late = collection.insert_one({"_id": bson.ObjectId(), "timestamp": bson.DatetimeMS(0)}).inserted_id.binary.hex()
    own = await post()
    await app.writer.flush()
    queued = await post()
    again = await follow(last_id=f"abcdef01234567.7.{now_ms}")
    new = await other()
    await until(lambda: new[0] in again.ids)
    assert sorted(again.ids) == sorted([*others, late, own, queued, *new])


@pytest.mark.gen_test
async def test_a_time_in_the_future_stops_nobody(follow, other, app):
    await follow(last_id=f"abcdef01234567.7.{time.time_ns() // 1_000_000 + 200_000}")
    watcher = await follow()
    new = await other()
    await until(lambda: new[0] in watcher.ids)


@pytest.mark.gen_test
async def test_nothing_is_followed_while_nobody_watches(follow, app, monkeypatch):
    assert app.feed._task is None
    watcher = await follow()
    watcher.close()
    await until(lambda: not app.watch.watchers)
    app.watch._heartbeat()
    assert not app.feed._task.done()
    monkeypatch.setattr(app.watch, "_clock", lambda: time.monotonic() + watch.FORGET_SECONDS)
    app.watch._heartbeat()
    await until(app.feed._task.done)
    assert (app.watch.active, app.watch.others.follows) == (False, None)


@pytest.mark.gen_test
async def test_a_stream_that_falls_behind_goes_on_with_what_is_new(app, other, tail):  # noqa: F811
    """Faked: a MongoDB that is written to for minutes faster than a tail can be told."""
    watcher = await tail()
    behind = [5, 3, 3 + feed.LAG_SECONDS, 4 + feed.LAG_SECONDS, 0]
    opened = []

    async def batches(place):
        opened.append(place)
        while behind:
            yield Batch([], since(7), behind.pop(0), True)
        await asyncio.Event().wait()

    await app.feed.stop()
    app.feed._batches = batches
    app.feed.start(None)
    await until(lambda: watcher.of("missed"))
    await until(lambda: len(opened) == 2 and not behind)
    assert (watcher.of("missed"), opened) == ([{"missed": None}], [opened[0], None])


class TestAway:
    """MongoDB is not there."""

    @pytest.fixture
    def options(self, options: Options) -> Options:
        return dataclasses.replace(options, mongo_url="mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100")

    @pytest.mark.gen_test
    async def test_what_this_server_takes_is_shown_and_the_rest_when_it_is_back(self, tail, post, app, servers, other):  # noqa: F811
        watcher = await tail()
        own = await post()
        await until(lambda: watcher.ids)
        with pymongo.MongoClient(servers.mongo_url):
            app.store = RecordStore(servers.mongo_url, app.options.mongo_db, "logs")
        await until(lambda: app.watch.others.follows)
        new = await other()
        await until(lambda: len(watcher.ids) == 2)
        assert watcher.ids == [own, *new]
        await app.store.close()
