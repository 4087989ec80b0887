"""GET /ledger on the real servers."""

import datetime
import json

import pytest

from tornado_logsrv.config import Options
from tornado_logsrv.health import State

COLUMNS = ["received", "stored", "queued", "quarantined", "refused"]


async def ledger(fetch):
    response = await fetch("/ledger")
    assert response.code == 200
    return json.loads(response.body)


@pytest.mark.gen_test
async def test_an_empty_ledger(fetch, app):
    found = await ledger(fetch)
    assert (found["instance"], found["balanced"], found["sources"]) == ("test", True, {})
    assert found["total"] == dict.fromkeys(COLUMNS, 0)
    assert found["queue"] == {"size": 0, "bytes": 0, "max_bytes": app.queue.max_bytes, "in_flight": 0, "spooled": 0}
    assert (found["store"]["available"], found["journal"]["available"]) == (True, True)
    started = datetime.datetime.fromisoformat(found["started"])
    assert abs(started - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=5)


@pytest.mark.gen_test
async def test_what_became_of_every_record_in_total_and_by_source(fetch, app, collection):
    await app.store.prepare()
    collection.create_index("data.once", unique=True, sparse=True)
    for body in (b'{"once":1}', b'{"once":1}', b"{"):
        await fetch("/add-job", body)
    await app.writer.flush()
    await fetch("/gelf", b'{"short_message":"x","host":"h"}')
    found = await ledger(fetch)
    assert found["balanced"]
    assert list(found["total"].values()) == [4, 1, 1, 1, 1]
    assert list(found["total"]) == COLUMNS
    assert found["sources"]["jobs"] == dict(zip(COLUMNS, [3, 1, 0, 1, 1], strict=True))
    assert found["sources"]["gelf"] == dict(zip(COLUMNS, [1, 0, 1, 0, 0], strict=True))
    assert (found["queue"]["size"], found["queue"]["bytes"]) == (1, app.queue.size_bytes)


@pytest.mark.gen_test
async def test_a_count_that_is_wrong_shows(fetch, app):
    await fetch("/add-job", b"1")
    lost = app.records.pop()
    assert not (await ledger(fetch))["balanced"]
    app.records.append(lost)


class TestAway:
    """MongoDB is not there."""

    @pytest.fixture
    def options(self, options: Options) -> Options:
        away = {"mongo_url": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=100"}
        return Options(**{**options.__dict__, **away, "queue_max_bytes": 1000, "spool_max_bytes": 10_000_000})

    @pytest.mark.gen_test
    async def test_a_store_that_is_away_and_a_spool_that_is_used_are_told(self, fetch, app):
        for _ in range(3):
            await fetch("/add-job", b'"%b"' % (b"x" * 400))
        while (found := await ledger(fetch))["store"]["available"]:
            pass
        assert found["store"]["since"] >= found["started"]
        assert found["journal"]["available"]
        assert (found["total"]["queued"], found["queue"]["size"], found["queue"]["spooled"]) == (3, 2, 1)
        assert found["balanced"]


def test_a_state_has_begun_when_it_was_first_seen():
    state = State(True, 1)
    for up, now in ((True, 2), (False, 3), (False, 4), (True, 5), (True, 6)):
        state.see(up, now)
    assert (state.up, state.since_ms) == (True, 5)
