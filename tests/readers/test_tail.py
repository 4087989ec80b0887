import asyncio
import dataclasses
import json
import time

import pytest

from tests.tails import Tail, until
from tornado_logsrv import recent, records, watch, watchers
from tornado_logsrv.config import Options
from tornado_logsrv.outcome import Outcome
from tornado_logsrv.store import RecordStore


@pytest.fixture
def tail(app, base_url, http_server):
    """``await tail(path)``: a watcher that is connected, and joined with the others."""
    opened = []

    async def tail(query="", **more):
        opened.append(Tail(base_url, f"/logs/tail?{query}", **more))
        await until(lambda: opened[-1].response)
        await until(lambda: all(not handler_replays(each) for each in app.watch.watchers))
        return opened[-1]

    def handler_replays(watcher):
        return watcher not in app.watch.groups.of(watcher.query).watchers

    yield tail
    for each in opened:
        each.close()


@pytest.fixture
def post(fetch):
    async def post(body=b'{"n":1}', path="/add-job", **more):
        response = await fetch(path, body, **more)
        assert response.code == 202, response.body
        return json.loads(response.body).get("id")

    return post


@pytest.mark.gen_test
async def test_a_record_is_shown_when_it_is_taken_and_confirmed_when_it_is_stored(tail, post, app):
    watcher = await tail()
    record_id = await post(b'{"level":"error"}')
    await until(lambda: watcher.ids)
    (shown,) = watcher.of("record")
    assert (shown["_id"], shown["data"], shown["state"]) == (record_id, {"level": "error"}, "queued")
    assert list(shown) == ["_id", "message", "data", "timestamp", "state"]
    await app.writer.flush()
    await until(lambda: watcher.of("stored"))
    assert watcher.of("stored") == [{"ids": [record_id]}]


@pytest.mark.gen_test
async def test_the_stream_is_one_that_nobody_keeps_or_holds_up(tail):
    watcher = await tail()
    headers = watcher.head.headers
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-store", "no")


@pytest.mark.gen_test
async def test_only_what_the_query_asks_for_is_shown_and_confirmed(tail, post, app):
    errors, everything = await tail("q=level:error"), await tail()
    wanted = await post(b'{"level":"error"}')
    other = await post(b'{"level":"info"}')
    last = await post(b'{"level":"error"}')
    await app.writer.flush()
    await until(lambda: len(errors.settled) == 2 and len(everything.settled) == 3)
    assert (errors.ids, everything.ids) == ([wanted, last], [wanted, other, last])


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("q=level:", "q"),
        ("q=a:now%2B8000y", "q"),
        ("from=yesterday", "from"),
        ("last_event_id=7", "last_event_id"),
        ("last_event_id=00000000000000.1.999999999999999", "last_event_id"),
        (f"last_event_id=00000000000000.1.1~999999999999999.{'0' * 24}", "last_event_id"),
        (f"last_event_id=00000000000000.1.1~-999999999999999.{'0' * 24}", "last_event_id"),
        ("limit=3", "limit"),
    ],
)
@pytest.mark.gen_test
async def test_a_wrong_parameter_is_a_400_before_the_stream_begins(fetch, app, query, parameter):
    response = await fetch(f"/logs/tail?{query}")
    assert (response.code, json.loads(response.body)["parameter"]) == (400, parameter)
    assert not app.watch.active


@pytest.mark.gen_test
async def test_who_comes_back_is_shown_what_came_meanwhile_and_that_once(tail, post, app):
    watcher = await tail()
    await post()
    await until(lambda: watcher.ids)
    watcher.close()
    await until(lambda: not app.watch.watchers)
    missed = [await post(b"%d" % n) for n in range(5)]
    await app.writer.flush()
    missed += [await post(b"%d" % n) for n in range(5)]
    again = await tail(last_id=watcher.last_id)
    new = await post()
    await until(lambda: len(again.ids) == 11)
    assert again.ids == [*missed, new]
    assert [record["state"] for record in again.of("record")] == ["stored"] * 5 + ["queued"] * 6
    # The one that was shown as queued before is stored, too.
    assert again.of("stored")[0]["ids"] == watcher.ids
    await app.writer.flush()
    await until(lambda: again.settled == {*watcher.ids, *missed, new})


@pytest.mark.gen_test
async def test_a_long_gap_is_filled_from_the_queue_and_from_mongodb(tail, post, app, monkeypatch):
    monkeypatch.setattr(recent, "MAX_COUNT", 3)
    first = await tail()
    await post()
    await until(lambda: first.ids)
    first.close()
    missed = [await post(b"%d" % n) for n in range(20)]
    await app.writer.flush()
    missed += [await post(b"%d" % n) for n in range(20)]
    again = await tail(last_id=first.last_id)
    await until(lambda: len(again.ids) == 40)
    assert again.ids == missed
    assert [record["state"] for record in again.of("record")] == ["stored"] * 20 + ["queued"] * 20
    await app.writer.flush()
    await until(lambda: {*missed} <= again.settled)


@pytest.mark.gen_test
async def test_last_event_id_is_a_parameter_too(tail, post):
    first = await tail()
    await post()
    await until(lambda: first.ids)
    second = await post()
    again = await tail(f"last_event_id={first.last_id}")
    await until(lambda: again.ids)
    assert again.ids == [second]


@pytest.mark.gen_test
async def test_from_begins_with_what_is_stored_oldest_first_and_goes_on(tail, post, app):
    now = app.now_ms()
    ids = records.Ids()
    old = [records.encode_job(n, [], ids.next(), now - 3_600_000 + n) for n in range(3)]
    late = [records.encode_job(n, [], ids.next(), now - 1000 * (700 - n)) for n in range(650)]
    await app.store.write(old + late[::-1])
    queued = await post()
    watcher = await tail("from=now-30m")
    new = await post()
    await until(lambda: len(watcher.ids) == 652)
    assert watcher.ids == [*(records.id_of(each).hex() for each in late), queued, new]


@pytest.mark.gen_test
async def test_who_breaks_off_in_the_midst_of_the_stored_goes_on_there(tail, post, app):
    now = app.now_ms()
    ids = records.Ids()
    await app.store.write([records.encode_job(n, [], ids.next(), now - 100_000 + n // 7) for n in range(600)])
    queued = await post()
    whole = await tail("from=now-30m")
    await until(lambda: len(whole.ids) == 601)
    for at in (0, 250, 599):
        again = await tail("from=now-30m", last_id=whole.events[at].id)
        await until(lambda: again.ids and again.ids[-1] == queued)  # noqa: B023
        assert again.ids == whole.ids[at + 1 :]


@pytest.mark.gen_test
async def test_an_id_of_another_server_is_good_for_its_time(tail, post, app):
    watcher = await tail()
    ids = [await post(), await post()]
    await until(lambda: len(watcher.ids) == 2)
    await app.writer.flush()
    other = "abcdef01234567" + watcher.events[0].id[14:]
    again = await tail(last_id=other)
    await until(lambda: len(again.ids) == 2)
    assert again.ids == ids


@pytest.mark.gen_test
async def test_a_quarantined_record_is_said_to_be_so(tail, post, app):
    watcher = await tail()
    record_id = await post()
    await until(lambda: watcher.ids)
    batch = app.queue.take(1, 1 << 20)
    app.writer._settle(batch, Outcome(quarantined={0: "a reason"}))
    await until(lambda: watcher.of("quarantined"))
    assert watcher.of("quarantined") == [{"id": record_id, "reason": "a reason"}]
    assert watcher.of("stored") == []


@pytest.mark.gen_test
async def test_a_record_that_is_sent_twice_is_shown_once(tail, post, app):
    watcher = await tail()
    ids = [await post(headers={"Idempotency-Key": "k"}) for _ in range(2)]
    last = await post()
    await until(lambda: last in watcher.ids)
    assert watcher.ids == [ids[0], last]


@pytest.mark.gen_test
async def test_a_watcher_that_has_gone_is_forgotten_at_once(tail, post, app):
    watchers = [await tail(), await tail("q=a"), await tail("q=a")]
    assert len(app.watch.watchers) == 3
    for watcher in watchers:
        watcher.close()
    await until(lambda: not app.watch.watchers)
    assert len(app.watch.groups) == 0


@pytest.mark.gen_test
async def test_without_watchers_nothing_is_noted(post, app):
    await post()
    await app.writer.flush()
    assert (app.watch.order.end, len(app.watch.recent)) == (0, 0)


@pytest.mark.gen_test
async def test_an_hour_after_the_last_one_nothing_is_noted_any_more(tail, post, app, monkeypatch):
    watcher = await tail()
    await post()
    await until(lambda: watcher.ids)
    watcher.close()
    await until(lambda: not app.watch.watchers)
    app.watch._heartbeat()
    assert app.watch.active
    monkeypatch.setattr(app.watch, "_clock", lambda: time.monotonic() + watch.FORGET_SECONDS)
    app.watch._heartbeat()
    await post()
    assert (app.watch.active, app.watch.order.end) == (False, 0)


@pytest.mark.gen_test
async def test_a_heartbeat_says_how_far_all_has_been_seen(tail, post, app):
    watcher = await tail("q=level:error")
    before = watcher.last_id
    await post()
    app.watch._heartbeat()
    await until(lambda: watcher.last_id != before)
    assert watcher.events == []
    again = await tail(last_id=watcher.last_id)
    record_id = await post()
    await until(lambda: again.ids)
    assert again.ids == [record_id]


@pytest.mark.gen_test(timeout=30)
async def test_a_slow_watcher_is_told_how_many_it_missed_and_holds_up_nobody(tail, post, app, monkeypatch):
    monkeypatch.setattr(watchers, "BUFFER_BYTES", 64 * 1024)
    slow, quick = await tail(receive_bytes=65536), await tail()
    slow.go_on.clear()
    await post()
    body = b"\n".join(b'{"text":"%b"}' % (b"x" * 20_000) for _ in range(50))
    for _ in range(10):
        await post(body, "/add-jobs", headers={"Content-Type": "application/x-ndjson"})
        await asyncio.sleep(0.06)
    await until(lambda: len(quick.ids) == 501)
    slow.go_on.set()
    await until(lambda: slow.of("missed"))
    await post()
    await until(lambda: len(slow.ids) + sum(missed["missed"] for missed in slow.of("missed")) == 502)
    assert quick.of("missed") == []
    # What it is told to have missed is not brought by coming back either.
    again = await tail(last_id=next(event.id for event in slow.events if event.name == "missed"))
    assert len(again.ids) <= 1


@pytest.mark.gen_test
async def test_records_that_come_faster_than_they_can_be_shown_are_counted(tail, post, app, monkeypatch):
    monkeypatch.setattr(watch, "UNTOLD_COUNT", 10)
    watcher = await tail()
    await post(b"[" + b",".join([b"1"] * 100) + b"]", "/add-jobs")
    await until(lambda: watcher.of("missed") and len(watcher.ids) == 50)
    assert watcher.of("missed") == [{"missed": 50}]


@pytest.mark.gen_test
async def test_a_stop_ends_the_tails_at_once(tail, app, fetch):
    watchers = [await tail() for _ in range(3)]
    app.watch.close()
    assert not app.in_progress
    # The server hears of the end of a connection when it does, which may be after its watcher has.
    await until(lambda: all(watcher.ended for watcher in watchers) and not app.watch.watchers)
    response = await fetch("/logs/tail")
    assert (response.code, response.headers["Retry-After"]) == (503, "1")


class TestLimit:
    @pytest.fixture
    def options(self, options: Options) -> Options:
        return dataclasses.replace(options, max_watchers=1)

    @pytest.mark.gen_test
    async def test_more_watchers_than_there_may_be_are_a_503(self, tail, fetch):
        await tail()
        response = await fetch("/logs/tail")
        assert (response.code, response.headers["Retry-After"]) == (503, "10")
        assert json.loads(response.body)["type"] == "urn:logsrv:problem:too-many-watchers"


class TestAway:
    """MongoDB is not there."""

    @pytest.fixture
    def options(self, options: Options) -> Options:
        return dataclasses.replace(options, mongo_url="mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100")

    @pytest.mark.gen_test
    async def test_a_tail_that_wants_what_is_stored_waits_and_then_goes_on(self, tail, post, app, servers, base_url):
        watcher = Tail(base_url, "/logs/tail?from=now-1h")
        await until(lambda: app.watch.watchers and watcher.response)
        record_id = await post()
        app.store = RecordStore(servers.mongo_url, "logsrv_test_nothing", "logs")
        assert watcher.ids == []
        watcher.close()
        again = Tail(base_url, "/logs/tail?from=now-1h")
        await until(lambda: again.ids)
        assert again.ids == [record_id]
        again.close()
        await app.store.close()
