"""Retention on the real store: what is old enough goes, and nothing else; the time is the test's."""

import collections
import datetime
import json
import logging

import pytest
from pymongo.errors import AutoReconnect

from tornado_logsrv import records, retention, rules, server
from tornado_logsrv.config import Options
from tornado_logsrv.leases import Leases
from tornado_logsrv.occupancy import Occupancy
from tornado_logsrv.retention import DAY_MS, INDEX
from tornado_logsrv.rules import Rule
from tornado_logsrv.streams import connect
from tornado_logsrv.sweeper import BUSY_SECONDS, SWEEP_SECONDS, WHOLE_SECONDS, Sweeper

NOW = 1_767_323_045_678  # 2026-01-02T03:04:05.678Z
DAYS = (0, 1, 2, 4, 6, 8, 40)


def moment(days, now=NOW):
    return datetime.datetime.fromtimestamp(now / 1000, datetime.UTC) - datetime.timedelta(days=days)


def document(days, level="info", source=None):
    named = {} if source is None else {"source": source}
    return {**named, "message": "m", "data": {"level": level}, "timestamp": moment(days)}


@pytest.fixture
def full(collection):
    """A record of every age, level and source."""
    kinds = [("debug", None), ("DEBUG", "otlp"), ("info", "otlp"), ("info", None), ("debugger", "loki")]
    collection.insert_many([document(days, *kind) for days in DAYS for kind in kinds])
    return collection


def left(collection):
    """How many records there are of each level, source and age in days."""
    found = collection.find({})
    return collections.Counter(
        (d["data"]["level"], d.get("source"), round((moment(0) - d["timestamp"]) / datetime.timedelta(days=1)))
        for d in found
    )


class Time:
    """A clock, and a sleep that moves it."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def sweeper(app, time):
    def sweeper(days, text, busy=lambda: False, now_ms=lambda: NOW):
        async def now():
            return now_ms()

        return Sweeper(
            app.store, days, rules.parse(text), now_ms=now, busy=busy, clock=time, sleep=time.sleep
        )  # fmt: skip

    return sweeper


@pytest.mark.gen_test
async def test_rules_delete_what_is_older_and_nothing_else(app, full, sweeper):
    everything = left(full)
    made = sweeper(0, "level=debug:3,source=otlp:7")
    await made.sweep()
    gone = everything - left(full)
    assert gone == collections.Counter(
        [("debug", None, days) for days in DAYS if days > 3]
        + [("DEBUG", "otlp", days) for days in DAYS if days > 3]
        + [("info", "otlp", days) for days in DAYS if days > 7]
    )
    assert made.deleted == {"level=debug": 8, "source=otlp": 2}


@pytest.mark.gen_test
async def test_tenants_records_are_kept_as_long_as_all_and_one_that_cannot_be_swept_stops_no_other(
    app, full, database, sweeper, monkeypatch
):
    tenants = [database[f"logs_{tenant}"] for tenant in ("acme", "beta")]
    for tenant in tenants:
        tenant.insert_many(list(full.find()))

    async def away(days):
        raise AutoReconnect("away")

    monkeypatch.setattr(app.store.of("acme").retention, "set_days", away)
    made = sweeper(30, "level=debug:3")
    made.tenants = lambda: {"acme", "beta"}
    with pytest.raises(AutoReconnect):
        await made.sweep()
    assert left(tenants[1]) == left(full)
    assert made.deleted == {"level=debug": 16}
    monkeypatch.undo()
    await made.sweep()
    assert left(tenants[0]) == left(full)
    assert made.deleted == {"level=debug": 24}
    for tenant in (full, *tenants):
        assert tenant.index_information()["logsrv_retention"]["expireAfterSeconds"] == 30 * 86_400


@pytest.mark.gen_test
async def test_jobs_are_the_records_without_a_source(full, sweeper):
    await sweeper(0, "source=jobs:5").sweep()
    assert {(source, days > 5) for _, source, days in left(full)} == {
        (None, False), ("otlp", False), ("otlp", True), ("loki", False), ("loki", True)
    }  # fmt: skip


@pytest.mark.gen_test
async def test_a_record_as_old_as_the_limit_stays(collection, sweeper):
    exactly = moment(3)
    collection.insert_many([
        {"data": {"level": "debug"}, "timestamp": exactly + datetime.timedelta(milliseconds=n)} for n in (-1, 0, 1)
    ])  # fmt: skip
    await sweeper(0, "level=debug:3").sweep()
    assert [d["timestamp"] - exactly for d in collection.find().sort("timestamp")] == [
        datetime.timedelta(0), datetime.timedelta(milliseconds=1)
    ]  # fmt: skip


@pytest.mark.gen_test
async def test_many_are_deleted_a_batch_at_a_time_with_rests_between(app, collection, sweeper, time, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 10)
    collection.insert_many([document(4 + n // 3 / 86400, "debug") for n in range(36)] + [document(4) for _ in range(3)])
    counts = []
    delete = app.store.retention.delete

    async def timed(*request):
        time.now += 0.25
        count, stop = await delete(*request)
        counts.append(count)
        return count, stop

    monkeypatch.setattr(app.store.retention, "delete", timed)
    await sweeper(0, "level=debug:3").sweep()
    assert sum(counts) == 36
    # Three have the time of the last: they go with it.
    assert max(counts) <= 12
    assert [d["data"]["level"] for d in collection.find()] == ["info"] * 3
    assert time.slept == [0.25] * len(counts)


@pytest.mark.gen_test
async def test_while_the_server_has_better_things_to_do_it_waits(full, sweeper, time):
    states = iter([True, True, False])
    await sweeper(0, "level=debug:3", busy=lambda: next(states, False)).sweep()
    assert time.slept.count(BUSY_SECONDS) == 2
    assert not [key for key in left(full) if key[0] == "debug" and key[2] > 3]


@pytest.mark.gen_test
async def test_what_comes_late_with_an_old_time_is_found_when_all_is_gone_over_again(collection, sweeper, time):
    now = [NOW]
    made = sweeper(0, "level=debug:3", now_ms=lambda: now[0])
    await made.sweep()
    collection.insert_many([document(10, "debug"), document(2.5, "debug")])
    now[0] += DAY_MS
    time.now += 1
    await made.sweep()
    # The hour's work: only what has grown old since.
    assert left(collection) == {("debug", None, 10): 1}
    time.now += WHOLE_SECONDS
    await made.sweep()
    assert left(collection) == {}


class TestDays:
    """The TTL index."""

    @staticmethod
    def ttl(collection):
        found = {name: index.get("expireAfterSeconds") for name, index in collection.index_information().items()}
        assert found.pop("_id_") is None
        return found

    @pytest.mark.gen_test
    async def test_it_is_made_changed_in_place_and_removed(self, app, collection, sweeper, caplog):
        caplog.set_level(logging.INFO, "logsrv.retention")
        await app.store.prepare()
        reading = {"timestamp_1__id_1": None}
        for days, expected in ((0, {}), (30, {INDEX: 2_592_000}), (30, {INDEX: 2_592_000}), (7, {INDEX: 604_800})):
            await sweeper(days, "").sweep()
            assert self.ttl(collection) == reading | expected
        await sweeper(0, "").sweep()
        assert self.ttl(collection) == reading
        assert [record.getMessage() for record in caplog.records] == [
            "records are kept for 30 days",
            "records are kept for 7 days, no longer for 30",
            "records are kept for ever",
        ]

    @pytest.mark.gen_test
    async def test_an_index_of_somebody_elses_is_changed_and_never_removed(self, collection, sweeper):
        collection.create_index("timestamp", name="mine", expireAfterSeconds=60)
        await sweeper(0, "").sweep()
        assert self.ttl(collection)["mine"] == 60
        await sweeper(2, "").sweep()
        assert (self.ttl(collection)["mine"], INDEX in self.ttl(collection)) == (172_800, False)

    @pytest.mark.gen_test
    async def test_hints_of_what_is_gone_go_and_reading_is_right(self, fetch, app, collection, database, sweeper):
        ids = records.Ids()
        days = (40, 39, 31, 29, 1)
        found = [records.encode_job(n, [], ids.next(), NOW - n * DAY_MS) for n in days]
        await app.store.write(found)
        assert {d["_id"].day for d in database["logs_hours"].find()} == {moment(n).day for n in days}
        collection.delete_many({"timestamp": {"$lt": moment(30)}})
        await sweeper(30, "").sweep()
        assert {d["_id"].day for d in database["logs_hours"].find()} == {moment(n).day for n in (29, 1)}
        for order, expected in (("asc", [29, 1]), ("desc", [1, 29])):
            assert [d["data"] for d in json.loads((await fetch(f"/logs?order={order}")).body)] == expected
        # One that comes later with an old time is noted again.
        await app.store.write([records.encode_job(35, [], ids.next(), NOW - 35 * DAY_MS)])
        assert [d["data"] for d in json.loads((await fetch("/logs?order=asc")).body)] == [35, 29, 1]


def test_forgotten_hints_leave_those_that_are_not():
    occupancy = Occupancy()
    occupancy.note([0, 59_999, 60_000, 3_600_000])
    occupancy.forget(60_000)
    assert [minute for _, minute, _, _ in occupancy.unsaved()] == [1, 0]
    assert list(occupancy.ranges_up(None, 120_000))[-1][1] == 120_000


class TestAway:
    """MongoDB is not there."""

    @pytest.fixture
    def options(self, options: Options) -> Options:
        return Options(**{**options.__dict__, "mongo_url": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"})

    @pytest.mark.gen_test
    async def test_it_is_tried_again_and_told_once(self, app, sweeper, caplog):
        caplog.set_level(logging.INFO, "logsrv.retention")
        made = sweeper(7, "level=debug:3")
        assert [await made.try_sweep() < SWEEP_SECONDS for _ in range(3)] == [True] * 3
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    @pytest.mark.gen_test
    async def test_who_has_not_asked_for_it_is_told_nothing(self, app, sweeper, caplog):
        await sweeper(0, "").try_sweep()
        assert caplog.records == []


@pytest.mark.gen_test
async def test_a_failure_in_the_middle_is_made_good(app, full, sweeper, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "logsrv.retention")
    delete, failures = app.store.retention.delete, [AutoReconnect("gone")]

    async def failing(*request):
        if failures:
            raise failures.pop()
        return await delete(*request)

    monkeypatch.setattr(app.store.retention, "delete", failing)
    made = sweeper(0, "level=debug:3")
    assert await made.try_sweep() < SWEEP_SECONDS
    assert await made.try_sweep() == SWEEP_SECONDS
    assert [record.getMessage() for record in caplog.records] == [
        "old records cannot be deleted now, it is tried again: AutoReconnect",
        "8 records deleted: level=debug is kept for 3 days",
        "old records can be deleted again",
    ]


@pytest.mark.gen_test
async def test_one_instance_at_a_time_deletes(servers, prefix, full, sweeper, redis_client):
    client = connect(servers.redis_url)
    first, second = (Leases(client, prefix, name, directory, "p") for name, directory in (("a", "d1"), ("b", "d2")))
    one, other = sweeper(0, "level=debug:3"), sweeper(0, "level=debug:3")
    one.take_turn = lambda: first.take_turn("retention", 60)
    other.take_turn = lambda: second.take_turn("retention", 60)
    assert await first.take_turn("retention", 60)
    await other.sweep()
    assert other.deleted["level=debug"] == 0
    await one.sweep()
    assert one.deleted["level=debug"] == 8
    # The next process on the same data directory need not wait; another instance does until the turn runs out.
    assert await Leases(client, prefix, "a", "d1", "p2").take_turn("retention", 60)
    redis_client.delete(f"{prefix}:turn:retention")
    assert await second.take_turn("retention", 60)
    await client.aclose()


@pytest.mark.gen_test
async def test_a_record_that_is_sent_again_after_it_was_deleted_is_a_new_one(fetch, app, collection, sweeper):
    key = {"Idempotency-Key": "k"}
    await fetch("/add-job", b'{"level":"debug"}', headers=key)
    await app.writer.flush()
    later = app.now_ms() + 4 * DAY_MS
    await sweeper(0, "level=debug:3", now_ms=lambda: later).sweep()
    assert collection.count_documents({}) == 0
    for _ in range(2):
        await fetch("/add-job", b'{"level":"debug"}', headers=key)
        await app.writer.flush()
    assert collection.count_documents({}) == 1


@pytest.mark.gen_test
async def test_what_was_deleted_is_on_metrics(fetch, app, full):
    object.__setattr__(app.options, "retention", rules.parse("level=debug:3"))
    app.sweeper._rules = app.options.retention
    await app.sweeper.sweep()
    text = (await fetch("/metrics")).body.decode()
    assert 'logsrv_retention_deleted_records_total{rule="level=debug"}' in text


class TestDryRun:
    @pytest.fixture
    def arguments(self, servers, database):
        return [f"--mongo_url={servers.mongo_url}", f"--mongo_db={database.name}", "--dry_run"]

    def test_it_shows_what_would_go_and_deletes_nothing(self, arguments, collection, capsys):
        now = int(datetime.datetime.now(datetime.UTC).timestamp() * 1000)
        documents = [{**document(days, level), "timestamp": moment(days, now)} for days in (1, 5, 50) for level in
                     ("debug", "info")]  # fmt: skip
        collection.insert_many(documents)
        before = list(collection.find())
        assert server.main([*arguments, "--retention_days=30", "--retention=level=debug:3,source=otlp:2"]) == 0
        assert (list(collection.find()), list(collection.index_information())) == (before, ["_id_"])
        head, *lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert head[0] == "rule"
        shown = [moment(days, now).strftime("%Y-%m-%dT%H:%M") for days in (50, 5)]
        assert [(line[0], line[1], line[3]) for line in lines] == [
            ("all", "30", "2"), ("level=debug", "3", "2"), ("source=otlp", "2", "0")
        ]  # fmt: skip
        assert lines[0][4].startswith(shown[0])
        assert lines[0][5].startswith(shown[0])
        assert [lines[1][4][:16], lines[1][5][:16]] == shown
        assert lines[2][4:] == ["-", "-"]

    def test_without_a_rule_it_says_so(self, arguments, capsys):
        assert server.main(arguments) == 0
        assert capsys.readouterr().out.startswith("nothing is ever deleted")

    def test_without_mongodb_it_says_so(self, capsys):
        away = "--mongo_url=mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"
        assert server.main([away, "--retention_days=3", "--dry_run"]) == 2
        assert "--dry_run: MongoDB cannot be asked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("level=debug:3", (Rule("level", "debug", 3),)),
        (" level=a:1 , source=b:2,", (Rule("level", "a", 1), Rule("source", "b", 2))),
    ],
)
def test_rules_are_read(text, expected):
    assert rules.parse(text) == expected
