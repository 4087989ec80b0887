"""The fast lane answers what the handler answers, byte for byte, and takes the same records."""

import asyncio
import gzip
import re

import bson
import pytest

from tornado_logsrv import config, server
from tornado_logsrv.joint import JointLane
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
    answer = await read_answer(reader)
    writer.close()
    await writer.wait_closed()
    return answer


async def read_answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    return head + await reader.readexactly(int(re.search(rb"Content-Length: (\d+)", head)[1]))


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


# Requests that come at the same time

TOGETHER = {
    "jobs": [b'{"a":1}', b'{"a":2}', b'{"b":3}'],
    "jobs of which one is none": [b'{"a":1}', b'{"a":2x', b'{"b":3}'],
    "jobs of which one is no object": [b'{"a":1}', b"[12345]", b'{"b":3}'],
    "jobs of which one has to be changed": [b'{"a":123}', b'{"a":NaN}', b'{"a":"\\n"}'],
    "jobs of which one has a key twice": [b'{"a":1,"a":2}', b'{"a":1,"b":2}', b'{"a":11,"":2}'],
    "jobs of which not one can be read": [b"{", b"[", b"x"],
    "jobs for which there is no room together": [b'{"a":"%b"}' % (b"x" * 300)] * 4,
}


async def ask_together(port, app, target, bodies):
    """The answers to requests that arrive in one turn of the loop, when their heads are known."""
    await ask(port, target, (), b"1".ljust(len(bodies[0])))
    await emptied(app)
    return await ask_at_once(port, target, bodies)


async def ask_at_once(port, target, bodies):
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in bodies]
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(bodies[0])}\r\n\r\n".encode()
    for (_, writer), body in zip(connections, bodies, strict=True):
        writer.write(head + body)
    answers = [await read_answer(reader) for reader, _ in connections]
    for _, writer in connections:
        writer.close()
        await writer.wait_closed()
    return answers


@pytest.fixture
def groups(monkeypatch):
    """How many requests were answered together, each time; None when they were not after all."""
    call, found = JointLane.__call__, []

    def watched(lane, bodies):
        answered = call(lane, bodies)
        found.append(answered if answered is None else len(bodies))
        return answered

    monkeypatch.setattr(JointLane, "__call__", watched)
    return found


@pytest.mark.parametrize("ack", ["memory", "journal"])
@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.gen_test
async def test_together_and_one_by_one_the_same_is_answered_and_taken(
    http_server, http_port, app, monkeypatch, groups, name, ack
):
    bodies = [body.ljust(len(max(TOGETHER[name], key=len))) for body in TOGETHER[name]]
    target = f"/add-job?ack={ack}"
    before = dict(app.ledger.row("jobs"))
    joint = await ask_together(http_port, app, target, bodies)
    joint_records, middle = taken(app), dict(app.ledger.row("jobs"))
    await emptied(app)
    assert len(groups) == 1
    monkeypatch.setattr(Lane, "together", lambda lane, target, headers: None)
    http_server.known_heads.clear()
    alone = await ask_together(http_port, app, target, bodies)
    assert [comparable(answer) for answer in joint] == [comparable(answer) for answer in alone]
    assert sorted(joint_records) == sorted(taken(app))
    after = dict(app.ledger.row("jobs"))
    counted = [{k: b[k] - a[k] for k in ("received", "refused")} for a, b in ((before, middle), (middle, after))]
    assert counted[0] == counted[1]
    assert len(groups) == 1


@pytest.mark.gen_test
async def test_together_are_only_those_of_one_acknowledgement(http_server, http_port, app, groups):
    await ask_together(http_port, app, "/add-job?ack=memory", [b"{}"] * 4)
    await ask_together(http_port, app, "/add-job?ack=journal", [b"{}"] * 3)
    await ask_together(http_port, app, "/add-job?ack=stored", [b"{}"] * 3)
    await ask_together(http_port, app, "/add-jobs?ack=memory", [b"[1]"] * 3)
    assert groups == [4, 3]


@pytest.mark.gen_test
async def test_when_redis_does_not_take_them_each_is_refused_and_none_is_taken(
    http_server, http_port, app, monkeypatch, groups
):
    async def fail(entries):
        raise OSError("no Redis")

    requests = "/add-job?ack=journal", [b'{"a":1}'] * 3
    await ask_together(http_port, app, *requests)
    await emptied(app)
    before = dict(app.ledger.row("jobs"))
    monkeypatch.setattr(app.stream, "append", fail)
    answers = await ask_at_once(http_port, *requests)
    assert [answer.split(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 503 Service Unavailable"] * 3
    assert len({re.search(rb"X-Request-Id: (\w+)", answer)[1] for answer in answers}) == 3
    assert groups == [3, 3]
    assert (taken(app), app.ledger.row("jobs")["refused"] - before["refused"]) == ([], 3)
    app.backup.tell(True)


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
