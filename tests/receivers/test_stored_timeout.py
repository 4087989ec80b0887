"""``ack=stored`` while MongoDB does not confirm: what senders are told that send again whatever is answered 504."""

import json

import pytest
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

from tests.failpoints import failing
from tornado_logsrv.handler import ACK

from .test_otlp import PROTOBUF, log_with, sent
from .test_splunk import CHANNEL, EVENT

JSON = {"Content-Type": "application/json"}
#: A request of two records, the status of its success, and that which has it sent again.
SENDERS = {
    "OTLP": ("/v1/logs", PROTOBUF, sent("a", "b"), 200, 504),
    "Loki": (
        "/loki/api/v1/push",
        JSON,
        b'{"streams":[{"stream":{"app":"x"},"values":[["1700000000000000000","a"],["1700000000000000001","b"]]}]}',
        204,
        504,
    ),
    "Elasticsearch": (
        "/_bulk",
        {"Content-Type": "application/x-ndjson"},
        b'{"create":{}}\n{"message":"a"}\n{"index":{}}\n{"message":"b"}\n',
        200,
        504,
    ),
    "HEC": (EVENT, JSON, b'{"event":"a"}{"event":"b"}', 200, 503),
    "HEC, raw": ("/services/collector/raw", JSON, b"a\nb\n", 200, 503),
    "GELF": ("/gelf", JSON, b'{"short_message":"a"}\n{"short_message":"b"}', 202, 504),
    "Datadog": ("/api/v2/logs", JSON, b'[{"message":"a"},{"message":"b"}]', 202, 504),
    "Winston": ("/winston", JSON, b'["a","b"]', 200, 504),
}
each_sender = pytest.mark.parametrize("sender", SENDERS)


@pytest.fixture
def options(options):
    return type(options)(**{**options.__dict__, "stored_timeout": 0.1})


@pytest.fixture
def mongo_fails(app, mongo):
    """``with mongo_fails():`` no insert of the server's is done."""
    return lambda: failing(mongo, "alwaysOn", failCommands=["insert"], errorCode=262)


async def written(app):
    """MongoDB is back: the pause is over, and what waits is written."""
    while app.unsettled:
        app.writer._forget_retry()
        await app.writer.flush()


@each_sender
@pytest.mark.gen_test
async def test_what_redis_has_is_answered_as_journal_is_and_stored_once(
    fetch, app, collection, redis_client, prefix, mongo_fails, sender
):
    path, headers, body, success, _ = SENDERS[sender]
    with mongo_fails():
        journaled, late = [await fetch(f"{path}?ack={ack}", body, headers=headers) for ack in ("journal", "stored")]
        assert (redis_client.xlen(f"{prefix}:backup:test"), collection.count_documents({})) == (2, 0)
    assert (late.code, late.headers[ACK], comparable(late)) == (success, "journal", comparable(journaled))
    await written(app)
    assert collection.count_documents({}) == 4


def comparable(answer):
    """``answer`` without what differs from one request to the next."""
    if answer.headers.get("Content-Type") != "application/json":
        return answer.code, answer.headers[ACK], answer.body
    value = json.loads(answer.body)
    for item in value.pop("items", ()):
        for fate in item.values():
            del fate["_id"]
    return answer.code, answer.headers[ACK], {**value, "took": 0}


class TestRedisAway:
    @pytest.fixture
    def options(self, options):
        return type(options)(**{**options.__dict__, "redis_url": "redis://127.0.0.1:9"})

    @each_sender
    @pytest.mark.gen_test
    async def test_what_only_this_process_has_is_to_be_sent_again(self, fetch, app, mongo_fails, sender):
        path, headers, body, _, failure = SENDERS[sender]
        with mongo_fails():
            answer = await fetch(f"{path}?ack=stored", body, headers=headers)
        assert (answer.code, int(answer.headers["Retry-After"]) >= 1, ACK in answer.headers) == (failure, True, False)
        assert app.unsettled == 2


class TestFull:
    @pytest.fixture
    def options(self, options):
        return type(options)(**{**options.__dict__, "queue_max_bytes": 2000, "spool_max_bytes": 100_000})

    @pytest.mark.gen_test
    async def test_what_redis_has_and_the_queue_has_no_room_for_is_a_success(self, fetch, app):
        path, headers, body, success, _ = SENDERS["OTLP"]
        assert (await fetch("/add-job?ack=memory", b'"%b"' % (b"x" * 1800))).code == 202
        answer = await fetch(f"{path}?ack=stored", body, headers=headers)
        assert (answer.code, answer.headers[ACK], app.spool.count) == (success, "journal", 2)


@pytest.mark.parametrize("ack", ["memory", "journal", "stored"])
@pytest.mark.gen_test
async def test_the_acknowledgement_is_named(fetch, ack):
    for path, headers, body, success, _ in SENDERS.values():
        answer = await fetch(f"{path}?ack={ack}", body, headers=headers)
        assert (answer.code, answer.headers[ACK]) == (success, ack)


@pytest.mark.gen_test
async def test_an_indexer_acknowledgement_is_false_until_mongodb_has_the_records(fetch, app, mongo_fails):
    async def is_stored():
        asked = await fetch("/services/collector/ack", b'{"acks":[%d]}' % ack_id, headers=CHANNEL)
        return json.loads(asked.body)["acks"][str(ack_id)]

    with mongo_fails():
        ack_id = json.loads((await fetch(f"{EVENT}?ack=stored", b'{"event":"a"}', headers=CHANNEL)).body)["ackId"]
        assert not await is_stored()
    await written(app)
    assert await is_stored()


@pytest.mark.parametrize("path", ["/add-job", "/add-jobs"])
@pytest.mark.gen_test
async def test_who_knows_what_a_504_means_gets_it(fetch, app, mongo_fails, path):
    with mongo_fails():
        answer = await fetch(f"{path}?ack=stored", b'{"a":1}')
    assert (answer.code, json.loads(answer.body)["type"]) == (504, "urn:logsrv:problem:stored-timeout")
    assert app.unsettled == 1


@pytest.mark.gen_test
async def test_the_sdk_of_opentelemetry_sends_nothing_twice(
    app, http_server, base_url, io_loop, collection, mongo_fails
):
    with mongo_fails():
        await io_loop.run_in_executor(None, log_with, OTLPLogExporter(f"{base_url}/v1/logs?ack=stored"))
    assert app.ledger.row("otlp")["received"] == 2
    await written(app)
    assert collection.count_documents({}) == 2
