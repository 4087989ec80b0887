import json

import pytest

from tornado_logsrv.outcome import Outcome


@pytest.mark.gen_test
async def test_the_queue_is_told_in_records_and_bytes(fetch, app):
    assert json.loads((await fetch("/queue-size")).body) == {
        "queueSize": 0,
        "queueBytes": 0,
        "queueMaxBytes": 256 * 1024 * 1024,
        "inFlight": 0,
    }
    await fetch("/add-job", b"1")
    await fetch("/add-job", b"2")
    size = json.loads((await fetch("/queue-size")).body)
    assert (size["queueSize"], size["queueBytes"]) == (2, sum(map(len, app.records)))


@pytest.mark.gen_test
async def test_what_is_in_flight_is_counted_as_not_stored(fetch, app):
    await fetch("/add-job", b"1")
    await fetch("/add-job", b"2")
    batch = app.queue.take(1, 1 << 20)
    size = json.loads((await fetch("/queue-size")).body)
    assert (size["queueSize"], size["inFlight"]) == (2, 1)
    app.writer._settle(batch, Outcome())
    size = json.loads((await fetch("/queue-size")).body)
    assert (size["queueSize"], size["inFlight"]) == (1, 0)


@pytest.mark.gen_test
async def test_head_is_answered(fetch):
    response = await fetch("/queue-size", method="HEAD")
    assert (response.code, response.body) == (200, b"")
