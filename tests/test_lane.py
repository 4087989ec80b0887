"""The fast lane answers what the handler answers, byte for byte, and takes the same records."""

import asyncio
import gzip
import re

import bson
import pytest

from tornado_logsrv import config, server
from tornado_logsrv.lane import Lane

JSON = (("Content-Type", "application/json"),)
REQUESTS = {
    "a job": ("/add-job", JSON, b'{"a":[1,2.5,"x"],"b":{"c":null}}'),
    "a job without a media type": ("/add-job", (), b'"text"'),
    "a job with a character set": ("/add-job", (("content-type", "application/json; charset=utf-8"),), b"1"),
    "memory": ("/add-job?ack=memory", JSON, b"1"),
    "journal": ("/add-job?ack=journal", JSON, b"1"),
    "stored": ("/add-job?ack=stored", JSON, b"1"),
    "quarantined": ("/add-job?ack=stored", JSON, b'{"n":-1}'),
    "an ack that there is not": ("/add-job?ack=all", JSON, b"1"),
    "what BSON cannot hold": ("/add-job", JSON, b'{"n":12345678901234567890,"n":NaN}'),
    "not JSON": ("/add-job", JSON, b"{"),
    "nothing": ("/add-job", JSON, b""),
    "not UTF-8": ("/add-job", JSON, b'"\xff"'),
    "another media type": ("/add-job", (("Content-Type", "text/plain"),), b"1"),
    "a key": ("/add-job", (*JSON, ("Idempotency-Key", "k1")), b"1"),
    "compressed": ("/add-job", (*JSON, ("Content-Encoding", "gzip")), gzip.compress(b"1")),
    "too large": ("/add-job", JSON, b'"%b"' % (b"x" * 2000)),
    "a full queue": ("/add-jobs", JSON, b"[%b1]" % (b'"%b",' % (b"y" * 90) * 8)),
    "a full queue, journal": ("/add-jobs?ack=journal", JSON, b"[%b1]" % (b'"%b",' % (b"y" * 90) * 8)),
    "a full queue, a request with a name": (
        "/add-jobs",
        (*JSON, ("x-request-id", "r-1")),
        b"[%b1]" % (b'"%b",' % (b"y" * 90) * 8),
    ),
    "a full queue, a request with a name that is none": (
        "/add-jobs",
        (*JSON, ("X-Request-Id", "a b"), ("X-Request-Id", "c")),
        b"[%b1]" % (b'"%b",' % (b"y" * 90) * 8),
    ),
    "jobs": ("/add-jobs", JSON, b'[1,{"a":2},"3"]'),
    "jobs by line": ("/add-jobs", JSON, b'{"a":1}\n{"b":\n{"c":3}'),
    "jobs as NDJSON": ("/add-jobs", (("Content-Type", "application/x-ndjson"),), b"[1]\n[2]\n"),
    "no jobs": ("/add-jobs", JSON, b"[]"),
    "broken jobs": ("/add-jobs", JSON, b"[1,"),
    "jobs with keys": ("/add-jobs?key_field=id", JSON, b'[{"id":"x"}]'),
}


@pytest.fixture
def options(options):
    """Small enough that a request can be too large, and a queue be full."""
    small = {"max_body_bytes": 1500, "queue_max_bytes": 1000, "transport": "httptools"}
    return config.Options(**{**options.__dict__, **small})


async def ask(port, target, headers, body):
    """All that the server answers to one request, as bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"POST {target} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *map(": ".join, headers)]
    writer.write("\r\n".join([*lines, "\r\n"]).encode() + body)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"Content-Length: (\d+)", head)[1])
    answer = head + await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()
    return answer


def comparable(answer):
    """``answer`` without what differs from one request to the next."""
    return re.sub(rb"[0-9a-f]{24}|Date: [^\r]*", b"*", answer)


def taken(app):
    """The queued records without their ids and times, as text: NaN is not equal to itself."""
    return [str({**bson.decode(r), "_id": 0, "timestamp": 0}) for _, r in app.queue.unstored()]


async def emptied(app):
    while app.queue.unstored_count:
        await app.writer.flush()


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.gen_test
async def test_both_ways_answer_and_take_the_same(http_server, http_port, app, database, monkeypatch, name):
    database.create_collection(
        "logs", validator={"$jsonSchema": {"properties": {"data": {"properties": {"n": {"minimum": 0}}}}}}
    )
    call, lanes, seen = Lane.__call__, [], []

    def watched(lane, *request):
        answer = call(lane, *request)
        lanes.append(answer is not None)
        return answer

    monkeypatch.setattr(Lane, "__call__", watched)
    fast = await ask(http_port, *REQUESTS[name])
    fast_records, fast_counts = taken(app), dict(app.ledger.row("jobs"))
    await emptied(app)
    monkeypatch.setattr(Lane, "__call__", lambda lane, *request: seen.append(request))
    before = dict(app.ledger.row("jobs"))
    slow = await ask(http_port, *REQUESTS[name])
    assert (comparable(fast), fast_records) == (comparable(slow), taken(app))
    counts = {column: count - before[column] for column, count in app.ledger.row("jobs").items()}
    assert counts == fast_counts
    assert bool(seen) == bool(lanes)


@pytest.mark.gen_test
async def test_plain_requests_are_the_lanes_and_others_the_handlers(http_server, http_port, app, monkeypatch):
    call, lanes = Lane.__call__, []

    def watched(lane, *request):
        answer = call(lane, *request)
        lanes.append(answer is not None)
        return answer

    monkeypatch.setattr(Lane, "__call__", watched)
    for name in ("a job", "journal", "stored", "jobs", "not JSON", "a key", "jobs with keys"):
        await ask(http_port, *REQUESTS[name])
    assert lanes == [True, True, True, True, False, False, False]


@pytest.mark.gen_test
async def test_a_stopping_server_leaves_the_lane(http_server, http_port, app):
    app.stopping = True
    answer = await ask(http_port, *REQUESTS["a job"])
    assert b"Connection: close" in answer
    app.stopping = False


def test_a_transport_that_is_not_installed_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert server.main([f"--data_dir={tmp_path}", "--transport=httptools"]) == 2
    assert "tornado_logsrv[speed]" in capsys.readouterr().err
