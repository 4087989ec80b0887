import asyncio
import json

import pytest

from tornado_logsrv.config import Options
from tornado_logsrv.health import PATIENCE_SECONDS
from tornado_logsrv.streams import connect

AWAY_REDIS = "redis://127.0.0.1:9"


async def state(fetch):
    """Status, whether it is ready, and the names of the checks that fail."""
    response = await fetch("/readyz")
    answer = json.loads(response.body)
    return response.code, answer["ready"], {check["name"] for check in answer["checks"] if not check["ok"]}


async def asked(app):
    """MongoDB and Redis have been asked, and have answered or not."""
    await app.health.look()
    while app.health._asking is not None:
        await app.health.look()


@pytest.mark.gen_test
async def test_all_is_well(fetch):
    response = await fetch("/healthz")
    assert (response.code, json.loads(response.body)) == (200, {"status": "alive"})
    response = await fetch("/readyz")
    answer = json.loads(response.body)
    assert [check["name"] for check in answer["checks"]] == ["server", "journal", "queue", "recovery", "store"]
    assert all(check["ok"] and check["detail"] for check in answer["checks"])
    assert await state(fetch) == (200, True, set())


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
@pytest.mark.gen_test
async def test_head_is_answered_without_a_body(fetch, path):
    response = await fetch(path, method="HEAD")
    assert (response.code, response.body) == (200, b"")


@pytest.mark.gen_test
async def test_a_server_that_stops_is_alive_and_not_ready(fetch, app):
    app.stopping = True
    assert (await fetch("/healthz")).code == 200
    assert await state(fetch) == (503, False, {"server"})
    app.stopping = False


@pytest.mark.gen_test
async def test_a_full_queue_is_not_ready(fetch, app):
    app.queue._max_bytes = 60
    assert (await fetch("/add-job", b"1")).code == 503
    app.queue._bytes = 60
    assert await state(fetch) == (503, False, {"queue"})
    app.queue._bytes = 0


@pytest.mark.gen_test
async def test_what_is_still_read_back_is_a_note(fetch, app):
    app.backup._old._last = b"1-1"
    assert await state(fetch) == (200, True, {"recovery"})
    app.backup._old._last = None


class TestRedisAway:
    @pytest.fixture
    def options(self, options: Options) -> Options:
        return Options(**{**options.__dict__, "redis_url": AWAY_REDIS})

    @pytest.mark.gen_test
    async def test_with_the_default_ack_memory_it_is_ready_all_the_same(self, fetch):
        assert await state(fetch) == (200, True, {"journal"})

    @pytest.mark.gen_test
    async def test_with_the_default_ack_journal_it_is_not(self, fetch, app):
        object.__setattr__(app.options, "ack", "journal")
        assert await state(fetch) == (503, False, {"journal"})


@pytest.mark.gen_test
async def test_a_redis_that_goes_away_later_is_noticed_and_one_that_comes_back_too(fetch, app):
    object.__setattr__(app.options, "ack", "journal")
    working, app.journal._stream._redis = app.journal._stream._redis, connect(AWAY_REDIS)
    assert (await fetch("/add-job?ack=journal", b"1")).code == 503
    assert await state(fetch) == (503, False, {"journal"})
    await app.journal._stream._redis.aclose()
    app.journal._stream._redis = working
    app.journal._pause_until = 0.0
    assert (await fetch("/add-job?ack=journal", b"1")).code == 202
    assert await state(fetch) == (200, True, set())


class TestMongoAway:
    @pytest.fixture
    def options(self, options: Options) -> Options:
        return Options(**{**options.__dict__, "mongo_url": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"})

    @pytest.mark.gen_test
    async def test_it_is_ready_and_says_that_records_are_kept(self, fetch, app):
        await asked(app)
        assert await state(fetch) == (200, True, {"store"})

    @pytest.mark.gen_test
    async def test_metrics_leave_out_what_they_cannot_ask(self, fetch, app):
        await asked(app)
        text = (await fetch("/metrics")).body.decode()
        assert "logsrv_store_up 0.0" in text
        assert "logsrv_journal_up 1.0" in text
        assert "logsrv_stream_entries 0.0" in text
        assert "quarantine_documents" not in text


@pytest.mark.gen_test
async def test_what_does_not_answer_holds_nobody_up_and_is_asked_once(fetch, app, monkeypatch):
    asked = []

    async def never():
        asked.append(1)
        await asyncio.Event().wait()

    monkeypatch.setattr("tornado_logsrv.health.WAIT_SECONDS", 0.01)
    monkeypatch.setattr(app.store.quarantine, "count", never)
    for _ in range(3):
        assert "logsrv_ledger_balance 0.0" in (await fetch("/metrics")).body.decode()
        assert await state(fetch) == (200, True, set())
    assert len(asked) == 1
    now = app.health._clock()
    app.health._clock = lambda: now + PATIENCE_SECONDS + 1
    assert await state(fetch) == (200, True, {"store"})


@pytest.mark.gen_test
async def test_backing_servers_are_asked_again_when_it_is_time(fetch, app, monkeypatch):
    now = [1000.0]
    app.health._clock = lambda: now[0]
    counts = iter([1, 2])

    async def count():
        return next(counts)

    monkeypatch.setattr(app.store.quarantine, "count", count)
    seen = []
    for seconds in (0, 9, 2):
        now[0] += seconds
        await fetch("/readyz")
        seen.append(app.health.quarantined)
    assert seen == [1, 1, 2]
